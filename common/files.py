"""Writing a file so that a crash leaves either the old one or the new one, never half of one."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from common.errors import SaveError

SPARE_BYTES = 1 << 20  # what a folder's own bookkeeping may take beside the file


def write_atomically(
    path: str | Path, write: Callable[[BinaryIO], object], needed_bytes: int = 0
) -> None:
    """Call `write(file)` on a temporary file beside `path`, then rename it to `path`.

    The file and its folder are flushed to the disk before the call returns. On any failure the
    temporary file is removed and what stood at `path` is as before.
    needed_bytes: how large the file will be; less free space than that is refused before writing.
    Raises SaveError naming the file and the reason.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        _check_free_space(path.parent, needed_bytes)
        with open(temporary, "w+b") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        flush_folder(path.parent)
    except OSError as error:
        raise SaveError(f"{path}: could not be written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def flush_folder(folder: Path) -> None:
    """Make the folder's list of names durable: a rename alone may be lost with the power."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network disks cannot do it
            raise
    finally:
        os.close(handle)


def _check_free_space(folder: Path, needed_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed_bytes and free < needed_bytes + SPARE_BYTES:
        text = f"{needed_bytes / 1e6:.0f} MB needed, {free / 1e6:.0f} MB free"
        raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)} ({text})")
