"""A run's log in MMDetection's form: its console lines, and the scalars that its tools plot.

What is measured comes from a `Meter`; here it only gets its form.
Source: [queryinst.md: Run folder and log].
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from runtime.files import write_text
from runtime.run.files import LineFile, json_line
from runtime.run.meter import Meter
from runtime.run.timetable import Timetable

LINE_START = "%m/%d %H:%M:%S - mmengine - INFO - "


@dataclass(frozen=True)
class LogForm:
    """What a config's LogProcessor and LoggerHook say about the lines.

    by_epoch:    lines count within epochs, else over the whole training
    num_digits:  behind the point
    ignore_last: no line at an epoch's end when the interval does not ask for it
    exp_name_interval: iterations between two lines that name the run; 0: none but an epoch's last
    """

    by_epoch: bool = True
    num_digits: int = 4
    ignore_last: bool = True
    exp_name_interval: int = 1000

    @classmethod
    def of(cls, log_processor: Any, logger: Any) -> "LogForm":
        """As the two sections of a QueryInst config say."""
        return cls(log_processor.by_epoch, log_processor.num_digits, logger.ignore_last,
                   logger.interval_exp_name)


def new_stamp() -> str:
    """The time as the name of a run's own folder."""
    return time.strftime("%Y%m%d_%H%M%S")


class MMLog:
    """Where the lines and the scalars go: those of `TrainLog` and `ValidationLog`.

    run:      the Run, whose `log` takes the lines
    name:     of the config
    interval: updates, or batches of a validation, between two lines
    form:     what they look like

    name_line: what names the run; "" until `open_folder`, and on other ranks
    """

    def __init__(self, run: Any, name: str, interval: int, form: LogForm = LogForm()):
        self.interval, self.form = interval, form
        self.name_line = ""
        self._run, self._name = run, name
        self._scalars: list[LineFile] = []

    def open_run_folder(self, folder: Path, config: str, **how: Any) -> None:
        """`Run.open_folder`, and in it the session's own folder (all ranks); how: its options."""
        stamp = self._run.broadcast(new_stamp())
        self._run.open_folder(folder, config, log_too=folder / stamp / f"{stamp}.log", **how)
        if self._run.is_main:
            self.open_folder(folder, stamp, config)

    def open_folder(self, folder: Path, stamp: str, config: str) -> None:
        """Make the run's own folder `folder`/`stamp` with its scalars; rank 0 alone.

        Raises SaveError when it cannot be written.
        """
        self.name_line = f"Exp name: {self._name}_{stamp}"
        data = folder / stamp / "vis_data"
        write_text(data / "config.yaml", config)
        self._scalars = [LineFile(data / name) for name in ("scalars.json", f"{stamp}.json")]

    def write(self, line: str, folded: str | None = None) -> None:
        """A line of the log, with the time before it; folded: what a terminal shows of it."""
        start = time.strftime(LINE_START)
        self._run.log(start + line, None if folded is None else start + folded)

    def write_scalars(self, values: Mapping[str, Any]) -> None:
        """A line of the scalars; nothing before `open_folder`."""
        for file in self._scalars:
            file.write(json_line(values))


class TrainLog:
    """The lines of a training.

    meter:      has measured each update before `updated` is called
    timetable:  its updates an epoch, and at the session's end
    max_epochs: epochs when training is over; total: updates then, None: those of the epochs
    """

    def __init__(self, log: MMLog, meter: Meter, timetable: Timetable, max_epochs: int,
                 total: int | None = None):
        self._log, self._meter, self._max_epochs = log, meter, max_epochs
        self._total = max_epochs * timetable.per_epoch if total is None else total
        self._per_epoch, self._stop_at = timetable.per_epoch, timetable.stop_at

    def updated(self, step: int, lrs: tuple[float, float], values: Mapping[str, float]) -> bool:
        """Update `step`, counted from 0, is done; writes the lines that are due.

        lrs:    base_lr, and the first parameter group's
        values: {name: value}, in the line's order; shown are the meter's means of those it follows
        Returns whether the update got a line.
        """
        epoch, position = divmod(step, self._per_epoch)
        ends_epoch = position + 1 == self._per_epoch
        interval, form = self._log.interval, self._log.form
        shows_end = not form.ignore_last or self._per_epoch <= interval
        has_line = (position + 1) % interval == 0 or (ends_epoch and shows_end)
        if has_line:
            self._write(step, epoch + 1, position + 1, lrs, values)
        every = form.exp_name_interval
        is_named = ends_epoch or (every > 0 and (step + 1) % every == 0)
        if self._log.name_line and is_named:
            self._log.write(self._log.name_line)
        return has_line

    def _write(self, step: int, epoch: int, position: int, lrs: tuple[float, float],
               values: Mapping[str, float]) -> None:
        means = self._meter.means()
        values = {name: means.get(name, value) for name, value in values.items()}
        time_s, data_s = self._meter.times()
        memory, form = self._meter.new_peak_mb(), self._log.form
        line = partial(
            train_line, epoch, self._max_epochs, position, self._per_epoch, lrs,
            self._meter.eta_s(self._stop_at - step - 1), time_s, data_s, memory,
            digits=form.num_digits, of_all=None if form.by_epoch else (step + 1, self._total))
        self._log.write(line(values), line(over_stages(values)))
        self._log.write_scalars(
            {"base_lr": lrs[0], "lr": lrs[1], "data_time": data_s, **values, "time": time_s}
            | ({"epoch": epoch} if form.by_epoch else {}) | {"iter": step + 1}
            | ({} if memory is None else {"memory": memory}) | {"step": step + 1})


class ValidationLog:
    """The lines of one validation.

    meter: has measured each batch before `done` is called, with a window of all
    epoch: epochs that are behind it; count: its batches in this process
    """

    def __init__(self, log: MMLog, meter: Meter, epoch: int, count: int):
        self._log, self._meter, self._epoch, self._count = log, meter, epoch, count
        self._done = 0

    def done(self) -> None:
        """A batch is evaluated; writes the line that is due."""
        self._done += 1
        if self._done % self._log.interval == 0:
            time_s, data_s = self._meter.times()
            left = timedelta(seconds=int(self._meter.eta_s(self._count - self._done)))
            memory, digits = self._meter.new_peak_mb(), self._log.form.num_digits
            self._write(self._done, "  ".join([
                f"eta: {left}", f"time: {time_s:.{digits}f}", f"data_time: {data_s:.{digits}f}",
                *([] if memory is None else [f"memory: {memory}"])]))

    def finished(self, metrics: Mapping[str, float]) -> None:
        """All is scored: the last line, and the scalars."""
        time_s, data_s = self._meter.times()
        values = {**metrics, "data_time": data_s, "time": time_s}
        digits = self._log.form.num_digits
        self._write(self._count, _fields(values, digits), _score_rows(values, digits))
        self._log.write_scalars({**values, "step": self._epoch})

    def _write(self, position: int, text: str, folded: str | None = None) -> None:
        at = f"[{str(position).rjust(len(str(self._count)))}/{self._count}]"
        head = f"Epoch(val) [{self._epoch}]" if self._log.form.by_epoch else "Iter(val) "
        self._log.write(f"{head}{at}    {text}", folded and f"{head}{at}    {folded}")


def train_line(
    epoch: int, max_epochs: int, position: int, per_epoch: int, lrs: tuple[float, float],
    eta_s: float, time_s: float, data_s: float, memory: int | None, values: Mapping[str, float],
    digits: int = 4, of_all: tuple[int, int] | None = None,
) -> str:
    """The line of an update; epoch and position count from 1.

    memory: MiB, None to leave it out; values: {name: number}, shown with so many `digits`
    of_all: (updates made, updates of the training), to be shown in place of the epoch
    """
    base_lr, lr = lrs
    head = f"Epoch(train){f'[{epoch}]'.rjust(len(str(max_epochs)) + 3)}"
    if of_all is not None:
        head, position, per_epoch = "Iter(train) ", *of_all
    fields = [
        f"{head}[{str(position).rjust(len(str(per_epoch)))}/{per_epoch}]",
        f"base_lr: {base_lr:.{digits}e} lr: {lr:.{digits}e}",
        f"eta: {timedelta(seconds=int(eta_s))}",
        f"time: {time_s:.{digits}f}",
        f"data_time: {data_s:.{digits}f}",
        *([] if memory is None else [f"memory: {memory}"]),
        *([_fields(values, digits)] if values else []),
    ]
    return "  ".join(fields)


def over_stages(values: Mapping[str, float]) -> dict[str, float]:
    """The values as a terminal shows them: losses of the stages' heads added, of the rest the last.

    values: {name: number}, of a stage's head "s0.loss_cls"
    """
    found: dict[str, float] = {}
    for name, value in values.items():
        stage, point, term = name.partition(".")
        if not (point and stage[:1] == "s" and stage[1:].isdigit()):
            found[name] = value
        elif term.startswith("loss"):
            found[term] = found.get(term, 0.0) + value
        else:
            found[term] = value
    return found


def _fields(values: Mapping[str, float], digits: int) -> str:
    return "  ".join(f"{name}: {value:.{digits}f}" for name, value in values.items())


def _score_rows(values: Mapping[str, float], digits: int) -> str:
    """The scores of boxes and of masks in a line each, the times before them."""
    rows: dict[str, dict[str, float]] = {"": {}}
    for name, value in values.items():
        kind, mark, score = name.partition("_mAP")
        rows.setdefault(kind if mark else "", {})[f"mAP{score}" if mark else name] = value
    first, *others = ((f"{kind}  " if kind else "") + _fields(row, digits)
                      for kind, row in rows.items())
    return "\n    ".join([first, *others])
