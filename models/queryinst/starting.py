"""Where a QueryInst training starts: its own checkpoint, or weights of anyone."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.checkpoint.best import BestCheckpoints
from common.checkpoint.series import CheckpointSeries
from common.optim import Learner
from models.queryinst.network import QueryInst
from models.queryinst.weights import load_weights, start_weights


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
    learner = learner.averaging(flags.ema)
    state, moments = found.weights.get("training"), found.weights.get("optimizer")
    learner.resume({"identity": identity, "scaler": None, "ema": None, **(state or {}),
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
