"""Scores by class and the choice of best and worst images."""

import random

import numpy as np
import pytest

from metrics.by_class import class_scores, distinct
from metrics.classification import ClassScores
from metrics.extremes import Extremes
from metrics.segmentation import SegmentationMeter, SegmentationScores


def test_scores_by_hand():
    counts = [[6, 2, 0], [1, 3, 0], [0, 0, 0]]
    rows = class_scores(counts, ["cat", "dog", "emu"])
    assert rows["cat"] == {"precision": 6 / 7, "recall": 6 / 8, "f1": 12 / 15, "support": 8}
    assert rows["dog"] == {"precision": 3 / 5, "recall": 3 / 4, "f1": 6 / 9, "support": 4}
    assert rows["emu"] == {"precision": None, "recall": None, "f1": None, "support": 0}


def test_background_counts_against_both():
    # row "nothing": two false ones; column "nothing": three that were missed
    rows = class_scores([[5, 3], [2, 0]], ["cat"])
    assert rows == {"cat": {"precision": 5 / 7, "recall": 5 / 8, "f1": 10 / 15, "support": 8}}
    with pytest.raises(ValueError, match="3 classes"):
        class_scores([[5, 3], [2, 0]], ["a", "b", "c"])


def test_equal_names_stay_apart():
    assert distinct(["mouse", "cat", "mouse"]) == ["mouse (0)", "cat", "mouse (2)"]


def test_pixels_by_class():
    meter = SegmentationMeter(3)
    meter.update(np.array([[0, 0, 1, 1]]), np.array([[0, 1, 1, -1]]))
    assert meter.counts.tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 0]]
    assert meter.intersection.tolist() == [1, 1, 0]
    assert meter.union.tolist() == [2, 2, 0]
    rows = meter.by_class(["a", "b", "c"])
    assert rows["b"] == {"iou": pytest.approx(0.5), "accuracy": 0.5, "precision": 1.0,
                         "recall": 0.5, "f1": pytest.approx(2 / 3), "support": 2}
    assert rows["c"]["iou"] is rows["c"]["accuracy"] is None


@pytest.mark.parametrize("parts", [1, 3])
def test_extremes_do_not_depend_on_the_split(parts):
    rng = random.Random(0)
    rows = [(rng.randint(0, 9) / 10, number, f"image {number}") for number in range(50)]
    keepers = [Extremes(4) for _ in range(parts)]
    for i, row in enumerate(rows):
        keepers[i % parts].offer(*row)
    for other in keepers[1:]:
        keepers[0].merge(other)
    ordered = sorted(rows)
    assert keepers[0].worst == ordered[:4]
    assert keepers[0].best == ordered[:-5:-1]


def test_few_images_are_shown_once():
    few = Extremes(4)
    for number in range(6):
        few.offer(number / 10, number, None)
    assert [row[1] for row in few.worst] == [0, 1, 2, 3]
    assert [row[1] for row in few.best] == [5, 4]


def test_a_validation_of_maps_split_over_processes():
    def triple(wrong):
        label = np.zeros((4, 4), int)
        prediction = label.copy()
        prediction.ravel()[:wrong] = 1
        return np.zeros((4, 4, 3), np.uint8), label, prediction

    whole, parts = SegmentationScores(["a", "b"], 12, 3), [
        SegmentationScores(["a", "b"], 12, 3) for _ in range(2)]
    for number in range(12):
        for scores in (whole, parts[number % 2]):
            scores.update(number, f"{number}.png", triple(number))
    parts[0].merge(parts[1])
    assert parts[0].by_class() == whole.by_class()
    assert parts[0].meter.compute() == whole.meter.compute()
    for scores in (whole, parts[0]):
        assert [row[2][0] for row in scores.extremes.worst] == [f"{n}.png" for n in (11, 10, 9, 8)]
        assert [row[2][0] for row in scores.extremes.best] == ["0.png", "1.png", "2.png", "3.png"]
    assert len(whole.shown) == 3


def test_images_by_class():
    import torch

    scores = ClassScores(2)
    logits = torch.tensor([[2.0, 1], [2, 1], [0, 3]])
    scores.update(logits, torch.tensor([0, 1, 1]), torch.arange(3))
    rows = scores.by_class(["ant", "bee"])
    assert rows["ant"] == {"precision": 0.5, "recall": 1.0, "f1": 2 / 3, "support": 1}
    assert ClassScores(3000).by_class([""] * 3000) is None
