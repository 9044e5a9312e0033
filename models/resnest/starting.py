"""Where a training begins, and which trained network is evaluated, exported or predicts."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

from torch import nn

from common.checkpoint.series import CheckpointSeries, resnest_series
from common.optim.learner import Learner, trained_average
from models.facts import Facts
from models.resnest.facts import facts_of, said_in
from models.resnest.network import ResNeSt
from models.resnest.training import load_all, start_weights
from runtime.errors import InputError
from runtime.run.run import Run
from settings.resnest import ResNeStConfig


class History(Protocol):
    """What is restored from a checkpoint beside the network."""

    def restore(self, saved: Any) -> None:
        """Take up where `saved`, a checkpoint's content, has left off."""


def find_start(
    flags: SimpleNamespace, run: Run, cfg: ResNeStConfig, checkpoints: CheckpointSeries,
    learner: Learner[ResNeSt], history: History, identity: dict[str, Any], per_epoch: int,
    weights: Path,
) -> tuple[Learner[ResNeSt], int, Path | None]:
    """Load what the flags name and say what: (with its average, updates made, file gone on from).

    Precedence: own or the original's checkpoint > --pretrained > random weights.
    weights: the folder that published ones are fetched to
    """
    found = checkpoints.find_start(flags.resume, run.warn, run.log)
    if found is None:
        start_weights(run, cfg, learner.net, flags.pretrained, weights)
        return learner.averaging(flags.ema), cfg.TRAINING.START_EPOCHS * per_epoch, None
    path, saved = found.path, found.weights
    load_all(run, cfg, path, saved, learner.net)
    if "optimizer" not in saved or "epoch" not in saved:
        raise InputError(f"{path}: bare weights, no training to resume; "
                         f"start from them with --pretrained {path}")
    learner, iteration = learner.averaging(flags.ema), checkpoints.iteration_of(found)
    if "iteration" not in saved and cfg.TRAINING.START_EPOCHS:
        # parity: a START_EPOCHS of the config counts more than the file's epoch
        # [resnest.md: Checkpoints]
        iteration = cfg.TRAINING.START_EPOCHS * per_epoch
    # what the original's files lack
    saved = {"iteration": iteration, "identity": identity, "scaler": None, "ema": None, **saved}
    said_in(found.weights, cfg).warn_of_size(facts_of(cfg, num_classes=1), run.warn)
    learner.resume(saved, identity, flags.force_resume, run.warn)
    history.restore(saved)
    run.log(f"Resuming {path} at iteration {iteration}, epoch {iteration // per_epoch}.")
    return learner, iteration, path


def load_trained(
    flags: SimpleNamespace, run: Run, cfg: ResNeStConfig, per_epoch: int = 1,
    net: nn.Module | None = None, names: Sequence[str] = (),
) -> tuple[nn.Module, int, Facts]:
    """(what its training scored, updates made, what the file says); net: None makes one.

    names: of the classes where the file does not say them and has as many
    """
    checkpoints = resnest_series(flags.outdir, per_epoch)
    found = checkpoints.find_trained(flags.resume, run.warn)
    net = load_all(run, cfg, found.path, found.weights, net)
    facts = said_in(found.weights, cfg, names)
    if not flags.export:  # that takes the checkpoint's size
        facts.warn_of_size(facts_of(cfg, num_classes=1), run.warn)
    return trained_average(net, found.weights), checkpoints.iteration_of(found), facts
