"""Runs the scripts as a user does, on tiny drawn sets."""

import sys
from pathlib import Path

import pytest
import yaml
from expected_numbers import preloaded, write_expected  # noqa: F401 - fixtures
from query_runs import query_train  # noqa: F401 - a fixture
from script_run import ScriptRun, load
from seg_run import seg_scenes, segment  # noqa: F401 - fixtures

from data.drawn.scenes import CLASSES
from data.drawn.shapes import write_class_folders, write_coco

ROOT = Path(__file__).resolve().parents[2]
TINY = {
    "_base_": str(ROOT / "configs" / "yolact" / "yolact_shapes.yaml"),
    "name": "tiny",
    "max_size": 64,
    "lr_warmup_until": 4,
    "backbone": {"args": {"width": 8}},
}
TINY_CLASSIFIER = {
    "DATA": {"CROP_SIZE": 32},
    "MODEL": {"NAME": "resnest14_small"},
    "TRAINING": {"BATCH_SIZE": 4, "TEST_BATCH_SIZE": 4, "EPOCHS": 2, "WORKERS": 0},
    "OPTIMIZER": {"LR": 0.01},
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


class Trained(ScriptRun):
    """One finished run of train_yolact.py: what `ScriptRun` says, out, and the weights files.

    data: False leaves out the flags that name config and data
    """

    def __init__(self, folder, scenes, words, data=True, out="out", **how):
        self.out = folder / out
        self.weights = self.out / "weights"
        if data:
            words = ["--config", "tiny.yaml", "--num_workers", "0", "--log_every", "1",
                     "--save_folder", self.weights, "--log_folder", self.out / "logs",
                     "--batch_size", "8", "--validation_epoch", "0", "--cfg-options",
                     f"dataset.train_info={scenes.train_info}",
                     f"dataset.train_images={scenes.train_images}",
                     f"dataset.valid_info={scenes.valid_info}",
                     f"dataset.valid_images={scenes.valid_images}", *words]
        super().__init__("train_yolact.py", words, folder, self.out / "logs" / "tiny", **how)

    @property
    def names(self):
        return sorted(path.name for path in self.weights.glob("*"))

    def load(self, name):
        return load(self.weights / name)


@pytest.fixture(scope="session")
def class_folders(tmp_path_factory):
    """21 training and 9 validation images of three classes, 40 px: a rest of 1 with batches of 4"""
    folder = tmp_path_factory.mktemp("classes")
    write_class_folders(folder, 7, 3, 40, seed=3, classes=CLASSES[:3])
    return folder


@pytest.fixture
def classify(tmp_path, class_folders):
    """classify("--max-iters 4", ...) runs train_resnest.py in tmp_path; see `Classified`."""
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(TINY_CLASSIFIER))

    def run(line="", *more, root=class_folders, **how):
        return Classified(tmp_path, root, [*line.split(), *more], **how)

    return run


class Classified(ScriptRun):
    """One finished run of train_resnest.py: what `ScriptRun` says, and the checkpoints.

    root: of the class folders; None leaves out the flags that name config and data
    """

    def __init__(self, folder, root, words, out="out", **how):
        self.out = folder / out
        if root is not None:
            words = ["--config-file", "tiny.yaml", "--outdir", self.out, "--log-every", "1",
                     *words, "DATA.ROOT", root]
        super().__init__("train_resnest.py", words, folder, self.out, **how)

    @property
    def names(self):
        return sorted(path.name for path in self.out.glob("*.pth"))

    def load(self, name):
        return load(self.out / name)


@pytest.fixture
def ranks():
    """A launcher of n processes on this machine: torchrun's part, without its start."""
    def command(n):
        return [sys.executable, str(ROOT / "tests" / "forked_ranks.py"), str(n)]

    return command


