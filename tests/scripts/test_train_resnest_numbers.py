"""The numbers of short runs of train_resnest.py, against a file and what they follow from."""

import math

import pytest
import yaml
from expected_numbers import (
    UPDATES,
    Finished,
    Runs,
    State,
    average_of,
    before_the_last,
    check_accumulated,
    check_averages,
    check_expected,
    last_sgd_update,
    same,
    summary,
)
from plain_sets import NAMES, write_class_folders
from script_run import load

from models import resnest

LR, DECAY = 0.002, 5e-4
CONFIG = {
    "SEED": 5,
    "DATA": {"CROP_SIZE": 32, "CENTER_MARGIN": 1, "MIN_CROP_AREA": 0.5, "AUGMENT": "standard"},
    "MODEL": {"NAME": "resnest14_small", "STEM_STRIDE": 2},
    # 16 images: two updates an epoch, or one over two batches
    "TRAINING": {"BATCH_SIZE": 8, "TEST_BATCH_SIZE": 4, "EPOCHS": 6, "WORKERS": 0,
                 "EVAL_EVERY": 100, "THREADS": 1},
    # the rate of update 0 is 0: two updates see the same weights
    "OPTIMIZER": {"LR": LR, "LR_SCHEDULER": "cos", "WARMUP_EPOCHS": 1, "WEIGHT_DECAY": DECAY,
                  "MOMENTUM": 0.9, "DISABLE_BN_WD": True},
}
DRAWN = ["MODEL.FINAL_DROP", "0.3", "DATA.LABEL_SMOOTHING", "0.1"]
CLIP = 0.3
RUNS = {
    "plain": [],
    "accumulate": ["--accumulate", "2"],
    "ema": ["--ema", "0.9"],
    "clip": ["--clip-grad", CLIP, *DRAWN, "OPTIMIZER.LR_SCHEDULER", "poly"],
    "mixup": [*DRAWN, "DATA.MIXUP", "0.2", "OPTIMIZER.LR_SCHEDULER", "linear"],
    "skip": ["--nan", "skip", "--ema", "0.9"],
}
RUNS["resumed"] = [*RUNS["clip"], "--resume", "latest"]
COMPARED = ["plain", "accumulate", "ema", "clip", "mixup"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory, preloaded):
    folder = tmp_path_factory.mktemp("resnest")
    root = write_class_folders(folder / "data", 8, 1)
    (folder / "net.yaml").write_text(yaml.safe_dump(CONFIG))

    def make(name, own):
        if name == "resumed":
            before_the_last(made["clip"], own, f"out/checkpoint_iter_{UPDATES}.pth",
                            "out/checkpoint_final.pth")
        words = ["--config-file", folder / "net.yaml", "--outdir", "out", "--log-every", 1,
                 "--max-iters", UPDATES, *RUNS[name], "DATA.ROOT", root]
        fault = ("nan", UPDATES) if name == "skip" else ()
        return Finished(preloaded, "train_resnest", words, own, "out", fault)

    made = Runs(folder, make)
    return made


def around_the_last(run, name):
    """States before and after the last update; an epoch ends with the former."""
    files = ("checkpoint_3", "checkpoint_4") if name == "accumulate" else (
        "checkpoint_1", f"checkpoint_iter_{UPDATES}")
    saved = [load(run.folder / "out" / f"{file}.pth") for file in files]
    assert [each["iteration"] for each in saved] == [UPDATES - 1, UPDATES]
    return [State(each["state_dict"], [each["optimizer"]], average_of(each["ema"]))
            for each in saved]


@pytest.fixture(scope="module")
def groups(runs):
    """Names by parameter group."""
    cfg = resnest.load_resnest_config(runs["plain"].folder / "out" / "config.yaml")
    net = resnest.build_network(cfg, len(NAMES))
    names = {id(value): name for name, value in net.named_parameters()}
    return [[names[id(value)] for value in group["params"]]
            for group in resnest.param_groups(net, DECAY, True)]


@pytest.mark.parametrize("name", COMPARED)
def test_numbers_are_the_expected_ones(runs, groups, write_expected, name):
    run = runs[name]
    names = sorted(name for group in groups for name in group)
    numbers = summary(run, *around_the_last(run, name), names)
    check_expected("train_resnest", name, numbers, write_expected)


def test_rates_by_hand(runs):
    # one epoch of warm-up from 0, then 5 epochs of decay: 10 updates, 5 when two batches make one
    cos = [(1 + math.cos(math.pi * part)) / 2 for part in (0, 0.1, 0.2, 0.4, 0.6)]
    by_hand = {
        "plain": [0, 0.5, cos[0], cos[1], cos[2]],
        "accumulate": [0, cos[0], cos[2], cos[3], cos[4]],
        "clip": [0, 0.5, 1.0, 0.9**0.9, 0.8**0.9],
        "mixup": [0, 0.5, 1.0, 0.9, 0.8],
    }
    for name, rates in by_hand.items():
        assert runs[name].rates == pytest.approx([LR * rate for rate in rates], rel=1e-9), name


@pytest.mark.parametrize("name", COMPARED)
def test_the_last_update_is_sgd_with_the_rate_and_gradient_told(runs, groups, name):
    run = runs[name]
    gradient = last_sgd_update(*around_the_last(run, name), [groups], [run.rates[-1]])
    if name == "clip":
        assert min(run.grad_norms) > 1.5 * CLIP  # told as it was before clipping
        assert gradient == pytest.approx(CLIP, rel=1e-3)
    else:
        assert gradient == pytest.approx(run.grad_norms[-1], rel=1e-3)


def test_accumulated_losses_are_means(runs):
    check_accumulated(runs["accumulate"].updates[0], *runs["plain"].updates[:2])
    top1 = [event["top1"] for event in runs["plain"].updates[:2]]
    assert runs["accumulate"].updates[0]["top1"] == pytest.approx(sum(top1) / 2)


def test_average_follows_the_weights(runs):
    run = runs["ema"]
    before, after = around_the_last(run, "ema")
    check_averages([State(before.average, [], before.average), after], 0.9)
    # and they do not follow it
    assert run.losses == runs["plain"].losses
    plain = around_the_last(runs["plain"], "plain")[1]
    assert same(State(after.weights, [], None), State(plain.weights, [], None))


def test_a_skipped_update_leaves_nothing(runs):
    run = runs["skip"]
    assert [e["iteration"] for e in run.events if e["event"] == "skip"] == [UPDATES - 1]
    assert same(*around_the_last(run, "skip"))
    assert run.losses[:-1] == runs["plain"].losses[:-1]


def test_random_choices_are_those_of_the_update(runs):
    # another process that goes on before the last update draws the same for it
    run = runs["resumed"]
    assert [e["iteration"] for e in run.events if e["event"] == "resume"] == [UPDATES - 1]
    assert run.losses == runs["clip"].losses
