"""How a classification run has done so far: running means, histories, the best score."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class ClassHistory:
    """What the original keeps in its checkpoints, and what is needed to go on inside an epoch.

    best:         highest validated Top-1, percent; -1 before the first validation
    train, val:   Top-1 of each epoch, 0 where mixed images have none, and of each validated epoch
    validated_at: iteration of the last validation, -1 without one
    closed_at:    iteration at whose epoch end `train` was last extended
    """

    best: float = -1.0
    train: list[float] = field(default_factory=list)
    val: list[float] = field(default_factory=list)
    validated_at: int = -1
    closed_at: int = -1
    sums: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])  # updates, loss, Top-1

    def add(self, loss: float, top1: float | None) -> None:
        """An update is done; top1: percent, None when its images were mixed."""
        for i, value in enumerate((1.0, loss, top1 or 0.0)):
            self.sums[i] += value

    def means(self) -> tuple[float, float]:
        """(loss, Top-1) over the epoch's updates so far."""
        count, loss, top1 = self.sums
        return loss / max(1.0, count), top1 / max(1.0, count)

    def close_epoch(self, iteration: int) -> None:
        """An epoch ends with `iteration` updates."""
        self.train.append(self.means()[1])
        self.sums = [0.0, 0.0, 0.0]
        self.closed_at = iteration

    def validated(self, iteration: int, top1: float) -> bool:
        """A validation is done; whether its score is the best so far."""
        self.validated_at = iteration
        if self.closed_at == iteration:
            self.val.append(top1)
        is_best = top1 > self.best
        self.best = max(self.best, top1)
        return is_best

    def pack(self) -> dict[str, Any]:
        """The original's keys of a checkpoint, with plain numbers, and ours."""
        return {
            "best_pred": max(self.best, 0.0),
            "acclist_train": list(self.train),
            "acclist_val": list(self.val),
            "best": self.best, "validated_at": self.validated_at, "closed_at": self.closed_at,
            "sums": list(self.sums),
        }

    @classmethod
    def unpack(cls, saved: Mapping[str, Any], iteration: int) -> "ClassHistory":
        """That of a checkpoint, ours or the original's, which holds tensors of one element."""
        return cls(
            best=float(saved.get("best", saved.get("best_pred", -1.0))),
            train=[float(value) for value in saved.get("acclist_train", [])],
            val=[float(value) for value in saved.get("acclist_val", [])],
            # the original saves where an epoch has ended and was validated
            validated_at=saved.get("validated_at", iteration),
            closed_at=saved.get("closed_at", iteration),
            sums=list(saved.get("sums", (0.0, 0.0, 0.0))),
        )
