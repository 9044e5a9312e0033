"""Runs a training script as a user does, and reads what it leaves behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]


class ScriptRun:
    """One finished run: status, text and err_text (output), err (lines), events of metrics.jsonl.

    script:   its file name
    words:    the command line behind it
    folder:   where it is called
    logs:     its run folder
    launcher: command in front of the script instead of Python
    stop:     (signal, n): send it once n train events are written
    timeout:  seconds that it may take
    """

    def __init__(self, script, words, folder, logs, *, launcher=None, stop=None, env=None,
                 preexec=None, timeout=300):
        self.folder, self.logs = folder, logs
        command = [*(launcher or [sys.executable]), str(ROOT / script), *map(str, words)]
        environment = os.environ | {"OMP_NUM_THREADS": "1"} | (env or {})
        process = subprocess.Popen(command, cwd=folder, env=environment, text=True,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   preexec_fn=preexec)
        if stop:
            number, count = stop
            self._wait_for(count, process, timeout)
            process.send_signal(number)
        self.text, self.err_text = process.communicate(timeout=timeout)
        self.status = process.returncode
        self.err = self.err_text.splitlines()

    def _wait_for(self, count, process, timeout):
        deadline = time.monotonic() + timeout
        while len(self.train_events) < count and process.poll() is None:
            if time.monotonic() > deadline:
                process.kill()
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


def limits(**values):
    """A preexec function that sets resource limits, for full disks."""
    import resource

    def apply():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write beyond the limit then fails
        for name, value in values.items():
            resource.setrlimit(getattr(resource, name), (value, value))

    return apply


def load(path):
    """A checkpoint as anyone would read it."""
    return torch.load(path, weights_only=True)
