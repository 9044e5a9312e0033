"""env.json: what a stranger must know of a run to understand it, and how its sessions went."""

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runtime.files import write_text

MOST_SESSIONS = 100  # that are kept, of a run that was queued again and again
MOST_SAVES = 300  # checkpoints whose iterations are kept
MOST_SHOWN, LONGEST_SHOWN = 6, 40  # changed keys in a line of the log, and letters of a value
MOST_BYTES = 1 << 26  # of an env.json; a larger one is not ours
RUNNING, DONE, STOPPED = "running", "done", "stopped"


class RunFacts:
    """The facts of a run, on rank 0, and their file once `open` was called.

    values: {name: fact}, plain values
    """

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self._path: Path | None = None
        self._began = time.monotonic()

    def add(self, facts: Mapping[str, object]) -> None:
        """Put further facts beside the others; they go to the file with the next `write`."""
        self.values.update(facts)

    def open(self, path: Path, environment: Mapping[str, object], iteration: float | None,
             log_bytes: int) -> None:
        """Write the file for a session that begins.

        iteration: updates behind it; None where the run is a new one
        log_bytes: of the log that are an earlier run's, where the run is a new one
        Raises SaveError.
        """
        before = {} if iteration is None else read_facts(path)
        kept: dict[str, Any] = {name: before[name] for name in ("log_bytes", "saves", "sessions")
                if name in before}
        self.values = {**environment, "log_bytes": log_bytes, **kept,
                       **self.values}
        session = {"time": self.values.get("time"), "command": self.values.get("command"),
                   "start": 0 if iteration is None else iteration, "status": RUNNING}
        earlier = kept.get("sessions")
        earlier = earlier[1 - MOST_SESSIONS:] if isinstance(earlier, list) else []
        self.values["sessions"] = [*earlier, session]
        self._path = path
        self.write()

    def config_line(self, path: Path) -> str:
        """Which config is in force, what it has other than its recipe, and the file with all keys.

        path: of that file
        """
        differs = self.values.get("differs_from_recipe")
        changed = [f"{key} {_short(here)}" for key, (here, _) in (differs or {}).items()]
        more = f" and {len(changed) - MOST_SHOWN} more" if len(changed) > MOST_SHOWN else ""
        changes = f" with {', '.join(changed[:MOST_SHOWN])}{more}" if changed else ""
        name = self.values.get("config") or "of defaults"
        return f"Config {name}{changes}; all keys are in {path}"

    def saved(self, iteration: int, path: Path | str) -> None:
        """A checkpoint lies in `path`."""
        saves = self.values.get("saves")
        saves = saves if isinstance(saves, dict) else {}
        name = os.path.abspath(path)
        saves.pop(name, None)
        newest = list(saves.items())[1 - MOST_SAVES:]
        self.values["saves"] = {**dict(newest), name: iteration}

    def session(self, status: str, reason: str = "") -> None:
        """How the present session is getting on: `RUNNING`, `DONE` or `STOPPED`, and why."""
        if self._path is not None:
            now = {"status": status, "seconds": round(time.monotonic() - self._began, 1)}
            self.values["sessions"][-1] |= now | ({"reason": reason} if reason else {})

    def write(self) -> None:
        """Bring the file up to date. Raises SaveError."""
        if self._path is not None:
            text = json.dumps(self.values, indent=2, default=str) + "\n"
            write_text(self._path, text)


def read_facts(path: Path) -> dict[str, Any]:
    """The facts of an env.json; none where it is missing, damaged or far too large."""
    try:
        if path.stat().st_size > MOST_BYTES:
            return {}
        found = json.loads(path.read_text(encoding="utf-8", errors="replace"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _short(value: object) -> str:
    """A value in a line: a path's end says more than its beginning."""
    text = json.dumps(value, default=str) if isinstance(value, (list, dict)) else str(value)
    return text if len(text) <= LONGEST_SHOWN else f"...{text[-LONGEST_SHOWN:]}"
