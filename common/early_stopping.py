"""Ends a training whose score no longer becomes better, by the rule of MMEngine's hook.

Source: [queryinst.md: Hooks].
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

from common.checkpoint.best import is_greater_better
from runtime.errors import InputError


class EarlyStop:
    """What the validations of a run say about going on.

    rule: monitor, rule, min_delta, strict, check_finite, patience, stopping_threshold; None: none
    Raises InputError when nobody knows whether more or less of `monitor` is better.

    reason: why the training ends; None while it goes on
    """

    def __init__(self, rule: Any, warn: Callable[[str], object]):
        self.reason: str | None = None
        self._rule, self._warn = rule, warn
        self._best, self._waited = -math.inf, 0
        self._sign = 1.0
        if rule is not None:
            self._sign = 1.0 if is_greater_better(rule.monitor, rule.rule) else -1.0

    def note(self, metrics: Mapping[str, float]) -> None:
        """Take up a validation's scores. Raises InputError with `strict` and no such score."""
        rule = self._rule
        if rule is None:
            return
        if rule.monitor not in metrics:
            line = f"EarlyStoppingHook: the evaluation has no {rule.monitor}"
            if rule.strict:
                raise InputError(f"{line}; it has {', '.join(metrics)}")
            self._warn(f"{line}, so that it says nothing about ending early")
            return
        told = metrics[rule.monitor]
        value = self._sign * told
        limit = rule.stopping_threshold
        if rule.check_finite and not math.isfinite(value):
            self.reason = f"{rule.monitor} is {told}"
        elif limit is not None and value > self._sign * limit:
            self.reason = f"{rule.monitor} {told:g} is better than {limit:g}"
        # parity: one that is exactly min_delta better counts as better, and with min_delta 0 an
        # equal one [queryinst.md: Hooks]
        elif self._best + rule.min_delta > value:
            self._waited += 1
            if self._waited >= rule.patience:
                # --patience: by anything at all
                by = "" if 0 < rule.min_delta < 1e-5 else f" by {rule.min_delta:g}"
                self.reason = (f"{rule.monitor} has not become better than "
                               f"{self._sign * self._best:g}{by} for {self._waited} validations")
        else:
            self._best, self._waited = value, 0

    def pack(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        return {"early_stop": [self._best, self._waited]}

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Take up what `pack` gave, from a checkpoint's state that also holds other things."""
        if "early_stop" in saved:
            self._best, self._waited = saved["early_stop"]
            rule = self._rule
            if rule is not None and self._waited >= rule.patience:
                self.reason = f"{rule.monitor} has not become better for {self._waited} validations"
