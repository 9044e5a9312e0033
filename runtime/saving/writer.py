"""What writes checkpoints while the training goes on: one thread, one checkpoint at a time."""

import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from runtime.saving.forks import writing

if TYPE_CHECKING:
    from runtime.saving.copies import Copies


class BackgroundWriter:
    """Writes one thing at a time behind its caller, and hands faults to whoever asks next.

    A fault in the thread is raised, once, by the next `save`, `check` or `wait`. Whoever reads what
    was written, or says that it is there, calls `wait` or `then` before.
    """

    def __init__(self) -> None:
        # the thread that watches the peers asks as well, where the main thread hangs
        self._lock = threading.RLock()
        self._thread = ThreadPoolExecutor(1, "checkpoints")
        self._pending: Future[None] | None = None
        self._after: list[Callable[[], object]] = []
        self._copies: Copies | None = None

    def save(self, write: Callable[[Any], object], content: Any) -> None:
        """Call `write` with a copy of `content` in the thread, after what is being written.

        content: nested dicts, lists and tuples, as `Copies.of`; it may change afterwards
        Where memory is too short for a copy it is written at once.
        Raises what was raised in writing the one before: then this one is not begun.
        """
        from runtime.saving.copies import Copies  # and with it torch

        with self._lock:
            self.wait()
            self._copies = self._copies or Copies()
            try:
                copy = self._copies.of(content)
            except (MemoryError, RuntimeError):  # to write takes next to none
                write(content)
                return
            self._pending = self._thread.submit(_write, write, copy)

    def then(self, call: Callable[[], object]) -> None:
        """Call `call` once all is written: now, or in the thread that `check`s or `wait`s then.

        Never, when it could not be written.
        """
        with self._lock:
            if self._pending is None:
                call()
            else:
                self._after.append(call)

    def check(self) -> None:
        """`wait` for what is written already; does not wait for what is not."""
        pending = self._pending
        if pending is not None and pending.done():
            self.wait()

    def wait(self) -> None:
        """Returns when nothing is being written. Raises what was raised in writing."""
        with self._lock:
            if self._pending is None:
                return
            fault, calls = self._pending.exception(), self._after
            self._pending, self._after = None, []
            if fault is not None:
                raise fault
            for call in calls:
                call()

    def close(self, warn: Callable[[str], object]) -> None:
        """`wait`; where another error is in flight, what it would raise is a line for `warn`."""
        is_failing = sys.exc_info()[1] is not None
        try:
            self.wait()
        except Exception as error:
            if not is_failing:
                raise
            warn(str(error))


def write_behind(
    writer: BackgroundWriter | None, write: Callable[[Any], object], content: Any
) -> None:
    """`writer.save`; without a writer `write(content)` is called at once."""
    if writer is None:
        write(content)
    else:
        writer.save(write, content)


def _write(write: Callable[[Any], object], copy: Any) -> None:
    with writing():
        write(copy)
