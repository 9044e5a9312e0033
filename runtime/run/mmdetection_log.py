"""A run's log in MMDetection's form: its console lines, and the scalars that its tools plot.

Source: [queryinst.md: Run folder and log].
"""

import time
from collections import deque
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from runtime.run.files import LineFile, json_line

LINE_START = "%m/%d %H:%M:%S - mmengine - INFO - "
EXP_NAME_INTERVAL = 1000  # iterations between two lines that name the run
MIB = 1024 * 1024


def new_stamp() -> str:
    """The time as the name of a run's own folder."""
    return time.strftime("%Y%m%d_%H%M%S")


class MMLog:
    """Follows the updates and validations of a run and writes them down on rank 0.

    run:        the Run, whose `log` takes the lines
    name:       of the config
    per_epoch:  updates an epoch; max_epochs: epochs when training is over
    interval:   updates between two lines; window: updates behind their means
    stop_at:    updates when this run is over; set it before the first one
    """

    def __init__(self, run: Any, name: str, *, per_epoch: int, max_epochs: int, interval: int,
                 window: int):
        self._run, self._name = run, name
        self._per_epoch, self._max_epochs = per_epoch, max_epochs
        self._interval, self._window = interval, window
        self.stop_at = per_epoch * max_epochs
        self._means: dict[str, deque] = {}
        self._seconds, self._updates = 0.0, 0
        self._scalars: list[LineFile] = []
        self.elapsed_s = self._data_s = 0.0
        self.restart_clock()

    def open_folder(self, folder: Path, stamp: str, config: str) -> None:
        """Make the run's own folder `folder`/`stamp` with its scalars; rank 0 alone.

        Raises OSError or SaveError when it cannot be written.
        """
        self._name_line = f"Exp name: {self._name}_{stamp}"
        data = folder / stamp / "vis_data"
        data.mkdir(parents=True, exist_ok=True)
        (data / "config.yaml").write_text(config)
        self._scalars = [LineFile(data / name) for name in ("scalars.json", f"{stamp}.json")]

    def restart_clock(self) -> None:
        """Leave the time since the last update out: it went into a validation."""
        self._clock = time.perf_counter()

    def data_ready(self) -> None:
        """The batches of the next update have arrived."""
        self._data_s = time.perf_counter() - self._clock

    def updated(self, step: int, lrs: tuple[float, float], values: Mapping[str, float],
                grad_norm: float | None) -> None:
        """Update `step`, counted from 0, is done; writes the lines that are due.

        lrs:        base_lr, and the first parameter group's
        values:     {name: value}; those with "loss" in their name add up to the loss
        grad_norm:  before clipping; None without clipping
        """
        now = time.perf_counter()
        self.elapsed_s, self._clock = now - self._clock, now
        self._seconds += self.elapsed_s
        self._updates += 1
        measured = {"time": self.elapsed_s, "data_time": self._data_s}
        if grad_norm is not None:
            measured["grad_norm"] = grad_norm
        losses = {name: value for name, value in values.items() if "loss" in name}
        measured["loss"] = sum(losses.values())
        for key, value in {**measured, **losses}.items():
            self._means.setdefault(key, deque(maxlen=self._window)).append(value)
        epoch, position = divmod(step, self._per_epoch)
        ends_epoch = position + 1 == self._per_epoch
        if (position + 1) % self._interval == 0 or (
                ends_epoch and self._per_epoch <= self._interval):
            self._write(step, epoch + 1, position + 1, lrs, values)
        if self._scalars and ((step + 1) % EXP_NAME_INTERVAL == 0 or ends_epoch):
            self._log(self._name_line)

    def _write(self, step, epoch, position, lrs, terms):
        means = {key: sum(values) / len(values) for key, values in self._means.items()}
        memory = _peak_memory(self._run.device)
        values = {name: means[name] for name in ("grad_norm", "loss") if name in means}
        values |= {name: means.get(name, value) for name, value in terms.items()}
        eta = self._seconds / self._updates * (self.stop_at - step - 1)
        self._log(train_line(
            epoch, self._max_epochs, position, self._per_epoch, lrs, eta, means["time"],
            means["data_time"], memory, values))
        line = {"base_lr": lrs[0], "lr": lrs[1], "data_time": means["data_time"], **values,
                "time": means["time"], "epoch": epoch, "iter": step + 1}
        self._write_scalars(line | ({} if memory is None else {"memory": memory})
                            | {"step": step + 1})

    def validation(self, epoch: int, count: int) -> "ValidationLog":
        """What follows a validation after `epoch` epochs, of `count` batches of this process."""
        return ValidationLog(self, epoch, count)

    def _log(self, line):
        self._run.log(time.strftime(LINE_START) + line)

    def _write_scalars(self, line):
        for file in self._scalars:
            file.write(json_line(line))


class ValidationLog:
    """Follows the batches of one validation; made by `MMLog.validation`."""

    def __init__(self, owner: MMLog, epoch: int, count: int):
        self._owner, self._epoch, self._count = owner, epoch, count
        self._done, self._seconds, self._waited = 0, 0.0, 0.0
        self._clock = time.perf_counter()

    def data_ready(self) -> None:
        """The next batch has arrived."""
        self._ready = time.perf_counter()

    def done(self) -> None:
        """It is evaluated; writes the line that is due."""
        now = time.perf_counter()
        self._waited += self._ready - self._clock
        self._seconds += now - self._clock
        self._clock = now
        self._done += 1
        if self._done % self._owner._interval == 0:
            per_batch, waited = self._means()
            left = timedelta(seconds=int(per_batch * (self._count - self._done)))
            memory = _peak_memory(self._owner._run.device)
            self._log(self._done, "  ".join([
                f"eta: {left}", f"time: {per_batch:.4f}", f"data_time: {waited:.4f}",
                *([] if memory is None else [f"memory: {memory}"])]))

    def finished(self, metrics: Mapping[str, float]) -> None:
        """All is scored: the last line, and the scalars."""
        per_batch, waited = self._means()
        values = {**metrics, "data_time": waited, "time": per_batch}
        self._log(self._count, "  ".join(f"{name}: {value:.4f}" for name, value in values.items()))
        self._owner._write_scalars({**values, "step": self._epoch})

    def _means(self):
        return self._seconds / max(1, self._done), self._waited / max(1, self._done)

    def _log(self, position, text):
        at = f"[{str(position).rjust(len(str(self._count)))}/{self._count}]"
        self._owner._log(f"Epoch(val) [{self._epoch}]{at}    {text}")


def train_line(epoch, max_epochs, position, per_epoch, lrs, eta_s, time_s, data_s, memory, values):
    """The line of an update; epoch and position count from 1.

    memory: MiB, None to leave it out; values: {name: number}, shown with four digits
    """
    base_lr, lr = lrs
    head = f"[{epoch}]".rjust(len(str(max_epochs)) + 3)
    fields = [
        f"Epoch(train){head}[{str(position).rjust(len(str(per_epoch)))}/{per_epoch}]",
        f"base_lr: {base_lr:.4e} lr: {lr:.4e}",
        f"eta: {timedelta(seconds=int(eta_s))}",
        f"time: {time_s:.4f}",
        f"data_time: {data_s:.4f}",
        *([] if memory is None else [f"memory: {memory}"]),
        *(f"{name}: {value:.4f}" for name, value in values.items()),
    ]
    return "  ".join(fields)


def _peak_memory(device):
    """MiB allocated at most since the last call; None on a CPU."""
    if device.type != "cuda":
        return None
    peak = int(torch.cuda.max_memory_allocated(device) / MIB)
    torch.cuda.reset_peak_memory_stats(device)
    return peak
