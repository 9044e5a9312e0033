import math

import pytest

from common.errors import Failed
from common.guard import MAX_SKIPPED, NonFiniteGuard


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
