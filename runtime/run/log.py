"""A run's lines: on the console as the originals print them, and the same in log.txt.

The package logs through `logging.getLogger(__name__)`; here are the handlers, owned by the run and
removed with it. The root logger is left alone.
"""

import contextlib
import copy
import logging
import sys
import time
from collections.abc import Sequence

from tqdm import tqdm

from runtime.run.files import LineFile

PACKAGES = ("common", "data", "metrics", "models")  # whose loggers a run's log shows


class RunLog:
    """Console and log.txt of one process.

    Rank 0 shows everything, information on stdout and warnings on stderr. Other ranks show only
    warnings, which name the rank. Lines that come before `open_file` go to the file as well.

    clock: begin each line with [MM/DD HH:MM:SS], as the classification original does
    """

    def __init__(self, script: str, rank: int, clock: bool = False):
        self._logger = logging.getLogger(script)
        self._level = logging.INFO if rank == 0 else logging.WARNING
        self._console = _ConsoleHandler(self._level)
        self._file = _FileHandler(self._level)
        for handler in (self._console, self._file):
            handler.setFormatter(_Formatter("" if rank == 0 else f"rank {rank}: ", clock))
        self._loggers = [self._logger, *map(logging.getLogger, PACKAGES)]
        for logger in self._loggers:
            logger.setLevel(self._level)
            logger.addHandler(self._console)
            logger.addHandler(self._file)

    def info(self, text: str, folded: str | None = None) -> None:
        """folded: what a terminal shows in place of `text`, a line too long to read there"""
        self._logger.info("%s", text, extra={"folded": folded})

    def warning(self, text: str) -> None:
        self._logger.warning("%s", text)

    def open_file(self, *files: LineFile) -> None:
        """Write to `files` from now on, beginning with the lines so far."""
        self._file.open(files)

    def progress(self, total: int, initial: int, what: str) -> tqdm:
        """A progress bar that stays below the lines; a silent one away from a terminal.

        what: is written before it
        """
        visible = self._level == logging.INFO and sys.stderr.isatty()
        bar = tqdm(
            desc=what or None, total=total, initial=initial, disable=not visible,
            dynamic_ncols=True, leave=False
        )
        self._console.bar = bar if visible else None
        return bar

    def close(self) -> None:
        if self._console.bar is not None:
            self._console.bar.close()
        for logger in self._loggers:
            logger.removeHandler(self._console)
            logger.removeHandler(self._file)
            logger.setLevel(logging.NOTSET)
        self._file.close()


class _Formatter(logging.Formatter):
    def __init__(self, prefix: str, clock: bool):
        super().__init__()
        self._prefix, self._clock = prefix, clock

    def format(self, record: logging.LogRecord) -> str:
        kind = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        at = time.localtime(record.created)
        clock = time.strftime("[%m/%d %H:%M:%S] ", at) if self._clock else ""
        return f"{clock}{self._prefix}{kind}{super().format(record)}"


class _ConsoleHandler(logging.Handler):
    def __init__(self, level: int):
        super().__init__(level)
        self.bar: tqdm | None = None

    def emit(self, record: logging.LogRecord) -> None:
        stream = sys.stdout if record.levelno < logging.WARNING else sys.stderr
        folded = getattr(record, "folded", None)
        if folded is not None and stream.isatty():
            record = copy.copy(record)
            record.args = (folded,)
        encoding = stream.encoding or "utf-8"
        # a file name may hold bytes that the terminal cannot show; no reason to end a training
        text = self.format(record).encode(encoding, "backslashreplace").decode(encoding)
        # nobody may read any more; the run goes on and log.txt has every line
        with contextlib.suppress(OSError):
            if self.bar is not None:
                self.bar.write(text, file=stream)
            else:
                stream.write(text + "\n")
            stream.flush()


class _FileHandler(logging.Handler):
    def __init__(self, level: int):
        super().__init__(level)
        self._files: Sequence[LineFile] | None = None
        self._early: list[str] = []

    def open(self, files: Sequence[LineFile]) -> None:
        self._files = files
        for text in self._early:
            self._write(text)
        self._early = []

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        if self._files is None:
            self._early.append(text)
        else:
            self._write(text)

    def close(self) -> None:
        for file in self._files or ():
            file.close()
        super().close()

    def _write(self, text: str) -> None:
        for file in self._files or ():
            file.write(text)  # SaveError ends the run: the disk is full or gone
