"""Standard streams that are closed, or that nobody reads, end nothing."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CODE = """
import contextlib, os, sys, warnings
from runtime.console import open_standard_streams
open_standard_streams()
open_standard_streams()  # a second call changes nothing
with open(sys.argv[1], "wb") as file:
    assert file.fileno() > 2, "what a library prints would land in this file"
    for number in (1, 2):
        with contextlib.suppress(OSError):  # a library looks after itself
            os.write(number, b"from a library\\n")
    for i in range(2000):
        print(f"line {i}")
        print(f"line {i}", file=sys.stderr)
    warnings.warn("odd")
    sys.stdout.flush()
    file.write(b"content")
sys.stdout.encoding + sys.stderr.errors
"""


@pytest.mark.parametrize("ending", [
    "", ">&-", "2>&-", ">&- 2>&-", "<&-", "<&- >&- 2>&-", "| head -1", ">/dev/full",
    "2>/dev/full", "2>&1 | head -1"])
def test_the_program_runs_to_its_end(tmp_path, ending):
    file = tmp_path / "file"
    command = f'"{sys.executable}" -c "$CODE" "{file}" {ending}; echo "${{PIPESTATUS[0]}}" >&3'
    done = run_bash(command, tmp_path)
    assert done == "0"
    assert file.read_bytes() == b"content"


def run_bash(command, folder):
    """The exit status that the command writes to file descriptor 3."""
    with open(folder / "status", "w") as status:
        subprocess.run(["bash", "-c", f"exec 3>&{status.fileno()}; {command}"], cwd=ROOT,
                       env={"CODE": CODE, "PATH": "/usr/bin:/bin"}, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL, pass_fds=[status.fileno()], check=True)
    return (folder / "status").read_text().strip()


def test_what_can_be_written_is_written(tmp_path):
    code = ("from runtime.console import open_standard_streams as o; o(); import sys;"
            "print('ä'); print('two', file=sys.stderr); sys.stdout.write('end')")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True)
    assert done.stdout.decode() == "ä\nend"
    assert done.stderr.decode() == "two\n"


def test_streams_of_others_stay(capsys, monkeypatch):
    from runtime.console import open_standard_streams

    before = sys.stdout, sys.stderr
    open_standard_streams()
    assert (sys.stdout, sys.stderr) == before
    print("seen")
    assert capsys.readouterr().out == "seen\n"


def test_a_warning_takes_one_line():
    code = ("from runtime.console import fold_warnings as f; f(); import warnings;"
            "warnings.warn('no such\\noperation (Triggered internally at /a/B.cpp:7.)\\n  again')")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr == "UserWarning: no such operation again\n"
