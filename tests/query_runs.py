"""Runs train_queryinst.py as a user does, on a set of tiny drawn scenes."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

ROOT = Path(__file__).resolve().parents[1]
LOAD = [{"type": "LoadImageFromFile"}, {"type": "LoadAnnotations", "with_bbox": True,
                                        "with_mask": True}]
RESIZE = {"type": "Resize", "scale": [64, 64], "keep_ratio": True}
PACK = {"type": "PackDetInputs"}
TINY = {
    "_base_": str(ROOT / "configs" / "queryinst" / "queryinst_shapes.yaml"),
    "model": {
        "backbone": {"base_channels": 8}, "neck": {"out_channels": 16},
        "rpn_head": {"num_proposals": 8},
        "roi_head": {"num_stages": 2,
                     "bbox_head": {"feedforward_channels": 32, "dynamic_channels": 8},
                     "mask_head": {"num_convs": 1}},
    },
    "train_dataloader": {"batch_size": 4, "num_workers": 0, "dataset": {
        "pipeline": [*LOAD, RESIZE, {"type": "RandomFlip", "prob": 0.5}, PACK]}},
    "val_dataloader": {"batch_size": 4, "num_workers": 0, "dataset": {
        "pipeline": [LOAD[0], RESIZE, LOAD[1], PACK]}},
    "train_cfg": {"max_epochs": 3, "val_interval": 100},
    "param_scheduler": [
        {"type": "LinearLR", "start_factor": 0.1, "by_epoch": False, "begin": 0, "end": 4},
        {"type": "MultiStepLR", "by_epoch": True, "milestones": [2]}],
}


@pytest.fixture
def query_train(tmp_path, scenes):
    """query_train("--max-iters 4", ...) runs the script in tmp_path; see `QueryTrained`.

    16 training images in batches of 4: an epoch has 4 updates, 2 with two processes.
    """
    data = {"train_dataloader": scenes.train_info, "val_dataloader": scenes.valid_info}
    config = dict(TINY)
    for loader, info in data.items():
        dataset = TINY[loader]["dataset"] | {
            "data_root": str(scenes.train_info.parents[1]), "ann_file": str(info)}
        config[loader] = TINY[loader] | {"dataset": dataset}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(config))

    def run(line="", *more, **how):
        return QueryTrained(tmp_path, [*line.split(), *more], **how)

    return run


class QueryTrained:
    """One finished run: status, text, err (lines), train and eval events, checkpoints.

    launcher: command in front of the config instead of Python and the script
    stop:     (signal, n): send it once n train events are written
    config:   the positional argument; None leaves it and the work directory out
    """

    def __init__(self, folder, words, launcher=None, stop=None, config="tiny.yaml", env=None,
                 out="out", preexec=None):
        self.folder, self.out = folder, folder / out
        command = launcher or [sys.executable, str(ROOT / "train_queryinst.py")]
        if config is not None:
            first = [config, *words[:1]] if launcher else [config]  # dist_train.sh CONFIG GPUS
            words = words[1:] if launcher else words
            command = [*command, *first, "--work-dir", str(self.out), "--log-every", "1"]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHON": sys.executable} | (env or {})
        process = subprocess.Popen([*command, *words], cwd=folder, env=environment, text=True,
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
        deadline = time.monotonic() + 240
        while len(self.train_events) < count and process.poll() is None:
            assert time.monotonic() < deadline, "no progress"
            time.sleep(0.02)

    @property
    def events(self):
        path = self.out / "metrics.jsonl"
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
        """The checkpoints."""
        return sorted(path.name for path in self.out.glob("*.pth"))

    def load(self, name):
        return torch.load(self.out / name, weights_only=True)


def same_state(a, b):
    """Whether two nested states hold the same values, bit for bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same_state(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same_state, a, b))
    return a == b
