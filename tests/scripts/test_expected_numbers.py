"""The net: five updates of each script give the numbers of tests/scripts/expected, right ones.

Other tests compare runs with runs, so what is wrong in both passes there. See
tests/expected_numbers.py for how the numbers are made, and made anew.
"""

import json
import math

import pytest
from expected_numbers import FOLDER, SCRIPTS, UPDATES, Inputs, run, variants
from preloaded import Preloaded

# Relative, by update: another processor adds up in another order, and training multiplies the
# difference from update to update (seen with other instruction sets: see the test at the end).
TOLERANCE = (2e-5, 1e-3, 1e-2, 2e-2, 4e-2)
FINAL = 2e-2


@pytest.fixture(scope="module")
def numbers(tmp_path_factory):
    """numbers(script, variant or flags, updates): what `run` gives, each made once."""
    folder = tmp_path_factory.mktemp("numbers")
    inputs, made = Inputs(folder / "inputs"), {}
    with Preloaded() as server:
        def get(script, variant, flags=None, updates=UPDATES):
            key = (script, variant)
            if key not in made:
                flags = variants(script)[variant] if flags is None else flags
                made[key] = run(server, inputs, script, flags, folder / script / variant, updates)
            return made[key]

        yield get


def expected(script):
    return json.loads((FOLDER / f"{script}.json").read_text())


CASES = [(script, variant) for script in SCRIPTS for variant in variants(script)]


@pytest.mark.parametrize("script, variant", CASES)
def test_five_updates(numbers, script, variant):
    ours, theirs = numbers(script, variant), expected(script)[variant]
    assert len(ours["updates"]) == len(theirs["updates"]) == UPDATES
    for ours_of, theirs_of, tolerance in zip(ours["updates"], theirs["updates"], TOLERANCE,
                                             strict=True):
        assert ours_of["lr"] == pytest.approx(theirs_of["lr"], rel=1e-12)
        assert ours_of["loss"] == pytest.approx(theirs_of["loss"], rel=tolerance)
        wider = 20 * tolerance  # seen: 5e-5 in segmentation's first update
        assert ours_of["grad_norm"] == pytest.approx(theirs_of["grad_norm"], rel=wider)
        assert ours_of["losses"] == pytest.approx(theirs_of["losses"], rel=tolerance, abs=1e-6)
    for key in ("statistics", "momentum", "ema_gap"):
        if key in theirs:
            assert ours[key] == pytest.approx(theirs[key], rel=FINAL), key
    assert ours["weights"] == pytest.approx(theirs["weights"], rel=1e-3)
    assert ours["layers"] == pytest.approx(theirs["layers"], rel=FINAL, abs=1e-4)


# --- what the numbers must be, worked out by hand


def rates(numbers, script, key="lr"):
    return [event[key] for event in numbers(script, "plain")["updates"]]


def test_yolacts_rate_rises_in_a_straight_line_to_the_base_at_the_warm_ups_end(numbers):
    low, base = 2e-4, 8e-3  # of the config; the warm-up ends at update 4
    assert rates(numbers, "yolact") == pytest.approx(
        [low, low + (base - low) / 4, low + (base - low) / 2, low + 3 * (base - low) / 4, base])


def test_segmentations_rate_falls_by_the_poly_rule(numbers):
    by_hand = [0.02 * (1 - i / 10) ** 0.9 for i in range(5)]
    assert rates(numbers, "seg") == pytest.approx(by_hand)
    assert rates(numbers, "seg", "lr_decoder") == pytest.approx(by_hand)


def test_resnests_rate_falls_by_half_a_cosine(numbers):
    updates = 2 * 8  # two epochs of 30 images in batches of 4
    by_hand = [0.5 * (1 + math.cos(math.pi * i / updates)) * 0.005 for i in range(5)]
    assert rates(numbers, "resnest") == pytest.approx(by_hand)


def test_queryinsts_rate_warms_up_over_three_updates(numbers):
    assert rates(numbers, "queryinst") == pytest.approx([1e-4, 4e-4, 7e-4, 1e-3, 1e-3])


STANDING = {  # rates at which nothing moves
    "yolact": ["--lr", "1e-12", "--cfg-options", "lr_warmup_init=1e-12"],
    "seg": ["TRAIN.lr_encoder", "1e-12", "TRAIN.lr_decoder", "1e-12"],
    "resnest": ["OPTIMIZER.LR", "1e-12", "MODEL.FINAL_DROP", "0"],
}


@pytest.mark.parametrize("script", ["yolact", "resnest"])
def test_accumulated_losses_are_the_means_of_their_batches(numbers, script):
    standing = STANDING[script]
    if script == "yolact":  # each batch's own draws are the same in both runs
        standing = [*standing, "masks_to_train=1000"]
    single = numbers(script, "standing", standing, 4)["updates"]
    double = numbers(script, "standing accumulated", ["--accumulate", "2", *standing], 2)["updates"]
    for i, update in enumerate(double):
        for name, value in update["losses"].items():
            mean = (single[2 * i]["losses"][name] + single[2 * i + 1]["losses"][name]) / 2
            assert value == pytest.approx(mean, rel=1e-5), name


def test_clipping_bounds_the_first_step(numbers):
    """SGD's momentum after clipped updates is at most the sum of 0.9^i times the bound."""
    bound = 0.5 * sum(0.9**i for i in range(UPDATES))
    for script in ("yolact", "seg", "resnest"):
        clipped, plain = (numbers(script, variant)["momentum"] for variant in ("clip", "plain"))
        assert plain > 5 * bound
        assert clipped < bound + 0.2  # weight decay comes on top


@pytest.mark.parametrize("script", SCRIPTS)
def test_an_average_leaves_the_training_alone_and_lags_behind_it(numbers, script):
    ema, plain = numbers(script, "ema"), numbers(script, "plain")
    assert ema["updates"] == plain["updates"]
    assert ema["weights"] == plain["weights"]
    assert 0 < ema["ema_gap"] < ema["weights"]


@pytest.mark.slow
def test_other_instruction_sets_stay_within_the_tolerance(tmp_path, monkeypatch):
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "default")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "SSE41")
    inputs = Inputs(tmp_path / "inputs")
    with Preloaded() as server:
        for script, variant in CASES:
            made = run(server, inputs, script, variants(script)[variant],
                       tmp_path / script / variant)
            test_five_updates(lambda *_, made=made: made, script, variant)
