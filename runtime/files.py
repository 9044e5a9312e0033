"""Writing files so that a crash leaves either the old one or the new one, never half of one."""

import contextlib
import errno
import glob
import json
import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

from runtime.errors import SaveError
from runtime.saving.forks import held_by_nobody

SPARE_BYTES = 1 << 20  # what a folder's own bookkeeping may take beside the file
Writer = Callable[[BinaryIO], object]


def write_atomically(path: str | Path, write: Writer, needed_bytes: int = 0) -> None:
    """Call `write(file)` on a temporary file beside `path`, then rename it to `path`.

    The folder is made when it is not there. File and folder are flushed to the disk before the
    call returns. On any failure the temporary file is removed and what stood at `path` is as
    before.
    needed_bytes: how large the file will be; less free space than that is refused before writing.
    Raises SaveError naming the file and the reason.
    """
    write_together([(Path(path), write)], needed_bytes)


def write_json(path: str | Path, value: object) -> None:
    """Write a plain value as one line of JSON, atomically. Raises as `write_atomically`."""
    write_text(path, json.dumps(value) + "\n")


def write_text(path: str | Path, text: str, errors: str = "strict") -> None:
    """`write_atomically` of a text in UTF-8; errors: as for `str.encode`."""
    content = text.encode("utf-8", errors)
    write_atomically(path, lambda file: file.write(content))


def write_together(writes: Sequence[tuple[Path, Writer]], needed_bytes: int = 0) -> None:
    """Like `write_atomically`, for files of one folder that belong together.

    All are written in the given order before any is renamed; then the last is renamed first, so
    the first file is there only when the others are. Where they replace files, those but the first
    stay as `kept_path` until all are renamed: whoever dies in between leaves the old ones whole.
    """
    staged: list[tuple[Path, Path]] = []
    path = writes[0][0]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _check_free_space(path.parent, needed_bytes)
        for path, write in writes:
            temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
            staged.append((temporary, path))
            with open(temporary, "w+b") as file:
                write(file)
                file.flush()
                with held_by_nobody():
                    os.fsync(file.fileno())
        _rename(staged)
    except OSError as error:
        raise SaveError(f"{path}: could not be written: {error.strerror or error}") from error
    finally:
        for temporary, _ in staged:
            temporary.unlink(missing_ok=True)


def kept_path(path: Path) -> Path:
    """Where `write_together` keeps the file at `path` while it replaces several."""
    return path.with_name(f".{path.name}.old")


def remove_leftovers(folder: Path, prefix: str = "") -> None:
    """Delete the temporary files that killed processes have left of `prefix`* in `folder`."""
    for path in Path(folder).glob(f".{glob.escape(prefix)}*.tmp"):
        found = re.fullmatch(r"\..+\.(\d+)\.tmp", path.name)
        if found and (int(found[1]) == os.getpid() or not _is_running(int(found[1]))):
            with contextlib.suppress(OSError):
                path.unlink()


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


def _rename(staged: list[tuple[Path, Path]]) -> None:
    """Give the staged files their names; on a failure the old ones are put back."""
    kept = [path for _, path in staged[1:] if _keep(path)]
    try:
        for temporary, path in reversed(staged):
            os.replace(temporary, path)
        flush_folder(staged[0][1].parent)
    except BaseException:
        for path in kept:
            os.replace(kept_path(path), path)
        raise
    finally:
        for path in kept:
            kept_path(path).unlink(missing_ok=True)


def _keep(path: Path) -> bool:
    """Give the file at `path`, if there is one, a second name."""
    kept = kept_path(path)
    kept.unlink(missing_ok=True)
    try:
        os.link(path, kept)
    except FileNotFoundError:
        return False
    except OSError:  # a file system without hard links
        os.replace(path, kept)
    return True


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True
