"""The classification original's own way to start: a process for each GPU of every node.

    python train_resnest.py --world-size 2 --rank 0 --dist-url tcp://first.node:23456

`--world-size` counts nodes, `--rank` is the node's number. torchrun and srun do without this.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

from runtime.errors import InputError
from runtime.launch.environment import own_rank
from runtime.launch.signals import INTERRUPT_STATUS, REQUEUE_STATUS, StopSignals

DEFAULT_URL = "tcp://localhost:23456"  # the original's
PLACED = "DIST_URL"  # in the environment of a process that has its place among the ranks
PARENT = "TRAINER_PARENT"  # id of the process that started the ranks of its node
POLL_S = 0.05
GRACE_S = 5.0  # for the other ranks, after one has failed


def start_ranks(
    stop: StopSignals | None,
    per_node: int,
    nodes: int = 1,
    node_rank: int = 0,
    url: str = DEFAULT_URL,
    command: Sequence[str] | None = None,
) -> int | None:
    """Give this process its place among `nodes` x `per_node` ranks, or start its node's ranks.

    per_node: processes of each node, one for each GPU; 1 without a GPU
    url:      where the ranks meet: tcp://HOST:PORT of the first node, env:// or file://PATH. On a
              single node the default becomes a free port, so that two runs do not collide
    command:  what the ranks run; None is this process's own command line

    None: go on in this process. Otherwise the exit status of the ranks, which have ended: 0, or
    that of the first one that failed or was stopped; stop signals are passed on to them.
    Raises InputError when the numbers or the address are wrong, or torchrun is at work as well.
    """
    env = os.environ
    if PLACED in env:
        return None
    _check(nodes, node_rank, url)
    if nodes > 1 and ("RANK" in env or "WORLD_SIZE" in env):
        raise InputError(f"--world-size {nodes}: the processes were started already (RANK and "
                         "WORLD_SIZE are set); leave the flag out")
    if nodes == 1 and (per_node == 1 or _is_launched(env)):
        return None
    if nodes == 1 and url == DEFAULT_URL:
        url = f"tcp://127.0.0.1:{_free_port()}"
    places = [_place(nodes * per_node, node_rank * per_node + i, i, per_node, url)
              for i in range(per_node)]
    if per_node == 1:
        env.update(places[0])
        return None
    if stop is not None:
        stop.message = ""  # rank 0 says it
    command = command or [sys.executable, *sys.orig_argv[1:]]
    parent = {PARENT: str(os.getpid())}
    ranks = [subprocess.Popen(command, env={**env, **place, **parent}) for place in places]
    try:
        return _wait(ranks, stop)
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()


def _check(nodes: int, node_rank: int, url: str) -> None:
    if not 0 <= node_rank < nodes:
        raise InputError(f"--rank {node_rank}: --world-size says {nodes} nodes, so give "
                         f"0 to {nodes - 1}")
    if not re.fullmatch(r"tcp://(\[[^\]]+\]|[^:/]+):\d+|env://|file://.+", url):
        raise InputError(f"--dist-url {url}: want tcp://HOST:PORT, env:// or file://PATH")


def _is_launched(env: Mapping[str, str]) -> bool:
    return own_rank(env) is not None or "WORLD_SIZE" in env


def _place(
    world_size: int, rank: int, local_rank: int, local_world_size: int, url: str
) -> dict[str, str]:
    numbers = {"WORLD_SIZE": world_size, "RANK": rank, "LOCAL_RANK": local_rank,
               "LOCAL_WORLD_SIZE": local_world_size}
    return {name: str(number) for name, number in numbers.items()} | {PLACED: url}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait(ranks: list[subprocess.Popen], stop: StopSignals | None) -> int:
    """Until all have ended; the first status that is not 0."""
    first, kill_at, passed_on = 0, None, False
    while True:
        alive = [rank for rank in ranks if rank.poll() is None]
        if not first:
            first = next((rank.returncode for rank in ranks if rank.returncode), 0)
            if first and first not in (REQUEUE_STATUS, INTERRUPT_STATUS):
                _signal_all(alive, signal.SIGTERM)  # they would wait for the lost one
                kill_at = time.monotonic() + GRACE_S
        if not alive:
            return 128 - first if first < 0 else first  # ended by a signal: as a shell has it
        if stop is not None and stop.requested and not passed_on:
            _signal_all(alive, signal.Signals[stop.requested])
            passed_on = True
        if kill_at is not None and time.monotonic() > kill_at:
            _signal_all(alive, signal.SIGKILL)
        time.sleep(POLL_S)


def _signal_all(ranks: list[subprocess.Popen], number: int) -> None:
    for rank in ranks:
        rank.send_signal(number)
