"""The checkpoints of a run that lie on the disk, with the scores of their iterations."""

import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from runtime.report.families import Family
from runtime.report.history import History, number

MOST = 40  # rows
_BEST_EPOCH = re.compile(r"best_.+_(epoch|iter)_(\d+)\.pth")


class Row(NamedTuple):
    """A checkpoint's file, the updates in it, its score, when it was written, and its bytes."""

    name: str
    iteration: int | None
    score: float | None
    written: str
    size: int


def checkpoint_rows(
    facts: Mapping[str, Any], folder: Path, family: Family, history: History
) -> tuple[list[Row], int]:
    """(the newest ones, the best and final weights first; how many more there are)."""
    saves = facts.get("saves")
    saves = {Path(path): iteration for path, iteration in saves.items()
             } if isinstance(saves, dict) else {}
    folders = dict.fromkeys([folder.absolute(), *(path.parent for path in saves)])
    special = [path for place in folders for pattern in family.weights
               for path in sorted(place.glob(pattern.replace("{run}", folder.name)))]
    regular = [path for path in reversed(saves) if path not in special]
    scored = {event["iteration"]: event["metrics"].get(family.leading) for event in history.evals}
    rows = []
    for path in (*special, *regular):
        iteration = saves.get(path, _iteration_of(path, history))
        try:
            status = path.stat()
        except OSError:
            continue  # it was replaced
        value = number(scored.get(iteration))
        rows.append(Row(
            os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path), iteration,
            value if value == value else None,
            time.strftime("%Y-%m-%d %H:%M", time.localtime(status.st_mtime)), status.st_size))
    return rows[:MOST], max(0, len(rows) - MOST)


def _iteration_of(path: Path, history: History) -> int | None:
    """Of best and final weights, whose names do not tell it."""
    found = _BEST_EPOCH.fullmatch(path.name)
    if found:
        key, count = ("epoch", int(found[2]) - 1) if found[1] == "epoch" else (
            "iteration", int(found[2]))
        return next((event["iteration"] for event in reversed(history.evals)
                     if event.get(key) == count), None)
    if "best" in path.name:
        return history.best["iteration"] if history.best else None
    return history.updates or None
