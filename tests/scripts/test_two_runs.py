"""A second training in a folder is refused; evaluation and export beside a training work."""

import os
import socket
import sys
import time

import pytest

from runtime.run.lock import RunLocks

pytestmark = pytest.mark.fault
LOCKS = {"train": ("logs/tiny/.lock", "weights/.tiny.lock"), "segment": (".lock",),
         "classify": (".lock",), "query_train": (".lock",)}
APART = {"launcher": [sys.executable]}  # a process of its own, not this one, which holds the lock


@pytest.fixture
def living(tmp_path):
    """living(".lock") makes this process a training in `out`."""
    locks = RunLocks(pytest.fail)
    yield lambda *names: [locks.take(tmp_path / "out" / name) for name in names]
    locks.release()


@pytest.mark.parametrize("name", LOCKS)
@pytest.mark.parametrize("which", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_second_training_is_refused(request, living, tmp_path, name, which):
    if which >= len(LOCKS[name]):
        pytest.skip("one lock is all that this script takes")
    lock = LOCKS[name][which]
    living(lock)
    before = sorted(path for path in (tmp_path / "out").rglob("*"))
    run = request.getfixturevalue(name)("--max-iters 1", **APART)
    assert run.status == 2
    assert len(run.err) == 1, run.err_text
    folder = (tmp_path / "out" / lock).parent
    assert f"{folder}: another training writes there: process {os.getpid()} on " in run.err[0]
    assert f"{socket.gethostname()}, since {time.strftime('%Y')}-" in run.err[0]
    assert "name another folder" in run.err[0]
    assert sorted(path for path in (tmp_path / "out").rglob("*")) == before


@pytest.mark.slow
def test_evaluation_and_export_beside_a_training(classify, living, tmp_path):
    first = classify("--max-iters 2")
    assert first.status == 0
    assert not (first.out / ".lock").exists()
    living(".lock")
    metrics = first.out / "metrics.jsonl"
    training = metrics.open("a")  # as the training that lives has it
    again = classify("--eval-only")
    assert (again.status, again.err) == (0, [])
    training.write('{"event": "train", "iteration": 2, "losses": {}}\n')
    training.close()
    assert [event["event"] for event in again.events][-2:] == ["eval", "train"]
    export = classify("--export", tmp_path / "net.pt2")
    assert export.status == 0
    assert (tmp_path / "net.pt2").stat().st_size > 0
    assert classify("--dry-run").status == 0
    assert (first.out / ".lock").exists()
    refused = classify("--max-iters 3 --resume latest")
    assert refused.status == 2


@pytest.mark.slow
def test_a_killed_training_is_gone_on_with(classify):
    unbroken = classify("--max-iters 12", out="unbroken")
    first = classify("--max-iters 12", stop=(9, 7))
    assert first.status == -9
    assert (first.out / ".lock").exists()
    again = classify("--max-iters 12 --resume latest")
    assert again.status == 0
    assert {path.name for path in again.out.iterdir()} == {
        path.name for path in unbroken.out.iterdir()}
