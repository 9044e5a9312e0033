"""Where this process stands among its peers, and how it joins them: torchrun, SLURM, or alone."""

import json
import os
import re
import signal
import socket
import time
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from runtime.errors import InputError
from runtime.launch.environment import cores
from runtime.launch.exits import mark_in_group
from runtime.launch.meeting import agree
from runtime.launch.peers import Place, watch_peers
from runtime.launch.signals import die_with_parent
from runtime.launch.spawn import PARENT, PLACED

DEFAULT_PORT = "29500"  # torchrun's, and that of MMDetection's launch scripts
TIMEOUT_S = 600.0  # for a peer that does not answer
JOIN_TRIES = 3
# NCCL's own end of a process is an abort with a page of C++; the watch of the peers comes before
NCCL_MARGIN_S = 60
_TOGETHER = ContextVar("_TOGETHER", default=True)


@dataclass(frozen=True)
class Launch:
    """A process's place in its group, as the launcher describes it."""

    launcher: str = "none"  # "none", "torchrun" or "slurm"
    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1
    address: str = ""  # of rank 0's machine; empty when alone
    port: int = 0
    meeting: str = ""  # where the ranks meet, as torch's init_method; empty: at address and port


def read_launch(env: Mapping[str, str]) -> Launch:
    """The launch that the environment variables describe; alone when there are none.

    torchrun: RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT; a process
    that `runtime.launch.spawn` placed has DIST_URL instead of the last two.
    srun: SLURM_PROCID, SLURM_NTASKS (the step's count when there is one), SLURM_LOCALID; the
    address is MASTER_ADDR or the first host of SLURM_NODELIST, the port MASTER_PORT or 29500.
    Raises InputError naming the variable that is missing or malformed.
    """
    if "RANK" in env or "WORLD_SIZE" in env:
        return _read_torchrun(env)
    if "SLURM_PROCID" in env and _number(env, "SLURM_NTASKS", "1") > 1:
        return _read_slurm(env)
    return Launch()


def computes_together() -> bool:
    """Whether numbers have to be added up over several ranks: not inside of `by_itself`."""
    return (_TOGETHER.get() and dist.is_available() and dist.is_initialized()
            and dist.get_world_size() > 1)


@contextmanager
def by_itself() -> Iterator[None]:
    """In it the rank computes for itself, as often as it likes: losses wait for no other rank."""
    token = _TOGETHER.set(False)
    try:
        yield
    finally:
        _TOGETHER.reset(token)


def take_launcher(
    launcher: str, local_rank: int | None, env: MutableMapping[str, str]
) -> None:
    """MMDetection's --launcher and --local_rank, put into the environment that `read_launch` reads.

    launcher: "none" (whatever the environment says), "pytorch", "slurm" or "mpi"; mpi's
              OMPI_COMM_WORLD_* become torchrun's variables, MASTER_PORT is 29500 when unset
    Raises InputError when the process was not started in that way.
    """
    if local_rank is not None:
        env.setdefault("LOCAL_RANK", str(local_rank))
    wanted = {"pytorch": ("RANK", "dist_train.sh or torchrun"), "slurm": ("SLURM_PROCID", "srun"),
              "mpi": ("OMPI_COMM_WORLD_RANK", "mpirun")}
    if launcher not in wanted:
        return
    variable, starter = wanted[launcher]
    if variable not in env:
        raise InputError(f"--launcher {launcher}: {variable} is not set; start with {starter}, or "
                         "leave --launcher out")
    if launcher == "mpi":
        for name, theirs in (("RANK", "RANK"), ("LOCAL_RANK", "LOCAL_RANK"),
                             ("WORLD_SIZE", "SIZE")):
            env[name] = _text(env, f"OMPI_COMM_WORLD_{theirs}", "mpirun")
        if "OMPI_COMM_WORLD_LOCAL_SIZE" in env:  # else all are on one machine
            env["LOCAL_WORLD_SIZE"] = env["OMPI_COMM_WORLD_LOCAL_SIZE"]
        env.setdefault("MASTER_PORT", DEFAULT_PORT)


def first_host(node_list: str) -> str:
    """The first host of SLURM's short form: "gpu[003-010,12],login" -> "gpu003"."""
    first = re.match(r"(?:[^\[\],]|\[[^\]]+\])+", node_list)
    if first is None:
        raise InputError(f"SLURM_NODELIST: no host in {node_list!r}: set MASTER_ADDR")
    return re.sub(r"\[([^],-]+)[^]]*\]", r"\1", first[0])


def pick_device(name: str | None, launch: Launch) -> torch.device:
    """The device that `--device` names; None is this rank's GPU when there is one, else the CPU.

    Raises InputError for an unknown name, a GPU that is not there, or one GPU for several ranks.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "cpu" or (name is None and gpus == 0):
        return torch.device("cpu")
    match = re.fullmatch(r"cuda(?::(\d+))?", name or "cuda")
    if match is None:
        raise InputError(f"--device {name}: not a device; give cpu, cuda or cuda:N")
    if gpus == 0:
        raise InputError(f"--device {name}: torch {torch.__version__} sees no GPU; give cpu")
    if match[1] is not None and launch.local_world_size > 1:
        raise InputError(
            f"--device {name}: {launch.local_world_size} processes cannot share one GPU; give cuda"
        )
    # srun can show each rank only the GPU bound to it, as number 0
    bound = launch.launcher == "slurm" and gpus == 1
    index = int(match[1]) if match[1] is not None else 0 if bound else launch.local_rank
    if index >= gpus:
        raise InputError(f"--device {name or 'cuda'}: GPU {index} is wanted, there are {gpus}")
    return torch.device("cuda", index)


def join_group(
    launch: Launch,
    device: torch.device,
    timeout_s: float = TIMEOUT_S,
    script: str = "train",
    backend: str = "nccl",
) -> None:
    """Join the process group of `launch`; alone, there is nothing to join.

    Collectives on CPU tensors go through gloo, on CUDA tensors through `backend`. A collective that
    waits longer than `timeout_s` for a peer fails; `peers` names it. A rank whose peer was killed
    ends within seconds, with a line that begins with `script`.
    Raises InputError when rank 0's port is taken, its machine does not answer, or a rank does not
    come within `timeout_s`.
    """
    if device.type == "cuda":
        torch.cuda.set_device(device)  # before the first collective
    if "TORCHELASTIC_RUN_ID" in os.environ:
        # a killed torchrun leaves its ranks behind; this one then saves and ends as on SIGTERM
        die_with_parent(signal.SIGTERM, os.getppid())
    elif PARENT in os.environ:  # likewise
        die_with_parent(signal.SIGTERM, int(os.environ[PARENT]))
    if launch.world_size == 1:
        return
    if device.type == "cpu":
        share_threads(launch)
    try:
        store, places = _meet(launch, device, timeout_s, backend)
    except (dist.DistNetworkError, dist.DistStoreError, TimeoutError) as error:
        raise InputError(_no_group(launch, timeout_s, str(error))) from error
    mark_in_group()
    if device.type == "cuda" and backend == "nccl":
        margin = timedelta(seconds=timeout_s + NCCL_MARGIN_S)
        assert dist.group.WORLD is not None  # just joined
        dist.group.WORLD._get_backend(device)._set_default_timeout(margin)
    watch_peers(script, launch.rank, places, store, timeout_s, _count_collectives,
                outlived=os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True")


def _meet(
    launch: Launch, device: torch.device, timeout_s: float, backend: str
) -> tuple[dist.Store, list[Place]]:
    """(a store for this start's keys, the ranks' places); the process group is there afterwards."""
    # torchrun has its own store running on the port and tells env:// so
    init = "env://" if launch.launcher == "torchrun" else f"tcp://{launch.address}:{launch.port}"
    timeout = timedelta(seconds=timeout_s)
    deadline = time.monotonic() + timeout_s
    store, _, _ = next(dist.rendezvous(
        launch.meeting or init, launch.rank, launch.world_size, timeout=timeout))
    place = json.dumps([socket.gethostname(), os.getpid()])
    for tries_left in reversed(range(JOIN_TRIES)):
        name, places = agree(store, launch.rank, launch.world_size, place,
                             deadline - time.monotonic())
        try:
            dist.init_process_group(
                f"cpu:gloo,cuda:{backend}" if device.type == "cuda" else "gloo",
                store=dist.PrefixStore(name, store),
                rank=launch.rank,
                world_size=launch.world_size,
                timeout=timeout,
            )
            break
        except RuntimeError:  # a peer has died meanwhile, and its successor comes
            if not tries_left or time.monotonic() > deadline:
                raise
    return dist.PrefixStore(name, store.clone()), [Place(*json.loads(text)) for text in places]


def _count_collectives() -> int | None:
    """How many collectives this rank has begun; who has begun fewest holds up the others."""
    group = dist.group.WORLD
    if group is None:  # the run is over
        return None
    devices = {device.type for device in group._device_types}
    backends = [group._get_backend(torch.device(name)) for name in sorted(devices)]
    return sum(backend._get_sequence_number_for_group()  # type: ignore[attr-defined]  # no stub
               for backend in backends)


def share_threads(launch: Launch) -> None:
    """Split the machine's cores over its ranks, unless the user or the launcher already has.

    torchrun sets OMP_NUM_THREADS=1 where it is unset; srun may pin a rank to its cores.
    """
    if "OMP_NUM_THREADS" not in os.environ and cores() == os.cpu_count():
        torch.set_num_threads(max(1, cores() // launch.local_world_size))


def limit_threads(count: int) -> None:
    """Have at most `count` threads compute on the CPU, also where OMP_NUM_THREADS allows more.

    0 leaves their number as it is.
    """
    if count > 0:
        torch.set_num_threads(min(count, torch.get_num_threads()))


def _read_torchrun(env: Mapping[str, str]) -> Launch:
    world_size = _number(env, "WORLD_SIZE")
    meeting = env.get(PLACED, "")
    has_address = world_size > 1 and not meeting
    return Launch(
        launcher="spawn" if meeting else "torchrun",
        rank=_number(env, "RANK"),
        world_size=world_size,
        local_rank=_number(env, "LOCAL_RANK", "0"),
        local_world_size=_number(env, "LOCAL_WORLD_SIZE", str(world_size)),
        address=_text(env, "MASTER_ADDR") if has_address else "",
        port=_number(env, "MASTER_PORT") if has_address else 0,
        meeting=meeting,
    )


def _read_slurm(env: Mapping[str, str]) -> Launch:
    rank = _number(env, "SLURM_PROCID")
    world_size = _number(env, "SLURM_STEP_NUM_TASKS", env["SLURM_NTASKS"])
    # "8(x2),4": the counts of the nodes, the first one's is taken; unknown: all on one node
    counts = env.get("SLURM_STEP_TASKS_PER_NODE") or env.get("SLURM_TASKS_PER_NODE", "")
    local_world_size = int(re.sub(r"\D.*", "", counts) or world_size)
    return Launch(
        launcher="slurm",
        rank=rank,
        world_size=world_size,
        local_rank=_number(env, "SLURM_LOCALID", str(rank % local_world_size)),
        local_world_size=min(local_world_size, world_size),
        address=env.get("MASTER_ADDR") or first_host(_text(env, "SLURM_NODELIST")),
        port=_number(env, "MASTER_PORT", DEFAULT_PORT),
    )


def _text(env: Mapping[str, str], name: str, starter: str = "torchrun or srun") -> str:
    if not env.get(name):
        raise InputError(f"{name} is not set: start several processes with {starter}")
    return env[name]


def _number(env: Mapping[str, str], name: str, default: str | None = None) -> int:
    text = env.get(name, default) if default is not None else _text(env, name)
    if not text.isdecimal():
        raise InputError(f"{name}={text}: not a whole number")
    return int(text)


def _no_group(launch: Launch, timeout_s: float, reason: str) -> str:
    at = launch.meeting or f"{launch.address} port {launch.port}"
    missing = f" ({reason})" if "not there" in reason else ""
    if launch.meeting:
        taken = "EADDRINUSE" in reason
        return f"--dist-url {at}: " + (
            "the port is taken by another program: name a free one" if taken else
            f"rank {launch.rank} of {launch.world_size} met no group there within {timeout_s:g} s"
            f"{missing}: check the address, --rank and that every node was started"
        )
    if "EADDRINUSE" in reason:
        return (
            f"port {launch.port} is taken by another program: set MASTER_PORT to a free one, "
            f"or start with torchrun --standalone"
        )
    return (
        f"rank {launch.rank} of {launch.world_size} met no group at {at} within {timeout_s:g} s"
        f"{missing}: check MASTER_ADDR and MASTER_PORT, and that all {launch.world_size} "
        "processes were started (under SLURM: with srun)"
    )
