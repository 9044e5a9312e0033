"""Standard streams that do not end a training: closed ones, and ones whose reader has gone.

Imports no torch: `--help` passes through this module.
"""

import contextlib
import io
import os
import re
import sys
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


def open_standard_streams() -> None:
    """Make stdin, stdout and stderr usable, whatever the caller has left of them.

    A closed one (`>&-`) becomes the null device: otherwise the next file that is opened, perhaps a
    checkpoint, would get its number, and whatever a library prints to that number. What cannot be
    written (`| head -1` has seen enough, the terminal or the disk is gone) is dropped: log.txt has
    every line of a run. Streams that somebody has put into their place stay.
    """
    for number in (0, 1, 2):
        _fill(number)
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - open as long as the process
        elif stream is getattr(sys, f"__{name}__") and not isinstance(stream, _Patient):
            with contextlib.suppress(OSError):
                stream.flush()
            setattr(sys, name, _Patient(number, stream))


def fold_warnings() -> None:
    """Have Python's warnings, torch's among them, take one line each on stderr from now on.

    Torch's bring its own file and line, the source there, and where in C++ they come from.
    """
    warnings.formatwarning = one_line_warning


def one_line_warning(message: Warning | str, category: type[Warning], filename: str, lineno: int,
                     line: str | None = None) -> str:
    """The text of a warning and its kind in one line; as `warnings.formatwarning`."""
    text = re.sub(r" *\(Triggered internally at [^)]*\)", "", " ".join(str(message).split()))
    return f"{category.__name__}: {text}\n"


def _fill(number: int) -> None:
    try:
        os.fstat(number)
    except OSError:
        null = os.open(os.devnull, os.O_RDWR)
        if null != number:
            os.dup2(null, number)
            os.close(null)
        os.set_inheritable(number, True)


class _Patient(io.TextIOWrapper):
    """Like `stream`, but what cannot be written is dropped."""

    def __init__(self, number: int, stream: io.TextIOWrapper):
        super().__init__(io.BufferedWriter(_PatientFile(number, "w", closefd=False)),
                         encoding=stream.encoding, errors=stream.errors,
                         line_buffering=stream.line_buffering)


class _PatientFile(io.FileIO):
    def write(self, data: "ReadableBuffer", /) -> int:
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes
