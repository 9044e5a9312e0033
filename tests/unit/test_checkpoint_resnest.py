import pytest
import torch

from common.checkpoint.series import Occasion, resnest_series
from runtime.errors import SaveError

PER_EPOCH = 5


@pytest.fixture
def folder(tmp_path):
    def make(**options):
        return resnest_series(tmp_path, PER_EPOCH, **options)

    return make


def names(path):
    return sorted(file.name for file in path.glob("*.pth"))


def save(series, *iterations, occasion=Occasion.REGULAR):
    for iteration in iterations:
        series.save(iteration, {"x": torch.tensor(iteration)}, occasion=occasion)


def test_every_tenth_epoch_and_the_newest_three_stay(folder, tmp_path):
    save(folder(), *(PER_EPOCH * (epoch + 1) for epoch in range(14)))
    assert names(tmp_path) == sorted(f"checkpoint_{e}.pth" for e in (0, 10, 11, 12, 13))


def test_states_inside_epochs_go_with_the_next_save(folder, tmp_path):
    save(folder(), 5, 7)
    assert names(tmp_path) == ["checkpoint_0.pth", "checkpoint_iter_7.pth"]
    save(folder(), 10, occasion=Occasion.STOP)  # stopped before the epoch was closed
    assert names(tmp_path) == ["checkpoint_0.pth", "checkpoint_iter_10.pth"]
    save(folder(), 10)
    assert names(tmp_path) == ["checkpoint_0.pth", "checkpoint_1.pth"]


def test_asked_for_ones_stay_and_later_ones_are_left_alone(folder, tmp_path):
    save(folder(), 33)  # of a longer run in the same folder
    save(folder(save_every=3), 3, 4, 6, 10)
    assert names(tmp_path) == ["checkpoint_1.pth", "checkpoint_iter_3.pth",
                               "checkpoint_iter_33.pth", "checkpoint_iter_6.pth"]


def test_nothing_is_removed_before_the_new_one_is_whole(folder, tmp_path, monkeypatch):
    save(folder(), 7)

    def full(*_):
        raise SaveError("full")

    monkeypatch.setattr("common.checkpoint.forms.save_checkpoint", full)
    with pytest.raises(SaveError):
        save(folder(), 10)
    assert names(tmp_path) == ["checkpoint_iter_7.pth"]


def test_a_stop_at_an_epochs_end_leaves_no_regular_one(tmp_path):
    series = resnest_series(tmp_path, per_epoch=6, save_every=3)
    for iteration, occasion in ((3, Occasion.REGULAR), (6, Occasion.STOP), (6, Occasion.REGULAR)):
        series.save(iteration, {"iteration": iteration}, occasion=occasion)
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint_iter_3.pth",
                                                          "checkpoint_0.pth"}
