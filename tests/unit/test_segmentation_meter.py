"""SegmentationMeter: wrong input is refused, tables name what is absent."""

import numpy as np
import pytest

from metrics.segmentation import SegmentationMeter


@pytest.mark.parametrize(
    "pred, label, words",
    [
        (np.zeros((2, 2), int), np.zeros((2, 3), int), "shape"),
        (np.zeros((2, 2)), np.zeros((2, 2), int), "integers"),
        (np.full((2, 2), 3), np.zeros((2, 2), int), "want 0 to 2"),
        (np.zeros((2, 2), int), np.full((2, 2), 3), "want 0 to 2"),
    ],
)
def test_wrong_input(pred, label, words):
    with pytest.raises(ValueError, match=words):
        SegmentationMeter(3).update(pred, label)


def test_unlabelled_pixels_do_not_count():
    meter = SegmentationMeter(3)
    meter.update(np.array([0, 1, 2, 2]), np.array([0, 1, -1, 1]))
    assert meter.intersection.tolist() == [1, 1, 0]
    assert meter.union.tolist() == [1, 2, 1]
    scores = meter.compute()
    assert scores["mean_iou"] == pytest.approx(0.5)
    assert scores["pixel_accuracy"] == pytest.approx(2 / 3)


def test_8_bit_maps():
    meter = SegmentationMeter(200)
    meter.update(np.full((4, 4), 199, np.uint8), np.full((4, 4), 199, np.int16))
    assert meter.union[199] == 16


def test_table():
    meter = SegmentationMeter(2)
    meter.update(np.zeros(4, int), np.zeros(4, int))
    assert meter.table(("sky", "road")) == [
        "class [0], IoU: 1.0000  sky", "class [1], IoU: 0.0000  road  (absent)"]
    assert meter.table()[0] == "class [0], IoU: 1.0000"
    assert meter.compute() == {"mean_iou": pytest.approx(0.5),
                               "mean_iou_present": pytest.approx(1.0),
                               "pixel_accuracy": pytest.approx(1.0)}
