"""What a run leaves for its reader: the curves, and the last lines of its log."""

from collections.abc import Callable, Iterable, Sequence

from runtime.curves import plot_curves
from runtime.report.writer import PAGE
from runtime.run.guard import NonFiniteGuard, skips_text
from runtime.run.run import Run


def draw_curves(run: Run, scores: Sequence[str], title: str,
                term_of: Callable[[str], str] | None = None) -> None:
    """curves.png in the run folder: losses, rate and `scores` of metrics.jsonl; and report.html.

    Rank 0 draws.

    term_of: as `plot_curves`
    """
    if run.is_main:
        plot_curves(run.folder / "metrics.jsonl", run.folder / "curves.png", scores, title, term_of)
        run.write_report()


def say_done(run: Run, guard: NonFiniteGuard, lines: Iterable[str]) -> None:
    """The log's last lines: what was left out, the script's `lines`, the pictures and the page."""
    pages = [*sorted(run.folder.glob("*.png")), *run.folder.glob(PAGE)]
    for line in (*skips_text(guard, run.skipped), *lines, *map(str, pages)):
        run.log(line)
