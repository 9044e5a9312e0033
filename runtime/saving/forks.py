"""Processes are forked only where a thread that writes holds nothing that they would miss.

A forked process has the whole memory of its parent, but of its threads only the one that forked. A
lock that another one held stays locked in it for ever, and what lay in that one's file buffers may
be written twice. So a thread says that it is `writing`, whoever forks waits in `between_writes`,
and the thread lets it go first wherever it holds no lock and its file has nothing buffered: in
`let_forks_pass`, and during `held_by_nobody`.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator

_changed = threading.Condition()
_writing: set[int] = set()  # threads that are not to be forked beside
_forking = 0  # forks that wait or are under way


@contextlib.contextmanager
def writing() -> Iterator[None]:
    """The present thread writes: in it no process is forked, but where the thread allows it."""
    _enter()
    try:
        yield
    finally:
        _leave()


@contextlib.contextmanager
def between_writes() -> Iterator[None]:
    """For whoever forks a process, in it: waits until no thread is in the middle of writing."""
    global _forking
    with _changed:
        _forking += 1
        _changed.wait_for(lambda: not _writing)
    try:
        yield
    finally:
        with _changed:
            _forking -= 1
            _changed.notify_all()


def let_forks_pass(flush: Callable[[], object] = lambda: None) -> None:
    """A thread that is `writing` lets the forks that wait for it go first; others pass through.

    flush: empties the buffers of the file that it writes; called when there is a fork
    """
    if _forking and threading.get_ident() in _writing:
        flush()
        _leave()
        _enter()


@contextlib.contextmanager
def held_by_nobody() -> Iterator[None]:
    """Around a long call of the system, in which a thread that is `writing` can be forked beside.

    Its file has nothing buffered. Other threads pass through.
    """
    if threading.get_ident() not in _writing:
        yield
        return
    _leave()
    try:
        yield
    finally:
        _enter()


def _enter() -> None:
    with _changed:
        _changed.wait_for(lambda: not _forking)
        _writing.add(threading.get_ident())


def _leave() -> None:
    with _changed:
        _writing.discard(threading.get_ident())
        _changed.notify_all()
