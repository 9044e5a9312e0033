"""Where a training begins; which trained network predicts, and what it finds."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import yaml

from common.checkpoint.files import load_any_checkpoint, load_checkpoint, state_path
from common.checkpoint.series import CheckpointSeries, yolact_series
from common.optim.learner import Learner, trained_average
from models.facts import Facts
from models.foreign_weights import weights_in
from models.yolact.detect import detect
from models.yolact.facts import facts_of, said_in
from models.yolact.masks import postprocess
from models.yolact.network import Yolact, build_yolact
from models.yolact.weights import load_weights, start_weights
from runtime.run.run import Run
from runtime.run.scores import Scores
from settings.yolact import YolactConfig

MOST_NAMED = 10  # classes, in a line
PART_PIXELS = 512 * 1024 * 1024  # of the masks of an image that are in memory at a time
NAMES = {"box": "boxes", "score": "scores", "class": "labels", "mask": "masks",
         "mask_score": "mask_scores"}  # of what `postprocess` gives, here and elsewhere


def find_start(
    flags: SimpleNamespace, run: Run, checkpoints: CheckpointSeries, learner: Learner[Yolact],
    scores: Scores, identity: dict[str, Any],
) -> tuple[Learner[Yolact], int, Path | None]:
    """Load what the flags name and say what: (with its average, updates made, file gone on from).

    Precedence: own checkpoint > --pretrained > backbone file > random weights.
    """
    found = checkpoints.find_start(flags.resume, run.warn, run.log)
    if found is None:
        start_weights(run, learner.net, flags.pretrained, flags.save_folder)
        return learner.averaging(flags.ema), max(flags.start_iter, 0), None
    run.log(f"Resuming training, loading {found.path}...")
    load_weights(learner.net, found.weights, source=found.path)
    cfg = learner.net.cfg
    said_in(found.weights, cfg).warn_of_size(facts_of(cfg), run.warn)
    learner, iteration = learner.averaging(flags.ema), checkpoints.iteration_of(found)
    if flags.start_iter not in (-1, iteration):
        run.log(f"Counting from --start_iter {flags.start_iter}, with a fresh optimizer.")
        iteration = flags.start_iter
    elif found.state is None:
        run.warn(f"{found.path} has no training state beside it: momentum starts at zero")
    else:
        learner.resume(found.state, identity, flags.force_resume, run.warn)
        scores.restore(found.state)
    return learner, iteration, found.path


def predicting_network(
    flags: SimpleNamespace, run: Run, cfg: YolactConfig
) -> Yolact:
    """What --resume names, else --pretrained, else the best, on the device and in evaluation.

    Its `cfg` has the classes that it was trained on. Raises InputError when there is none.
    """
    if flags.pretrained and not flags.resume:
        path, state = Path(flags.pretrained), None
        loaded = load_any_checkpoint(path)
        weights = weights_in(loaded, flags.pretrained, run.log)
        if state_path(path).is_file():
            state = load_checkpoint(state_path(path))
    else:
        checkpoints = yolact_series(flags.save_folder, str(cfg.name), flags.save_interval,
                                    per_epoch=1)
        path, loaded, state = checkpoints.find_trained(flags.resume, run.warn)
        weights = loaded
    facts = said_in(loaded, cfg)
    facts.warn_of_size(facts_of(cfg), run.warn)
    net = build_yolact(with_trained_classes(cfg, facts, state))
    load_weights(net, weights, source=str(path))
    net = trained_average(net, state)
    names = net.cfg.dataset.class_names
    run.log(f"Loaded {path}: {', '.join(names[:MOST_NAMED])}"
            f"{', ...' if len(names) > MOST_NAMED else ''}.")
    return net.to(run.device).to(memory_format=flags.layout).eval()


def with_trained_classes(
    cfg: YolactConfig, facts: Facts, state: dict[str, Any] | None
) -> YolactConfig:
    """The config with the classes that the weights say, and their category ids where known.

    state: the training state beside the weights, or None; its config has the ids
    """
    saved = yaml.safe_load((state or {}).get("config", "")) or {}
    trained = saved.get("dataset") or {}
    known = ((tuple(trained.get("class_names") or ()), trained.get("label_map")),
             (tuple(cfg.dataset.class_names), cfg.dataset.label_map))
    names = facts.names()
    label_map = next((ids for own, ids in known if own == names), None)
    dataset = replace(cfg.dataset, class_names=names, label_map=label_map)
    return replace(cfg, dataset=dataset, num_classes=facts.num_classes + 1)


def found_in_parts(
    said: dict[str, torch.Tensor], samples: Sequence[dict[str, Any]], net: Yolact,
    flags: SimpleNamespace,
) -> Iterator[tuple[tuple[int, int], Iterator[dict[str, torch.Tensor]]]]:
    """For each image its size (h, w) and what is found on it, some instances at a time: the masks
    of a large photo are large.

    said:  what `Yolact.forward_heads` gives; samples: dicts with the images' `size`
    flags: fast_nms, cross_class_nms, score_threshold, and top_k, None for all
    What is found are dicts, at least one, of boxes [n, 4] int64 xyxy pixels, scores [n], labels [n]
    0-based, masks [n, h, w] bool, mask_scores [n]; the surest come first.
    """
    detections = detect(said, net.cfg, flags.fast_nms, flags.cross_class_nms)
    for detection, sample in zip(detections, samples, strict=True):
        yield sample["size"], _parts(detection, sample["size"], net, flags.score_threshold,
                                     flags.top_k)


def in_coco_names(
    found: dict[str, torch.Tensor], category_ids: torch.Tensor
) -> dict[str, torch.Tensor]:
    """What `postprocess` gives, in the names of this module, with category ids as labels.

    category_ids: [classes] int64, on the CPU
    """
    named = {NAMES[name]: value for name, value in found.items()}
    return named | {"labels": category_ids[named["labels"].cpu()]}


def _parts(detection, size, net, score_threshold, top_k):
    height, width = size
    count = int((detection["score"] > score_threshold).sum())
    count = count if top_k is None else min(count, top_k)
    step = max(1, PART_PIXELS // (height * width))
    for first in range(0, max(count, 1), step):
        rows = {name: value if name == "proto" else value[first : min(first + step, count)]
                for name, value in detection.items()}
        part = postprocess(rows, width, height, net, score_threshold)
        yield {NAMES[name]: value for name, value in part.items()}
