import socket

import pytest
import torch

from runtime.errors import InputError
from runtime.launch import ranks as distributed
from runtime.launch.ranks import Launch, first_host, join_group, pick_device, read_launch

CPU = torch.device("cpu")
TORCHRUN = {
    "RANK": "3",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "a",
    "MASTER_PORT": "1234",
}
SLURM = {
    "SLURM_PROCID": "5",
    "SLURM_NTASKS": "8",
    "SLURM_LOCALID": "1",
    "SLURM_TASKS_PER_NODE": "4(x2)",
    "SLURM_NODELIST": "gpu[07-08]",
}


def test_alone():
    assert read_launch({}) == Launch("none", 0, 1, 0, 1, "", 0)
    # srun with one task, and the variables of a finished allocation
    assert read_launch({"SLURM_PROCID": "0", "SLURM_NTASKS": "1"}).world_size == 1
    assert read_launch({"SLURM_NTASKS": "8"}).world_size == 1


def test_torchrun():
    assert read_launch(TORCHRUN) == Launch("torchrun", 3, 4, 1, 2, "a", 1234)
    # torchrun inside a SLURM allocation: its own variables win
    assert read_launch(SLURM | TORCHRUN).launcher == "torchrun"


def test_slurm():
    assert read_launch(SLURM) == Launch("slurm", 5, 8, 1, 4, "gpu07", 29500)
    own = read_launch(SLURM | {"MASTER_ADDR": "other", "MASTER_PORT": "77"})
    assert (own.address, own.port) == ("other", 77)
    # a step smaller than its allocation
    step = read_launch(SLURM | {"SLURM_STEP_NUM_TASKS": "6", "SLURM_STEP_TASKS_PER_NODE": "3(x2)"})
    assert (step.world_size, step.local_world_size) == (6, 3)


def test_slurm_without_local_id():
    env = {k: v for k, v in SLURM.items() if k != "SLURM_LOCALID"}
    assert read_launch(env).local_rank == 1


@pytest.mark.parametrize(
    "node_list, host",
    [
        ("node1", "node1"),
        ("node1,node2", "node1"),
        ("gpu[003-010,12],login", "gpu003"),
        ("gpu[7,9-11]", "gpu7"),
        ("rack[1-2]-n[05-09]", "rack1-n05"),
        ("c[1-4].cluster.org", "c1.cluster.org"),
    ],
)
def test_first_host(node_list, host):
    assert first_host(node_list) == host


@pytest.mark.parametrize(
    "env, text",
    [
        ({"RANK": "0"}, "WORLD_SIZE is not set"),
        ({"RANK": "x", "WORLD_SIZE": "2"}, "RANK=x: not a whole number"),
        ({"RANK": "0", "WORLD_SIZE": "2"}, "MASTER_ADDR is not set"),
        ({k: v for k, v in SLURM.items() if k != "SLURM_NODELIST"}, "SLURM_NODELIST is not set"),
    ],
)
def test_incomplete_launches_name_the_variable(env, text):
    with pytest.raises(InputError, match=text):
        read_launch(env)


def test_devices_of_a_machine_with_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    second = Launch("torchrun", 1, 2, 1, 2, "a", 1)
    assert pick_device("cpu", second) == CPU
    assert pick_device(None, second) == pick_device("cuda", second) == torch.device("cuda:1")
    assert pick_device("cuda:1", Launch()) == torch.device("cuda:1")
    with pytest.raises(InputError, match="cuda:2: GPU 2 is wanted, there are 2"):
        pick_device("cuda:2", Launch())
    with pytest.raises(InputError, match="2 processes cannot share one GPU"):
        pick_device("cuda:0", second)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(InputError, match="GPU 1 is wanted, there are 1"):
        pick_device(None, second)
    bound_by_srun = Launch("slurm", 1, 2, 1, 2, "a", 1)
    assert pick_device(None, bound_by_srun) == torch.device("cuda:0")


def test_devices_of_a_machine_without(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device(None, Launch()) == CPU
    with pytest.raises(InputError, match=r"--device cuda: .* sees no GPU"):
        pick_device("cuda", Launch())
    with pytest.raises(InputError, match="--device gpu: not a device"):
        pick_device("gpu", Launch())


def test_a_taken_port_names_the_variable():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        launch = Launch("slurm", 0, 2, 0, 2, "127.0.0.1", port)
        with pytest.raises(InputError, match=f"port {port} is taken .* MASTER_PORT"):
            join_group(launch, CPU, timeout_s=5)


def test_a_silent_master_is_named():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    launch = Launch("slurm", 1, 2, 1, 2, "127.0.0.1", port)
    with pytest.raises(InputError, match=f"rank 1 of 2 met no group at 127.0.0.1 port {port}"):
        join_group(launch, CPU, timeout_s=1)


@pytest.mark.parametrize("omp, usable, threads", [(None, 8, 4), ("1", 8, None), (None, 3, None)])
def test_ranks_share_the_cores(monkeypatch, omp, usable, threads):
    """Two ranks on 8 cores; nothing is set where the user or srun has chosen already."""
    chosen = []
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if omp:
        monkeypatch.setenv("OMP_NUM_THREADS", omp)
    monkeypatch.setattr(distributed.os, "cpu_count", lambda: 8)
    monkeypatch.setattr(distributed.os, "sched_getaffinity", lambda pid: set(range(usable)))
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    distributed.share_threads(Launch("torchrun", 0, 2, 0, 2, "a", 1))
    assert chosen == ([threads] if threads else [])


@pytest.mark.parametrize("wanted, threads", [(2, 2), (6, 4), (0, None)])
def test_limited_threads(monkeypatch, wanted, threads):
    chosen = []
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    distributed.limit_threads(wanted)
    assert chosen == ([threads] if threads else [])


def test_launchers_of_mmdetection():
    env = {"OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_SIZE": "4",
           "OMPI_COMM_WORLD_LOCAL_RANK": "1", "MASTER_ADDR": "gpu01"}
    distributed.take_launcher("mpi", None, env)
    launch = read_launch(env)
    assert (launch.rank, launch.world_size, launch.local_rank) == (3, 4, 1)
    assert (launch.address, launch.port) == ("gpu01", 29500)

    assert launch.local_world_size == 4
    env = {"OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_SIZE": "4",
           "OMPI_COMM_WORLD_LOCAL_RANK": "1", "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
           "MASTER_ADDR": "gpu01"}
    distributed.take_launcher("mpi", None, env)
    assert read_launch(env).local_world_size == 2
    with pytest.raises(InputError, match=r"OMPI_COMM_WORLD_LOCAL_RANK is not set: .* with mpirun"):
        distributed.take_launcher("mpi", None, {"OMPI_COMM_WORLD_RANK": "3"})

    env = {}
    distributed.take_launcher("none", 2, env)
    assert env == {"LOCAL_RANK": "2"}
    env = {"LOCAL_RANK": "1", "RANK": "1"}
    distributed.take_launcher("pytorch", 2, env)
    assert env == {"LOCAL_RANK": "1", "RANK": "1"}
    for name, variable in (("pytorch", "RANK"), ("slurm", "SLURM_PROCID"),
                           ("mpi", "OMPI_COMM_WORLD_RANK")):
        with pytest.raises(InputError, match=f"--launcher {name}: {variable} is not set"):
            distributed.take_launcher(name, None, {})
