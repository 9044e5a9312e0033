"""What metrics.jsonl tells: read once, then only what has come since."""

import json
import math
import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from runtime.report.curve import Curve
from runtime.report.families import term_of

CHUNK_BYTES = 1 << 22
# Of more unread bytes than these only some of the train lines are parsed: a run of a million
# updates that is resumed would else be read for ten seconds.
PARSED_BYTES = 1 << 25
TRAIN_LINE = b'{"event": "train"'
MOST_CURVES = 60  # odd names must not fill the memory
MOST_EVENTS = 500
QUANTITIES = ("event", "iteration", "epoch", "losses")  # keys of a train line that are no curve


class History:
    """The curves, evaluations and other events of a metrics.jsonl.

    leading: the metric by which an evaluation is the best

    losses, others: {name: Curve} of the train lines: loss terms, and all else
    scores:         {metric: Curve} of the evaluations
    evals:          the last evaluations, without their classes. One beside the training, whose
                    epoch is null, may be of any file: it counts before the training's own
    best, last:     whole eval events, or None
    events:         the last resume and stop events; skips: updates that were left out
    updates:        those that are behind the last line that tells of any
    """

    def __init__(self, path: Path, leading: str = ""):
        self._path, self._leading = path, leading
        self._clear()

    def _clear(self) -> None:
        self._at: tuple[int, int] = (0, 0)  # the file's number, bytes that were read
        self._last_line: Mapping[str, Any] = {}
        self.losses: dict[str, Curve] = {}
        self.others: dict[str, Curve] = {}
        self.scores: dict[str, Curve] = {}
        self.evals: deque[dict] = deque(maxlen=MOST_EVENTS)
        self.events: deque[dict] = deque(maxlen=MOST_EVENTS)
        self.best: dict | None = None
        self.last: dict | None = None
        self.skips = self.updates = self.num_evals = 0
        self.is_sampled = self._has_own = False

    def read(self) -> None:
        """Take up the whole lines that have come since the last call; no file is fine."""
        try:
            with open(self._path, "rb") as file:
                status = os.fstat(file.fileno())
                number, read = self._at
                if status.st_ino != number or status.st_size < read:
                    self._clear()
                    read = 0
                every = max(1, -(-(status.st_size - read) // PARSED_BYTES))
                self.is_sampled = self.is_sampled or every > 1
                file.seek(read)
                for lines, length in _chunks(file, status.st_size - read):
                    self._take(lines, every)
                    read += length
                    self._at = (status.st_ino, read)
        except FileNotFoundError:
            self._clear()

    def _take(self, lines: Sequence[bytes], every: int) -> None:
        train: list[dict] = []
        for i, line in enumerate(lines):
            if every > 1 and i % every and line.startswith(TRAIN_LINE):
                continue
            event = _parsed(line)
            if event is None:
                continue
            if event["event"] == "train":
                train.append(event)
            elif event["event"] == "eval":
                is_own = event.get("epoch", 0) is not None
                self._has_own = self._has_own or is_own
                if is_own or not self._has_own:
                    self._take_eval(event)
            elif event["event"] == "skip":
                self.skips += 1
            else:
                self.events.append(event)
        if train:
            self._take_train(train)

    def _take_train(self, events: Sequence[dict]) -> None:
        steps = [event["iteration"] for event in events]
        self.updates = max(self.updates, max(steps) + 1)
        self._last_line = events[-1]
        terms = [_summed(event.get("losses")) for event in events]
        _extend(self.losses, steps, terms)
        others = [{name: value for name, value in event.items() if name not in QUANTITIES}
                  for event in events]
        _extend(self.others, steps, others)

    def _take_eval(self, event: dict) -> None:
        metrics = event.get("metrics")
        event["metrics"] = metrics if isinstance(metrics, dict) else {}
        self.num_evals += 1
        self.updates = max(self.updates, event["iteration"])
        _extend(self.scores, [event["iteration"]], [event["metrics"]])
        self.evals.append({key: value for key, value in event.items() if key != "classes"})
        self.last = event
        value = number(event["metrics"].get(self._leading))
        before = number(self.best["metrics"].get(self._leading)) if self.best else math.nan
        if value > before or (math.isfinite(value) and not math.isfinite(before)):
            self.best = event

    def now(self, key: str) -> object:
        """A value of the last train line."""
        return self._last_line.get(key)


def number(value: object) -> float:
    """The value as a float; NaN for what is no finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        found = float(value)
    except OverflowError:
        return math.nan
    return found if math.isfinite(found) else math.nan


def _chunks(file: Any, size: int) -> Iterator[tuple[list[bytes], int]]:
    """Whole lines of some megabytes at a time, and how many bytes they are.

    size: what is read of the file, also of one that grows or, as a device, has no end
    """
    rest = b""
    while size > 0 and (chunk := file.read(min(size, CHUNK_BYTES))):
        size -= len(chunk)
        lines = (rest + chunk).split(b"\n")
        rest = lines.pop()
        if lines:
            yield lines, sum(map(len, lines)) + len(lines)


def _parsed(line: bytes) -> dict | None:
    """An event with a whole number as its iteration, or None."""
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(event, dict) or not isinstance(event.get("event"), str):
        return None
    iteration = event.get("iteration")
    if type(iteration) is not int or not 0 <= iteration < 2**53:
        return None
    return event


def _summed(losses: object) -> Mapping[str, Any]:
    if not isinstance(losses, dict):
        return {}
    if all(term_of(name) == name for name in losses):
        return losses
    sums: dict[str, float] = {}
    for name, value in losses.items():
        term = term_of(name)
        sums[term] = sums.get(term, 0.0) + number(value)
    return sums


def _extend(curves: dict[str, Curve], steps: Sequence[int], rows: Sequence[Mapping]) -> None:
    for name in dict.fromkeys(name for row in rows for name in row):
        if name not in curves and len(curves) >= MOST_CURVES:
            continue
        column = [row.get(name) for row in rows]
        try:
            values = np.array(column, float)  # None becomes NaN
        except (TypeError, ValueError, OverflowError):
            values = np.array([number(value) for value in column])
        if name in curves or np.isfinite(values).any():
            curves.setdefault(name, Curve()).add(steps, values)
