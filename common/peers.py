"""The ranks beside this one on the machine: who is gone without a word, and what each one says.

torchrun needs 30 s to end a rank that hangs in a GPU collective because its peer was killed; the
watch kept here ends it sooner, and knows whom to name. Imports torch only once there is a group.
"""

import contextlib
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

NOTES_FOLDER = "TRAINER_EXIT_NOTES"  # set by dist_train.sh: where each rank leaves its last words
GRACE_S = 8  # a rank whose peer is gone has this long to notice it itself
POLL_S = 0.5
NOTICE_S = 4  # a connection breaks up to this long before its process is gone

_watch: "Watch | None" = None


class Watch:
    """Looks after the other processes of a group.

    script: the name that begins a message
    rank:   this process's
    pids:   {rank: process id} of the others on this machine
    store:  with `set` and `check`, as torch's: keeps the words of those who end in good order
    """

    def __init__(self, script: str, rank: int, pids: Mapping[int, int], store: Any):
        self._script, self._rank, self._pids, self._store = script, rank, dict(pids), store

    def lost(self) -> list[int]:
        """Ranks that are gone without having left."""
        return [rank for rank, pid in self._pids.items() if is_gone(pid) and not self._left(rank)]

    def start(self) -> None:
        """From now on this process ends GRACE_S after a peer is lost, wherever it hangs."""
        threading.Thread(target=self._run, name="peers", daemon=True).start()

    def say_goodbye(self) -> None:
        """Tell the others that this process ends in good order."""
        with contextlib.suppress(RuntimeError):  # torchrun is gone: nobody to tell
            self._store.set(_key(self._rank), "left")

    def _left(self, rank):
        try:
            return self._store.check([_key(rank)])
        except RuntimeError:  # the launcher that keeps the words is gone as well
            return False

    def _run(self):
        while not self.lost():
            time.sleep(POLL_S)
        time.sleep(GRACE_S)
        if not leave_note(1, [loss_text(self.lost())], secondary=True):
            line = f"{self._script}: rank {self._rank}: {loss_text(self.lost())}\n"
            with contextlib.suppress(OSError):
                os.write(2, line.encode())  # the main thread may hold sys.stderr's lock
        os._exit(1)


def watch_peers(script: str, rank: int, address: str, port: int, timeout_s: float) -> None:
    """Begin to watch the others of torchrun's group; call it once, right after joining (all ranks).

    address, port: of the store that torchrun keeps
    """
    global _watch
    from datetime import timedelta

    import torch.distributed as dist

    own = (socket.gethostname(), os.getpid())
    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, own)
    pids = {r: pid for r, (host, pid) in enumerate(everyone) if host == own[0] and r != rank}
    store = dist.TCPStore(address, port, timeout=timedelta(seconds=timeout_s))
    _watch = Watch(script, rank, pids, store)
    _watch.start()


def say_goodbye() -> None:
    """Tell the others that this process ends in good order."""
    if _watch is not None:
        _watch.say_goodbye()


def lost_peers(wait: bool = False) -> list[int]:
    """Ranks of this machine that are gone without a word; `wait`: give them NOTICE_S to go."""
    deadline = time.monotonic() + NOTICE_S
    while _watch is not None:
        lost = _watch.lost()
        if lost or not wait or time.monotonic() > deadline:
            return lost
        time.sleep(0.1)
    return []


def loss_text(ranks: list[int]) -> str:
    """Why this process cannot go on without `ranks`."""
    names = " and ".join(f"rank {rank}" for rank in ranks)
    return (f"cannot go on, {names} ended without a word: killed from outside, or by the system "
            "because memory ran out")


def leave_note(status: int, lines: list[str], secondary: bool = False) -> bool:
    """Leave this process's exit status and last words to `dist_train.sh`, which prints the cause.

    secondary: it ends only because another rank did
    Returns whether there is a `dist_train.sh` to read them.
    """
    folder, rank = os.environ.get(NOTES_FOLDER), os.environ.get("RANK", "0")
    if not folder or not Path(folder).is_dir():
        return False
    note = {"status": status, "lines": lines, "secondary": secondary, "time": time.time()}
    temporary = Path(folder) / f".{rank}.{os.getpid()}"
    temporary.write_text(json.dumps(note))
    temporary.rename(Path(folder) / rank)
    return True


def read_notes(folder: str | Path) -> dict[int, dict[str, Any]]:
    """{rank: note} of what the ranks of this machine have left."""
    files = (path for path in Path(folder).iterdir() if path.name.isdecimal())
    return {int(path.name): json.loads(path.read_text()) for path in files}


def is_gone(pid: int) -> bool:
    """Whether the process has ended; a zombie has."""
    if sys.platform != "linux":
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        return False
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def _key(rank):
    return f"trainers/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}/left/{rank}"
