import pytest
import torch

from metrics import ClassHistory


def test_an_epoch_and_its_validation():
    history = ClassHistory()
    assert history.means() == (0.0, 0.0)
    history.add(2.0, 50.0)
    history.add(1.0, 100.0)
    assert history.means() == (1.5, 75.0)
    history.close_epoch(2)
    assert history.means() == (0.0, 0.0)
    assert history.validated(2, 40.0)
    assert not history.validated(3, 39.0)  # inside an epoch: no entry
    assert (history.train, history.val, history.best) == ([75.0], [40.0], 40.0)
    history.add(1.0, None)  # mixed images have no Top-1
    history.close_epoch(4)
    assert history.train == [75.0, 0.0]


def test_the_first_score_is_the_best_even_when_it_is_zero():
    assert ClassHistory().validated(1, 0.0)
    assert ClassHistory().pack()["best_pred"] == 0.0  # as the original begins


def test_it_survives_a_checkpoint_inside_an_epoch():
    history = ClassHistory()
    history.add(2.0, 50.0)
    history.close_epoch(1)
    history.validated(1, 30.0)
    history.add(3.0, 10.0)
    assert ClassHistory.unpack(history.pack(), iteration=2) == history


def test_the_originals_tensors_are_read():
    saved = {"best_pred": torch.tensor(61.5), "acclist_train": [torch.tensor([40.0]), 0],
             "acclist_val": [torch.tensor(61.5)]}
    history = ClassHistory.unpack(saved, iteration=20)
    assert (history.best, history.train, history.val) == (61.5, [40.0, 0.0], [61.5])
    assert history.closed_at == history.validated_at == 20
    assert history.means() == pytest.approx((0.0, 0.0))
