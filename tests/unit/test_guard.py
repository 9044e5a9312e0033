import math

import pytest

from runtime.errors import Failed
from runtime.run.guard import MAX_SKIPPED, NonFiniteGuard, SkippedImages, skips_text


class Run:
    rank = 1

    def __init__(self):
        self.said, self.recorded = [], []
        self.warn, self.record = self.said.append, self.recorded.append


def test_finite_losses_pass():
    run = Run()
    assert NonFiniteGuard(run, "stop").allows_update({"B": 1.0}, {"B": 1.0}, [7], 0)
    assert run.said == run.recorded == []


def test_stop_names_term_iteration_rank_and_images():
    guard = NonFiniteGuard(Run(), "stop")
    losses = {"B": 1.0, "C": math.nan}
    with pytest.raises(Failed, match="loss C is not finite at iteration 5 on rank 1, images 7, 9"):
        guard.allows_update(losses, losses, [7, 9], 5)


def test_a_rank_whose_own_losses_are_fine_stops_too():
    guard = NonFiniteGuard(Run(), "stop")
    with pytest.raises(Failed, match="another rank than 1"):
        guard.allows_update({"C": math.inf}, {"C": 1.0}, [7], 5)


def test_skip_counts_and_gives_up_after_too_many_in_a_row():
    run = Run()
    guard = NonFiniteGuard(run, "skip")
    bad, good = {"C": math.inf}, {"C": 1.0}
    for _ in range(MAX_SKIPPED):
        assert not guard.allows_update(bad, bad, [7], 3)
    assert guard.allows_update(good, good, [7], 4)  # starts the count anew
    for _ in range(MAX_SKIPPED):
        assert not guard.allows_update(bad, bad, [7], 5)
    with pytest.raises(Failed):
        guard.allows_update(bad, bad, [7], 6)
    assert len(run.said) == 2 * MAX_SKIPPED
    assert run.recorded[0]["event"] == "skip"


def test_an_infinite_gradient_is_held_back_although_every_loss_is_finite():
    good = {"C": 1.0}
    with pytest.raises(Failed, match=r"the gradient is not finite at iteration 5, .* images 7, 9"):
        NonFiniteGuard(Run(), "stop").allows_update(good, good, [7, 9], 5, math.inf)
    skipping = NonFiniteGuard(Run(), "skip")
    assert not skipping.allows_update(good, good, [7], 5, math.nan)
    assert skipping.skipped == 1
    assert skipping.allows_update(good, good, [7], 6, 3.0)


def test_a_loss_scaler_minds_its_own_overflows_but_not_for_ever():
    guard, good = NonFiniteGuard(Run(), "stop", scaled=True), {"C": 1.0}
    for step in range(MAX_SKIPPED):
        assert guard.allows_update(good, good, [7], step, math.inf)
    with pytest.raises(Failed, match="gradient is not finite"):
        guard.allows_update(good, good, [7], MAX_SKIPPED, math.inf)
    with pytest.raises(Failed, match="loss C"):
        NonFiniteGuard(Run(), "stop", scaled=True).allows_update(
            {"C": math.nan}, {"C": math.nan}, [7], 0, math.inf)


def test_what_was_left_out_is_said_at_the_end():
    run = Run()
    guard, images = NonFiniteGuard(run, "skip"), SkippedImages(run)
    assert skips_text(guard, images) == []
    guard.allows_update({"C": math.inf}, {"C": math.inf}, [7], 3)
    images.in_training(4, [{"skipped": ["a.jpg: damaged"]}, {"skipped": ["b.jpg: damaged"]}])
    images.in_validation(["c.jpg: damaged"])
    assert [line.rpartition(": ")[2] for line in skips_text(guard, images)] == ["1", "2", "1"]
    assert [event["iteration"] for event in run.recorded] == [3, 4, 4]
    assert run.said[-1] == "left out: c.jpg: damaged"
