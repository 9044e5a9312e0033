"""Runs a script as ranks of one group, as torchrun does, in forks of this process.

    python tests/forked_ranks.py COUNT SCRIPT WORDS...

For tests of what the ranks compute: where this process is itself a fork that has torch in memory,
nothing is imported again. A rank that fails ends the others, and its status is this process's.
What torchrun itself does when ranks fail is tested with torchrun, in tests/faults.
"""

import os
import signal
import socket
import sys

from preloaded import become


def main():
    count, words = int(sys.argv[1]), sys.argv[2:]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    running = {_fork(rank, count, port, words) for rank in range(count)}

    def pass_on(number, _):
        for pid in running:
            os.kill(pid, number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, pass_on)
    status = 0
    while running:
        pid, ended = os.wait()
        running.discard(pid)
        code = os.waitstatus_to_exitcode(ended)
        if code and not status:
            status = code if code > 0 else 128 - code
            for other in running:
                os.kill(other, signal.SIGTERM)
    sys.exit(status)


def _fork(rank, count, port, words):
    """The process id of a rank. In the rank itself it does not return."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        os.environ |= {
            "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count),
            "LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        become(words)
    return pid


if __name__ == "__main__":
    main()
