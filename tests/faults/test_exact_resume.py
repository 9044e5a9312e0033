"""A run that is stopped or killed anywhere, and resumed, is the run that was not: bit for bit.

Hundreds of short runs: `make test-faults`. tests/scripts/test_*_resume.py has a sample of each.
"""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
import torch
import yaml
from preloaded import ROOT, Preloaded
from query_runs import TINY as QUERY
from seg_run import TINY as SEG

from data.drawn.scenes import CLASSES
from data.drawn.shapes import write_ade, write_class_folders, write_coco

pytestmark = [pytest.mark.slow, pytest.mark.fault]

UPDATES = 24  # in two epochs of 12
KILLS = 50
SCRIPTS = ("yolact", "seg", "resnest", "queryinst")


@pytest.fixture(scope="module")
def preloaded():
    with Preloaded() as server:
        yield server


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """{script: its command line but for the run's folder}; configs and drawn pictures."""
    folder = tmp_path_factory.mktemp("inputs")
    scenes = write_coco(folder / "coco", 48, 4, 64, seed=3)
    ade = write_ade(folder / "ade", 24, 4, 64, seed=3).root
    classes = folder / "classes"
    write_class_folders(classes, 16, 3, 40, seed=3, classes=CLASSES[:3])
    configs = {
        "yolact": {"_base_": str(ROOT / "configs/yolact/yolact_shapes.yaml"), "name": "tiny",
                   "max_size": 64, "lr_warmup_until": 4, "backbone": {"args": {"width": 8}}},
        "seg": SEG | {"TRAIN": SEG["TRAIN"] | {"epoch_iters": 12, "num_epoch": 2},
                      "VAL": {"interval": 1}},
        "resnest": {"DATA": {"CROP_SIZE": 32}, "MODEL": {"NAME": "resnest14_small"},
                    "TRAINING": {"BATCH_SIZE": 4, "TEST_BATCH_SIZE": 4, "EPOCHS": 2, "WORKERS": 0,
                                 "EVAL_EVERY": 1},
                    "OPTIMIZER": {"LR": 0.01}},
        "queryinst": QUERY | {"train_cfg": {"max_epochs": 2, "val_interval": 1}},
    }
    for loader, info in (("train_dataloader", scenes.train_info),
                         ("val_dataloader", scenes.valid_info)):
        data = QUERY[loader]["dataset"] | {"data_root": str(scenes.train_info.parents[1]),
                                           "ann_file": str(info)}
        configs["queryinst"][loader] = QUERY[loader] | {"dataset": data}
    paths = {}
    for name, config in configs.items():
        paths[name] = folder / f"{name}.yaml"
        paths[name].write_text(yaml.safe_dump(config))
    coco = [f"dataset.{key}={getattr(scenes, key)}"
            for key in ("train_info", "train_images", "valid_info", "valid_images")]
    return {
        "yolact": ["--config", paths["yolact"], "--num_workers", "0", "--batch_size", "4",
                   "--save_folder", "out/weights", "--log_folder", "out/logs", "--no_autoscale",
                   "--validation_epoch", "1", "--cfg-options", *coco],
        "seg": ["--cfg", paths["seg"], "DIR", "out", "DATASET.root_dataset", ade,
                "DATASET.list_train", ade / "training.odgt",
                "DATASET.list_val", ade / "validation.odgt"],
        "resnest": ["--config-file", paths["resnest"], "--outdir", "out", "DATA.ROOT", classes],
        "queryinst": [paths["queryinst"], "--work-dir", "out"],
    }


class Trial:
    """Runs of one script in a folder of their own."""

    def __init__(self, preloaded, name, words, folder, flags=()):
        folder.mkdir()
        self.name, self.folder, self.server = name, folder, preloaded
        self.script = f"train_{name}.py"
        self.words = ["--max-iters", UPDATES, "--log-every", "1", *flags, *words]
        self.logs = folder / "out" / ("logs/tiny" if name == "yolact" else "")

    def run(self, *more, fault=()):
        status, _, self.err = self.server.run(self.script, [*more, *self.words], self.folder, fault)
        return status

    def events(self, kind):
        lines = (self.logs / "metrics.jsonl").read_text().splitlines()
        return [event for event in map(json.loads, lines) if event["event"] == kind]

    def losses(self):
        return {event["iteration"]: (event["losses"], event["lr"], event["grad_norm"])
                for event in self.events("train")}

    def scores(self):
        return {event["iteration"]: event["metrics"] for event in self.events("eval")}

    def checkpoints(self):
        """{file name: content} of all that lies there at the end."""
        return {path.name: torch.load(path, weights_only=True)
                for path in (self.folder / "out").rglob("*.pth")}


def differences(a, b, where=""):
    """The places at which two nested states differ, but for times, paths, the seeds' record and
    which files a save was to replace."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return [] if torch.equal(a, b) else [where]
    if isinstance(a, dict) and isinstance(b, dict):
        skipped = {"time", "rng", "_weights_sha256", "going"}
        found = [f"{where}.{key}" for key in a.keys() ^ b.keys() if key not in skipped]
        return found + [each for key in a.keys() & b.keys() if key not in skipped
                        for each in differences(a[key], b[key], f"{where}.{key}")]
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)) and len(a) == len(b):
        return [each for i, (x, y) in enumerate(zip(a, b, strict=True))
                for each in differences(x, y, f"{where}[{i}]")]
    return [] if a == b or (a != a and b != b) else [f"{where}: {a!r:.60} and {b!r:.60}"]


def same_run(trial, whole, besides=()):
    """besides: keys that may differ, because the flags do"""
    assert trial.losses() == whole.losses()
    assert trial.scores() == whole.scores()
    ours, theirs = trial.checkpoints(), whole.checkpoints()
    assert sorted(ours) == sorted(theirs)
    found = [each for each in differences(ours, theirs)
             if not any(f".{key}:" in each for key in besides)]
    assert found == []


@pytest.fixture
def trial(preloaded, inputs, tmp_path):
    """trial(script, folder name, flag, ...) is a `Trial`."""

    def make(name, folder, *flags):
        return Trial(preloaded, name, inputs[name], tmp_path / folder, flags)

    return make


@pytest.mark.parametrize("name", SCRIPTS)
def test_stopped_after_every_update_in_turn(trial, name):
    # also where a regular save is due: the resumed run makes it, and ends with the same files
    every = "--save_interval" if name == "yolact" else "--save-every"
    flags = ("--ema", "0.5", "--clip-grad", "10", every, "3")
    whole = trial(name, "whole", *flags)
    assert whole.run() == 0, whole.err
    assert len(whole.losses()) == UPDATES
    equal = 0
    for stop in range(1, UPDATES + 1):
        each = trial(name, f"stop{stop}", *flags)
        assert each.run(fault=("stop", stop)) == 75, each.err
        assert max(each.losses()) == stop - 1
        assert each.run("--resume", "latest") == 0, each.err
        same_run(each, whole)
        equal += 1
    assert equal == UPDATES


@pytest.mark.parametrize("name", SCRIPTS)
def test_killed_at_random_moments(trial, name):
    flags = ("--save-every", "2")
    if name == "yolact":
        flags = ("--save_interval", "2", "--keep_latest")
    whole = trial(name, "whole", *flags)
    began = time.monotonic()
    assert whole.run() == 0, whole.err
    took = time.monotonic() - began
    moments, equal = random.Random(1), 0
    for i in range(KILLS):
        each = trial(name, f"kill{i}", *flags)
        pid = each.server.start(each.script, [*each.words], each.folder)
        time.sleep(moments.uniform(0.3, 1) * took)
        _kill_group(pid)
        if each.server.wait() != 0:  # else it was done already
            assert each.run("--resume", "latest") == 0, each.err
        assert each.losses() == whole.losses()
        last = max(whole.scores())
        assert each.scores()[last] == whole.scores()[last]
        ours, theirs = each.checkpoints(), whole.checkpoints()
        assert set(theirs) <= set(ours)
        assert differences({key: ours[key] for key in theirs}, theirs) == []
        equal += 1
    assert equal == KILLS


def _kill_group(pid):
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


@pytest.mark.parametrize("name", SCRIPTS)
def test_any_number_of_workers_and_a_stop_inside_an_accumulation(trial, name):
    flags = ["--accumulate", "2", "--max-iters", "8"]
    workers = "--num_workers" if name == "yolact" else "--workers"
    runs = []
    for count in (0, 1, 2):
        each = trial(name, f"workers{count}", *flags, workers, str(count))
        each.words = each.words[2:]  # the fewer updates count
        # the 5th backward pass is the first of the third update's two
        assert each.run(fault=("stop", 5)) == 75, each.err
        assert max(each.losses()) == 2
        assert each.run("--resume", "latest") == 0, each.err
        runs.append(each)
    whole = trial(name, "whole", *flags, workers, "0")
    whole.words = whole.words[2:]
    assert whole.run() == 0, whole.err
    for each in runs:
        same_run(each, whole, besides=["config", "cfg"])  # their texts name the workers


def torchrun(count, script, words, folder):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node",
               str(count), str(ROOT / script), *map(str, words)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True,
                          timeout=300)


def test_two_processes_stopped_at_six_points(trial):
    flags = ("--max-iters", "12")
    whole = trial("resnest", "whole", *flags)
    done = torchrun(2, whole.script, whole.words[2:], whole.folder)
    assert done.returncode == 0, done.stderr
    equal = 0
    for stop in range(1, 12, 2):
        each = trial("resnest", f"stop{stop}", *flags)
        words = ["resnest", *each.words[2:]]
        driver = ["tests/fault_driver.py", "stop", stop, ROOT / each.script]
        stopped = torchrun(2, driver[0], [*driver[1:], *words[1:]], each.folder)
        assert stopped.returncode != 0
        assert max(each.losses()) == stop - 1, stopped.stderr
        rest = torchrun(2, each.script, ["--resume", "latest", *each.words[2:]], each.folder)
        assert rest.returncode == 0, rest.stderr
        same_run(each, whole)
        equal += 1
    assert equal == 6


@pytest.mark.parametrize("name, two, one", [
    ("yolact", ["--batch_size", "8"], ["--batch_size", "4"]),
    ("resnest", [], ["OPTIMIZER.LR", "0.02"]),  # the rate is for a process
    ("seg", ["TRAIN.sync_bn", "False"], ["TRAIN.sync_bn", "False"]),
])
def test_from_two_processes_to_one_that_accumulates(trial, name, two, one):
    """Batches, rates and losses stay; only the order of the sums differs."""
    whole = trial(name, "whole")
    limit = ["--max-iters", "8"]
    done = torchrun(2, whole.script, [*limit, *whole.words[2:], *two], whole.folder)
    assert done.returncode == 0, done.stderr
    each = trial(name, "each")
    begun = torchrun(2, each.script, ["--max-iters", "4", *each.words[2:], *two], each.folder)
    assert begun.returncode == 0, begun.stderr
    status, _, err = each.server.run(
        each.script, [*limit, "--accumulate", "2", "--resume", "latest", "--force-resume",
                      *each.words[2:], *one], each.folder)
    assert status == 0, err
    ours, theirs = each.losses(), whole.losses()
    assert list(ours) == list(theirs) == list(range(8))
    for step in range(8):
        for term, value in theirs[step][0].items():
            assert ours[step][0][term] == pytest.approx(value, rel=1e-5), (step, term)
