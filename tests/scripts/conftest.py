"""Runs train_yolact.py as a user does, on a set of 16 tiny drawn scenes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from data.shapes import write_coco

ROOT = Path(__file__).resolve().parents[2]
TINY = {
    "_base_": str(ROOT / "configs" / "yolact" / "yolact_shapes.yaml"),
    "name": "tiny",
    "max_size": 64,
    "lr_warmup_until": 4,
    "backbone": {"args": {"width": 8}},
}


@pytest.fixture(scope="session")
def scenes(tmp_path_factory):
    """Paths of 16 training and 6 validation scenes, 64 px."""
    return write_coco(tmp_path_factory.mktemp("scenes"), 16, 6, 64, seed=3)


@pytest.fixture
def tiny_config(tmp_path):
    """Name, in tmp_path, of a config that trains in milliseconds."""
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    return "tiny.yaml"


@pytest.fixture
def train(tmp_path, scenes, tiny_config):
    """train("--max-iters 4", ...) runs the script in tmp_path; see `Trained`."""

    def run(line="", *more, **how):
        return Trained(tmp_path, scenes, [*line.split(), *more], **how)

    return run


class Trained:
    """One finished run: status, out, err (lines), train and eval events, weights files.

    launcher:  command in front of the script instead of Python
    stop:      (signal, n): send it once n train events are written
    data:      False leaves out the flags that name config and data
    """

    def __init__(self, folder, scenes, words, launcher=None, stop=None, data=True, env=None,
                 preexec=None, out="out"):
        self.folder, self.out = folder, folder / out
        self.weights, self.logs = self.out / "weights", self.out / "logs" / "tiny"
        command = [*(launcher or [sys.executable]), str(ROOT / "train_yolact.py")]
        if data:
            command += ["--config", "tiny.yaml", "--num_workers", "0", "--log_every", "1",
                        "--save_folder", str(self.weights), "--log_folder", str(self.out / "logs"),
                        "--batch_size", "8", "--validation_epoch", "0", "--cfg-options",
                        f"dataset.train_info={scenes.train_info}",
                        f"dataset.train_images={scenes.train_images}",
                        f"dataset.valid_info={scenes.valid_info}",
                        f"dataset.valid_images={scenes.valid_images}"]
        environment = os.environ | {"OMP_NUM_THREADS": "1"} | (env or {})
        process = subprocess.Popen(command + words, cwd=folder, env=environment, text=True,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   preexec_fn=preexec)
        if stop:
            number, count = stop
            self._wait_for(count, process)
            process.send_signal(number)
        self.text, self.err_text = process.communicate(timeout=300)
        self.status = process.returncode
        self.err = self.err_text.splitlines()

    def _wait_for(self, count, process):
        deadline = time.monotonic() + 120
        while len(self.train_events) < count and process.poll() is None:
            assert time.monotonic() < deadline, "no progress"
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

    @property
    def names(self):
        return sorted(path.name for path in self.weights.glob("*"))

    def load(self, name):
        return torch.load(self.weights / name, weights_only=True)


def limits(**values):
    """A preexec function that sets resource limits, for full disks."""
    import resource

    def apply():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write beyond the limit then fails
        for name, value in values.items():
            resource.setrlimit(getattr(resource, name), (value, value))

    return apply


@pytest.fixture(name="limits")
def limits_fixture():
    return limits


@pytest.fixture
def torchrun():
    """A launcher of n processes on this machine."""
    def command(n):
        return [sys.executable, "-m", "torch.distributed.run", "--standalone",
                "--nproc_per_node", str(n)]

    return command


