"""runtime.run.timetable: when a loop logs, saves, validates and ends, tabulated for each family."""

import pytest

from runtime.run.timetable import Timetable, last_iteration


def table(**how):
    how = {"start": 0, "stop_at": 12, "per_epoch": 3, "log_every": 2, "saves": lambda i: i % 5 == 0,
           **how}
    return Timetable(**how)


def true_at(answer, numbers=range(14)):
    return [number for number in numbers if answer(number)]


@pytest.mark.parametrize("start, total, max_iters, dry, end", [
    (0, 10, None, False, 10),
    (0, 10, 4, False, 4),
    (0, 10, 40, False, 10),  # a flag does not lengthen the schedule
    (6, 10, 4, False, 6),  # nor takes it a run back
    (6, 10, None, True, 8),
    (12, 10, None, False, 12),
])
def test_where_a_session_ends(start, total, max_iters, dry, end):
    assert last_iteration(start, total, max_iters, dry) == end


def test_lines_are_counted_over_the_run_or_in_each_epoch():
    assert true_at(table().logs_at) == [0, 2, 4, 6, 8, 10, 12]
    assert true_at(table(logs_by_epoch=True).logs_at) == [0, 2, 3, 5, 6, 8, 9, 11, 12]


def test_epochs():
    assert true_at(table().ends_epoch) == [3, 6, 9, 12]
    assert [table().epoch_of(i) for i in range(8)] == [0, 0, 0, 0, 1, 1, 1, 2]


def test_saves_between_updates_leave_out_the_end_and_dry_runs():
    assert true_at(table().saves_at) == [0, 5, 10]
    assert true_at(table(stop_at=10).saves_at) == [0, 5]
    assert true_at(table(is_dry=True).saves_at) == []


@pytest.mark.parametrize("rule, at", [
    ({}, []),  # no interval: only the end, which the script asks for by itself
    ({"validate_every": 1}, [3, 6, 9, 12]),
    ({"validate_every": 2}, [6, 12]),  # segmentation
    ({"validate_every": 2, "validate_after": 1, "validate_from": 2}, [9]),  # YOLACT
    ({"validate_every": 1, "validate_after": 1, "validate_from": 2}, [6, 9, 12]),
    ({"validate_every": 2, "validate_after": 1}, [3, 9]),  # ResNeSt
    ({"validate_every": 2, "validate_after": 1, "validate_last": 4}, [3, 9, 12]),
    ({"validate_every": 2, "validate_from": 3}, [12]),  # QueryInst's val_begin
    ({"validate_every": 1, "is_dry": True}, []),
])
def test_which_epochs_are_validated(rule, at):
    assert true_at(lambda i: table(**rule).validates_at(i, validated_at=-1)) == at
    assert true_at(lambda i: table(**rule).validates_now(i, validated_at=-1)) == [
        i for i in at if i < 12]


def test_what_is_scored_is_not_scored_again():
    every = table(validate_every=1, validate_end=True)
    assert not every.validates_at(6, validated_at=6)
    assert every.validates_at(6, validated_at=3)
    assert every.validates_end(validated_at=9)
    assert not every.validates_end(validated_at=12)
    assert not table(validate_every=1).validates_end(validated_at=9)
    assert not table(validate_end=True, is_dry=True).validates_end(validated_at=-1)


def test_lines_of_a_validation_that_comes_again_are_cut():
    assert table().keeps_metrics_to(-1) is None
    resumed = table(start=6, validate_every=1)
    assert resumed.keeps_metrics_to(validated_at=6) == 6
    assert resumed.keeps_metrics_to(validated_at=3) == 5.5
    assert table(start=7, validate_every=1).keeps_metrics_to(validated_at=6) == 7
