import math

import pytest

from common.schedulers import autoscale, per_epoch, poly, warmup_multistep
from runtime.errors import InputError


def test_ramp_starts_at_its_init_and_reaches_the_base_at_its_end():
    lr_at = warmup_multistep(1.0, [20, 30], 0.5, warmup_iters=10, warmup_init=0.2)
    assert lr_at(0) == 0.2
    assert lr_at(5) == pytest.approx(0.6)
    assert lr_at(9) < 1.0
    assert [lr_at(i) for i in (10, 19, 20, 29, 30, 999)] == [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]


def test_a_step_inside_the_ramp_waits_or_multiplies():
    ramp = warmup_multistep(1.0, [], 0.1, 10, 0.0)
    replace = warmup_multistep(1.0, [4], 0.1, 10, 0.0)
    multiply = warmup_multistep(1.0, [4], 0.1, 10, 0.0, during_warmup="multiply")
    assert [replace(i) for i in range(10)] == [ramp(i) for i in range(10)]
    assert [multiply(i) for i in (3, 4, 9)] == [ramp(3), ramp(4) * 0.1, ramp(9) * 0.1]
    assert replace(10) == multiply(10) == 0.1


def test_no_warmup():
    lr_at = warmup_multistep(1.0, (3,), 0.1, warmup_iters=0, warmup_init=0.5)
    assert [lr_at(0), lr_at(2), lr_at(3)] == [1.0, 1.0, 0.1]


def test_unknown_ramp_rule_is_refused():
    with pytest.raises(ValueError, match="'replace' or 'multiply'"):
        warmup_multistep(1.0, [], 0.1, 10, 0.0, during_warmup="add")


def test_poly_never_turns_negative_or_complex():
    lr_at = poly(0.1, 10, 0.9)
    assert lr_at(0) == 0.1
    assert lr_at(9) > 0
    assert [lr_at(10), lr_at(11)] == [0.0, 0.0]


def test_per_epoch_warmup_is_zero_first_and_below_the_base_last():
    lr_at = per_epoch("linear", 1.0, epochs=6, iters_per_epoch=5, warmup_epochs=2)
    assert lr_at(0) == 0.0
    assert lr_at(9) == pytest.approx(0.9)
    assert lr_at(10) == 1.0
    assert lr_at(20) == pytest.approx(0.5)
    assert lr_at(29) == pytest.approx(0.05)


@pytest.mark.parametrize("mode", ["cos", "cosine", "poly", "linear"])
def test_decaying_modes_end_above_zero_and_stay_at_zero(mode):
    lr_at = per_epoch(mode, 1.0, epochs=4, iters_per_epoch=3)
    rates = [lr_at(i) for i in range(12)]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] > 0
    # cos(pi) leaves 0 exactly, and it must not rise again
    assert [lr_at(12), lr_at(50)] == [0.0, 0.0]


def test_cos_and_cosine_are_one():
    cos, cosine = (per_epoch(mode, 0.3, 7, 5, warmup_epochs=1) for mode in ("cos", "cosine"))
    assert [cos(i) for i in range(35)] == [cosine(i) for i in range(35)]
    assert cos(20) == pytest.approx(0.15 * (1 + math.cos(math.pi * 0.5)))


def test_multistep_milestones_are_not_shifted_by_the_warmup():
    lr_at = per_epoch("multistep", 1.0, 10, 2, warmup_epochs=1, milestones=(3, 5), gamma=0.5)
    assert [lr_at(i) for i in (2, 5, 6, 9, 10, 19)] == [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]


def test_a_warmup_as_long_as_the_run():
    lr_at = per_epoch("cos", 1.0, epochs=2, iters_per_epoch=4, warmup_epochs=2)
    assert lr_at(7) == pytest.approx(7 / 8)


@pytest.mark.parametrize(
    "mode, text",
    [("cosin", "Did you mean cos"), ("step", "step length"), ("multistep", "milestones")],
)
def test_incomplete_modes_are_refused(mode, text):
    with pytest.raises(InputError, match=text):
        per_epoch(mode, 1.0, 10, 5)


def test_autoscale_floors_as_floats_and_leaves_eight_alone():
    steps = (280000, 600000, 700000, 750000)
    # [yolact.md: Batch size]
    assert autoscale(3, 1e-3, steps, 800000) == (
        1e-3 * 0.375,
        (746666, 1600000, 1866666, 2000000),
        2133333,
    )
    assert autoscale(8, 1e-3, steps, 800000) == (1e-3, steps, 800000)
    assert autoscale(16, 1e-3, list(steps), 800000)[1] == [140000, 300000, 350000, 375000]
