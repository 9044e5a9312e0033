"""MMDetection's own runner and inferencer beside train_queryinst: each takes the other's file.

A training of one batch an epoch, always the same images, so that losses can be compared update by
update. One thing is not MMDetection's own: RoIAlign, which mmcv-lite lacks, is torchvision's (see
mmcv_ops.py).
"""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from coco_maker import annotation, document, write

from models import queryinst

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
CLASSES = ("crane", "barge")
EPOCHS, STOP = 6, 3
CLOSE = 1e-5  # relative, of float32 losses
LOAD = [{"type": "LoadImageFromFile"}, {"type": "LoadAnnotations", "with_bbox": True,
                                        "with_mask": True}]
RESIZE, PACK = {"type": "Resize", "scale": [96, 96], "keep_ratio": True}, {"type": "PackDetInputs"}


def tiny_config(folder):
    """A QueryInst that MMDetection can build too: its smallest ResNet, the recipe's schedule."""
    data = {"data_root": f"{folder}/", "ann_file": "info.json", "data_prefix": {"img": "images/"}}
    return {
        "_base_": str(ROOT / "configs" / "queryinst" / "queryinst_r50_fpn_1x_coco.yaml"),
        "model": {
            "backbone": {"depth": 18, "base_channels": 8, "init_cfg": None},
            "neck": {"out_channels": 16}, "rpn_head": {"num_proposals": 10},
            "roi_head": {
                "num_stages": 2,
                "bbox_head": {"num_heads": 4, "feedforward_channels": 32, "dynamic_channels": 8},
                "mask_head": {"num_convs": 1}},
            "test_cfg": {"rcnn": {"max_per_img": 10}},
        },
        "train_dataloader": {"batch_size": 4, "num_workers": 0,
                             "dataset": {**data, "pipeline": [*LOAD, RESIZE, PACK]}},
        "val_dataloader": {"num_workers": 0,
                           "dataset": {**data, "pipeline": [LOAD[0], RESIZE, LOAD[1], PACK]}},
        "optim_wrapper": {"optimizer": {"lr": 0.001}},
        "param_scheduler": [
            {"type": "LinearLR", "start_factor": 0.1, "by_epoch": False, "begin": 0, "end": 4},
            {"type": "MultiStepLR", "by_epoch": True, "begin": 0, "milestones": [4, 5],
             "gamma": 0.1}],
        "train_cfg": {"max_epochs": EPOCHS, "val_interval": 100},
        "default_hooks": {"checkpoint": {"interval": 1}},
    }


@pytest.fixture(scope="module")
def mmdet(torchvision_here):
    """MMDetection, with its registries filled."""
    for package in ("mmengine", "mmcv", "mmdet"):
        pytest.importorskip(package, reason=f"{package} is not installed: make interop")
    import mmcv_ops

    mmcv_ops.install()
    from mmdet.utils import register_all_modules

    register_all_modules()
    import mmdet

    return mmdet


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Four noisy pictures with rectangles, and the tiny config."""
    folder = tmp_path_factory.mktemp("data")
    boxes = [(8, 8, 40, 30), (30, 20, 50, 60), (5, 40, 60, 50), (20, 10, 30, 70)]
    records = [annotation(2 * i + j, i, category_id=1 + (i + j) % 2,
                          box=(box[0] + 7 * j, box[1], box[2], box[3]))
               for i, box in enumerate(boxes, 1) for j in range(2)]
    content = document(records, num_images=4, hw=(96, 96))
    for category, name in zip(content["categories"], CLASSES, strict=True):
        category["name"] = name
    write(folder, content)
    (folder / "tiny.yaml").write_text(yaml.safe_dump(tiny_config(folder)))
    return folder


def train_here(data, folder, *words):
    """train_queryinst: {iteration: train event}."""
    from script_run import ScriptRun

    run = ScriptRun("train_queryinst.py",
                    [data / "tiny.yaml", "--work-dir", folder, "--log-every", "1", *words], data,
                    folder, timeout=900)
    assert run.status == 0, run.err_text
    return {event["iteration"]: event for event in run.train_events}


def train_there(cfg, folder):
    """MMDetection's Runner: {iteration: {"losses": {...}, "rates": (base, the first group's)}}."""
    from mmengine.hooks import Hook
    from mmengine.runner import Runner

    seen = {}

    class Note(Hook):
        def before_train_iter(self, runner, batch_idx, data_batch=None):
            rates = runner.optim_wrapper.get_lr()
            self.rates = rates["base_lr"][0], rates["lr"][0]  # the second is the backbone's

        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            losses = {name: float(value) for name, value in outputs.items()
                      if name != "loss" and "loss" in name}
            seen[runner.iter] = {"losses": losses, "rates": self.rates}

    cfg.work_dir, cfg.visualizer.vis_backends = str(folder), []
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None  # the losses are what is compared
    cfg.randomness = {"seed": 0}
    runner = Runner.from_cfg(cfg)
    runner.register_hook(Note(), priority="VERY_HIGH")
    runner.train()
    return seen


@pytest.fixture(scope="module")
def ours(data, tmp_path_factory):
    """(folder of our run, which ended after six updates; its events)."""
    folder = tmp_path_factory.mktemp("ours") / "run"
    return folder, train_here(data, folder)


def config_in(path):
    """The config that a checkpoint carries, as mmengine reads it."""
    from mmengine.config import Config

    return Config.fromstring(torch.load(path, weights_only=True)["meta"]["cfg"], ".py")


def check_same(theirs, own, iterations):
    for i in iterations:
        rate = own[i]["lr"]
        assert theirs[i]["rates"] == pytest.approx((rate, 0.1 * rate), rel=1e-9), i
        assert theirs[i]["losses"].keys() == own[i]["losses"].keys()
        for name, value in own[i]["losses"].items():
            other = theirs[i]["losses"][name]
            assert other == pytest.approx(value, rel=CLOSE, abs=CLOSE), (i, name)


def test_its_runner_resumes_our_checkpoint(mmdet, ours, tmp_path):
    folder, events = ours
    cfg = config_in(folder / f"epoch_{STOP}.pth")
    cfg.resume, cfg.load_from = True, str(folder / f"epoch_{STOP}.pth")
    seen = train_there(cfg, tmp_path)
    assert [*seen] == [*range(STOP, EPOCHS)]
    check_same(seen, events, seen)


def test_we_resume_its_checkpoint(mmdet, data, ours, tmp_path):
    cfg = config_in(ours[0] / "epoch_1.pth")
    cfg.load_from, cfg.resume = str(ours[0] / "epoch_1.pth"), False  # weights alone
    seen = train_there(cfg, tmp_path / "theirs")
    assert [*seen] == [*range(EPOCHS)]
    events = train_here(data, tmp_path / "ours", "--resume", tmp_path / f"theirs/epoch_{STOP}.pth")
    assert [*events] == [*range(STOP, EPOCHS)]
    check_same(seen, events, events)


@pytest.fixture
def inside(ours, tmp_path):
    """Boxes that stay in the picture: of one outside, MMDetection pastes no mask on a CPU."""
    content = torch.load(ours[0] / f"epoch_{EPOCHS}.pth", weights_only=True)
    for name, value in content["state_dict"].items():
        if "fc_reg" in name:
            value.mul_(0.01)
    torch.save(content, tmp_path / "inside.pth")
    return tmp_path / "inside.pth"


@pytest.mark.parametrize("with_config", [False, True])
def test_its_inferencer_predicts_what_we_do(mmdet, data, inside, with_config):
    from mmdet.apis import DetInferencer

    inferencer = DetInferencer(model=config_in(inside) if with_config else None,
                               weights=str(inside), device="cpu")
    path = data / "images" / "1.png"
    sample = inferencer(str(path), return_datasamples=True)["predictions"][0]
    assert tuple(inferencer.model.dataset_meta["classes"]) == CLASSES
    theirs = sample.pred_instances

    net = queryinst.build_queryinst(
        queryinst.load_queryinst_config(data / "tiny.yaml", model={"num_classes": len(CLASSES)}))
    queryinst.load_weights(net, torch.load(inside, weights_only=True))
    pixels = net.cfg.model.data_preprocessor
    rgb = torch.from_numpy(cv2.imread(str(path))[..., ::-1].copy()).permute(2, 0, 1).float()
    mean, std = (torch.tensor(each)[:, None, None] for each in (pixels.mean, pixels.std))
    meta = {"img_shape": (96, 96), "ori_shape": (96, 96), "scale_factor": (1.0, 1.0)}
    with torch.no_grad():
        own = net.eval().predict(((rgb - mean) / std)[None], [meta])[0]
    first, second = own["scores"].argsort(descending=True), theirs.scores.argsort(descending=True)
    assert len(first) == len(second) == 10
    # float32 through the whole network
    torch.testing.assert_close(own["scores"][first], theirs.scores[second], rtol=0, atol=1e-5)
    torch.testing.assert_close(own["boxes"][first], theirs.bboxes[second], rtol=0, atol=1e-3)
    assert own["labels"][first].tolist() == theirs.labels[second].tolist()
    a, b = own["masks"][first].numpy(), theirs.masks[second].numpy()
    assert 0 < b.mean() < 1
    assert np.mean(a != b) < 1e-3  # pixels whose probability is a rounding away from the threshold
