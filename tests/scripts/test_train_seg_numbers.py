"""The numbers of short runs of train_seg.py, against a file and what they follow from."""

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
from plain_sets import NAMES, write_label_maps
from script_run import load

from models import segmentation

NETS = ("encoder", "decoder")
RATES = (0.002, 0.001)  # of the encoder and the decoder
CONFIG = {
    "DIR": "out",
    "DATASET": {"num_class": 3, "class_names": ["ground", *NAMES], "imgSizes": [64],
                "imgMaxSize": 64, "segm_downsampling_rate": 8},
    "MODEL": {"arch_encoder": "resnet10small", "arch_decoder": "c1_deepsup", "fc_dim": 256,
              "weights_encoder": "none", "bn_momentum": 0.1},
    # the first epoch's files stay, and are those before the last update
    "TRAIN": {"batch_size_per_gpu": 8, "num_epoch": 2, "epoch_iters": UPDATES - 1, "workers": 0,
              "lr_encoder": RATES[0], "lr_decoder": RATES[1], "lr_pow": 0.9, "beta1": 0.9,
              "weight_decay": 1e-4, "deep_sup_scale": 0.4, "seed": 5},
    "VAL": {"interval": 0},
}
PYRAMID = ["MODEL.arch_decoder", "ppm_deepsup"]  # has dropout
CLIP = 1.0
RUNS = {
    "plain": [],
    "accumulate": ["--accumulate", "2"],
    "ema": ["--ema", "0.9"],
    "clip": ["--clip-grad", CLIP, *PYRAMID],
    "skip": ["--nan", "skip", "--ema", "0.9"],
    # without a rate the weights stay, and two updates see the same ones
    "still": ["TRAIN.lr_encoder", "0.0", "TRAIN.lr_decoder", "0.0", "--max-iters", 2],
}
RUNS["resumed"] = [*RUNS["clip"], "--resume", "latest"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory, preloaded):
    folder = tmp_path_factory.mktemp("seg")
    lists = write_label_maps(folder / "data", 16, 2)
    (folder / "net.yaml").write_text(yaml.safe_dump(CONFIG))

    def make(name, own):
        if name == "resumed":
            before_the_last(made["clip"], own, f"out/*_iter_{UPDATES}*.pth")
        words = ["--cfg", folder / "net.yaml", "--max-iters", UPDATES, "--log-every", 1,
                 *RUNS[name], "DATASET.root_dataset", folder / "data",
                 "DATASET.list_train", lists["train"], "DATASET.list_val", lists["valid"]]
        fault = ("nan", UPDATES) if name == "skip" else ()
        return Finished(preloaded, "train_seg", words, own, "out", fault)

    made = Runs(folder, make)
    return made


def state(run, suffix):
    weights = {f"{net}.{name}": value for net in NETS
               for name, value in load(run.folder / "out" / f"{net}_{suffix}.pth").items()}
    (path,) = (run.folder / "out").glob(f"*_{suffix}.state.pth")
    saved = load(path)
    return State(weights, [saved["optimizer"][net] for net in NETS], average_of(saved["ema"]))


def around_the_last(run):
    return state(run, "epoch_1"), state(run, f"iter_{UPDATES}")


def groups(name):
    """[encoder's, decoder's] names by parameter group."""
    decoder = PYRAMID[1] if name == "clip" else "c1_deepsup"
    nets = {"encoder": segmentation.build_encoder("resnet10small", 256),
            "decoder": segmentation.build_decoder(decoder, 256, 3)}
    found = []
    for net, module in nets.items():
        names = {id(value): f"{net}.{name}" for name, value in module.named_parameters()}
        found.append([[names[id(value)] for value in group["params"]]
                      for group in segmentation.group_weight(module)])
    return found


@pytest.mark.parametrize("name", ["plain", "accumulate", "ema", "clip"])
def test_numbers_are_the_expected_ones(runs, write_expected, name):
    run = runs[name]
    names = sorted(name for net in groups(name) for group in net for name in group)
    numbers = summary(run, *around_the_last(run), names, ["lr_decoder", "accuracy"])
    check_expected("train_seg", name, numbers, write_expected)


@pytest.mark.parametrize("name", ["plain", "accumulate"])
def test_rates_by_hand(runs, name):
    # (1 - i / 8)^0.9 of the rate, at 8 = 2 epochs of 4 updates, however many batches an update has
    by_hand = [1.0, 0.875**0.9, 0.75**0.9, 0.625**0.9, 0.5**0.9]
    run = runs[name]
    assert run.rates == pytest.approx([0.002 * each for each in by_hand], rel=1e-9)
    decoder = [event["lr_decoder"] for event in run.updates]
    assert decoder == pytest.approx([0.001 * each for each in by_hand], rel=1e-9)


@pytest.mark.parametrize("name", ["plain", "accumulate", "ema", "clip"])
def test_the_last_update_is_sgd_with_the_rate_and_gradient_told(runs, name):
    run = runs[name]
    lr = [run.updates[-1]["lr"], run.updates[-1]["lr_decoder"]]
    gradient = last_sgd_update(*around_the_last(run), groups(name), lr)
    if name == "clip":
        assert min(run.grad_norms) > 1.5 * CLIP  # told as it was before clipping
        assert gradient == pytest.approx(CLIP, rel=1e-3)
    else:
        assert gradient == pytest.approx(run.grad_norms[-1], rel=1e-3)


def test_accumulated_losses_are_means(runs):
    check_accumulated(runs["accumulate"].updates[0], *runs["still"].updates)


def test_average_follows_the_weights(runs):
    run = runs["ema"]
    before, after = around_the_last(run)
    check_averages([State(before.average, [], before.average), after], 0.9)
    # and they do not follow it
    assert run.losses == runs["plain"].losses
    plain = around_the_last(runs["plain"])[1]
    assert same(State(after.weights, [], None), State(plain.weights, [], None))


def test_a_skipped_update_leaves_nothing(runs):
    run = runs["skip"]
    assert [e["iteration"] for e in run.events if e["event"] == "skip"] == [UPDATES - 1]
    assert same(*around_the_last(run))
    assert run.losses[:-1] == runs["plain"].losses[:-1]


def test_random_choices_are_those_of_the_update(runs):
    # another process that goes on before the last update draws the same for it
    run = runs["resumed"]
    assert [e["iteration"] for e in run.events if e["event"] == "resume"] == [UPDATES - 1]
    assert run.losses == runs["clip"].losses
