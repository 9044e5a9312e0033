"""What a loop measures: running means, times, speed and memory, without waiting for the device.

Whoever writes a log takes its numbers from here; nobody else keeps a clock.
"""

import math
import resource
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from datetime import timedelta
from types import MappingProxyType
from typing import Any

import torch

MB = 1024 * 1024
ETA_WINDOW = 1000  # iterations whose mean time the ETA is made of
NOTHING: Mapping[str, float] = MappingProxyType({})


class Meter:
    """Follows the updates of one process, or the batches of its share of a validation.

    device:            whose memory is reported; the process's own on a CPU
    images_per_update: over all processes
    window:            updates behind the running means
    warn:              called with a line for an update of which a mean leaves out a value

    Call `data_ready` when the batches are there and `updated` when the update is done.

    elapsed_s: wall time of the last update, its data included; waited_s: of that, for the data
    """

    def __init__(self, device: torch.device, images_per_update: int, window: int,
                 warn: Callable[[str], object]):
        self._device = device
        self._images = images_per_update
        self._window = window
        self._warn = warn
        self._values: dict[str, deque[float]] = {}
        self._times: deque[float] = deque(maxlen=ETA_WINDOW)
        self._recent: deque[tuple[float, float]] = deque(maxlen=window)  # elapsed, waited
        self._since_event = [0, 0.0, 0.0]  # updates, their seconds, seconds waited for data
        self.elapsed_s = 0.0
        self.waited_s = 0.0
        self._say_compiled: Callable[[str], object] | None = None
        self.restart_clock()

    def begin(self, say_compiling: Callable[[str], object] | None = None) -> None:
        """The loop begins now.

        say_compiling: called with a line before the first update, which --compile makes long, and
                       with one after it that tells its time; None without --compile
        """
        if say_compiling is not None:
            say_compiling("--compile: the network is compiled in the first update, which may take "
                          "minutes.")
        self._say_compiled = say_compiling
        self.restart_clock()

    def restart_clock(self) -> None:
        """Forget the time since the last update: it went into a validation or a save."""
        self._clock = time.perf_counter()

    def data_ready(self) -> None:
        """The batches of the next update have arrived."""
        self.waited_s = time.perf_counter() - self._clock
        self._since_event[2] += self.waited_s

    def updated(self, losses: Mapping[str, float] = NOTHING,
                others: Mapping[str, float] = NOTHING) -> None:
        """An update is done; losses: {name: value}.

        others: further values whose means are wanted; one that is not finite is left out, too, but
                not told: the scaler of fp16 tries gradients that overflow
        """
        now = time.perf_counter()
        self.elapsed_s, self._clock = now - self._clock, now
        if self._say_compiled is not None:
            self._say_compiled(f"--compile: the first update took {self.elapsed_s:.1f} s, the "
                               "compiling included.")
            self._say_compiled = None
        self._times.append(self.elapsed_s)
        self._recent.append((self.elapsed_s, self.waited_s))
        self._since_event[0] += 1
        self._since_event[1] += self.elapsed_s
        for name, value in (*others.items(), *losses.items()):
            if math.isfinite(value):
                self._values.setdefault(name, deque(maxlen=self._window)).append(value)
        odd = [value for value in losses.values() if not math.isfinite(value)]
        if odd:
            self._warn(f"Moving average ignored a value of {odd[0]}")

    def means(self) -> dict[str, float]:
        """{name: mean of its last finite values}."""
        return {name: sum(values) / len(values) for name, values in self._values.items()}

    def times(self) -> tuple[float, float]:
        """Seconds of an update, and of that for its data: means over the window; 0 before any."""
        count = max(1, len(self._recent))
        return (sum(elapsed for elapsed, _ in self._recent) / count,
                sum(waited for _, waited in self._recent) / count)

    def eta_s(self, updates_left: int) -> float:
        """Seconds left, at the mean pace of the last updates."""
        return sum(self._times) / max(1, len(self._times)) * updates_left

    def eta(self, updates_left: int) -> str:
        """The same as h:mm:ss text."""
        return str(timedelta(seconds=round(self.eta_s(updates_left))))

    def new_peak_mb(self) -> int | None:
        """The most that was allocated on the GPU since the last call; None on a CPU."""
        if self._device.type != "cuda":
            return None
        peak = int(torch.cuda.max_memory_allocated(self._device) / MB)
        torch.cuda.reset_peak_memory_stats(self._device)
        return peak

    def train_event(self, iteration: int, epoch: int, lr: float, losses: Mapping[str, float],
                    grad_norm: float | None) -> dict[str, Any]:
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


def peak_memory_mb(device: torch.device) -> float:
    """The most that was in use: allocated on the GPU, or resident of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / MB
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB on Linux, bytes on macOS
    return peak / MB if sys.platform == "darwin" else peak / 1024
