"""Runs train_seg.py as a user does, on small pictures in ADE20K's layout."""

import contextlib
import io
import os
from pathlib import Path

import pytest
import yaml
from script_run import ScriptRun, load

import train_seg
from data.drawn.shapes import write_ade
from runtime import cli

ROOT = Path(__file__).resolve().parents[1]
TINY = {
    "_base_": str(ROOT / "configs" / "seg" / "shapes.yaml"),
    "DATASET": {"imgSizes": [48], "imgMaxSize": 64, "segm_downsampling_rate": 8},
    "MODEL": {"arch_encoder": "mobilenetv2dilated", "fc_dim": 320, "arch_decoder": "c1_deepsup"},
    "TRAIN": {"batch_size_per_gpu": 2, "epoch_iters": 4, "num_epoch": 3, "workers": 0,
              "disp_iter": 2, "lr_encoder": 0.02, "lr_decoder": 0.02},
    "VAL": {"interval": 0, "checkpoint": "epoch_20.pth"},
    "TEST": {"checkpoint": "epoch_20.pth"},
}


class SegRun(ScriptRun):
    """One finished run: what `ScriptRun` says, and `out`, the run folder.

    It runs in this process, which spares importing torch, unless `how` asks for its own, with
    launcher, stop or preexec.
    """

    def __init__(self, folder, root, words, out="out", **how):
        self.out = folder / out
        (folder / "tiny.yaml").write_text(yaml.safe_dump(TINY))
        words = ["--cfg", "tiny.yaml", "--log-every", "1", "DIR", str(self.out),
                 "DATASET.root_dataset", str(root),
                 "DATASET.list_train", str(root / "training.odgt"),
                 "DATASET.list_val", str(root / "validation.odgt"), *words]
        if how:
            super().__init__("train_seg.py", words, folder, self.out, **how)
        else:
            self.folder, self.logs = folder, self.out
            self._run_here(words)

    def _run_here(self, words):
        out, err, before = io.StringIO(), io.StringIO(), Path.cwd()
        os.chdir(self.folder)
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                cli.run(train_seg.main, "train_seg",
                        cli.read_flags(train_seg.flags, "train_seg", words), None)
        except SystemExit as end:
            self.status = end.code
        finally:
            os.chdir(before)
        self.text, self.err_text = out.getvalue(), err.getvalue()
        self.err = self.err_text.splitlines()

    @property
    def names(self):
        """Checkpoint files in the run folder."""
        return sorted(path.name for path in self.out.glob("*.pth"))

    def load(self, name):
        return load(self.out / name)


@pytest.fixture(scope="session")
def seg_scenes(tmp_path_factory):
    """Folder of 12 training and 5 validation scenes in ADE20K's layout, 64 px."""
    return write_ade(tmp_path_factory.mktemp("seg"), 12, 5, 64, seed=3).root


@pytest.fixture
def segment(tmp_path, seg_scenes):
    """segment("--max-iters 4", ...) runs train_seg.py in tmp_path; see `SegRun`."""

    def run(line="", *more, root=seg_scenes, **how):
        return SegRun(tmp_path, root, [*line.split(), *more], **how)

    run.root = seg_scenes
    return run
