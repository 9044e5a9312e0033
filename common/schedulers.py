"""Learning rates as functions of the iteration: no state, so a resumed run needs none.

Each builder returns `lr_at(iteration) -> float`, where `iteration` is the 0-based index of the
update. Past the end of a schedule that decays to zero the rate stays 0.
"""

import math
from collections.abc import Callable, Sequence

from runtime.errors import InputError, did_you_mean

LrAt = Callable[[int], float]

MODES = ("cos", "cosine", "poly", "step", "multistep", "linear")
POLY_POWER = 0.9  # of the per-epoch poly mode [resnest.md: Learning rate]
AUTOSCALE_BASE_BATCH = 8  # YOLACT's configs are written for this batch size


def warmup_multistep(
    base_lr: float,
    steps: Sequence[int],
    gamma: float,
    warmup_iters: int,
    warmup_init: float,
    during_warmup: str = "replace",
) -> LrAt:
    """Linear from `warmup_init` to `base_lr`, reached AT `warmup_iters`; then base x gamma^passed.

    steps:         iterations from which on one more factor `gamma` applies
    during_warmup: "replace", the ramp alone counts while it lasts (YOLACT); "multiply", steps
                   that fall inside the ramp apply to it too (MMDetection's chained schedulers)

    Sources: [yolact.md: Learning rate], [queryinst.md: Learning rate] (`warmup_iters` = end - 1).
    """
    if during_warmup not in ("replace", "multiply"):
        raise ValueError(f"during_warmup is 'replace' or 'multiply', not {during_warmup!r}")

    def lr_at(iteration: int) -> float:
        decay = gamma ** sum(iteration >= step for step in steps)
        if iteration >= warmup_iters:
            # differs: after a step inside the ramp YOLACT goes on at the undecayed base until the
            # next step, unless resumed in between [yolact.md: Learning rate]; here it counts. Way
            # back: none, no config has such a step.
            return base_lr * decay
        ramp = (base_lr - warmup_init) * iteration / warmup_iters + warmup_init
        return ramp * decay if during_warmup == "multiply" else ramp

    return lr_at


def poly(base_lr: float, max_iters: int, power: float) -> LrAt:
    """base x (1 - iteration / max_iters)^power. Source: [segmentation.md: Learning rate]."""

    def lr_at(iteration: int) -> float:
        return base_lr * max(0.0, 1 - iteration / max_iters) ** power

    return lr_at


def per_epoch(
    mode: str,
    base_lr: float,
    epochs: int,
    iters_per_epoch: int,
    warmup_epochs: int = 0,
    lr_step: int | None = None,
    milestones: Sequence[int] | None = None,
    gamma: float = 0.1,
) -> LrAt:
    """A schedule stated in epochs: a linear warm-up from exactly 0, then `mode`.

    mode:       "cos" or "cosine"; "poly", power 0.9; "linear", to 0; "step", a factor `gamma` every
                `lr_step` epochs; "multistep", a factor `gamma` at each of `milestones`, in epochs
    lr_step, milestones: counted from epoch 0, not from the end of the warm-up

    Raises InputError for an unknown mode or a mode whose parameter is missing.
    Source: [resnest.md: Learning rate].
    """
    _check_mode(mode, lr_step, milestones)
    warmup = warmup_epochs * iters_per_epoch
    decaying = (epochs - warmup_epochs) * iters_per_epoch

    def lr_at(iteration: int) -> float:
        if iteration < warmup:
            # parity: the first update has rate 0 [resnest.md: Learning rate]
            return base_lr * iteration / warmup
        epoch = iteration // iters_per_epoch
        if mode == "step":
            assert lr_step is not None  # _check_mode
            return base_lr * gamma ** (epoch // lr_step)
        if mode == "multistep":
            assert milestones is not None  # _check_mode
            return base_lr * gamma ** sum(epoch >= milestone for milestone in milestones)
        # a warm-up as long as the run leaves nothing to decay over
        done = min(1.0, (iteration - warmup) / decaying) if decaying > 0 else 1.0
        if mode == "poly":
            return base_lr * (1 - done) ** POLY_POWER
        if mode == "linear":
            return base_lr * (1 - done)
        return 0.5 * base_lr * (1 + math.cos(math.pi * done))

    return lr_at


def autoscale(
    batch_size: int, lr: float, steps: tuple[int, ...] | list[int], max_iters: int
) -> tuple[float, tuple[int, ...] | list[int], int]:
    """(lr, steps, max_iters) for another batch size than 8; `steps` keeps its type.

    lr is multiplied by batch/8; steps and max_iters are floor-divided by it, as floats.
    Source: [yolact.md: Batch size].
    """
    if batch_size == AUTOSCALE_BASE_BATCH:
        return lr, steps, max_iters
    factor = batch_size / AUTOSCALE_BASE_BATCH
    scaled = type(steps)(int(step // factor) for step in steps)
    return lr * factor, scaled, int(max_iters // factor)


def _check_mode(mode: str, lr_step: int | None, milestones: Sequence[int] | None) -> None:
    if mode not in MODES:
        known = f"{did_you_mean(mode, MODES)} Known: {', '.join(MODES)}"
        raise InputError(f"unknown learning rate schedule {mode!r}.{known}")
    if mode == "step" and not lr_step:
        raise InputError("the learning rate schedule 'step' needs a step length in epochs above 0")
    if mode == "multistep" and milestones is None:
        raise InputError("the learning rate schedule 'multistep' needs milestones (epochs)")
