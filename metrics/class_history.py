"""How a classification run has done so far: running means, histories, the best score."""

from collections.abc import Mapping
from typing import Any

from runtime.run.scores import Scores


class ClassHistory(Scores):
    """`Scores` by Top-1 with what the original keeps in its checkpoints beside them.

    train, val: Top-1 of each epoch, 0 where mixed images have none, and of each validated epoch
    closed_at:  iteration at whose epoch end `train` was last extended
    """

    def __init__(self, patience: int | None = None) -> None:
        super().__init__("top1", patience)
        self.train: list[float] = []
        self.val: list[float] = []
        self.closed_at = -1
        self._sums = [0.0, 0.0, 0.0]  # of the present epoch: updates, loss, Top-1

    def add(self, loss: float, top1: float | None) -> None:
        """An update is done; top1: percent, None when its images were mixed."""
        for i, value in enumerate((1.0, loss, top1 or 0.0)):
            self._sums[i] += value

    def means(self) -> tuple[float, float]:
        """(loss, Top-1) over the epoch's updates so far."""
        count, loss, top1 = self._sums
        return loss / max(1.0, count), top1 / max(1.0, count)

    def line(self, position: int, is_mixed: bool) -> str:
        """The original's console line of an update; position: its 0-based place in the epoch."""
        loss, top1 = self.means()
        accuracy = "" if is_mixed else f" | Top1: {top1:.3f}"
        return f"Batch: {position}| Loss: {loss:.3f}{accuracy}"

    def close_epoch(self, iteration: int) -> None:
        """An epoch ends with `iteration` updates."""
        self.train.append(self.means()[1])
        self._sums = [0.0, 0.0, 0.0]
        self.closed_at = iteration

    def validated(self, iteration: int, metrics: Mapping[str, float]) -> bool:
        """See `Scores`; at an epoch's end, the epoch's Top-1 as well."""
        if self.closed_at == iteration:
            self.val.append(metrics["top1"])
        return super().validated(iteration, metrics)

    def pack(self) -> dict[str, Any]:
        """The original's keys of a checkpoint, with plain numbers, and ours."""
        return {
            "best_pred": max(self.best, 0.0),
            "acclist_train": list(self.train),
            "acclist_val": list(self.val),
            **super().pack(), "closed_at": self.closed_at, "sums": list(self._sums),
        }

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Take up a checkpoint's, ours or the original's, which holds tensors of one element.

        The original saves where an epoch has ended and was validated; so `saved` says in
        "iteration" where that is.
        """
        here, best = saved["iteration"], float(saved.get("best_pred", -1.0))
        super().restore({"best": best, "validated_at": here, **saved})
        self.train = [float(value) for value in saved.get("acclist_train", [])]
        self.val = [float(value) for value in saved.get("acclist_val", [])]
        self.closed_at = saved.get("closed_at", here)
        self._sums = list(saved.get("sums", self._sums))
        if saved.get("position") == 0 and self._sums[0]:
            self.close_epoch(here)  # the state was written between the update and that
