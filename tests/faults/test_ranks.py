"""A rank that fails, is killed, is stopped, or is restarted by torchrun, in each script."""

import os
import signal
import subprocess
import sys
import time

import pytest
from jobs import Job, descendants, last_words, started, torchrun, wait_gone

pytestmark = pytest.mark.fault
SCRIPTS = ["yolact", "seg", "resnest", "queryinst"]
UPDATES = 40
KILLED = "ended without a word: killed from outside"


def two_ranks(*words):
    return torchrun("--standalone", "--nproc-per-node", 2, *words)


def fail_within(job, act, seconds):
    """Let `act(run)` happen after 3 updates; the last line, once all has ended in time."""
    with started([*two_ranks(), *job.words], job.out / "said") as run:
        run.wait_for(lambda: len(job.losses) > 2)
        below = descendants(run.process.pid)
        begin = time.monotonic()
        act(run)
        status, text = run.finish(seconds + 60)
        took_s = time.monotonic() - begin
        wait_gone(below)
    assert status == 1
    assert took_s < seconds, text
    return last_words(text, job.script)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_killed_rank_is_named_within_seconds(name, rank, data, tmp_path):
    job = Job(name, data, tmp_path / "out", "--max-iters 100000")
    said = fail_within(job, lambda run: os.kill(run.rank(rank), signal.SIGKILL), 20)
    assert said.startswith(f"{job.script}: rank {1 - rank}: cannot go on, rank {rank} {KILLED}")


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_stopped_rank_is_named(name, data, tmp_path):
    job = Job(name, data, tmp_path / "out", "--max-iters 100000 --dist-timeout 10")
    said = fail_within(job, lambda run: os.kill(run.rank(1), signal.SIGSTOP), 30)
    assert said.startswith(f"{job.script}: rank 0: cannot go on, rank 1 did not answer for ")


# What rank 1 runs here breaks in its fourth update.
BREAKS = """
import os, runpy, sys
import torch
seen = []
step = torch.optim.Optimizer.zero_grad
def breaks(self, *args, **kwargs):
    seen.append(1)
    if os.environ["RANK"] == "1" and len(seen) > 6:
        raise ZeroDivisionError("odd")
    return step(self, *args, **kwargs)
torch.optim.Optimizer.zero_grad = breaks
sys.argv.pop(0)
sys.path.insert(0, os.path.dirname(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_an_exception_of_one_rank_is_told_by_all(name, data, tmp_path):
    job = Job(name, data, tmp_path / "out", "--max-iters 100000")
    program = tmp_path / "breaks.py"
    program.write_text(BREAKS)
    with started([*two_ranks(program), *job.words], tmp_path / "said") as run:
        status, text = run.finish(120)
    assert status == 1
    lines = sorted(line for line in text.splitlines() if line.startswith(f"{job.script}: rank"))
    causes = ["rank 0: cannot go on, rank 1 failed: ZeroDivisionError: odd",
              "rank 1: ZeroDivisionError: odd"]
    for line, cause in zip(lines, causes, strict=True):  # where the state is saved may follow
        assert line.startswith(f"{job.script}: {cause}")


def come_back(name, data, folder, rank=1):
    """Losses of a run whose rank is killed once; torchrun starts it again."""
    job = Job(name, data, folder, f"--max-iters {UPDATES} --save-every 2 --resume latest")
    with started([*two_ranks("--max-restarts", 2), *job.words], folder / "said") as run:
        run.wait_for(lambda: len(job.losses) >= 5)
        os.kill(run.rank(rank), signal.SIGKILL)
        status, text = run.finish()
    assert status == 0, text
    assert text.count("Nothing to resume") == 1, text  # the first start alone
    return job.losses


def test_torchrun_restarts_a_killed_rank_and_it_resumes_exactly(data, unbroken, tmp_path):
    assert come_back("resnest", data, tmp_path) == unbroken("resnest", UPDATES)


@pytest.mark.slow
def test_20_of_20_restarts_beside_two_busy_processes(data, unbroken, tmp_path):
    """Each script's turn comes five times; rank 0 and rank 1 take turns."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    try:
        for number in range(20):
            name = SCRIPTS[number % 4]
            losses = come_back(name, data, tmp_path / str(number), rank=number // 4 % 2)
            assert losses == unbroken(name, UPDATES), f"{name}, run {number}"
    finally:
        for each in busy:
            each.kill()
            each.wait()
