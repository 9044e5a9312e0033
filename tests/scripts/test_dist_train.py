"""dist_train.sh: several processes, how a job ends, and what is said last."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runtime.launch.peers import is_gone

ROOT = Path(__file__).resolve().parents[2]
TOY = """
import sys, time
sys.path.insert(0, {root!r})
from runtime import cli
from runtime.launch.signals import Stopped, StopSignals
stop = StopSignals()
from runtime.errors import Failed, InputError
from runtime.run.run import start_run

def main():
    run = start_run("train_toy", "cpu", 0, stop)
    try:
        for step in range(int(sys.argv[1])):
            run.agree_on_stop()
            if run.is_main and step == 2:
                print("going", flush=True)
            if run.stop_requested:
                raise Stopped(run.stop_requested)
            if step == 3 and sys.argv[2] == f"break{{run.rank}}":
                raise ZeroDivisionError("odd")
            if step == 3 and sys.argv[2] == f"bad{{run.rank}}":
                raise InputError("photo.jpg: cut off")
            if step == 3 and sys.argv[2] == f"hang{{run.rank}}":
                # in C code, as a collective on a GPU does whose peer is gone
                import ctypes
                mutex = ctypes.create_string_buffer(256)
                ctypes.CDLL(None).pthread_mutex_lock(mutex)
                ctypes.CDLL(None).pthread_mutex_lock(mutex)
            time.sleep(0.01)
        run.log(f"{{run.world_size}} ranks at port {{__import__('os').environ['MASTER_PORT']}}")
    finally:
        run.close()

cli.run(main, "train_toy")
"""


@pytest.fixture
def launch(tmp_path):
    """launch("train_toy.py", 2, ...) starts dist_train.sh in tmp_path; lines go to one pipe."""
    (tmp_path / "train_toy.py").write_text(TOY.format(root=str(ROOT)))
    jobs = []

    def start(script, count, *words, **env):
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHON": sys.executable} | env
        command = [str(ROOT / "dist_train.sh"), script, str(count), *map(str, words)]
        jobs.append(subprocess.Popen(command, cwd=tmp_path, env=environment, text=True,
                                     stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                     start_new_session=True))
        return jobs[-1]

    yield start
    for job in jobs:
        if job.poll() is None:
            job.kill()


def wait_for_going(job):
    """Until rank 0 has made its first steps; a job that ends before fails with what it said."""
    lines = [job.stdout.readline()]
    while lines[-1] != "going\n":
        assert lines[-1], "".join(lines)
        lines.append(job.stdout.readline())


def finish(job):
    """(status, lines) of a job."""
    text, _ = job.communicate(timeout=240)
    return job.returncode, text.splitlines()


def descendants(pid):
    """All processes below `pid`, depth first."""
    found = []
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        found += [int(child), *descendants(int(child))]
    return found


@pytest.mark.slow
def test_two_jobs_at_once_do_not_disturb_each_other(launch):
    jobs = [launch("train_toy.py", 2, 300, "-", PORT=str(port)) for port in free_ports(2)]
    for job in jobs:
        status, lines = finish(job)
        assert status == 0, lines
        assert lines[-1].startswith("2 ranks at port ")


def test_a_busy_port_is_said_in_one_line_or_gone_round(launch):
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen(1)
        port = other.getsockname()[1]
        status, lines = finish(launch("train_toy.py", 2, 5, "-", PORT=str(port)))
    assert status == 2
    assert lines == [f"dist_train: port {port} is taken by another program: set PORT to a free "
                     f"one, for example PORT={port + 1}"]


@pytest.mark.slow
def test_a_port_that_is_taken_in_the_last_moment(launch, tmp_path):
    """Without PORT the job moves to another one, with PORT it says so."""
    launch("train_toy.py", 0)  # writes the script; GPUS 0 is refused
    code = f"""
import sys, socket
sys.path.insert(0, {str(ROOT)!r})
from runtime.launch import launcher
other = socket.socket()
other.bind(("127.0.0.1", 0))
other.listen(1)
port = other.getsockname()[1]
for env in ({{}}, {{"PORT": str(port)}}):
    job = launcher.read_command(["train_toy.py", "2", "5", "-"], env)
    print("status", launcher.launch(job, port), flush=True)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True,
                          text=True, timeout=240)
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.startswith("status")] == ["status 0", "status 2"]
    assert any("using" in line for line in lines)
    assert "set PORT to a free one" in done.stderr


@pytest.mark.parametrize("name, status", [
    ("SIGTERM", 75), pytest.param("SIGINT", 130, marks=pytest.mark.slow)])
def test_a_stop_signal_prints_one_line_and_keeps_its_status(launch, name, status):
    job = launch("train_toy.py", 2, 100000, "-")
    wait_for_going(job)
    job.send_signal(getattr(signal, name))
    assert finish(job) == (status, ["Stopping after this iteration, saving the state..."])


@pytest.mark.parametrize("what, status, last", [
    ("break1", 1, "train_toy: rank 1: ZeroDivisionError: odd"),
    pytest.param("bad1", 2, "train_toy: rank 1: photo.jpg: cut off", marks=pytest.mark.slow),
])
def test_the_last_line_is_the_cause(launch, what, status, last):
    got, lines = finish(launch("train_toy.py", 2, 100000, what))
    assert got == status
    assert lines[-1] == last
    assert "ChildFailedError" not in "\n".join(lines)
    assert sum("Traceback" in line for line in lines) == (status == 1)


@pytest.mark.fault
def test_kill_9_of_a_rank_ends_everything_within_20_s(launch, scenes, tiny_config, tmp_path):
    job = launch("train_yolact.py", 2, "--config", tiny_config, "--max-iters", 100000,
                 "--num_workers", 2, "--log_every", 1, "--batch_size", 8, "--save_folder", "w",
                 "--log_folder", "logs", "--validation_epoch", 0, "--cfg-options",
                 f"dataset.train_info={scenes.train_info}",
                 f"dataset.train_images={scenes.train_images}")
    metrics = tmp_path / "logs" / "tiny" / "metrics.jsonl"
    while not (metrics.exists() and metrics.stat().st_size) and job.poll() is None:
        time.sleep(0.1)
    below = descendants(job.pid)
    assert len(below) == 6, below  # two ranks with two workers each
    ranks = [pid for pid in below if parent_of(pid) == job.pid]
    os.kill(ranks[1], signal.SIGKILL)
    begin = time.monotonic()
    status, lines = finish(job)
    while not all(map(is_gone, below)):
        assert time.monotonic() - begin < 20
        time.sleep(0.1)
    assert time.monotonic() - begin < 20
    assert status == 1
    assert lines[-1].startswith("train_yolact: rank 1: killed by SIGKILL")
    assert "ChildFailedError" not in "\n".join(lines)
    assert "Traceback" not in "\n".join(lines)


@pytest.mark.fault
@pytest.mark.slow
def test_a_rank_that_hangs_does_not_outlive_a_killed_one(launch):
    job = launch("train_toy.py", 2, 100000, "hang1")
    wait_for_going(job)
    time.sleep(0.5)  # rank 1 hangs a moment later
    ranks = descendants(job.pid)
    os.kill(ranks[0], signal.SIGKILL)
    begin = time.monotonic()
    status, lines = finish(job)
    assert time.monotonic() - begin < 20
    assert all(map(is_gone, ranks))
    assert status == 1
    assert [line[:43] for line in lines] == ["train_toy: rank 0: killed by SIGKILL: from "]


@pytest.mark.fault
@pytest.mark.slow
def test_a_killed_launcher_takes_its_ranks_along(launch):
    job = launch("train_toy.py", 2, 100000, "-")
    wait_for_going(job)
    ranks = descendants(job.pid)
    assert len(ranks) == 2
    job.kill()
    deadline = time.monotonic() + 20
    while not all(map(is_gone, ranks)):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def parent_of(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def free_ports(count):
    """Ports that nobody listens at, found by taking them all at once."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
