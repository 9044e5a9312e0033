"""Every script runs to its end with stdout or stderr closed, or with a reader that leaves."""

import subprocess
import sys

import pytest
from script_run import ROOT

TRAININGS = {"train": "--max-iters 2", "segment": "--max-iters 2", "classify": "--max-iters 2",
             "query_train": "--max-iters 2"}
SCRIPTS = ("train_yolact.py", "train_seg.py", "train_resnest.py", "train_queryinst.py")
ENDINGS = (">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-", "| head -1", "2>&1 | head -1")


def through_bash(ending):
    """A launcher that starts Python with redirections; its status is Python's."""
    return ["bash", "-c", f'"$0" "$@" {ending}; exit "${{PIPESTATUS[0]}}"', sys.executable]


def trains(fixture, ending):
    run = fixture(launcher=through_bash(ending))
    assert run.status == 0
    assert [event["iteration"] for event in run.train_events] == [0, 1]
    assert "Done" in (run.logs / "log.txt").read_text()
    assert all(run.load(name) for name in run.names if name.endswith(".pth"))


@pytest.mark.fault
@pytest.mark.parametrize("name", TRAININGS)
def test_a_training_with_both_closed(request, name):
    """Were the numbers 1 and 2 free, a checkpoint or the log would get them."""
    fixture = request.getfixturevalue(name)
    trains(lambda **how: fixture(TRAININGS[name], **how), ">&- 2>&-")


@pytest.mark.fault
@pytest.mark.slow
@pytest.mark.parametrize("ending", [ending for ending in ENDINGS if ending != ">&- 2>&-"])
@pytest.mark.parametrize("name", TRAININGS)
def test_a_training_with_other_endings(request, name, ending):
    fixture = request.getfixturevalue(name)
    trains(lambda **how: fixture(TRAININGS[name], **how), ending)


@pytest.mark.fault
@pytest.mark.parametrize("ending", ENDINGS)
def test_help(ending):
    for script in SCRIPTS if ending in (">&-", "| head -1") else SCRIPTS[:1]:
        done = subprocess.run([*through_bash(ending), str(ROOT / script), "--help"],
                              capture_output=True, text=True)
        assert done.returncode == 0, script
        assert "Traceback" not in done.stderr
        assert "Exception ignored" not in done.stderr


@pytest.mark.fault
def test_a_fault_keeps_its_status_without_a_reader():
    for ending in ("2>&-", ">&- 2>&-"):
        done = subprocess.run([*through_bash(ending), str(ROOT / SCRIPTS[1]), "--no-such"],
                              capture_output=True, text=True)
        assert done.returncode == 2
