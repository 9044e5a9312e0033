"""The ranks beside this one: who is gone without a word, who does not answer, what each one says.

Each rank posts a heartbeat to a store that all of them see, and its last words. A collective on the
CPU whose peer is gone or stopped fails by itself, and `peer_fault` tells whose fault it is. A GPU's
collective never returns, and torchrun needs 30 s to end a rank that hangs in one; the watch kept
here ends it sooner, and knows whom to name. Imports torch only once there is a group.
"""

import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from runtime.launch.environment import own_rank

if TYPE_CHECKING:
    from torch.distributed import Store

NOTES_FOLDER = "TRAINER_EXIT_NOTES"  # set by dist_train.sh: where each rank leaves its last words
GRACE_S = 8  # a rank whose peer is gone has this long to notice it itself
POLL_S = 0.5
NOTICE_S = 4  # a connection breaks up to this long before its process is gone
BEAT_S = 1.0  # between two heartbeats, in a group of up to BEAT_RANKS; the store's work is bounded
BEAT_RANKS = 32
STALE_BEATS = 6  # a heartbeat is missed for so long before its rank is said to be silent
LAST_CALL_S = 120  # what `before_exit` calls may take this long; a GPU that hangs never answers
FAILED = "failed: "  # begins the last word of a rank that ends with a fault
CANNOT = "cannot go on, "  # begins the line of a rank that a peer stops
GAVE_UP = "gave up: "  # that of one that ends because of another
LEFT = "left"  # the last word of one that ends in good order

_watch: "Watch | None" = None
_last_call: Callable[[], str | None] | None = None


@dataclass(frozen=True)
class Place:
    """Where a rank runs: the machine's name, and the id of its process."""

    host: str
    pid: int


@dataclass(frozen=True)
class Fault:
    """Why this process cannot go on, a peer being the cause.

    is_told: the peer was killed or has said it itself, so that this line is of less weight
    """

    text: str
    is_told: bool


class Note(TypedDict):
    """What a rank leaves to `dist_train.sh`.

    secondary: it ended only because another one did
    """

    status: int
    lines: list[str]
    secondary: bool
    time: float


class _Hold:
    """Sections in which the process is not to be ended."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.ended = 0  # sections that have come to their end
        self.last_caller: int | None = None  # the thread of the last call


_hold = _Hold()


@contextlib.contextmanager
def held() -> Iterator[None]:
    """In it the watch does not end this process, whatever became of its peers: for saving.

    Afterwards the process has GRACE_S again to end by itself.
    """
    if _hold.last_caller == threading.get_ident():
        yield
        return
    with _hold.lock:
        try:
            yield
        finally:
            _hold.ended += 1


def before_exit(callback: Callable[[], str | None] | None) -> None:
    """What the watch calls, once and in its own thread, before it ends a process that hangs.

    callback: returns what the last line is to add, such as "the state after 26 updates is saved:
              FILE", or None; it may take LAST_CALL_S. Replaces the callback before; None: none
    """
    global _last_call
    _last_call = callback


class Heartbeats:
    """What the ranks tell each other through a store.

    A thread of its own does the talking: a store whose machine is cut off never answers.

    rank, world_size: of this process
    store:    of this start of the group alone
    progress: number of collectives that this rank has begun, None once it has left the group

    words:     {rank: its last word}; "" while it goes on
    silent_s:  {rank: seconds without a heartbeat}
    behind_s:  {rank: seconds in which it had begun fewer collectives than this rank, and nothing
               moved}; seconds in which this process itself was stopped do not count
    rounds:    how often the store has answered
    is_cut_off: the store cannot be talked to any more
    """

    def __init__(self, rank: int, world_size: int, store: "Store",
                 progress: Callable[[], int | None]):
        self.beat_s = BEAT_S * max(1, world_size / BEAT_RANKS)
        self.rounds, self.is_cut_off = 0, False
        self._rank, self._store, self._progress = rank, store, progress
        self._others = [other for other in range(world_size) if other != rank]
        self.words = dict.fromkeys(self._others, "")
        self.silent_s = dict.fromkeys(self._others, 0.0)
        self.behind_s = dict.fromkeys(self._others, 0.0)
        self._last = dict.fromkeys(self._others, "")
        self._own: int | None = 0
        self._count = 0
        self._own_word = ""
        self._read_at = time.monotonic()
        self._wake = threading.Event()

    def start(self) -> None:
        """From now on this rank's heart beats."""
        threading.Thread(target=self._run, name="heartbeats", daemon=True).start()

    def say(self, word: str) -> None:
        """Tell the others this rank's last word: LEFT, or FAILED or GAVE_UP and the cause."""
        self._own_word = word
        self.refresh(1.0)  # the thread says it; a store that is cut off must not hold up this one

    def refresh(self, within_s: float) -> None:
        """Wait for what the store says now, at most so long."""
        wanted = self.rounds + 2  # the round that is under way may have begun before
        deadline = time.monotonic() + within_s
        while self.rounds < wanted and not self.is_cut_off and time.monotonic() < deadline:
            self._wake.set()
            time.sleep(0.01)

    def turn(self) -> None:
        """Beat once and hear the others. Raises RuntimeError when the store is gone."""
        own = self._progress()
        self._count += 1
        self._store.set(_key("beat", self._rank), f"{self._count} {-1 if own is None else own}")
        if self._own_word:
            self._store.set(_key("word", self._rank), self._own_word)
        keys = [_key(kind, other) for kind in ("beat", "word") for other in self._others]
        told = [text.decode() for text in self._store.multi_get(keys)]
        now = time.monotonic()
        # Where this process was stopped as well, with its whole job, nothing is known of the time.
        passed_s, self._read_at = min(now - self._read_at, 2 * self.beat_s), now
        beats, words = told[:len(self._others)], told[len(self._others):]
        for other, beat, word in zip(self._others, beats, words, strict=True):
            self._hear(other, beat, word, own, passed_s)
        self._own = own
        self.rounds += 1

    def _hear(self, other: int, beat: str, word: str, own: int | None, passed_s: float) -> None:
        had, self._last[other] = self._last[other], beat
        self.words[other] = word
        self.silent_s[other] = self.silent_s[other] + passed_s if beat == had else 0.0
        done, had_done = (int(text.split()[1]) if text else -1 for text in (beat, had))
        if own is None:  # out of the group, after a fault: what was seen before still counts
            return
        waits = own == self._own and 0 <= done == had_done < own
        self.behind_s[other] = self.behind_s[other] + passed_s if waits else 0.0

    def _run(self) -> None:
        try:
            while True:
                self.turn()
                self._wake.wait(self.beat_s)
                self._wake.clear()
        except RuntimeError:
            self.is_cut_off = True


class Watch:
    """Looks after the other processes of a group.

    script: the name that begins a message
    rank:   this process's
    places: where each rank runs
    beats:  what they say
    timeout_s: a peer that does not answer for so long is given up
    outlived:  the store is the launcher's and outlives every rank; otherwise rank 0 keeps it, and
               once it is gone nothing is known of those who left in good order
    """

    def __init__(self, script: str, rank: int, places: Sequence[Place], beats: Heartbeats,
                 timeout_s: float, outlived: bool = True):
        self._script, self._rank, self._places, self._beats = script, rank, places, beats
        self._timeout_s, self._outlived = timeout_s, outlived
        self._stale_s = STALE_BEATS * beats.beat_s
        self._host = places[rank].host
        self._pids = {other: place.pid for other, place in enumerate(places)
                      if other != rank and place.host == self._host}
        self._cut_off_s = 0.0  # without an answer of the store

    def lost(self) -> list[int]:
        """Ranks of this machine that are gone, neither in good order nor because of another."""
        gone = [rank for rank, pid in self._pids.items() if is_gone(pid)]
        if gone and not all(self._beats.words[rank] for rank in gone):
            self._beats.refresh(1.0)
        if self._beats.is_cut_off and not self._outlived:
            return []
        return [rank for rank in gone if not self._beats.words[rank].startswith((LEFT, GAVE_UP))]

    def start(self) -> None:
        """From now on this process ends GRACE_S after a peer is lost, wherever it hangs."""
        threading.Thread(target=self._run, name="peers", daemon=True).start()

    def say(self, word: str) -> None:
        """Tell the others this process's last word."""
        self._beats.say(word)

    def fault(self, patience_s: float | None = None) -> Fault | None:
        """The peer that this process cannot go on without, and what became of it.

        patience_s: a peer that is silent for so long is one; None: one that misses STALE_BEATS
        """
        patience_s = self._stale_s if patience_s is None else patience_s
        lost = self.lost()  # hears the last words of those who are gone
        for rank, word in self._beats.words.items():
            if word.startswith(FAILED):
                return Fault(f"{CANNOT}rank {rank} failed: {word.removeprefix(FAILED)}", True)
        if lost:
            return Fault(loss_text(lost), True)
        silent = self._longer(self._beats.silent_s, patience_s)
        if silent:
            return Fault(f"{CANNOT}{self._names(silent)} did not answer for "
                         f"{max(self._beats.silent_s[rank] for rank in silent):.0f} s: stopped, "
                         "held up by a file system, or its machine or network is down", False)
        if self._cut_off_s >= patience_s and self._places[0].host != self._host:
            return Fault(f"{CANNOT}{self._names([0])} did not answer for "
                         f"{self._cut_off_s:.0f} s: its machine or the network is down", False)
        for word in self._beats.words.values():
            if word.startswith(GAVE_UP):
                return Fault(CANNOT + word.removeprefix(GAVE_UP), True)
        return None

    def laggard(self, patience_s: float) -> Fault | None:
        """Likewise the rank that all wait for, though its heart beats."""
        behind = self._longer(self._beats.behind_s, patience_s)
        if not behind:
            return None
        return Fault(f"{CANNOT}{self._names(behind)} held up the others for "
                     f"{max(self._beats.behind_s[rank] for rank in behind):.0f} s: it hangs, for "
                     "example in a file system, or has more to do than --dist-timeout allows",
                     False)

    def end_stopped(self) -> None:
        """End the silent ranks of this machine that a signal has stopped: no SIGTERM reaches one.

        A launcher would wait for them for as long as it grants a rank that saves.
        """
        for rank in self._longer(self._beats.silent_s, self._stale_s):
            if process_state(self._pids.get(rank, 0)) == "T":
                with contextlib.suppress(OSError):
                    os.kill(self._pids[rank], signal.SIGKILL)

    def _longer(self, seconds: Mapping[int, float], least: float) -> list[int]:
        return [rank for rank, value in seconds.items()
                if value >= least and not self._beats.words[rank]]

    def _names(self, ranks: list[int]) -> str:
        hosts = {rank: self._places[rank].host for rank in ranks}
        return " and ".join(
            f"rank {rank}" + (f" on {host}" if host != self._host else "")
            for rank, host in hosts.items())

    def _run(self) -> None:
        rounds = self._beats.rounds
        while not self._given_up():
            time.sleep(POLL_S)
            moved = self._beats.rounds != rounds
            rounds = self._beats.rounds
            self._cut_off_s = 0.0 if moved else self._cut_off_s + POLL_S
        self._wait_for_its_own_end()
        self._end()

    def _given_up(self) -> Fault | None:
        """The fault for which this process is to end, wherever it hangs."""
        fault = self.fault(self._timeout_s)
        if self._beats.is_cut_off and not self._outlived:
            return None  # rank 0 may have left in good order; a collective that fails tells
        return fault or self.laggard(self._timeout_s)

    def _wait_for_its_own_end(self) -> None:
        while True:
            ended = _hold.ended
            time.sleep(GRACE_S)
            _hold.lock.acquire()  # for good: nothing may be begun any more
            if _hold.ended == ended:
                return
            _hold.lock.release()

    def _end(self) -> None:
        fault = self._given_up() or Fault(f"{CANNOT}a peer was lost", True)
        saved = _make_last_call()
        line = (f"{self._script}: rank {self._rank}: {fault.text}"
                + (f". {saved}" if saved else ""))
        if not fault.is_told:
            self.end_stopped()
        self.say(GAVE_UP + fault.text.removeprefix(CANNOT))
        if not leave_note(1, [line], secondary=fault.is_told):
            with contextlib.suppress(OSError):
                os.write(2, f"{line}\n".encode())  # the main thread may hold sys.stderr's lock
        os._exit(1)


def watch_peers(
    script: str,
    rank: int,
    places: Sequence[Place],
    store: "Store",
    timeout_s: float,
    progress: Callable[[], int | None],
    outlived: bool,
) -> None:
    """Begin to watch the others of the group; call it once, right after joining (all ranks).

    The arguments are those of `Watch` and `Heartbeats`. A store that cannot be asked for several
    keys at once, such as a file, is not used: then no one is watched.
    """
    global _watch
    if not store.has_extended_api():  # type: ignore[attr-defined]  # not in torch's stubs
        return
    for kind in ("beat", "word"):
        store.set(_key(kind, rank), "")
    for other in range(len(places)):
        store.get(_key("word", other))  # waits until it is there
    beats = Heartbeats(rank, len(places), store, progress)
    beats.start()
    _watch = Watch(script, rank, places, beats, timeout_s, outlived)
    _watch.start()


def say_goodbye() -> None:
    """Tell the others that this process ends in good order."""
    if _watch is not None:
        _watch.say(LEFT)


def say_failed(cause: str, secondary: bool = False) -> None:
    """Tell the others why this process ends, so that their last lines name the cause.

    secondary: it ends only because another rank did
    """
    if _watch is not None:
        is_other = secondary or cause.startswith(CANNOT)
        _watch.say((GAVE_UP if is_other else FAILED) + cause.removeprefix(CANNOT))


def lost_peers(wait: bool = False) -> list[int]:
    """Ranks of this machine that are gone without a word; `wait`: give them NOTICE_S to go."""
    deadline = time.monotonic() + NOTICE_S
    while _watch is not None:
        lost = _watch.lost()
        if lost or not wait or time.monotonic() > deadline:
            return lost
        time.sleep(0.1)
    return []


def peer_fault(wait: bool = False) -> Fault | None:
    """Which peer is to blame for a collective that failed, and why; None: none of them.

    wait: a connection is known to have broken: give it NOTICE_S, or as long as it takes to miss a
          silent peer's heartbeat, until its end is known
    """
    if _watch is None:
        return None
    deadline = time.monotonic() + max(NOTICE_S, _watch._stale_s + 2)
    while True:
        fault = _watch.fault()
        if fault is None and wait and time.monotonic() > deadline:
            fault = _watch.laggard(_watch._stale_s)
        if fault is None and wait and time.monotonic() <= deadline:
            time.sleep(0.1)
            continue
        if fault is not None and not fault.is_told:
            _watch.end_stopped()
        return fault


def loss_text(ranks: list[int]) -> str:
    """Why this process cannot go on without `ranks`."""
    names = " and ".join(f"rank {rank}" for rank in ranks)
    return (f"{CANNOT}{names} ended without a word: killed from outside, or by the system "
            "because memory ran out")


def leave_note(status: int, lines: list[str], secondary: bool = False) -> bool:
    """Leave this process's exit status and last words to `dist_train.sh`, which prints the cause.

    secondary: it ends only because another rank did
    Returns whether there is a `dist_train.sh` that will read them.
    """
    folder, rank = os.environ.get(NOTES_FOLDER), own_rank(os.environ) or "0"
    if not folder or not Path(folder).is_dir():
        return False
    note: Note = {"status": status, "lines": lines, "secondary": secondary, "time": time.time()}
    temporary = Path(folder) / f".{rank}.{os.getpid()}"
    try:
        temporary.write_text(json.dumps(note))
        temporary.rename(Path(folder) / rank)
    except OSError:  # a full disk, for one: the lines are then said here
        return False
    return True


def read_notes(folder: str | Path) -> dict[int, Note]:
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
    return process_state(pid) in ("", "Z", "X")


def process_state(pid: int) -> str:
    """Linux's letter for the state of a process, such as "T" for stopped; "" when there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def _make_last_call() -> str | None:
    """What `before_exit`'s callback returns, in bounded time."""
    last_call = _last_call  # the main thread may replace it meanwhile
    if last_call is None:
        return None
    said: list[str | None] = [
        f"Saving the state took more than {LAST_CALL_S} s and was given up"]

    def call() -> None:
        _hold.last_caller = threading.get_ident()
        try:
            said[0] = last_call()
        except Exception as error:
            said[0] = f"The state could not be saved: {type(error).__name__}: {error}"

    thread = threading.Thread(target=call, name="last-call", daemon=True)
    thread.start()
    thread.join(LAST_CALL_S)
    return said[0]


def _key(kind: str, rank: int) -> str:
    return f"{kind}/{rank}"
