"""The numbers of short runs of train_yolact.py, against a file and what they follow from."""

from pathlib import Path

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
from plain_sets import NAMES, write_instances
from script_run import load

from models.yolact import build_yolact

ROOT = Path(__file__).resolve().parents[2]
BASE, START, WARMUP = 0.002, 1e-9, 3  # at START nothing moves: two updates see the same weights
CONFIG = {
    "_base_": str(ROOT / "configs" / "yolact" / "yolact_shapes.yaml"),
    "name": "net", "max_size": 64, "max_iter": 1000, "num_classes": 3,
    "dataset": {"class_names": list(NAMES), "name": "plain"},
    "lr": BASE, "lr_steps": [4, 900], "gamma": 0.1,
    "lr_warmup_init": START, "lr_warmup_until": WARMUP,
    "momentum": 0.9, "decay": 0.0005, "conf_alpha": 1,
    "backbone": {"args": {"width": 8}, "pred_scales": [[12, 16], [22, 28], [36, 44]],
                 "pred_aspect_ratios": [[[1]], [[1]], [[1]]]},
}
# more objects' masks than are trained on: some are drawn in every update
DRAWN = ["masks_to_train=2"]
CLIP = 1.0
RUNS = {
    "plain": [],
    "accumulate": ["--accumulate", "2"],
    "ema": ["--ema", "0.9"],
    "clip": ["--clip-grad", CLIP],
    "skip": ["--nan", "skip", "--ema", "0.9"],
}
RUNS["resumed"] = [*RUNS["clip"], "--resume", "latest"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory, preloaded):
    folder = tmp_path_factory.mktemp("yolact")
    infos = write_instances(folder / "data", 16, 2)
    (folder / "net.yaml").write_text(yaml.safe_dump(CONFIG))
    data = [f"dataset.train_info={infos['train']}", f"dataset.valid_info={infos['valid']}",
            f"dataset.train_images={folder / 'data' / 'images'}",
            f"dataset.valid_images={folder / 'data' / 'images'}"]

    def make(name, own):
        if name == "resumed":
            before_the_last(made["clip"], own, f"weights/net_*_{UPDATES}*.pth")
        options = [*data, *(DRAWN if name in ("clip", "resumed") else [])]
        words = ["--config", folder / "net.yaml", "--batch_size", 8, "--num_workers", 0,
                 "--max-iters", UPDATES, "--log_every", 1, "--save-every", 1, "--seed", 5,
                 "--validation_epoch", 0, "--save_folder", "weights", "--log_folder", "logs",
                 *RUNS[name], *(word for option in options for word in ("--cfg-options", option))]
        fault = ("nan", UPDATES) if name == "skip" else ()
        return Finished(preloaded, "train_yolact", words, own, "logs/net", fault)

    made = Runs(folder, make)
    return made


def state(run, iteration):
    (path,) = (run.folder / "weights").glob(f"net_*_{iteration}.pth")
    saved = load(path.with_suffix(".state.pth"))
    return State(load(path), [saved["optimizer"]], average_of(saved["ema"]))


@pytest.fixture(scope="module")
def names(runs):
    net = build_yolact(str(runs["plain"].folder / "logs" / "net" / "config.yaml"))
    return [name for name, _ in net.named_parameters()]


@pytest.mark.parametrize("name", ["plain", "accumulate", "ema", "clip"])
def test_numbers_are_the_expected_ones(runs, names, write_expected, name):
    run = runs[name]
    numbers = summary(run, state(run, UPDATES - 1), state(run, UPDATES), names)
    check_expected("train_yolact", name, numbers, write_expected)


def test_rates_by_hand(runs):
    # linear from START at update 0 to BASE at update WARMUP, a tenth from update 4 on
    by_hand = [1e-9, 1e-9 + (0.002 - 1e-9) / 3, 1e-9 + 2 * (0.002 - 1e-9) / 3, 0.002, 0.0002]
    assert runs["plain"].rates == pytest.approx(by_hand, rel=1e-9)
    # 16 images: twice the rate, and the step after half as many updates; the warm-up stays as long
    by_hand = [1e-9, 1e-9 + (0.004 - 1e-9) / 3, 1e-9 + 2 * (0.004 - 1e-9) / 3, 0.0004, 0.0004]
    assert runs["accumulate"].rates == pytest.approx(by_hand, rel=1e-9)


@pytest.mark.parametrize("name", ["plain", "accumulate", "ema", "clip"])
def test_the_last_update_is_sgd_with_the_rate_and_gradient_told(runs, names, name):
    run = runs[name]
    gradient = last_sgd_update(
        state(run, UPDATES - 1), state(run, UPDATES), [[names]], [run.rates[-1]])
    if name == "clip":
        assert min(run.grad_norms) > 2 * CLIP  # told as it was before clipping
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
    assert same(state(run, UPDATES), state(run, UPDATES - 1))
    assert run.losses[:-1] == runs["plain"].losses[:-1]


def test_random_choices_are_those_of_the_update(runs):
    # another process that goes on before the last update draws the same for it
    run = runs["resumed"]
    assert [e["iteration"] for e in run.events if e["event"] == "resume"] == [UPDATES - 1]
    assert run.losses == runs["clip"].losses
