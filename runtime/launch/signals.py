"""Stop signals: the first asks the run to stop after its update, the second ends it at once.

Installed before torch is imported, so that a Ctrl-C during the seconds of start-up is not lost;
nothing here imports torch.
"""

import contextlib
import ctypes
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType

from runtime.launch.environment import is_first
from runtime.launch.peers import lost_peers

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
REQUEUE_STATUS = 75  # EX_TEMPFAIL: a queue may start the same command again
INTERRUPT_STATUS = 130  # 128 + SIGINT, as a shell reports Ctrl-C

# coreutils' `timeout` signals its child and then the child's group; torchrun passes on a Ctrl-C
# that the terminal has already delivered to every rank. Such an echo is not a second request.
ECHO_S = 0.3
LAUNCHER_ECHO_S = 1.5

HOURS = "--max-hours"  # in place of a signal's name
_OVER = 1  # ... and of its number; SIGHUP, which has it, is none of the stop signals
STOP_NUMBERS = (_OVER, *map(int, STOP_SIGNALS))  # what `StopSignals.number` may be beside 0

_PR_SET_PDEATHSIG = 1


class Stopped(Exception):
    """The run was stopped by a signal, or its hours were over, and its state is saved.

    `status` is the exit status: 130 after Ctrl-C, 75 after SIGTERM, SIGUSR1 or --max-hours.
    """

    def __init__(self, name: str):
        super().__init__(f"stopped by {name}")
        self.name = name
        self.status = INTERRUPT_STATUS if name == "SIGINT" else REQUEUE_STATUS


class StopSignals:
    """Takes over SIGINT, SIGTERM and SIGUSR1 of the process when made; main thread only.

    `requested` is the name of the stop signal that has arrived, or None.

    message: the line printed on stderr when the first signal arrives, "" for none. Under a launcher
             only rank 0 prints it; one that learns of the signal from others is told by the `Run`.
    max_hours: from now on, after which the run stops as by a signal; None: never

    A thread watches for signals, so the second one also ends a process whose main thread hangs
    in C code, for example in a collective that waits for a dead rank.
    """

    def __init__(self, message: str = "Stopping after this iteration, saving the state...",
                 max_hours: float | None = None):
        self._ends_at = math.inf if max_hours is None else time.monotonic() + 3600 * max_hours
        self.message = message
        self.requested: str | None = None
        self._first_at = 0.0
        self._echo_s = LAUNCHER_ECHO_S if "WORLD_SIZE" in os.environ else ECHO_S
        read_end, write_end = os.pipe()
        os.set_blocking(write_end, False)
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        for number in STOP_SIGNALS:
            signal.signal(number, _wake_watcher_only)
        watcher = threading.Thread(
            target=self._watch, args=(read_end,), name="stop-signals", daemon=True
        )
        watcher.start()

    @property
    def number(self) -> int:
        """Of the stop signal that has arrived; 0 for none; another one when the hours are over.

        Of several ranks' numbers the largest counts: a signal more than the hours.
        """
        if self.requested is not None:
            return signal.Signals[self.requested].value
        return _OVER if time.monotonic() >= self._ends_at else 0

    def _watch(self, read_end: int) -> None:
        while True:
            for number in os.read(read_end, 64):
                # every signal of the process comes here, also the SIGCHLD of data workers
                if number in STOP_SIGNALS:
                    self._arrived(signal.Signals(number))

    def _arrived(self, number: signal.Signals) -> None:
        if self.requested is None:
            self._first_at = time.monotonic()
            self.requested = number.name
            # torchrun also sends SIGTERM because a rank was killed: then there is no iteration
            # to finish, and the end is told elsewhere
            if self.message and is_first(os.environ) and not lost_peers():
                _print_line(self.message)
        elif time.monotonic() - self._first_at > self._echo_s:
            os._exit(128 + number)


def name_of(number: int) -> str:
    """What a number of `StopSignals.number` other than 0 is called."""
    return HOURS if number == _OVER else signal.Signals(number).name


def ignore_in_worker() -> None:
    """In a data worker: leave stop signals to the parent, which ends its workers itself.

    A terminal or a queue signals the whole process group; a worker that died of it would break
    the update that the parent is finishing.
    """
    signal.set_wakeup_fd(-1)
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Processes forked in here see stop signals only after their own `ignore_in_worker`.

    For the caller nothing is lost: the watching thread of `StopSignals` takes them meanwhile.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def die_with_parent(number: signal.Signals, parent_pid: int) -> None:
    """Have the kernel send `number` to this process when its parent ends, however it ends.

    Linux only; elsewhere nothing happens. `parent_pid` is the parent's id as known before the
    call: a parent that is gone already could not be noticed otherwise.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
    if os.getppid() != parent_pid:
        os.kill(os.getpid(), number)


def _wake_watcher_only(number: int, frame: FrameType | None) -> None:
    """A handler must be there for the interpreter to write to the wake-up pipe."""


def _print_line(text: str) -> None:
    # Not through sys.stderr: the main thread may hold its lock. On a terminal the cursor stands
    # behind "^C" or in a progress bar.
    start = "\n" if sys.stderr is not None and os.isatty(2) else ""
    with contextlib.suppress(OSError):  # nobody reads; the run must still stop cleanly
        os.write(2, f"{start}{text}\n".encode())
