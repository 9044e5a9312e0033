"""The garbage collector stands still while a script's modules are imported, and at the end."""

import gc
import subprocess
import sys
from pathlib import Path

import pytest

from runtime import cli

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _as_before():
    yield
    gc.enable()
    gc.unfreeze()


def flags(number: int = 1) -> int:
    return number


def test_it_stands_still_between_flags_and_run(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py"])
    assert cli.read_flags(flags, "train") == 1
    assert not gc.isenabled()
    seen = []
    with pytest.raises(SystemExit):
        cli.run(lambda: seen.append(gc.isenabled()), "train")
    assert seen == [True]


def test_a_command_line_read_by_a_program_leaves_it_alone():
    assert cli.read_flags(flags, "train", ["--number", "3"]) == 3
    assert gc.isenabled()


def test_what_is_there_at_the_start_and_at_the_end_is_not_gone_through():
    code = """
import atexit, gc
from runtime.launch import collector
atexit.register(lambda: print(gc.get_freeze_count() > first))  # after what `resume` registers
collector.pause(); collector.resume()
first = gc.get_freeze_count()
print(first > 0)
later = [[] for _ in range(1000)]
collector.resume()
print(gc.get_freeze_count() <= first)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout.split(), done.stderr) == (["True"] * 3, "")
