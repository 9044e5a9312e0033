"""What the validations of a run have given so far."""

from collections.abc import Mapping
from typing import Any


class Scores:
    """The last validation and the best.

    key: the metric by which one is the best, more is better

    best:         its best value; below every score before the first validation
    validated_at: updates made at the last validation; -1 before the first
    metrics:      the last validation's, None before the first of this session
    """

    def __init__(self, key: str):
        self._key = key
        self.best = -1.0
        self.validated_at = -1
        self.metrics: Mapping[str, float] | None = None

    def validated(self, iteration: int, metrics: Mapping[str, float]) -> bool:
        """Take up the scores after `iteration` updates; whether they are the best so far.

        Without the metric, as of images whose truth is elsewhere, they are not.
        """
        self.validated_at, self.metrics = iteration, metrics
        value = metrics.get(self._key, self.best)
        is_best = value > self.best
        self.best = max(self.best, value)
        return is_best

    def pack(self) -> dict[str, object]:
        """What a checkpoint keeps of it."""
        return {"best": self.best, "validated_at": self.validated_at}

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Take up what `pack` gave, from a checkpoint's state that also holds other things."""
        self.best, self.validated_at = saved["best"], saved["validated_at"]
