"""The ranks that a script starts by itself, and what becomes of them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runtime.errors import InputError
from runtime.launch.spawn import start_ranks

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = f"""
import os, sys, time
sys.path.insert(0, {str(ROOT)!r})
from runtime.launch.signals import StopSignals
from runtime.launch.spawn import start_ranks

stop = StopSignals("stopping")
status = start_ranks(stop, per_node=2)
if status is not None:
    sys.exit(status)
rank = int(os.environ["RANK"])
os.write(1, f"rank {{rank}} {{os.getpid()}}\\n".encode())  # one piece, not mixed with others
"""
MEET = """
import torch
from runtime.launch.exits import leave
from runtime.run.run import start_run
run = start_run("train_test", "cpu", stop=stop)
net = torch.nn.BatchNorm1d(2)
net.running_mean.fill_(rank)
run.share_buffers(net)
mean = run.read_means({"B": torch.tensor(float(rank))}, torch.tensor(0))[0]["B"]
line = f"{run.world_size} {run.local_rank} {mean} {net.running_mean.tolist()}\\n"
os.write(1, line.encode())
run.close()
leave(0)  # as the scripts do: at the interpreter's own end threads in C++ may abort the process
"""
STOP = """
while not stop.requested:
    time.sleep(0.01)
os.write(1, f"stopped {rank}\\n".encode())
sys.exit(75)
"""
FAIL = """
if rank == 1:
    sys.exit(3)
time.sleep(60)
"""
HANG = "time.sleep(60)"


@pytest.fixture
def start(tmp_path):
    def run(rest):
        path = tmp_path / "program.py"
        path.write_text(PROGRAM + rest)
        env = {name: value for name, value in os.environ.items() if name != "RANK"}
        return subprocess.Popen([sys.executable, path], env=env | {"OMP_NUM_THREADS": "1"},
                                text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    return run


def test_two_ranks_meet_and_share(start):
    process = start(MEET)
    out, err = process.communicate(timeout=180)
    assert (process.returncode, err) == (0, "")
    said = sorted(line for line in out.splitlines() if not line.startswith("rank"))
    assert said == ["2 0 0.5 [0.0, 0.0]", "2 1 0.5 [0.0, 0.0]"]


def test_a_stop_signal_reaches_all_and_is_told_once(start):
    process = start(STOP)
    for _ in range(2):
        process.stdout.readline()  # both are up
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=180)
    assert process.returncode == 75
    assert sorted(out.splitlines()) == ["stopped 0", "stopped 1"]
    assert err == "stopping\n"


def test_the_first_failure_ends_the_others(start):
    process = start(FAIL)
    begin = time.monotonic()
    process.communicate(timeout=180)
    assert process.returncode == 3
    assert time.monotonic() - begin < 30


def test_one_rank_a_node_stays_in_this_process(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "DIST_URL"):
        monkeypatch.setenv(name, "")  # so that the end of the test puts them back
        monkeypatch.delenv(name)
    assert start_ranks(None, per_node=1) is None
    assert "RANK" not in os.environ
    assert start_ranks(None, 1, nodes=3, node_rank=2, url="tcp://first:1234") is None
    assert [os.environ[name] for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "DIST_URL")] == [
        "2", "3", "0", "tcp://first:1234"]


@pytest.mark.parametrize("options, text", [
    ({"nodes": 2, "node_rank": 2}, "--rank 2"),
    ({"nodes": 2, "url": "http://x:1"}, "--dist-url http://x:1"),
    ({"nodes": 2, "url": "tcp://host"}, "--dist-url tcp://host"),
])
def test_places_that_cannot_be(monkeypatch, options, text):
    monkeypatch.delenv("DIST_URL", raising=False)
    with pytest.raises(InputError, match=text):
        start_ranks(None, 1, **options)


def test_torchrun_and_world_size_do_not_go_together(monkeypatch):
    monkeypatch.delenv("DIST_URL", raising=False)
    monkeypatch.setenv("RANK", "0")
    assert start_ranks(None, per_node=4) is None  # torchrun has placed it
    with pytest.raises(InputError, match="--world-size 2"):
        start_ranks(None, 1, nodes=2)


def test_ranks_die_with_who_started_them(start):
    process = start(HANG.join(["import runtime.launch.ranks as d\n"
                               "from runtime.launch.signals import die_with_parent\n"
                               "import signal\n"
                               "signal.signal(signal.SIGTERM, signal.SIG_DFL)\n"
                               "die_with_parent(signal.SIGTERM, int(os.environ['TRAINER_PARENT']))"
                               "\nos.write(1, b'armed\\n')\n", ""]))
    lines = [process.stdout.readline().split() for _ in range(4)]
    pids = [int(line[2]) for line in lines if line[0] == "rank"]
    process.kill()
    process.wait(timeout=30)
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() and "Z" not in
              Path(f"/proc/{pid}/stat").read_text().split()[2] for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.05)
