"""Where a QueryInst training starts, and which trained network predicts."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from common.checkpoint.best import BestCheckpoints
from common.checkpoint.files import load_any_checkpoint
from common.checkpoint.series import CheckpointSeries
from common.optim import Learner, trained_average
from models.foreign_weights import weights_in
from models.queryinst.facts import facts_of, said_in
from models.queryinst.network import QueryInst, build_queryinst
from models.queryinst.series import queryinst_series
from models.queryinst.weights import load_weights, start_weights
from runtime.options.values import AUTO
from runtime.sizing import Trial, settled_batch
from settings.queryinst.config import QueryInstConfig


def find_start(
    flags: Any, run: Any, checkpoints: CheckpointSeries, best: BestCheckpoints,
    learner: Learner[QueryInst], kept: Sequence[Any], identity: Mapping[str, Any], per_epoch: int,
    weights: Path,
) -> tuple[Learner[QueryInst], int, Path | None]:
    """Load what the flags name and say what: (with its average, updates made, file gone on from).

    Precedence: own checkpoint > --pretrained or load_from > backbone file > random weights.
    flags: `resume`, `pretrained`, `ema`, `force_resume`
    kept:  objects whose `restore` takes up a checkpoint's training state
    identity: what a continuation must share with the run it continues, or its batches would differ
    weights: the folder of pretrained backbones
    """
    found = checkpoints.find_start(flags.resume, run.warn, run.log)
    if found is None:
        start_weights(run, learner.net, flags.pretrained, weights)
        return learner.averaging(flags.ema), 0, None
    run.log(f"Load checkpoint from {found.path}")
    load_weights(learner.net, found.weights, source=str(found.path))
    cfg = learner.net.cfg
    said_in(found.weights, cfg).warn_of_size(facts_of(cfg), run.warn)
    learner = learner.averaging(flags.ema)
    state, moments = found.weights.get("training"), found.weights.get("optimizer")
    theirs = {"scaler": (moments or {}).get("loss_scaler")}  # where MMDetection keeps it
    learner.resume({"identity": identity, "ema": None, **theirs, **(state or {}),
                    "optimizer": moments or learner.optimizer.state_dict()},
                   identity, flags.force_resume, run.warn)
    if state is None:
        run.warn(f"{found.path} is not of this script: its sample order is not known")
    else:
        for each in kept:
            each.restore(state)
        if found.path.absolute().parent == checkpoints.folder.absolute():
            checkpoints.restore(state["series"])
            best.restore(state["best"])
    if not moments:
        run.warn(f"{found.path} has no optimizer state: the moments start at zero")
    iteration = checkpoints.iteration_of(found)
    run.log(f"resumed epoch: {iteration // per_epoch}, iter: {iteration}; the rates are those of "
            "the present config")
    return learner, iteration, found.path


def fitted_to_batch(
    flags: Any, run: Any, cfg: QueryInstConfig, folder: Path, trial: Callable[[], Trial]
) -> QueryInstConfig:
    """The config with the number that --batch-size auto stands for (all ranks).

    folder: the run's; trial: makes the Trial. Raises InputError as `settled_batch`.
    """
    if flags.batch_size != AUTO or not flags.trains:
        return cfg
    hook = replace(cfg.default_hooks.checkpoint, save_best=None, rule=None)
    number = settled_batch(
        run, flags, trial(), queryinst_series(hook, folder, 1, [])[0], key="batch_size",
        shown="--batch-size {}", devices=run.world_size,
        rates="" if cfg.auto_scale_lr.enable else "The rate is scaled with --auto-scale-lr only.")
    return replace(cfg, train_dataloader=replace(cfg.train_dataloader, batch_size=number))


def predicting_network(
    flags: Any, run: Any, cfg: QueryInstConfig, folder: str | Path
) -> tuple[QueryInst, tuple[str, ...]]:
    """(network on the device and in evaluation, its classes' names): what --resume names, else
    --pretrained, else the best in `folder`.

    Raises InputError when there is none.
    """
    if flags.pretrained and not flags.resume:
        path = Path(flags.pretrained)
        content = load_any_checkpoint(path)
        weights: Mapping[str, Any] = weights_in(content, flags.pretrained, run.log)
    else:
        hook = replace(cfg.default_hooks.checkpoint, save_best=None, rule=None)
        found = queryinst_series(hook, folder, 1, [])[0].find_trained(flags.resume, run.warn)
        path, content, weights = found.path, found.weights, found.weights
    facts = said_in(content, cfg)
    facts.warn_of_size(facts_of(cfg), run.warn)
    net = build_queryinst(replace(cfg, model=replace(cfg.model, num_classes=facts.num_classes)))
    load_weights(net, weights, source=str(path))
    if weights is content:
        net = trained_average(net, content.get("training"))
    run.log(f"Load checkpoint from {path}, {facts.num_classes} classes")
    return net.to(run.device).to(memory_format=flags.layout).eval(), facts.names()


def in_parts(
    found: Sequence[Mapping[str, torch.Tensor]], samples: Sequence[Mapping[str, Any]], flags: Any
) -> Iterator[tuple[tuple[int, int], list[dict[str, torch.Tensor]]]]:
    """For each image its size (h, w), and what is found on it in one part.

    found: what `predict` gives; samples: dicts with the images' `ori_shape`
    flags: score_threshold, up to which scores are left out, and top_k, None for all
    """
    for each, sample in zip(found, samples, strict=True):
        kept = (each["scores"] > flags.score_threshold).nonzero().flatten()[:flags.top_k]
        yield sample["ori_shape"], [{name: value[kept] for name, value in each.items()}]
