"""Detections and assembled masks of the original on formula-made predictions."""

import math

import numpy as np
import pytest
import torch
from goldens import image_batch, load_golden

from models.yolact import detect, load_yolact_config, postprocess
from models.yolact.priors import make_priors

GOLDEN = load_golden("yolact_detect")
LEVELS = ((69, 69), (35, 35), (18, 18), (9, 9), (5, 5))


def prototypes(size=138, count=32):
    x, k = np.arange(size)[None, :, None], np.arange(count)
    y = np.arange(size)[:, None, None]
    wave = np.cos(2 * math.pi * ((k % 4 + 1) * x / size + (k // 8 + 1) * y / size) + k)
    return torch.from_numpy(np.maximum(wave, 0))


@pytest.fixture(scope="module")
def made():
    """The config and its made-up predictions."""
    cfg = load_yolact_config(GOLDEN["config"])
    priors = make_priors(cfg, LEVELS)
    num = len(priors)
    assert num == GOLDEN["num_priors"]
    conf = 2 * image_batch("yolact_detect:conf", 1, num, 81)
    conf[..., 0] += 8
    return cfg, {
        "loc": 0.3 * image_batch("yolact_detect:loc", 1, num, 4),
        "conf": conf,
        "mask": torch.tanh(image_batch("yolact_detect:mask", 1, num, 32)),
        "proto": prototypes().float()[None],
        "priors": priors,
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_fast_nms(made, dtype):
    cfg, predictions = made
    golden = GOLDEN["fast_nms"]
    predictions = {key: value.to(dtype) for key, value in predictions.items()}
    found = detect(predictions, cfg)[0]
    assert len(found["score"]) == golden["num"]
    assert found["class"].tolist() == golden["class"]
    # records have 8 digits, and float32 keeps 7 of values near 1; 32 coefficients add up
    np.testing.assert_allclose(found["score"], golden["score"], atol=1e-6, rtol=0)
    np.testing.assert_allclose(found["box"], golden["box"], atol=1e-6, rtol=0)
    np.testing.assert_allclose(found["mask"].sum(1), golden["coeff_row_sums"], atol=1e-5, rtol=0)


def test_assembled_masks(made):
    cfg, predictions = made
    golden = GOLDEN["fast_nms"]["post"]
    full = postprocess(detect(predictions, cfg)[0], GOLDEN["out_w"], GOLDEN["out_h"])
    assert full["box"].tolist() == golden["box_int"]
    masks = full["mask"].numpy()
    # allowed by the golden file: pixels at the threshold may fall on either side
    for count, wanted in [
        *zip(masks.sum((1, 2)), golden["mask_area"], strict=True),
        *zip(masks[:, ::16].sum((0, 2)), golden["mask_row_profile"], strict=True),
        (masks.sum(), golden["mask_total"]),
    ]:
        assert abs(count - wanted) <= max(3, 0.005 * wanted)
