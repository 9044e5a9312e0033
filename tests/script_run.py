"""Runs a training script as a user does, and reads what it leaves behind."""

import atexit
import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import torch
from preloaded import DRIVER, Preloaded

from runtime.launch.peers import is_gone

ROOT = Path(__file__).resolve().parents[1]
FORKING = threading.Lock()  # one run at a time; a second one of another thread is started
STARTED_WITH = os.environ | {"OMP_NUM_THREADS": "1"}  # what the forking process gets


class ScriptRun:
    """One finished run: status, text and err_text (output), err (lines), events of metrics.jsonl.

    script:   its file name
    words:    the command line behind it
    folder:   where it is called
    logs:     its run folder
    launcher: command in front of the script instead of Python
    stop:     (signal, n): send it once n train events are written
    timeout:  seconds that it may take

    Where Python runs it, it is a fork of a process that has imported torch and its like already;
    with a launcher of another kind, preexec, or variables that are read before the first line, it
    is started from nothing.
    """

    def __init__(self, script, words, folder, logs, *, launcher=None, stop=None, env=None,
                 preexec=None, timeout=300):
        self.folder, self.logs = folder, logs
        command = [*(launcher or [sys.executable]), str(ROOT / script), *map(str, words)]
        environment = os.environ | {"OMP_NUM_THREADS": "1"} | (env or {})
        if preexec is None and command[0] == sys.executable and command[1].endswith(".py") and (
                early(environment) == early(STARTED_WITH)) and FORKING.acquire(blocking=False):
            try:
                self._run_forked(command[1:], environment, stop, timeout)
            finally:
                FORKING.release()
        else:
            self._run_started(command, environment, preexec, stop, timeout)
        self.err = self.err_text.splitlines()

    def _run_forked(self, words, environment, stop, timeout):
        server = forking_server()
        with tempfile.TemporaryDirectory() as folder:
            out, err = Path(folder) / "out", Path(folder) / "err"
            pid = server.start_words(words, self.folder, out, err, environment)
            if stop:
                number, count = stop
                self._wait_for(count, lambda: not is_gone(pid), timeout,
                               lambda: os.kill(pid, signal.SIGKILL))
                os.kill(pid, number)
            self.status = server.wait(pid, timeout)
            self.text, self.err_text = (path.read_text() for path in (out, err))

    def _run_started(self, command, environment, preexec, stop, timeout):
        process = subprocess.Popen(command, cwd=self.folder, env=environment, text=True,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   preexec_fn=preexec)
        if stop:
            number, count = stop
            self._wait_for(count, lambda: process.poll() is None, timeout, process.kill)
            process.send_signal(number)
        self.text, self.err_text = process.communicate(timeout=timeout)
        self.status = process.returncode

    def _wait_for(self, count, is_alive, timeout, kill):
        deadline = time.monotonic() + timeout
        while len(self.train_events) < count and is_alive():
            if time.monotonic() > deadline:
                kill()
                raise AssertionError("no progress")
            time.sleep(0.02)

    @property
    def events(self):
        path = self.logs / "metrics.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [json.loads(line) for line in lines if line.endswith("}")]

    @property
    def train_events(self):
        return [event for event in self.events if event["event"] == "train"]

    @property
    def losses(self):
        """{iteration: {term: value}} of metrics.jsonl."""
        return {event["iteration"]: event["losses"] for event in self.train_events}

    @property
    def evals(self):
        return [event for event in self.events if event["event"] == "eval"]


@functools.cache
def forking_server():
    """One for all runs of this process; it ends with it."""
    server = Preloaded().__enter__()
    atexit.register(server.__exit__)
    return server


def early(environment):
    """The variables that Python, torch or the system's libraries read before a script's lines."""
    # not LD_LIBRARY_PATH and TORCHINDUCTOR_*, which importing OpenCV and torch changes; forks read
    # PYTHONPATH themselves
    prefixes = ("CUDA", "GOMP", "KMP", "LANG", "LC_", "LD_PRELOAD", "MALLOC", "MKL", "OMP",
                "PYTHON", "TORCH_")
    return {name: value for name, value in environment.items()
            if name.startswith(prefixes) and name not in ("PYTHON", "PYTHONPATH")}


def fault(kind, number):
    """A launcher of scripts with a fault of tests/fault_driver.py put into them."""
    return [sys.executable, str(DRIVER), kind, str(number)]


def load(path):
    """A checkpoint as anyone would read it."""
    return torch.load(path, weights_only=True)
