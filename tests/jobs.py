"""Tiny runs of each script for tests with many processes, and their processes."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import yaml

from data.drawn.scenes import CLASSES
from data.drawn.shapes import coco_paths, write_ade, write_class_folders, write_coco
from runtime.launch.peers import is_gone

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "configs"
YOLACT = {"_base_": str(CONFIGS / "yolact" / "yolact_shapes.yaml"), "name": "tiny",
          "max_size": 64, "lr_warmup_until": 4, "backbone": {"args": {"width": 8}}}
SEG = {"_base_": str(CONFIGS / "seg" / "shapes.yaml"),
       "DATASET": {"imgSizes": [48], "imgMaxSize": 64, "segm_downsampling_rate": 8},
       "MODEL": {"arch_encoder": "mobilenetv2dilated", "fc_dim": 320,
                 "arch_decoder": "c1_deepsup"},
       "TRAIN": {"batch_size_per_gpu": 2, "epoch_iters": 1000, "num_epoch": 3, "workers": 0,
                 "disp_iter": 2}, "VAL": {"interval": 0}}
RESNEST = {"DATA": {"CROP_SIZE": 32}, "MODEL": {"NAME": "resnest14_small"},
           "OPTIMIZER": {"LR": 0.01},
           "TRAINING": {"BATCH_SIZE": 4, "TEST_BATCH_SIZE": 4, "EPOCHS": 1000, "WORKERS": 0}}
QUERYINST = {
    "_base_": str(CONFIGS / "queryinst" / "queryinst_shapes.yaml"),
    "model": {"backbone": {"base_channels": 8}, "neck": {"out_channels": 16},
              "rpn_head": {"num_proposals": 8},
              "roi_head": {"num_stages": 2, "mask_head": {"num_convs": 1},
                           "bbox_head": {"feedforward_channels": 32, "dynamic_channels": 8}}},
    "train_dataloader": {"batch_size": 4, "num_workers": 0},
    "val_dataloader": {"batch_size": 4, "num_workers": 0},
    "optim_wrapper": {"paramwise_cfg": {"custom_keys": {"backbone": {"lr_mult": 1.0}}}},
    "train_cfg": {"max_epochs": 1000, "val_interval": 1000},
}


class Job:
    """A tiny run that any launcher can start, as often as it needs.

    name:  "yolact", "seg", "resnest" or "queryinst"
    data:  folder of drawn images, made when it is absent
    out:   folder of this run
    words: what stands behind the interpreter and the launcher
    logs:  the run folder
    """

    def __init__(self, name, data, out, more=""):
        self.script = f"train_{name}"
        self.out, self.logs = Path(out), Path(out)
        self.out.mkdir(parents=True, exist_ok=True)
        flags, pairs = getattr(self, f"_{name}")(Path(data))
        self.words = [str(ROOT / f"{self.script}.py"), "--device", "cpu",
                      *map(str, flags), *more.split(), *map(str, pairs)]

    def _config(self, tree):
        path = self.out / "tiny.yaml"
        path.write_text(yaml.safe_dump(tree))
        return path

    def _yolact(self, data):
        paths = coco(data / "coco")
        self.logs = self.out / "logs" / "tiny"
        return ["--config", self._config(YOLACT), "--num_workers", 0, "--log_every", 1,
                "--batch_size", 8, "--validation_epoch", 0, "--save_folder", self.out / "weights",
                "--log_folder", self.out / "logs", "--cfg-options",
                f"dataset.train_info={paths.train_info}",
                f"dataset.train_images={paths.train_images}",
                f"dataset.valid_info={paths.valid_info}",
                f"dataset.valid_images={paths.valid_images}"], []

    def _seg(self, data):
        root = data / "ade"
        if not root.exists():
            write_ade(root, 12, 5, 64, seed=3)
        return ["--cfg", self._config(SEG), "--log-every", 1], [
            "DIR", self.out, "DATASET.root_dataset", root,
            "DATASET.list_train", root / "training.odgt",
            "DATASET.list_val", root / "validation.odgt"]

    def _resnest(self, data):
        root = data / "classes"
        if not root.exists():
            write_class_folders(root, 8, 2, 40, seed=3, classes=CLASSES[:3])
        return ["--config-file", self._config(RESNEST), "--outdir", self.out,
                "--log-every", 1], ["DATA.ROOT", root]

    def _queryinst(self, data):
        paths = coco(data / "coco")
        loaders = {"train_dataloader": paths.train_info, "val_dataloader": paths.valid_info}
        tree = QUERYINST | {
            loader: QUERYINST[loader] | {"dataset": {
                "data_root": str(paths.train_info.parents[1]), "ann_file": str(info)}}
            for loader, info in loaders.items()}
        return [self._config(tree), "--work-dir", self.out, "--log-every", 1], []

    @property
    def losses(self):
        """{iteration: {term: value}} so far."""
        path = self.logs / "metrics.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        events = [json.loads(line) for line in lines if line.endswith("}")]
        return {event["iteration"]: event["losses"] for event in events
                if event["event"] == "train"}


def coco(folder):
    """Paths of 16 training and 6 validation scenes, 64 px."""
    return coco_paths(folder) if folder.exists() else write_coco(folder, 16, 6, 64, seed=3)


def torchrun(*words):
    """The launcher in front of a job's words; `words` are its own flags."""
    return [sys.executable, "-m", "torch.distributed.run", *map(str, words)]


class Started:
    """A command under way, in a session of its own; `say` is a file with all that it prints."""

    def __init__(self, command, say, env=None):
        self.say = Path(say)
        environment = {name: value for name, value in os.environ.items()
                       if name not in ("RANK", "WORLD_SIZE")} | {"OMP_NUM_THREADS": "1"}
        with self.say.open("w") as file:
            self.process = subprocess.Popen(
                [*map(str, command)], stdout=file, stderr=subprocess.STDOUT,
                env=environment | (env or {}), start_new_session=True)

    @property
    def text(self):
        return self.say.read_text(errors="replace")

    def wait_for(self, happened, timeout_s=120):
        """Until `happened()`; fails when the command ends before, or it takes too long."""
        deadline = time.monotonic() + timeout_s
        while not happened():
            assert self.process.poll() is None, self.text
            assert time.monotonic() < deadline, self.text
            time.sleep(0.02)

    def finish(self, timeout_s=240):
        """(status, text)"""
        return self.process.wait(timeout_s), self.text

    def rank(self, number):
        """Process id of a rank below this command, the launchers of other nodes included."""
        for pid in descendants(self.process.pid):
            with contextlib.suppress(OSError):
                if f"\0RANK={number}\0" in "\0" + Path(f"/proc/{pid}/environ").read_text():
                    return pid
        raise AssertionError(f"no rank {number}")

    def end(self):
        """End all that is left of it."""
        for pid in [*descendants(self.process.pid), self.process.pid]:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(30)


@contextlib.contextmanager
def started(command, say, env=None):
    """`Started`, ended in any case."""
    job = Started(command, say, env)
    try:
        yield job
    finally:
        job.end()


def descendants(pid):
    """All processes below `pid`, depth first."""
    found = []
    with contextlib.suppress(OSError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            found += [int(child), *descendants(int(child))]
    return found


def last_words(text, script):
    """The last line that the script itself has said."""
    lines = [line for line in text.splitlines() if line.startswith(f"{script}: ")]
    return lines[-1] if lines else ""


def wait_gone(pids, timeout_s=40):
    deadline = time.monotonic() + timeout_s
    while not all(map(is_gone, pids)):
        assert time.monotonic() < deadline, [pid for pid in pids if not is_gone(pid)]
        time.sleep(0.1)
