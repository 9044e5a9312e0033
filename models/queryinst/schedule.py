"""Learning rates as MMEngine's chained schedulers give them, as a function of the iteration.

Each schedule multiplies the rate by its own factor; a lower limit, which only cosine and poly have,
applies to the rate that all of them have made, so that it is followed from update to update then.
Source: [queryinst.md: Learning rate].
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

from runtime.sizing import paced
from settings.queryinst.config import QueryInstConfig
from settings.queryinst.flags import with_epochs
from settings.queryinst.recipes import sets_own

RateAt = Callable[[float, int], float]  # (a group's base rate, iteration) -> its rate


@dataclass(frozen=True)
class _Clock:
    """The t of one schedule: how often it has moved before an iteration.

    unit: iterations of one move; begin, end: in moves
    scale: moves for one of the numbers in the config
    """

    unit: int
    begin: int
    end: float
    scale: int

    def at(self, iteration: int) -> int:
        """t, which counts from `begin` and stays where it is at `end`; below 0 before `begin`."""
        return int(min(iteration // self.unit, self.end - 1)) - self.begin


def _clock(schedule: Any, per_epoch: int) -> _Clock:
    converted = schedule.in_epochs and schedule.convert_to_iter_based
    scale = per_epoch if converted else 1
    unit = per_epoch if schedule.in_epochs and not converted else 1
    end = math.inf if schedule.end is None else schedule.end * scale
    return _Clock(unit, schedule.begin * scale, end, scale)


def _factor(schedule: Any, clock: _Clock, t: int) -> float:
    """What the schedule has multiplied the rate by at t."""
    if t < 0:
        return 1.0
    kind, gamma, last = schedule.type, schedule.number("gamma"), clock.end - clock.begin - 1
    if kind == "LinearLR":
        start, end = schedule.number("start_factor"), schedule.number("end_factor")
        return end if t >= last else (end - start) * t / last + start
    if kind == "ConstantLR":
        return 1.0 if t >= last else schedule.number("factor")
    if kind == "MultiStepLR":
        return gamma ** sum(t >= milestone * clock.scale for milestone in schedule.milestones)
    if kind == "StepLR":
        return gamma ** (t // (schedule.step_size * clock.scale))
    if kind == "ExponentialLR":
        return gamma**t
    if kind == "PolyLR":
        return 0.0 if t >= last else (1 - t / last) ** schedule.number("power")
    return (1 + math.cos(math.pi * t / _half_wave(schedule, clock))) / 2


def _half_wave(schedule: Any, clock: _Clock) -> int:
    """T_max of a cosine, in its moves."""
    return int(schedule.T_max * clock.scale if schedule.T_max else clock.end - clock.begin)


def lr_schedule(cfg: Any, iters_per_epoch: int) -> RateAt:
    """(base rate, iteration) -> rate, of the config's param_scheduler."""
    schedules = [(each, _clock(each, iters_per_epoch)) for each in cfg.param_scheduler]
    if any(_needs_history(each, clock) for each, clock in schedules):
        return _Followed(schedules)

    def rate_at(base: float, iteration: int) -> float:
        factor = 1.0
        for schedule, clock in schedules:
            factor *= _factor(schedule, clock, clock.at(iteration))
        return base * factor

    return rate_at


def _needs_history(schedule: Any, clock: _Clock) -> bool:
    """Whether what it does to the rate depends on the rate: a limit, or a cosine that rises."""
    rises = (schedule.type == "CosineAnnealingLR"
             and _half_wave(schedule, clock) < clock.end - clock.begin)
    return bool(schedule.eta_min or schedule.eta_min_ratio or rises)


class _Followed:
    """The rates update by update from the first; asked for in order each costs one step."""

    def __init__(self, schedules: list[tuple[Any, _Clock]]):
        # MMEngine moves those by iteration before those by epoch
        self._schedules = sorted(schedules, key=lambda each: each[1].unit)
        self._first = schedules  # at the very beginning all move in the config's order
        self._known: dict[float, tuple[int, float]] = {}  # base -> (iteration, rate)

    def __call__(self, base: float, iteration: int) -> float:
        at, rate = self._known.get(base, (-1, base))
        if at > iteration:
            at, rate = -1, base
        for one in range(at + 1, iteration + 1):
            for schedule, clock in self._schedules if one else self._first:
                t = clock.at(one)
                if t >= 0 and (one == 0 or clock.at(one - 1) != t):
                    rate = _moved(schedule, clock, t, rate, base)
        self._known[base] = iteration, rate
        return rate


def _moved(schedule: Any, clock: _Clock, t: int, rate: float, base: float) -> float:
    """The rate after the move to t of one schedule."""
    low = base * schedule.eta_min_ratio if schedule.eta_min_ratio else schedule.number("eta_min")
    if schedule.type == "CosineAnnealingLR":
        half = _half_wave(schedule, clock)
        if t > half and (t - 1 - half) % (2 * half) == 0:  # from the lowest point up again
            return rate + (base - low) * (1 - math.cos(math.pi / half)) / 2
    before, now = (_factor(schedule, clock, each) if each >= 0 else 1.0 for each in (t - 1, t))
    return (rate - low) * now / before + low


def fitted_to_data(
    cfg: QueryInstConfig, flags: SimpleNamespace, run: Any, loader: Any
) -> tuple[QueryInstConfig, int]:
    """(the config with --epochs as its length and fitting intervals, updates in an epoch).

    run: is told what changes; loader: an UpdateLoader
    """
    return with_pace(with_epochs(cfg, flags, run, loader), flags, loader, run.log)


def with_pace(
    cfg: QueryInstConfig, flags: SimpleNamespace, loader: Any, log: Callable[[str], object]
) -> tuple[QueryInstConfig, int]:
    """(the config with more epochs between validations, and between saves, where epochs are short
    and the user has set no interval, of which `log` is told; updates in an epoch).

    flags: config, cfg_options, accumulate, and patience, None where the config says when to stop
           early; loader: an UpdateLoader
    """
    per_epoch = loader.steps_per_epoch(flags.accumulate)
    return _paced(cfg, flags, per_epoch, log), per_epoch


def _paced(
    cfg: QueryInstConfig, flags: SimpleNamespace, per_epoch: int, log: Callable[[str], object]
) -> QueryInstConfig:
    # differs: MMDetection validates and saves after every epoch [queryinst.md: Checkpoints]
    # Way back: train_cfg.val_interval=1 default_hooks.checkpoint.interval=1.
    rules, hook = cfg.train_cfg, cfg.default_hooks.checkpoint

    def is_own(key: str) -> bool:
        return sets_own(key, flags.config, flags.cfg_options or [])

    counts_validations = cfg.early_stopping is not None and vars(flags).get("patience") is None
    is_mm_default = rules.validate_every == 1 or not flags.config.endswith(".py")
    own = (not rules.in_epochs or not cfg.val_cfg or counts_validations or not is_mm_default
           or is_own("train_cfg.val_interval"))
    epochs = paced(per_epoch, rules.iterations(per_epoch), rules.validate_every, own, log,
                   "validates and saves", "--cfg-options train_cfg.val_interval=1")
    if epochs == rules.validate_every:
        return cfg
    cfg = replace(cfg, train_cfg=replace(rules, val_interval=epochs))
    if not hook.by_epoch or hook.interval != 1 or is_own("default_hooks.checkpoint.interval"):
        return cfg
    return replace(cfg, default_hooks=replace(
        cfg.default_hooks, checkpoint=replace(hook, interval=epochs)))
