"""What a run leaves for its reader: the curves, and the last lines of its log."""

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from runtime.curves import plot_curves
from runtime.report.writer import PAGE
from runtime.run.guard import NonFiniteGuard, skips_text
from runtime.run.run import Run

SHARE = 0.1  # of a run's time, at most, goes to pictures of its best weights


class PicturesOfBest:
    """Draws the pictures of a run's best weights, in at most SHARE of its time.

    draw: draw(found, which) of what a validation found, and which weights it is of

    What is not drawn at once is drawn later, unless something better comes.
    """

    def __init__(self, draw: Callable[[Any, str], object]):
        self._draw = draw
        self._waiting: tuple[Any, str] | None = None
        self._began, self._spent_s = time.perf_counter(), 0.0

    def validated(self, found: Any, iteration: int, is_best: bool | None, is_last: bool) -> None:
        """A validation after `iteration` updates found that.

        is_best: whether it is the best so far; None where none is kept: then each counts
        is_last: what still waits is drawn in any case
        """
        if is_best is not False:
            self._waiting = found, f"{'best, ' * bool(is_best)}iteration {iteration}"
        begin = time.perf_counter()
        if self._waiting is not None and (
                is_last or self._spent_s <= SHARE * (begin - self._began)):
            self._draw(*self._waiting)
            self._waiting = None
            self._spent_s += time.perf_counter() - begin


def draw_curves(run: Run, scores: Sequence[str], title: str,
                term_of: Callable[[str], str] | None = None) -> None:
    """curves.png in the run folder: losses, rate and `scores` of metrics.jsonl; and report.html.

    Rank 0 draws, the curves only where a line has come since.

    term_of: as `plot_curves`
    """
    if run.is_main:
        metrics, picture = run.folder / "metrics.jsonl", run.folder / "curves.png"
        if not _is_newer(picture, metrics):
            plot_curves(metrics, picture, scores, title, term_of)
        run.write_report()


def _is_newer(file: Path, other: Path) -> bool:
    return file.is_file() and file.stat().st_mtime_ns > other.stat().st_mtime_ns


def say_done(run: Run, guard: NonFiniteGuard, lines: Iterable[str]) -> None:
    """The log's last lines: what was left out, the script's `lines`, the pictures and the page.

    Before them the last checkpoint is on the disk; raises what was raised in writing it.
    """
    run.writer.wait()
    pages = [*sorted(run.folder.glob("*.png")), *run.folder.glob(PAGE)]
    for line in (*skips_text(guard, run.skipped), *lines, *map(str, pages)):
        run.log(line)
