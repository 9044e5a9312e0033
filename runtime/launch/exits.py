"""The end of a process. Imports no torch: a misspelt flag also ends here."""

import atexit
import contextlib
import os
import sys
from typing import NoReturn

_in_group = False


def mark_in_group() -> None:
    """From now on this process belongs to a process group, which `leave` then minds."""
    global _in_group
    _in_group = True


def leave(status: int) -> NoReturn:
    """End this process with `status`.

    After it has joined a group it skips the interpreter's own teardown. Once there was a
    DistributedDataParallel, gloo's threads outlive `destroy_process_group`, and one that lets go of
    a tensor while the interpreter goes down aborts the process: status 134 instead of 0 at the end
    of a run in which all went well.
    """
    if not _in_group:
        sys.exit(status)
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, AttributeError):  # nobody reads, or no stream at all
            stream.flush()
    os._exit(status)
