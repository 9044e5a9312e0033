"""What checkpoints of train_queryinst say in MMEngine's words; beside MMEngine: tests/interop."""

import ast
import re
from pathlib import Path

import pytest
import torch

from common.checkpoint import load_checkpoint, save_checkpoint
from models import queryinst
from settings.queryinst.mmdetection import to_mmdetection

ROOT = Path(__file__).resolve().parents[2]
NAMES = tuple("abcdef")
PER_EPOCH = 10
SCHEDULES = [{"type": "LinearLR", "start_factor": 0.1, "by_epoch": False, "end": 31},
             {"type": "MultiStepLR", "milestones": [2, 4]}]


def trained(**changes):
    """(network, its optimizer after one update)."""
    cfg = queryinst.load_queryinst_config(
        "queryinst_shapes", param_scheduler=SCHEDULES, **{
            "optim_wrapper": {"paramwise_cfg": {"custom_keys": {"backbone": {"lr_mult": 0.1}}}},
            **changes})
    torch.manual_seed(0)
    net = queryinst.build_queryinst(cfg)
    optimizer, _ = queryinst.build_optimizer(net, 1)
    for parameter in net.parameters():
        parameter.grad = torch.randn_like(parameter) if parameter.requires_grad else None
    optimizer.step()
    return net, optimizer


def content_of(net, optimizer, iteration, best=None, scaler=None):
    form = queryinst.MmengineForm(net, NAMES, 7, PER_EPOCH)
    state = {"iteration": iteration, "epoch": iteration // PER_EPOCH, "scaler": scaler or {},
             "optimizer": optimizer.state_dict(), "best": best or {}}
    return queryinst.checkpoint_of(form, state)


@pytest.fixture(scope="module")
def pair():
    return trained()


def test_a_checkpoint_is_read_by_anyone(pair, tmp_path):
    content = content_of(*pair, 25, {"coco/segm_mAP": [0.25, "best_coco_segm_mAP_epoch_2.pth"]})
    save_checkpoint(tmp_path / "a.pth", content)
    found = torch.load(tmp_path / "a.pth", weights_only=True)
    assert found.keys() == load_checkpoint(tmp_path / "a.pth").keys() == {
        "meta", "state_dict", "message_hub", "optimizer", "param_schedulers", "training"}
    assert found["meta"].keys() == {"epoch", "iter", "cfg", "seed", "experiment_name", "time",
                                    "mmengine_version", "dataset_meta"}
    assert (found["meta"]["epoch"], found["meta"]["iter"], found["meta"]["seed"]) == (2, 25, 7)
    assert found["meta"]["dataset_meta"]["classes"] == NAMES
    assert len(found["meta"]["dataset_meta"]["palette"]) == len(NAMES)
    hub = found["message_hub"]
    assert hub.keys() == {"log_scalars", "runtime_info", "resumed_keys"}
    info = hub["runtime_info"]
    assert hub["resumed_keys"] == dict.fromkeys(info, True)
    assert (info["epoch"], info["iter"], info["max_iters"]) == (2, 24, 100)  # of the last update
    assert (info["best_score"], info["best_ckpt"]) == (0.25, "best_coco_segm_mAP_epoch_2.pth")


def test_the_config_is_python_text_of_literals(pair):
    text = content_of(*pair, 0)["meta"]["cfg"]
    read = {each.targets[0].id: ast.literal_eval(each.value) for each in ast.parse(text).body}
    wanted = to_mmdetection(pair[0].cfg, NAMES)
    assert read == wanted | {"randomness": {**wanted["randomness"], "seed": 7}}


def test_the_config_is_made_once(pair):
    form = queryinst.MmengineForm(pair[0], NAMES, 7, PER_EPOCH)
    assert form.meta(1)["cfg"] is form.message_hub(2, {})["runtime_info"]["cfg"]


def test_groups_have_the_rate_of_the_next_update(pair):
    net, optimizer = pair
    saved = content_of(net, optimizer, 20)["optimizer"]
    names = [name for name, p in net.named_parameters() if p.requires_grad]
    assert [group["params"] for group in saved["param_groups"]] == [[i] for i in range(len(names))]
    factor = (0.1 + 0.9 * 20 / 30) * 0.1  # two thirds of the ramp, and the step at epoch 2
    for name, group in zip(names, saved["param_groups"], strict=True):
        base = 0.0001 if "backbone" in name else 0.001
        assert group["initial_lr"] == pytest.approx(base)
        assert group["lr"] == pytest.approx(base * factor)
        assert group.keys() >= {"weight_decay", "betas", "eps", "amsgrad"}
        assert "base_lr" not in group
        assert group["fused"] is None  # the reader's choice
    assert saved["base_param_settings"]["lr"] == pytest.approx(0.001 * factor)
    assert saved["base_param_settings"]["params"].shape == (1,)


def test_schedules_have_moved(pair):
    ramp, steps = content_of(*pair, 25)["param_schedulers"]
    count = len(pair[1].state_dict()["param_groups"]) + 1
    for each in (ramp, steps):
        assert len(each.pop("base_values")) == len(each.pop("_last_value")) == count
    assert ramp == {
        "start_factor": 0.1, "end_factor": 1.0, "total_iters": 30, "param_name": "lr", "begin": 0,
        "end": 31, "by_epoch": False, "last_step": 25, "_global_step": 25, "verbose": False}
    assert steps == {
        "milestones": {2: 1, 4: 1}, "gamma": 0.1, "param_name": "lr", "begin": 0, "end": 10**9,
        "by_epoch": True, "last_step": 2, "_global_step": 2, "verbose": False}
    ramp, _ = content_of(*pair, 70)["param_schedulers"]
    assert (ramp["last_step"], ramp["_global_step"]) == (30, 70)  # it stays at its end


def test_without_rules_one_group_has_all_parameters():
    # frozen stages: MMEngine counts them where it makes no groups of its own
    net, optimizer = trained(optim_wrapper={"paramwise_cfg": None},
                             model={"backbone": {"frozen_stages": 1}})
    content = content_of(net, optimizer, 3)
    (group,) = content["optimizer"]["param_groups"]
    every = [*net.parameters()]
    assert group["params"] == [*range(len(every))]
    assert "base_param_settings" not in content["optimizer"]
    assert content["param_schedulers"][0]["base_values"] == [0.001]
    trained_ones = [i for i, p in enumerate(every) if p.requires_grad]
    assert 0 < len(trained_ones) < len(every)
    assert [*content["optimizer"]["state"]] == trained_ones
    for i, moments in content["optimizer"]["state"].items():
        assert moments["exp_avg"].shape == every[i].shape

    other, _ = queryinst.build_optimizer(net, 1)  # and we read it again
    other.load_state_dict(content["optimizer"])
    for a, b in zip(optimizer.state_dict()["state"].values(),
                    other.state_dict()["state"].values(), strict=True):
        assert all(torch.equal(a[key], b[key]) for key in a)


def test_the_loss_scale_lies_where_mmengine_looks_for_it(pair):
    scaler = {"scale": 1024.0, "growth_factor": 2.0, "backoff_factor": 0.5,
              "growth_interval": 2000, "_growth_tracker": 3}
    assert content_of(*pair, 1, scaler=scaler)["optimizer"]["loss_scaler"] == scaler
    assert "loss_scaler" not in content_of(*pair, 1)["optimizer"]


def test_the_page_on_it_is_true(pair):
    page = (ROOT / "docs" / "interop.md").read_text()
    told = re.findall(r"^\| `(\w+)` \| ", page, re.MULTILINE)
    assert {*told} == {*content_of(*pair, 1)}
    packages = re.search(r"INTEROP_PACKAGES \?= (.*)", (ROOT / "Makefile").read_text())[1].split()
    pinned = dict(package.split("==") for package in packages if "==" in package)
    assert pinned.keys() == {"mmdet", "mmengine", "mmcv-lite", "mit-semseg", "resnest"}
    for name, version in pinned.items():
        assert f"{name} {version}" in page
    assert content_of(*pair, 1)["meta"]["mmengine_version"] == pinned["mmengine"]
