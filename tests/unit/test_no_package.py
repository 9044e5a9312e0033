"""`pip install .` says in one line what to do instead, and needs no network for it."""

import importlib.util
import subprocess
import sys

import pytest
from rooms import ROOT


@pytest.mark.skipif(importlib.util.find_spec("pip") is None, reason="this environment has no pip")
@pytest.mark.parametrize("words", [["."], ["-e", "."]], ids=["install", "editable"])
def test_pip_install_tells_what_to_do(words):
    command = [sys.executable, "-m", "pip", "install", "--no-index", "--no-deps", "--dry-run",
               "--disable-pip-version-check", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    text = done.stdout + done.stderr
    assert done.returncode != 0
    assert "[1 lines of output]" in text, text
    assert "pip install -r requirements.txt" in text
    assert "Traceback" not in text
