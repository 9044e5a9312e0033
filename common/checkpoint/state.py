"""What a checkpoint holds besides weights, and the rules for continuing from it."""

import platform
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from runtime.errors import InputError

DATA, CLASSES = "data", "classes"  # keys of an identity
MOST_NAMED = 3  # classes, in a message


def pack_state(
    *, iteration: int, per_epoch: int, optimizer: Any, scaler: torch.amp.GradScaler,
    ema: nn.Module | None, world_size: int, identity: Mapping[str, Any], config: str,
    extra: Mapping[str, Any],
) -> dict[str, Any]:
    """The training state after `iteration` updates, of plain values and tensors only.

    per_epoch:  updates in an epoch
    ema:        the AveragedModel or None
    identity:   {name: value} that a continuation must share, or its batches would differ
    config:     text of the resolved config
    extra:      {name: value} of the script's own, for example its best score
    """
    epoch, position = divmod(iteration, per_epoch)
    gpu = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {
        "iteration": iteration, "epoch": epoch, "position": position,
        "optimizer": optimizer.state_dict(), "scaler": scaler.state_dict(),
        "ema": None if ema is None else ema.state_dict(),
        # Every step is seeded by itself, so resuming does not need these; they are the record.
        "rng": {"torch": torch.get_rng_state(), "cuda": gpu},
        "world_size": world_size, "identity": identity, "config": config,
        "versions": {"python": platform.python_version(), "torch": str(torch.__version__),
                     "numpy": np.__version__},
        **extra,
    }


def restore_state(
    state: Mapping[str, Any], optimizer: Any, scaler: torch.amp.GradScaler, ema: nn.Module | None
) -> None:
    """Put optimizer, loss scaler and moving average back; in place.

    Without an average in the state, `ema` (None: not wanted) goes on from the present weights.
    How an update is computed, fused or by tensor lists, stays this process's own choice.
    Raises InputError when the optimizer's parameters are not those of the state.
    """
    groups = optimizer.param_groups
    ways = [{key: group[key] for key in ("fused", "foreach") if key in group} for group in groups]
    try:
        optimizer.load_state_dict(state["optimizer"])
    except (ValueError, KeyError) as error:
        raise InputError(f"the checkpoint's optimizer state does not fit: {error}. "
                         "Start from its weights alone with --pretrained.") from error
    for group, way in zip(optimizer.param_groups, ways, strict=True):
        group.update(way)
    if state["scaler"]:
        scaler.load_state_dict(state["scaler"])
    if ema is not None and state["ema"] is not None:
        ema.load_state_dict(state["ema"])


def check_same_run(
    saved: Mapping[str, Any], now: Mapping[str, Any], force: bool, warn: Callable[[str], object]
) -> None:
    """Refuse to continue with another sample order than the checkpoint's, unless `force`.

    saved, now: `identity` of the checkpoint and of this run. Raises InputError naming every
    difference; with `force` each is a warning. Under `DATA` stands a fingerprint of the training
    data: where only that differs, people have corrected their annotations, which is said. Under
    `CLASSES` stand their names: with as many, but other ones, each output would mean another class.
    """
    differing = [f"{key} was {saved.get(key)}, is now {value}" for key, value in now.items()
                 if key not in (DATA, CLASSES) and saved.get(key) != value]
    names, names_now = saved.get(CLASSES) or [], now.get(CLASSES) or []
    if len(names) == len(names_now) and (others := differing_names(names, names_now)):
        differing.append(others)
    if DATA in saved and DATA in now and saved[DATA] != now[DATA] and not differing:
        warn("the training data have changed since the checkpoint was written (file names, sizes "
             "or annotations); the run goes on with what is there now")
    if differing and not force:
        raise InputError(f"--resume: the checkpoint is of another run: {'; '.join(differing)}. "
                         "Use the same settings, or --force-resume to go on all the same.")
    for line in differing:
        warn(f"resumed by force: {line}")


def differing_names(saved: Sequence[str], now: Sequence[str]) -> str:
    """Which of equally many classes have another name now, in words; "" when none has."""
    pairs = [f"class {i} was {old}, is now {new}"
             for i, (old, new) in enumerate(zip(saved, now, strict=True)) if old != new]
    more = len(pairs) - MOST_NAMED
    return ", ".join(pairs[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
