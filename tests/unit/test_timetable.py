"""runtime.run.timetable: when a loop logs, saves, validates and ends, tabulated for each family."""

import math

import pytest

from runtime.run.scores import Scores
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


# --- the patience, which ends a training


def told(scores, timetable, values):
    """(the iteration where it ends, lines) with a validation of each value every third update."""
    lines = []
    for i, value in enumerate(values, start=1):
        scores.validated(3 * i, {"ap": value})
        timetable = scores.ends(timetable, 3 * i, lines.append)
    return timetable.stop_at, lines


def test_a_training_ends_when_the_patience_has():
    stop_at, lines = told(Scores("ap", 2), table(stop_at=30), [1.0, 2.0, 2.0, 1.5])
    assert stop_at == 12  # an equal score is no better one
    assert lines == ["ap has not become better than 2 for 2 validations (--patience 2): the "
                     "training ends after 12 iterations."]


@pytest.mark.parametrize("patience, values", [
    (2, [1.0, 0.5, 2.0, 1.0]),  # a better one in between
    (3, [1.0, 0.5, 0.5]),
    (None, [1.0] * 9),
    (1, [0.0]),  # the first one is the best in any case
])
def test_a_training_with_patience_left_goes_on(patience, values):
    assert told(Scores("ap", patience), table(stop_at=30), values) == (30, [])


def test_scores_that_are_not_there_or_no_number():
    scores = Scores("ap", 2)
    assert not scores.validated(3, {})
    assert scores.waited == 0
    assert not scores.validated(6, {"ap": math.nan})
    assert scores.waited == 1


def test_the_patience_goes_on_in_a_resumed_run():
    scores = Scores("ap", 3)
    told(scores, table(stop_at=30), [2.0, 1.0, 1.0])
    resumed = Scores("ap", 3)
    resumed.restore(scores.pack())
    assert not resumed.is_over
    assert told(resumed, table(start=9, stop_at=30), [1.0])[0] == 3
    ended = Scores("ap", 3)
    ended.restore(resumed.pack())
    timetable = table(start=12, stop_at=30)
    assert ended.ends(timetable, 12, print).stop_at == 12  # there is nothing left to do
    patient = Scores("ap", 9)
    patient.restore(resumed.pack())
    assert patient.ends(timetable, 12, print) == timetable
    patient.restore({"best": 2.0, "validated_at": 9})  # of an older checkpoint
    assert patient.waited == 0


def test_a_dry_run_is_not_ended():
    scores = Scores("ap", 1)
    scores.validated(3, {"ap": 1.0})
    scores.validated(6, {"ap": 1.0})
    assert scores.ends(table(start=6, is_dry=True), 6, print).stop_at == 12
