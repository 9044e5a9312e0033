"""The numbers of short runs of train_queryinst.py, against a file and what they follow from."""

from pathlib import Path

import pytest
import yaml
from expected_numbers import (
    UPDATES,
    Finished,
    Runs,
    State,
    average_of,
    check_accumulated,
    check_averages,
    check_expected,
    last_adamw_update,
    same,
    summary,
)
from plain_sets import SIDE, write_instances
from query_runs import LOAD, PACK
from script_run import load

ROOT = Path(__file__).resolve().parents[2]
LR, BACKBONE, START = 0.002, 0.5, 1e-9  # at START nothing moves: two updates see the same weights
RESIZE = {"type": "Resize", "scale": [SIDE, SIDE], "keep_ratio": True}
CONFIG = {
    "_base_": str(ROOT / "configs" / "queryinst" / "queryinst_shapes.yaml"),
    "model": {
        "num_classes": 2, "backbone": {"base_channels": 8}, "neck": {"out_channels": 16},
        "rpn_head": {"num_proposals": 8},
        "roi_head": {"num_stages": 2,
                     "bbox_head": {"feedforward_channels": 32, "dynamic_channels": 8},
                     "mask_head": {"num_convs": 1}}},
    "optim_wrapper": {
        "optimizer": {"lr": LR, "weight_decay": 0.01}, "clip_grad": None,
        "paramwise_cfg": {"custom_keys": {"backbone": {"lr_mult": BACKBONE}}}},
    "train_cfg": {"max_epochs": 3, "val_interval": 100},
    # 16 images in batches of 4: an epoch has 4 updates
    "param_scheduler": [
        {"type": "LinearLR", "start_factor": START, "by_epoch": False, "begin": 0, "end": 4},
        {"type": "MultiStepLR", "by_epoch": True, "milestones": [1], "gamma": 0.1}],
    "randomness": {"seed": 5},
    "default_hooks": {"checkpoint": {"max_keep_ckpts": -1}},
}
CLIP = 1.0
RUNS = {
    "plain": [],
    "accumulate": ["--accumulate", "2"],
    "ema": ["--ema", "0.9"],
    "clip": ["--clip-grad", CLIP],
    "skip": ["--nan", "skip", "--ema", "0.9"],
}
COMPARED = ["plain", "accumulate", "ema", "clip"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory, preloaded):
    folder = tmp_path_factory.mktemp("queryinst")
    infos = write_instances(folder / "data", 16, 2)
    config = dict(CONFIG)
    pipelines = {"train": [*LOAD, RESIZE, {"type": "RandomFlip", "prob": 0.5}, PACK],
                 "valid": [LOAD[0], RESIZE, LOAD[1], PACK]}
    for part, key in (("train", "train_dataloader"), ("valid", "val_dataloader")):
        config[key] = {"batch_size": 4, "num_workers": 0, "dataset": {
            "data_root": str(folder / "data"), "ann_file": str(infos[part]),
            "data_prefix": {"img": "images/"}, "pipeline": pipelines[part]}}
    (folder / "net.yaml").write_text(yaml.safe_dump(config))

    def make(name, own):
        words = [folder / "net.yaml", "--work-dir", "out", "--log-every", 1, "--save-every", 1,
                 "--max-iters", UPDATES, *RUNS[name]]
        fault = ("nan", UPDATES) if name == "skip" else ()
        return Finished(preloaded, "train_queryinst", words, own, "out", fault)

    return Runs(folder, make)


def state(run, iteration, per_epoch=4):
    epoch, rest = divmod(iteration, per_epoch)
    saved = load(run.folder / "out" / (f"iter_{iteration}.pth" if rest else f"epoch_{epoch}.pth"))
    assert saved["meta"]["iter"] == iteration
    return State(saved["state_dict"], [saved["optimizer"]], average_of(saved["training"]["ema"]))


def around_the_last(run, name):
    per_epoch = 2 if name == "accumulate" else 4
    return [state(run, iteration, per_epoch) for iteration in (UPDATES - 1, UPDATES)]


@pytest.fixture(scope="module")
def names(runs):
    """Of the trained parameters, in the network's order."""
    from models.queryinst import build_queryinst, load_queryinst_config

    net = build_queryinst(load_queryinst_config(str(runs["plain"].folder / "out" / "config.yaml")))
    return [name for name, value in net.named_parameters() if value.requires_grad]


@pytest.mark.parametrize("name", COMPARED)
def test_numbers_are_the_expected_ones(runs, names, write_expected, name):
    run = runs[name]
    numbers = summary(run, *around_the_last(run, name), names)
    check_expected("train_queryinst", name, numbers, write_expected)


def test_rates_by_hand(runs):
    # linear, reaching 1 with update 3; a tenth from epoch 1 on, which is update 4,
    by_hand = [1e-9, 1e-9 + (1 - 1e-9) / 3, 1e-9 + 2 * (1 - 1e-9) / 3, 1.0, 0.1]
    assert runs["plain"].rates == pytest.approx([0.002 * each for each in by_hand], rel=1e-9)
    # or, when two batches make one, update 2: inside the warm-up both count
    by_hand = [1e-9, 1e-9 + (1 - 1e-9) / 3, 0.1 * (1e-9 + 2 * (1 - 1e-9) / 3), 0.1, 0.1]
    assert runs["accumulate"].rates == pytest.approx([0.002 * each for each in by_hand], rel=1e-9)


@pytest.mark.parametrize("name", COMPARED)
def test_the_last_update_is_adamw_with_the_rate_and_gradient_told(runs, names, name):
    run = runs[name]
    lr = [run.rates[-1] * (BACKBONE if "backbone" in each else 1.0) for each in names]
    gradient = last_adamw_update(*around_the_last(run, name), names, lr)
    if name == "clip":
        assert min(run.grad_norms) > 1.5 * CLIP  # told as it was before clipping
        assert gradient == pytest.approx(CLIP, rel=1e-3)
    else:
        assert gradient == pytest.approx(run.grad_norms[-1], rel=1e-3)


def test_accumulated_losses_are_means(runs):
    check_accumulated(runs["accumulate"].updates[0], *runs["plain"].updates[:2])


def test_average_follows_the_weights(runs):
    run = runs["ema"]
    check_averages([state(run, i) for i in range(1, UPDATES + 1)], 0.9)
    # and they do not follow it
    assert run.losses == runs["plain"].losses
    assert same(State(state(run, UPDATES).weights, [], None),
                State(state(runs["plain"], UPDATES).weights, [], None))


def test_a_skipped_update_leaves_nothing(runs):
    run = runs["skip"]
    assert [e["iteration"] for e in run.events if e["event"] == "skip"] == [UPDATES - 1]
    assert same(*around_the_last(run, "skip"))
    assert run.losses[:-1] == runs["plain"].losses[:-1]
