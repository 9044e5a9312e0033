"""YolactTransform against the original's recorded results (yolact_transform.json)."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from goldens import check_summary, load_golden

from data.yolact import YolactTransform
from models.yolact import load_yolact_config

GOLDEN = load_golden("yolact_transform")
HEIGHT, WIDTH, _ = GOLDEN["image_hwc"]

# Float32 chains in another order, and OpenCV's own rounding between its versions: values are up to
# 4.5, a step of HSV to BGR costs about 3e-4 of 255, which is 6e-6 of a standard deviation.
IMAGE_ATOL = 2e-5
# the records hold nine digits
BOX_ATOL = 1e-8


def golden_image():
    y, x, c = np.meshgrid(np.arange(HEIGHT), np.arange(WIDTH), np.arange(3), indexing="ij")
    return ((3 * x + 5 * y + 40 * c + (x * y) // 7) % 256).astype(np.uint8)


def golden_masks(boxes):
    j, i = np.arange(WIDTH) + 0.5, np.arange(HEIGHT)[:, None] + 0.5
    masks = []
    for x1, y1, x2, y2 in boxes * (WIDTH, HEIGHT, WIDTH, HEIGHT):
        across = (j - (x1 + x2) / 2) / ((x2 - x1) / 2)
        down = (i - (y1 + y2) / 2) / ((y2 - y1) / 2)
        masks.append(across**2 + down**2 <= 1)
    return np.array(masks, np.uint8)


def golden_sample():
    boxes = np.array(GOLDEN["boxes_relative"])
    return golden_image(), golden_masks(boxes), boxes, np.array(GOLDEN["labels"]), 1


def check_objects(result, record):
    _, masks, boxes, labels, num_crowds = result
    assert labels.tolist() == record["kept_labels"]
    assert num_crowds == record["num_crowds"]
    if "boxes" in record:
        np.testing.assert_allclose(boxes, record["boxes"], atol=BOX_ATOL)
    if "mask_areas" in record:
        # exact: OpenCV resizes bytes in integer arithmetic
        assert masks.sum((1, 2)).tolist() == record["mask_areas"]


@pytest.mark.parametrize("name", GOLDEN["eval"])
def test_eval(name):
    result = YolactTransform(load_yolact_config(name))(*golden_sample())
    record = GOLDEN["eval"][name]
    check_summary(torch.from_numpy(result[0]), record["image_chw"], IMAGE_ATOL)
    check_objects(result, record)
    assert result[1].shape[1:] == (HEIGHT, WIDTH)


def test_train_no_random():
    cfg = replace(
        load_yolact_config("yolact_base_config"), augment_photometric_distort=False,
        augment_expand=False, augment_random_sample_crop=False, augment_random_mirror=False)
    record = GOLDEN["train_no_random"]
    rng = np.random.RandomState(3)
    result = YolactTransform(cfg, train=True)(*golden_sample(), rng=rng)
    check_summary(torch.from_numpy(result[0]), record["image_chw"], IMAGE_ATOL)
    check_objects(result, record)
    assert str(result[1].dtype) == record["mask_dtype"]
    assert list(result[1].shape) == record["mask_shape"]
    assert np.unique(result[1]).tolist() == record["mask_values"]
    assert rng.uniform() == np.random.RandomState(3).uniform()  # nothing was drawn


@pytest.mark.parametrize("seed", GOLDEN["train_seeded"])
def test_train_seeded(seed):
    record = GOLDEN["train_seeded"][seed]
    transform = YolactTransform(load_yolact_config("yolact_base_config"), train=True)
    np.random.seed(int(seed))
    result = transform(*golden_sample())
    assert np.random.uniform() == pytest.approx(record["next_uniform_after"], abs=1e-9)
    check_summary(torch.from_numpy(result[0]), record["image_chw"], IMAGE_ATOL, every=4)
    check_objects(result, record)


def test_own_generator_leaves_the_global_one_alone():
    transform = YolactTransform(load_yolact_config("yolact_base_config"), train=True)
    np.random.seed(5)
    before = np.random.uniform()
    np.random.seed(5)
    image = transform(*golden_sample(), rng=np.random.RandomState(0))[0]
    assert np.random.uniform() == before
    check_summary(torch.from_numpy(image), GOLDEN["train_seeded"]["0"]["image_chw"],
                  IMAGE_ATOL, every=4)
