import pytest
import torch

from metrics import ClassHistory


def test_an_epoch_and_its_validation():
    history = ClassHistory()
    assert history.means() == (0.0, 0.0)
    history.add(2.0, 50.0)
    history.add(1.0, 100.0)
    assert history.means() == (1.5, 75.0)
    assert history.line(1, is_mixed=False) == "Batch: 1| Loss: 1.500 | Top1: 75.000"
    assert history.line(1, is_mixed=True) == "Batch: 1| Loss: 1.500"
    history.close_epoch(2)
    assert history.means() == (0.0, 0.0)
    assert history.validated(2, {"top1": 40.0})
    assert not history.validated(3, {"top1": 39.0})  # inside an epoch: no entry
    assert (history.train, history.val, history.best) == ([75.0], [40.0], 40.0)
    history.add(1.0, None)  # mixed images have no Top-1
    history.close_epoch(4)
    assert history.train == [75.0, 0.0]


def test_the_first_score_is_the_best_even_when_it_is_zero():
    assert ClassHistory().validated(1, {"top1": 0.0})
    assert ClassHistory().pack()["best_pred"] == 0.0  # as the original begins


def restored(saved):
    history = ClassHistory()
    history.restore(saved)
    return history


def test_it_survives_a_checkpoint_inside_an_epoch():
    history = ClassHistory()
    history.add(2.0, 50.0)
    history.close_epoch(1)
    history.validated(1, {"top1": 30.0})
    history.add(3.0, 10.0)
    packed = history.pack()
    assert packed.keys() == {"best_pred", "acclist_train", "acclist_val", "best", "waited",
                             "validated_at", "closed_at", "sums"}
    assert restored(packed | {"iteration": 2, "position": 1}).pack() == packed


def test_an_epoch_that_was_not_closed_before_it_was_saved_is_closed():
    history = ClassHistory()
    history.add(2.0, 50.0)
    again = restored(history.pack() | {"iteration": 1, "position": 0})
    history.close_epoch(1)
    assert again.pack() == history.pack()
    assert restored(again.pack() | {"iteration": 1, "position": 0}).pack() == history.pack()


def test_the_originals_tensors_are_read():
    saved = {"best_pred": torch.tensor(61.5), "acclist_train": [torch.tensor([40.0]), 0],
             "acclist_val": [torch.tensor(61.5)]}
    history = restored(saved | {"iteration": 20})
    assert (history.best, history.train, history.val) == (61.5, [40.0, 0.0], [61.5])
    assert history.closed_at == history.validated_at == 20
    assert history.means() == pytest.approx((0.0, 0.0))
