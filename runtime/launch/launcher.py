"""What `dist_train.sh` runs: one training process per GPU through torchrun, and a clean end.

torchrun ends a failed job with pages that hide the cause, and with status 1 whatever it was. Here
the ranks leave their last words in a folder (runtime/launch/peers.py), and the one that matters is
printed last; the exit status is that rank's own.
"""

import ast
import contextlib
import logging
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from runtime.console import open_standard_streams
from runtime.errors import InputError
from runtime.launch.environment import cores
from runtime.launch.peers import NOTES_FOLDER, Note, read_notes

PROJECT = Path(__file__).resolve().parents[2]
DEFAULT_PORT = 29500
DEFAULT_SCRIPT = "train_queryinst.py"
SHUTDOWN_S = 600  # how long ranks may take to save after a stop signal
PORT_TAKEN = -1  # in place of an exit status: the job did not start
NAME = "dist_train"
USAGE = """\
Trains with several processes on a machine, one per GPU (without GPUs: on its CPU cores).

    dist_train.sh CONFIG GPUS [options of train_queryinst.py]
    dist_train.sh SCRIPT GPUS [options of SCRIPT]      SCRIPT is train_yolact.py, train_seg.py, ...

    CUDA_VISIBLE_DEVICES=0,1,9 ./dist_train.sh queryinst_r50_fpn_1x_coco 3 --resume
    PORT=29501 ./dist_train.sh train_yolact.py 4 --config yolact_base --batch_size 32

Environment:
    PORT         of the first machine; 29500, or a free one when that is taken
    NNODES       machines, 1; start the same line on each, with the same PORT
    NODE_RANK    number of this machine, from 0
    MASTER_ADDR  address of machine 0; 127.0.0.1
    PYTHON       the interpreter

Exit status: 0 done, 2 bad input, 3 could not write, 75 stopped by SIGTERM, SIGUSR1 or
--max-hours with the state saved, 130 Ctrl-C with the state saved, 1 anything else."""


@dataclass(frozen=True)
class Command:
    """What was asked for: what to start, and where this machine stands among the others."""

    script: Path
    arguments: list[str]
    processes: int
    nodes: int
    node_rank: int
    address: str
    port: int | None  # None: not said

    @property
    def name(self) -> str:
        """How the script's messages begin."""
        return self.script.stem


def main() -> NoReturn:
    """Run the command line; ends the process."""
    open_standard_streams()
    words = sys.argv[1:]
    if not words or words[0] in ("-h", "--help"):
        print(USAGE)
        sys.exit(0 if words else 2)
    try:
        command = read_command(words, os.environ)
        port = pick_port(command)
    except InputError as error:
        for line in error.faults:
            print(f"{NAME}: {line}", file=sys.stderr)
        sys.exit(2)
    sys.exit(launch(command, port))


def read_command(words: list[str], env: Mapping[str, str]) -> Command:
    """The command line and the environment. Raises InputError with every fault."""
    faults: list[str] = []
    what, count, *rest = [*words, ""] if len(words) == 1 else words
    script = script_of(what) or PROJECT / DEFAULT_SCRIPT
    if script_of(what) is None:
        rest = [what, *rest]
    if not script.is_file():
        faults.append(f"{what}: no such script")
    if not count.isdecimal() or int(count) < 1:
        faults.append(f"GPUS: {count or 'nothing'} is no number of processes; want "
                      "dist_train.sh CONFIG GPUS [options], for example dist_train.sh "
                      f"{what} 4")
        count = "1"
    numbers: dict[str, int] = {}
    for name, default, least in (("NNODES", "1", 1), ("NODE_RANK", "0", 0), ("PORT", "", 1)):
        text = env.get(name) or default
        if text and not (text.isdecimal() and least <= int(text) < 65536):
            faults.append(f"{name}={text}: want a whole number, at least {least}")
            text = default
        if text:
            numbers[name] = int(text)
    if numbers["NODE_RANK"] >= numbers["NNODES"]:
        faults.append(f"NODE_RANK={numbers['NODE_RANK']}: with NNODES={numbers['NNODES']} machines "
                      f"it is 0 to {numbers['NNODES'] - 1}")
    if faults:
        raise InputError(faults)
    return Command(script, rest, int(count), numbers["NNODES"], numbers["NODE_RANK"],
                   env.get("MASTER_ADDR") or "127.0.0.1", numbers.get("PORT"))


def script_of(word: str) -> Path | None:
    """The script that the first word names, None for a config.

    One of this project, or a program of the user's that is called train_x.py. A config may be
    called so as well: it imports nothing but other configs.
    """
    if not re.fullmatch(r"(.*/)?train_\w+\.py", word):
        return None
    given, own = Path(word), PROJECT / Path(word).name
    if not given.is_file() or given.resolve() == own.resolve():
        return own
    return given if _is_program(given) else None


def _is_program(path: Path) -> bool:
    """Whether a Python file imports modules at its top; what cannot be read is no program."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd escapes in its text
            body = ast.parse(path.read_bytes()).body
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return any(isinstance(node, ast.Import) for node in body)


def pick_port(command: Command) -> int:
    """The port where the processes meet.

    One that was asked for must be free on machine 0; without one, 29500 or another free one on a
    single machine, and 29500 with several, which must agree. Raises InputError when it is taken.
    """
    port = command.port or DEFAULT_PORT
    if command.node_rank > 0 or is_free(port):
        return port
    if command.port is None and command.nodes == 1:
        return other_port(port)
    raise InputError(_taken(port))


def other_port(taken: int) -> int:
    """A free port, said in one line."""
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("", 0))
        free = probe.getsockname()[1]
    print(f"{NAME}: port {taken} is taken by another job; using {free} (PORT chooses one)",
          flush=True)
    return free


def is_free(port: int) -> bool:
    """Whether this machine can listen at the port on all its addresses."""
    with contextlib.closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
            probe.listen(1)
        except OSError:
            return False
        return True


def launch(command: Command, port: int) -> int:
    """Train; returns the exit status, after the one line that tells the cause of a failure."""
    notes = tempfile.mkdtemp(prefix="dist_train-")
    try:
        status = _launch(command, port, notes)
        while status == PORT_TAKEN:  # by a job that started at the same moment
            if command.port is not None or command.nodes > 1:
                print(f"{NAME}: {_taken(port)}", file=sys.stderr)
                return 2
            port = other_port(port)
            status = _launch(command, port, notes)
        return status
    finally:
        shutil.rmtree(notes, ignore_errors=True)


def _launch(command: Command, port: int, notes: str) -> int:
    os.environ[NOTES_FOLDER] = notes
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores() // command.processes)))
    # read by torchrun's parser, where it has these options
    os.environ["PET_SIGNALS_TO_HANDLE"] = "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"
    os.environ["PET_SHUTDOWN_TIMEOUT"] = str(SHUTDOWN_S)

    import torch.distributed as dist
    from torch.distributed import run as torchrun
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    logging.disable(logging.ERROR)  # this process only launches; what matters is printed below
    failures: dict[int, int] = {}
    signalled: int | None = None
    try:
        torchrun.run(torchrun.parse_args([
            "--nnodes", str(command.nodes), "--node-rank", str(command.node_rank),
            "--nproc-per-node", str(command.processes), "--master-addr", command.address,
            "--master-port", str(port), "--log-dir", notes,
            str(command.script), *command.arguments]))
    except ChildFailedError as error:
        failures = {rank: failure.exitcode for rank, failure in error.failures.items()}
    except SignalException as error:
        signalled = error.sigval
    except (dist.DistNetworkError, dist.DistStoreError) as error:
        if "EADDRINUSE" in str(error):
            return PORT_TAKEN
        print(f"{NAME}: no machine 0 at {command.address} port {port}: check MASTER_ADDR and PORT, "
              f"and that all {command.nodes} machines were started", file=sys.stderr)
        return 2
    status, lines = outcome(command.name, read_notes(notes), failures, signalled)
    for line in lines:
        print(line, file=sys.stderr, flush=True)
    return status


def outcome(
    name: str,
    notes: Mapping[int, Note],
    exit_codes: Mapping[int, int],
    signalled: int | None,
) -> tuple[int, list[str]]:
    """(exit status, the last lines to print) of a job that has ended.

    notes:      {rank: what it left}
    exit_codes: {rank: exit code} of the ranks that failed; negative: the signal that ended it
    signalled:  the stop signal that came to the launcher, if one did
    """
    first = sorted((note for note in notes.values() if note["lines"] and not note["secondary"]),
                   key=lambda note: note["time"])
    if first:
        return first[0]["status"], first[0]["lines"]
    # torchrun itself ends the survivors of a failure by SIGTERM, and by SIGKILL after a while
    killed = {rank: -code for rank, code in exit_codes.items() if code < 0 and rank not in notes}
    causes = {r: s for r, s in killed.items() if s != signal.SIGTERM} or killed
    for rank, number in sorted(causes.items()):
        return 1, [f"{name}: rank {rank}: {_death(number)}"]
    statuses = [note["status"] for note in notes.values()]
    secondary = [note for note in notes.values() if note["secondary"]]
    if secondary:
        return 1, secondary[0]["lines"]
    for rank, code in sorted(exit_codes.items()):
        if rank not in notes:
            return 1, [f"{name}: rank {rank}: ended with status {code}"]
    if statuses:
        return max(statuses), []
    return (128 + signalled, []) if signalled else (0, [])


def _death(number: int) -> str:
    name = signal.Signals(number).name
    if number == signal.SIGKILL:
        return (f"killed by {name}: from outside, or by the system because memory ran out. "
                "--resume goes on from the last checkpoint")
    return f"ended by {name}"


def _taken(port: int) -> str:
    return (f"port {port} is taken by another program: set PORT to a free one, for example "
            f"PORT={port + 1}")
