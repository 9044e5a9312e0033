"""What a training loop measures: running means, times, speed and memory, without waiting for it."""

import math
import resource
import sys
import time
from collections import deque
from dataclasses import dataclass
from datetime import timedelta

import torch

MB = 1024 * 1024
ETA_WINDOW = 1000  # iterations whose mean time the ETA is made of


class Meter:
    """Follows the updates of one process.

    device:            whose memory is reported; the process's own on a CPU
    images_per_update: over all processes
    window:            updates behind the running means of the losses
    warn:              called with a line for each value that a mean leaves out

    Call `data_ready` when the batches are there and `updated` when the update is done.
    """

    def __init__(self, device, images_per_update, window, warn):
        self._device = device
        self._images = images_per_update
        self._window = window
        self._warn = warn
        self._means = {}
        self._times = deque(maxlen=ETA_WINDOW)
        self._since_event = [0, 0.0, 0.0]  # updates, their seconds, seconds waited for data
        self.elapsed_s = 0.0  # wall time of the last update, its data included
        self.waited_s = 0.0  # of that, for the data
        self.restart_clock()

    def restart_clock(self):
        """Forget the time since the last update: it went into a validation or a save."""
        self._clock = time.perf_counter()

    def data_ready(self):
        """The batches of the next update have arrived."""
        self.waited_s = time.perf_counter() - self._clock
        self._since_event[2] += self.waited_s

    def updated(self, losses):
        """An update is done; losses: {name: float}."""
        now = time.perf_counter()
        self.elapsed_s, self._clock = now - self._clock, now
        self._times.append(self.elapsed_s)
        self._since_event[0] += 1
        self._since_event[1] += self.elapsed_s
        for name, value in losses.items():
            if math.isfinite(value):
                self._means.setdefault(name, deque(maxlen=self._window)).append(value)
            else:
                self._warn(f"Moving average ignored a value of {value}")

    def means(self):
        """{loss name: mean of its last finite values}."""
        return {name: sum(values) / len(values) for name, values in self._means.items()}

    def eta(self, updates_left):
        """Time left as h:mm:ss text, at the mean pace of the last updates."""
        mean_s = sum(self._times) / max(1, len(self._times))
        return str(timedelta(seconds=round(mean_s * updates_left)))

    def train_event(self, iteration, epoch, lr, losses, grad_norm):
        """One `train` line for metrics.jsonl; times are means over the updates since the last."""
        count, seconds, waited = self._since_event
        self._since_event = [0, 0.0, 0.0]
        return {
            "event": "train", "iteration": iteration, "epoch": epoch, "lr": lr,
            "loss": sum(losses.values()), "losses": losses,
            "images_per_s": self._images * count / max(seconds, 1e-9),
            "data_s": waited / max(1, count),
            "memory_mb": peak_memory_mb(self._device), "grad_norm": grad_norm,
        }


@dataclass
class EpochMeans:
    """Means since the epoch's start, as the segmentation original prints them."""

    updates: int = 0  # those with a finite loss
    loss_sum: float = 0.0
    accuracy_sum: float = 0.0  # of fractions
    timed: int = 0  # updates of this session, whose times are known
    time_s: float = 0.0
    data_s: float = 0.0

    def add(self, loss: float, accuracy: float, meter: Meter) -> None:
        """One more update, that `meter` has just timed."""
        if math.isfinite(loss):
            self.updates += 1
            self.loss_sum += loss
            self.accuracy_sum += accuracy
        self.timed += 1
        self.time_s += meter.elapsed_s
        self.data_s += meter.waited_s

    def line(self) -> tuple[str, str]:
        """("Time: T, Data: D", "Accuracy: A, Loss: L"), accuracy in percent."""
        updates = max(1, self.updates)
        return (f"Time: {self.time_s / self.timed:.2f}, Data: {self.data_s / self.timed:.2f}",
                f"Accuracy: {100 * self.accuracy_sum / updates:4.2f}, "
                f"Loss: {self.loss_sum / updates:.6f}")

    def saved(self) -> dict[str, float]:
        """What a continuation in another session takes up: `EpochMeans(**saved)`."""
        return {"updates": self.updates, "loss_sum": self.loss_sum,
                "accuracy_sum": self.accuracy_sum}


def peak_memory_mb(device):
    """The most that was in use: allocated on the GPU, or resident of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / MB
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB on Linux, bytes on macOS
    return peak / MB if sys.platform == "darwin" else peak / 1024
