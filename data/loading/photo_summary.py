"""What --check-data says about pictures of any set: sizes, EXIF turns, dark 16 bit, copies."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from data.loading.decode import TURNED_BY_90, Header

MOST_ROWS = 40  # of a table of classes
MAX_NAME = 30  # characters
ALIKE = 1.1  # ratio of counts that is no imbalance
DARK = 16  # a 16-bit picture without a brighter pixel holds 12 bits or less


class PhotoCounts:
    """Sizes and oddities of the pictures that were given to `add`.

    turn: whether they are read as their EXIF orientations turn them
    """

    def __init__(self, turn: bool = False):
        self._turn = turn
        self._sizes, self._turned, self._quarter_turned, self._dark = [], 0, 0, 0
        self._an_example = {}

    def add(self, header: Header, path: str | Path, highest: int | None = None) -> None:
        """Count a picture. highest: its brightest 8-bit value, where it is known"""
        self._sizes.append(header.size(self._turn))
        if header.orientation != 1:
            self._turned += 1
            self._quarter_turned += header.orientation in TURNED_BY_90
            self._an_example.setdefault("turned", path)
        if header.is_16_bit_grey and highest is not None and highest < DARK:
            self._dark += 1
            self._an_example.setdefault("dark", path)

    def __len__(self):
        return len(self._sizes)

    def lines(self) -> list[str]:
        """Smallest, median and largest width and height."""
        if not self._sizes:
            return []
        return ["  " + ", ".join(
            f"{side} {min(values)} / {int(np.median(values))} / {max(values)}"
            for side, values in zip(("width", "height"), zip(*self._sizes, strict=True),
                                    strict=True)) + " pixels (smallest / median / largest)"]

    def warnings(self, source: str, remedy: str) -> list[str]:
        """Warning lines, at most one a kind. remedy: what to do where EXIF turns are ignored"""
        found = []
        if self._turned and not self._turn:
            found.append(
                f"{source}: {self._turned} of {len(self)} pictures carry an EXIF turn "
                f"({self._quarter_turned} a quarter turn), such as {self._an_example['turned']}; "
                f"they are read as stored, as the original reads them; {remedy}"
            )
        if self._dark:
            found.append(
                f"{source}: {self._dark} of {len(self)} pictures hold 16 bits but no value above "
                f"{DARK * 256 - 1} of 65535, such as {self._an_example['dark']}: the network sees "
                "them almost black; scale them to the full range"
            )
        return found


def class_table(names: Sequence[str], columns: Mapping[str, np.ndarray]) -> list[str]:
    """Lines of a table with a row for each class, at most MOST_ROWS; the rest is summed.

    columns: title -> a count for each class [number of classes]; long tables go by falling counts
             of the first column, short ones in the classes' order
    """
    first = next(iter(columns.values()))
    order = list(range(len(names)))
    if len(names) > MOST_ROWS:
        order = np.argsort(-first, kind="stable")[: MOST_ROWS - 1].tolist()
    rows = [(short_name(names[i]), *(int(column[i]) for column in columns.values())) for i in order]
    if len(order) < len(names):
        rest = np.setdiff1d(np.arange(len(names)), order)
        rows.append((f"{len(rest)} more classes",
                     *(int(column[rest].sum()) for column in columns.values())))
    total = max(1, int(first.sum()))
    width = max(len("class"), *(len(row[0]) for row in rows))
    lines = [f"  {'class':{width}s}" + "".join(f" {title:>12s}" for title in columns) + "   share"]
    for name, *counts in rows:
        numbers = "".join(f" {count:12d}" for count in counts)
        lines.append(f"  {name:{width}s}{numbers} {100 * counts[0] / total:6.2f}%")
    return lines


def imbalance(names: Sequence[str], counts: np.ndarray, what: str) -> list[str]:
    """A line on the largest and the smallest class that occurs; none where all are alike."""
    present = np.flatnonzero(counts)
    if len(present) < 2 or counts[present].max() < ALIKE * counts[present].min():
        return []
    most, least = present[counts[present].argmax()], present[counts[present].argmin()]
    ratio = counts[most] / counts[least]
    return [f"  {short_name(names[most])} has {ratio:.1f} times as many {what} as "
            f"{short_name(names[least])}"]


def absent_classes(names: Sequence[str], counts: np.ndarray) -> str:
    """"3 of 20 classes (a, b, c)" for those without any count; "" when all occur."""
    absent = [short_name(names[i]) for i in np.flatnonzero(np.asarray(counts) == 0)]
    if not absent:
        return ""
    more = len(absent) - 8
    shown = ", ".join(absent[:8]) + (f" and {more} more" if more > 0 else "")
    return f"{len(absent)} of {len(names)} classes ({shown})"


def copies(paths: Iterable[Path], others: Iterable[Path]) -> list[tuple[Path, Path]]:
    """(path, its copy among `others`) of files with equal contents; only equal sizes are read."""
    by_size = defaultdict(list)
    for path in paths:
        by_size[path.stat().st_size].append(path)
    digests, found = {}, []
    for other in others:
        alike = by_size.get(other.stat().st_size, [])
        for path in alike:
            if path not in digests:
                digests[path] = _digest(path)
        if alike:
            own = _digest(other)
            match = next((path for path in alike if digests[path] == own), None)
            if match is not None:
                found.append((match, other))
    return found


def copies_warning(source: str, pairs: Sequence[tuple[Path, Path]], total: int) -> list[str]:
    """A warning line on the validation pictures that training has as well, if any."""
    if not pairs:
        return []
    return [f"{source}: {len(pairs)} of {total} validation pictures are in the training set, too, "
            f"such as {pairs[0][1]} ({pairs[0][0]}): the score will flatter"]


def _digest(path):
    hasher = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            hasher.update(block)
    return hasher.digest()


def short_name(name: str, limit: int = MAX_NAME) -> str:
    """The name, cut to `limit` characters."""
    return name if len(name) <= limit else f"{name[: limit - 1]}…"
