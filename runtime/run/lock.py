"""The lock of a run folder: two trainings in one folder would overwrite each other's files.

It is the operating system's own lock on a hidden file, so a process that dies leaves it free.
Evaluation and export take none: they read, and append whole lines.
"""

import contextlib
import errno
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

from runtime.errors import InputError, SaveError
from runtime.files import remove_leftovers

NAME = ".lock"
WAIT_S = 5.0  # a process that is being ended by its launcher may need a moment
POLL_S = 0.1
# what file systems without locks answer
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)
_HELD = (errno.EACCES, errno.EAGAIN)


class RunLocks:
    """The locks that one training holds.

    warn: called with a line where a file system has no locks

    POSIX record locks: they belong to the process alone, not to the loader's workers that may
    outlive it for a moment, and network disks know them.
    """

    def __init__(self, warn: Callable[[str], None]):
        self._warn = warn
        self._held: dict[Path, int] = {}  # file descriptors

    def take(self, file: Path, wait_s: float | None = None) -> None:
        """Hold the lock file `file`; makes its folder. Half-written files of dead runs go.

        file:   `.lock` in a folder, or `.NAME.lock` for the files NAME_* in it
        wait_s: how long to wait for another process to let go of it; None: WAIT_S
        Raises InputError naming folder and process when another training holds it, SaveError when
        the file cannot be written.
        """
        file = Path(os.path.abspath(file))
        if file in self._held:
            return
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            deadline = time.monotonic() + (WAIT_S if wait_s is None else wait_s)
            self._held[file] = self._acquire(file, deadline)
        except OSError as error:
            reason = error.strerror or error
            raise SaveError(f"{file.parent}: could not be written: {reason}") from error
        remove_leftovers(file.parent, file.name.removesuffix("lock").strip("."))

    def release(self) -> None:
        """Give all of them back, and remove their files."""
        for file, handle in self._held.items():
            with contextlib.suppress(OSError):
                if fcntl is not None and _is_same(file, handle):
                    file.unlink()
            os.close(handle)  # which unlocks
        self._held = {}

    def _acquire(self, file: Path, deadline: float) -> int:
        while True:
            handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                if fcntl is None:
                    raise OSError(errno.ENOSYS, "no locks on this system")
                fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in _NO_LOCKS:
                    self._warn(f"{file.parent}: the file system has no locks ({error.strerror}): "
                               "nothing keeps a second training from writing there")
                    return handle
                holder = os.pread(handle, 1000, 0).decode(errors="replace").strip()
                os.close(handle)
                if error.errno not in _HELD:
                    raise
                if time.monotonic() >= deadline:
                    raise InputError(_refusal(file, holder)) from None
                time.sleep(POLL_S)
                continue
            if _is_same(file, handle):  # else the holder has just removed it
                os.ftruncate(handle, 0)
                os.pwrite(handle, _describe().encode(), 0)
                return handle
            os.close(handle)


def is_held(file: Path) -> bool:
    """Whether another process holds the lock file."""
    if fcntl is None:
        return False
    try:
        handle = os.open(file, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in _HELD
    finally:
        os.close(handle)
    return False


def _refusal(file: Path, holder: str) -> str:
    of_whom = file.name.removesuffix("lock").strip(".")
    what = f"{of_whom} in {file.parent}" if of_whom else f"{file.parent}"
    return (f"{what}: another training writes there: {holder or 'its process is not known'}. "
            "Wait for its end or stop it, or name another folder.")


def _describe() -> str:
    since = time.strftime("%Y-%m-%d %H:%M:%S %z")
    return f"process {os.getpid()} on {socket.gethostname()}, since {since}\n"


def _is_same(file: Path, handle: int) -> bool:
    try:
        return os.path.samestat(os.stat(file), os.fstat(handle))
    except FileNotFoundError:
        return False
