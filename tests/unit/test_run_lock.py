"""The lock of a run folder: held by one living training, by nobody after its death."""

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.errors import InputError, SaveError
from runtime.run import lock as run_lock
from runtime.run.lock import RunLocks, is_held
from runtime.run.run import start_run

ROOT = Path(__file__).resolve().parents[2]
HOLDER = """
import os, sys, time
from pathlib import Path
from runtime.run.lock import RunLocks
locks = RunLocks(print)
locks.take(Path(sys.argv[1]))
child = os.fork() if "fork" in sys.argv else 1
if child == 0:
    time.sleep(60)
print("held", child, flush=True)
sys.stdin.readline()
locks.release()
"""


@pytest.fixture
def hold():
    """hold(file, ...) is a process that holds the lock file until a line comes to its stdin."""
    started = []

    def start(file, *words):
        process = subprocess.Popen([sys.executable, "-c", HOLDER, str(file), *words], cwd=ROOT,
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        line = process.stdout.readline().split()
        assert line[0] == "held"
        process.child = int(line[1])
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_second_training_is_refused_while_the_first_lives(hold, tmp_path):
    first = hold(tmp_path / "run" / ".lock")
    locks = RunLocks(pytest.fail)
    with pytest.raises(InputError) as caught:
        locks.take(tmp_path / "run" / ".lock", wait_s=0.2)
    (line,) = caught.value.faults
    assert line.startswith(f"{tmp_path / 'run'}: another training writes there: "
                           f"process {first.pid} on {os.uname().nodename}, since 2")
    assert "name another folder" in line
    assert is_held(tmp_path / "run" / ".lock")
    first.communicate("go\n")
    assert os.listdir(tmp_path / "run") == []  # a good end leaves nothing
    locks.take(tmp_path / "run" / ".lock", wait_s=0)
    locks.release()


def test_a_killed_training_leaves_it_free_whatever_its_workers_do(hold, tmp_path):
    first = hold(tmp_path / ".lock", "fork")
    first.kill()
    first.wait()
    try:
        assert not is_held(tmp_path / ".lock")
        locks = RunLocks(pytest.fail)
        locks.take(tmp_path / ".lock", wait_s=0)
        text = (tmp_path / ".lock").read_text()
        assert text.startswith(f"process {os.getpid()} on ")
        assert text.count("\n") == 1
        locks.release()
    finally:
        os.kill(first.child, signal.SIGKILL)


def test_one_that_is_about_to_end_is_waited_for(hold, tmp_path):
    first = hold(tmp_path / ".lock")
    first.stdin.write("go\n")
    first.stdin.flush()
    locks = RunLocks(pytest.fail)
    locks.take(tmp_path / ".lock", wait_s=60)
    assert (tmp_path / ".lock").read_text().startswith(f"process {os.getpid()} ")
    locks.release()


def test_two_configs_may_share_a_weights_folder(hold, tmp_path):
    hold(tmp_path / ".a.lock")
    locks = RunLocks(pytest.fail)
    locks.take(tmp_path / ".b.lock", wait_s=0)
    with pytest.raises(InputError, match=rf"^a in {tmp_path}: another training"):
        locks.take(tmp_path / ".a.lock", wait_s=0)
    locks.release()
    assert os.listdir(tmp_path) == [".a.lock"]


def test_a_file_system_without_locks_is_a_warning(tmp_path, monkeypatch):
    def refuse(handle, how):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(run_lock.fcntl, "lockf", refuse)
    warnings = []
    RunLocks(warnings.append).take(tmp_path / ".lock")
    (line,) = warnings
    assert str(tmp_path) in line
    assert "no locks" in line
    monkeypatch.setattr(run_lock, "fcntl", None)
    RunLocks(warnings.append).take(tmp_path / ".lock")
    assert len(warnings) == 2
    assert not is_held(tmp_path / ".lock")


def test_what_dead_processes_left_half_written_goes(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    gone = [f".a_1_2.pth.{dead.pid}.tmp", f".a_1_2.state.pth.{os.getpid()}.tmp"]
    stays = [f".a_1_3.pth.{os.getppid()}.tmp", f".b_1_2.pth.{dead.pid}.tmp", "a.tmp", ".a.tmp"]
    for name in gone + stays:
        (tmp_path / name).touch()
    locks = RunLocks(pytest.fail)
    locks.take(tmp_path / ".a.lock")
    locks.release()
    assert sorted(os.listdir(tmp_path)) == sorted(stays)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SaveError, match=r"file/run: could not be written: Not a directory"):
        RunLocks(pytest.fail).take(tmp_path / "file" / "run" / ".lock")


def test_a_run_takes_it_and_an_evaluation_appends_beside_it(hold, tmp_path, monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    metrics = tmp_path / "run" / "metrics.jsonl"
    run = start_run("train_test", "cpu")
    run.claim(tmp_path / "run" / ".lock", tmp_path / "weights" / ".x.lock")
    assert not list(tmp_path.iterdir())  # nothing is made before the folder is opened
    run.open_folder(tmp_path / "run", "")
    assert (tmp_path / "run" / ".lock").exists()
    assert (tmp_path / "weights" / ".x.lock").exists()
    run.record({"event": "train", "iteration": 0})
    run.close()
    assert not (tmp_path / "run" / ".lock").exists()
    assert not (tmp_path / "weights" / ".x.lock").exists()

    hold(tmp_path / "run" / ".lock")
    monkeypatch.setattr(run_lock, "WAIT_S", 0)
    with metrics.open("a") as training:  # the one that lives has the file open
        training.write('{"event": "train", ')
        training.flush()
        evaluation = start_run("train_test", "cpu")
        evaluation.open_folder(tmp_path / "run", "", append=True)
        training.write('"iteration": 1}\n')
        training.flush()
        evaluation.record({"event": "eval", "iteration": 1})
        evaluation.close()
        training.write('{"event": "train", "iteration": 2}\n')
    found = [json.loads(line) for line in metrics.read_text().splitlines()]
    assert [event["iteration"] for event in found] == [0, 1, 1, 2]
    assert (tmp_path / "run" / ".lock").exists()
    refused = start_run("train_test", "cpu")
    with pytest.raises(InputError, match="another training writes there"):
        refused.claim(tmp_path / "run" / ".lock")
    with pytest.raises(InputError, match="another training writes there"):
        refused.open_folder(tmp_path / "run", "")
    refused.close()
