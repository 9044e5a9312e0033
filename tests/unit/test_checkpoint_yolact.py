import pytest
import torch

from common.checkpoint import load_pair
from common.checkpoint.series import Occasion, yolact_series
from runtime.errors import SaveError


def make(folder, name="net", save_interval=10, **options):
    return yolact_series(folder, name, save_interval, **options, per_epoch=10)


def save(series, iteration, occasion=Occasion.REGULAR):
    weights = {"w": torch.full((2,), float(iteration))}
    series.save(iteration, weights, {"iteration": iteration}, occasion)


def names(path):
    return sorted(file.name for file in path.iterdir() if not file.name.endswith(".state.pth"))


def test_interrupted_states_go_with_the_next_save_of_their_own_run(tmp_path):
    other = make(tmp_path, "other")
    save(other, 3, Occasion.STOP)
    mine = make(tmp_path)
    save(mine, 5, Occasion.STOP)
    save(mine, 7, Occasion.STOP)
    assert names(tmp_path) == ["net_0_7_interrupt.pth", "other_0_3_interrupt.pth"]
    save(mine, 10)
    assert names(tmp_path) == ["net_0_10.pth", "other_0_3_interrupt.pth"]
    weights, state = load_pair(tmp_path / "net_0_10.pth")
    assert (weights["w"][0], state["iteration"]) == (10, 10)


def test_a_newer_interrupted_state_is_left_alone(tmp_path):
    mine = make(tmp_path)
    save(mine, 55, Occasion.STOP)
    save(mine, 10)  # a run that began anew
    assert names(tmp_path) == ["net_0_10.pth", "net_5_55_interrupt.pth"]


def test_keep_latest_leaves_the_last_and_the_multiples(tmp_path):
    mine = make(tmp_path, keep_latest=True, keep_latest_interval=30)
    for iteration in range(10, 71, 10):
        save(mine, iteration)
    assert names(tmp_path) == ["net_2_30.pth", "net_5_60.pth", "net_6_70.pth"]
    always = make(tmp_path / "b", keep_latest=True, keep_latest_interval=0)
    (tmp_path / "b").mkdir()
    for iteration in (10, 20, 30):
        save(always, iteration)
    assert names(tmp_path / "b") == ["net_2_30.pth"]


def test_a_failed_save_removes_nothing(tmp_path, monkeypatch):
    mine = make(tmp_path, keep_latest=True, keep_latest_interval=0)
    save(mine, 10)
    save(mine, 15, Occasion.STOP)

    def full(*_):
        raise SaveError("No space left on device")

    monkeypatch.setattr("common.checkpoint.forms.save_pair", full)
    with pytest.raises(SaveError):
        save(mine, 20)
    assert names(tmp_path) == ["net_0_10.pth", "net_1_15_interrupt.pth"]


def test_both_intervals_count():
    folder = make("weights", save_every=4)
    assert [i for i in range(1, 21) if folder.due(i)] == [4, 8, 10, 12, 16, 20]
