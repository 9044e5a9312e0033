"""The segmentation original's record of a run: means since the epoch's start, and loss curves."""

import math
from collections.abc import Mapping
from typing import Any

from runtime.run.meter import Meter


class SegHistory:
    """What the console line of an update shows, and what the original's history file keeps.

    epoch_iters: updates an epoch; disp_iter: updates between two points of the curves

    curves:     {"train": {"epoch": [...], "loss": [...], "acc": [...]}}
    is_resumed: whether they go on from a checkpoint's
    """

    def __init__(self, epoch_iters: int, disp_iter: int):
        self._epoch_iters, self._disp_iter = epoch_iters, disp_iter
        self.curves: dict[str, dict[str, list[float]]] = {
            "train": {"epoch": [], "loss": [], "acc": []}}
        self.is_resumed = False
        self._begin_epoch()

    def updated(self, step: int, loss: float, accuracy: float, meter: Meter) -> None:
        """One more update, 0-based index `step`, that `meter` has just timed.

        accuracy: a fraction of the pixels
        """
        position = step % self._epoch_iters
        if position == 0:
            self._begin_epoch()
        if math.isfinite(loss):
            self._updates += 1
            self._loss_sum += loss
            self._accuracy_sum += accuracy
        self._timed += 1
        self._time_s += meter.elapsed_s
        self._data_s += meter.waited_s
        if position % self._disp_iter == 0:
            point = {"epoch": step / self._epoch_iters, "loss": loss, "acc": accuracy}
            for name, value in point.items():
                self.curves["train"][name].append(value)

    def line(self, step: int, lrs: Mapping[str, float]) -> str:
        """The original's console line of an update.

        lrs: rates of "encoder" and "decoder"
        """
        epoch, position = divmod(step, self._epoch_iters)
        updates = max(1, self._updates)
        return (f"Epoch: [{epoch + 1}][{position}/{self._epoch_iters}], "
                f"Time: {self._time_s / self._timed:.2f}, Data: {self._data_s / self._timed:.2f}, "
                f"lr_encoder: {lrs['encoder']:.6f}, lr_decoder: {lrs['decoder']:.6f}, "
                f"Accuracy: {100 * self._accuracy_sum / updates:4.2f}, "
                f"Loss: {self._loss_sum / updates:.6f}")

    def pack(self) -> dict[str, object]:
        """What a checkpoint keeps of it; times are of a session alone."""
        return {"history": self.curves, "means": {
            "updates": self._updates, "loss_sum": self._loss_sum,
            "accuracy_sum": self._accuracy_sum}}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up what `pack` gave, from a training state that also holds other things."""
        self.curves, means = state["history"], state["means"]
        self._updates, self._loss_sum = means["updates"], means["loss_sum"]
        self._accuracy_sum = means["accuracy_sum"]
        self.is_resumed = True

    def _begin_epoch(self) -> None:
        self._updates, self._loss_sum, self._accuracy_sum = 0, 0.0, 0.0
        self._timed, self._time_s, self._data_s = 0, 0.0, 0.0
