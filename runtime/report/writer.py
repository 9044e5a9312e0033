"""Writes report.html of a run, again and again while it goes on."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from runtime.files import write_text
from runtime.report.families import family_of
from runtime.report.history import History
from runtime.report.log_lines import Warnings
from runtime.report.page import page
from runtime.report.pictures import Pictures

PAGE = "report.html"


class Report:
    """The page of the run in `folder`.

    facts: what env.json says, kept up to date by the run
    warn:  takes a line when the page cannot be made; never more than one in a session
    """

    def __init__(self, folder: Path, facts: Mapping[str, Any], warn: Callable[[str], None]):
        self._folder, self._facts, self._warn = folder, facts, warn
        self._family = family_of(facts.get("script"))
        self._history = History(folder / "metrics.jsonl", self._family.leading)
        start = facts.get("log_bytes")
        self._warnings = Warnings(folder / "log.txt", start if isinstance(start, int) else 0)
        self._pictures = Pictures(folder)
        self._has_failed = False

    def write(
        self, before: Callable[[], object] = lambda: None, tells_faults: bool = True
    ) -> None:
        """Call `before`, and write the page from what lies in the folder now.

        No fault is raised: a run is not to end because of its page. The page that was there stays.
        tells_faults: whether a fault is warned of
        """
        try:
            before()
            self._history.read()
            self._warnings.read()
            text = page(self._folder, self._facts, self._family, self._history, self._warnings,
                        self._pictures.read())
            write_text(self._folder / PAGE, text, "backslashreplace")
        except Exception as error:
            if tells_faults and not self._has_failed:
                self._has_failed = True
                self._warn(f"{self._folder / PAGE} is not up to date; nothing else is affected: "
                           f"{type(error).__name__}: {error}")
