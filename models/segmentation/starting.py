"""Where a training begins, and which trained networks predict."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from common.checkpoint.files import load_any_checkpoint
from common.checkpoint.forms import NETS, net_path
from common.checkpoint.series import CheckpointSeries, seg_series
from common.optim.learner import Learner, trained_average
from models.foreign_weights import weights_in
from models.segmentation.facts import facts_of, said_in
from models.segmentation.network import SegmentationModule, build_module
from models.segmentation.recognise import load_both
from models.segmentation.weights import networks_in, start_weights
from runtime.errors import InputError
from runtime.options.values import AUTO
from runtime.run.run import Run
from runtime.run.scores import Scores
from runtime.run.seg_history import SegHistory
from runtime.sizing import Trial, settled_batch
from settings.segmentation import SegConfig


def find_start(
    flags: SimpleNamespace, run: Run, cfg: SegConfig, checkpoints: CheckpointSeries,
    learner: Learner[SegmentationModule], scores: Scores, history: SegHistory,
    identity: dict[str, Any], folders: tuple[str | Path, ...],
) -> tuple[Learner[SegmentationModule], int, Path | None]:
    """Load what the flags name and say what: (with its average, updates made, file gone on from).

    Precedence: own checkpoint > --pretrained > MODEL.weights_* > ImageNet's file > random weights.
    folders: where ImageNet's files are looked for
    """
    found = checkpoints.find_start(flags.resume, run.warn, run.log, cfg.TRAIN.start_epoch)
    if found is None:
        start_weights(run, learner.net, cfg.MODEL, flags.pretrained, folders)
        return learner.averaging(flags.ema), 0, None
    name = load_both(learner.net, found.weights, found.path)
    run.log(f"Resuming from {name}")
    said_in(found.weights, cfg).warn_of_size(facts_of(cfg), run.warn)
    learner = learner.averaging(flags.ema)
    if found.state is None:
        run.warn(f"{name} have no training state beside them: momentum starts at zero")
    else:
        learner.resume(found.state, identity, flags.force_resume, run.warn)
        scores.restore(found.state)
        history.restore(found.state)
    return learner, checkpoints.iteration_of(found), found.path


def predicting_module(
    flags: SimpleNamespace, run: Run, cfg: SegConfig
) -> tuple[SegmentationModule, SegConfig]:
    """(networks on the device, the config with their classes): what --resume names, else
    --pretrained, else the best, else TEST.checkpoint; named on the command line it goes first.

    Raises InputError when there are none.
    """
    loaded: Mapping[str, Any]
    if flags.pretrained and not flags.resume:
        path, state = Path(flags.pretrained), None
        loaded, weights = _anyones(path, run)
    else:
        checkpoints = seg_series(cfg.DIR, cfg.TRAIN.epoch_iters)
        path, loaded, state = checkpoints.find_trained(
            flags.resume, run.warn, cfg.TEST.checkpoint, "TEST.checkpoint" in flags.named)
        weights = loaded
    facts = said_in(loaded, cfg)
    facts.warn_of_size(facts_of(cfg), run.warn)
    cfg = replace(cfg, DATASET=replace(cfg.DATASET, num_class=facts.num_classes,
                                       class_names=facts.names()))
    module = build_module(cfg, run.device, flags.layout)
    name = load_both(module, weights, path)
    run.log(f"Loaded {name}, {facts.num_classes} classes.")
    return trained_average(module, state), cfg


def _anyones(path: Path, run: Run) -> tuple[dict[str, Any], dict[str, Any]]:
    """(what the file or the two files hold, {"encoder": weights, "decoder": weights} in it)."""
    pair = {net: net_path(path, net) for net in NETS}
    if all(file.is_file() for file in pair.values()):
        loaded = {net: load_any_checkpoint(file) for net, file in pair.items()}
        return loaded, {net: weights_in(loaded[net], str(file), run.log)
                        for net, file in pair.items()}
    whole = load_any_checkpoint(path)
    weights = networks_in("encoder", weights_in(whole, str(path), run.log))
    if set(weights) != set(NETS):
        raise InputError(f"{path}: only weights of the {', '.join(weights)}; to predict, name a "
                         "file with both networks, or one of encoder_*.pth and decoder_*.pth side "
                         "by side")
    return weights, weights


def fitted_to_batch(
    flags: SimpleNamespace, run: Run, cfg: SegConfig, trial: Callable[[], Trial]
) -> SegConfig:
    """The config with the number that --batch-size auto stands for (all ranks).

    trial: makes the Trial. Raises InputError as `settled_batch`.
    """
    if flags.batch_size != AUTO or not flags.trains:
        return cfg
    number = settled_batch(
        run, flags, trial(), seg_series(cfg.DIR, cfg.TRAIN.epoch_iters), key="batch_size_per_gpu",
        shown="--batch-size {}", rates="The rates stay the config's.",
        devices=max(run.world_size, len(flags.gpu_numbers), 1))
    return replace(cfg, TRAIN=replace(cfg.TRAIN, batch_size_per_gpu=number))
