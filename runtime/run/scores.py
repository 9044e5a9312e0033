"""What the validations of a run have given so far."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from runtime.run.timetable import Timetable


class LastScores:
    """The last validation; which one is the best is noted elsewhere.

    validated_at: updates made at the last validation; -1 before the first
    metrics:      the last validation's, None before the first of this session
    """

    def __init__(self) -> None:
        self.validated_at = -1
        self.metrics: Mapping[str, float] | None = None

    def note(self, iteration: int, metrics: Mapping[str, float]) -> None:
        """Take up the scores after `iteration` updates."""
        self.validated_at, self.metrics = iteration, metrics

    def pack(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        return {"validated_at": self.validated_at}

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Take up what `pack` gave, from a checkpoint's state that also holds other things."""
        self.validated_at = saved["validated_at"]


class Scores(LastScores):
    """The last validation and the best.

    key:      the metric by which one is the best, more is better
    patience: validations without a better one after which the training ends; None: it does not

    best:   its best value; below every score before the first validation
    waited: validations since then
    """

    def __init__(self, key: str, patience: int | None = None):
        super().__init__()
        self._key, self._patience = key, patience
        self.best = -1.0
        self.waited = 0

    @property
    def is_over(self) -> bool:
        """Whether the patience has ended; the same on every rank, as the scores are."""
        return self._patience is not None and self.waited >= self._patience

    def validated(self, iteration: int, metrics: Mapping[str, float]) -> bool:
        """Take up the scores after `iteration` updates; whether they are the best so far.

        Without the metric, as of images whose truth is elsewhere, they are not.
        """
        self.note(iteration, metrics)
        value = metrics.get(self._key)
        if value is None:
            return False
        is_best = value > self.best  # false for nan
        self.best, self.waited = (value, 0) if is_best else (self.best, self.waited + 1)
        return is_best

    def ends(self, timetable: Timetable, iteration: int, log: Callable[[str], object]) -> Timetable:
        """The timetable of a training with `iteration` updates behind it: where the patience has
        ended it ends here, and `log` is told why."""
        if not self.is_over or iteration >= timetable.stop_at or timetable.is_dry:
            return timetable
        log(f"{self._key} has not become better than {self.best:g} for {self.waited} validations "
            f"(--patience {self._patience}): the training ends after {iteration} iterations.")
        return replace(timetable, stop_at=iteration)

    def pack(self) -> dict[str, Any]:
        return {"best": self.best, "waited": self.waited, **super().pack()}

    def restore(self, saved: Mapping[str, Any]) -> None:
        super().restore(saved)
        self.best, self.waited = saved["best"], saved.get("waited", 0)
