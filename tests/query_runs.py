"""Runs train_queryinst.py as a user does, on a set of tiny drawn scenes."""

import sys
from pathlib import Path

import pytest
import torch
import yaml
from script_run import ScriptRun

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
    "optim_wrapper": {"optimizer": {"lr": 0.001}, "clip_grad": {"max_norm": 1.0},
                      "paramwise_cfg": {"custom_keys": {"backbone": {"lr_mult": 1.0}}}},
    "auto_scale_lr": {"base_batch_size": 8},
    "train_cfg": {"max_epochs": 3, "val_interval": 100},
    "default_hooks": {"checkpoint": {"max_keep_ckpts": -1}},
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

    run.config = tmp_path / "tiny.yaml"
    return run


class QueryTrained(ScriptRun):
    """One finished run, and its checkpoints.

    processes: with dist_train.sh when given
    config:    the positional argument; None leaves it and the work directory out
    """

    def __init__(self, folder, words, processes=None, config="tiny.yaml", out="out",
                 launcher=None, **how):
        self.out = folder / out
        if config is not None:
            words = [config, "--work-dir", self.out, "--log-every", "1", *words]
        if processes:
            launcher, words = [str(ROOT / "dist_train.sh")], [processes, *words]
        super().__init__("train_queryinst.py", words, folder, self.out, launcher=launcher,
                         env={"PYTHON": sys.executable}, **how)

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
