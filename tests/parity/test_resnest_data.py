"""The classifier's crops, transforms and RandAugment against the original's recorded values."""

import random

import numpy as np
import pytest
import torch
from goldens import check_summary, load_golden
from PIL import Image

from data.imagenet import (
    RAND_AUGMENT_OPS,
    Lighting,
    RandAugment,
    center_crop_box,
    random_crop_box,
    train_transform,
    val_transform,
)

GOLDEN = load_golden("resnest_transforms")
OPS = [
    "AutoContrast", "Equalize", "Invert", "Rotate", "Posterize", "Solarize", "SolarizeAdd",
    "Color", "Contrast", "Brightness", "Sharpness", "ShearX", "ShearY", "CutoutAbs",
    "TranslateXabs", "TranslateYabs",
]
# other Pillow versions may round a pixel's level the other way
LEVEL = 1.0
NORMALISED_LEVEL = LEVEL / 255 / 0.224


def picture(kind, width, height):
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    if kind == "wrap":
        planes = [(3 * x + 5 * y + 40 * c + x * y // 31) % 256 for c in range(3)]
    else:
        planes = [
            255 * x // (width - 1),
            255 * y // (height - 1),
            255 * (x + y) // (width + height - 2),
        ]
    return Image.fromarray(np.stack(planes, -1).astype(np.uint8))


def check_pixels(image, record, atol):
    """Summaries that may lack shape, absmax or samples."""
    values = torch.from_numpy(np.array(image))
    whole = {"shape": list(values.shape), "absmax": float(values.max())} | record
    whole.setdefault("samples", None)
    if whole["samples"] is not None:
        check_summary(values, whole, atol)
    # single pixels a level off do not move the moments
    assert values.double().mean().item() == pytest.approx(record["mean"], abs=0.02 * LEVEL)
    assert values.double().std(unbiased=False).item() == pytest.approx(record["std"], abs=0.02)


class FixedDraw:
    """Stands for Python's random with random() forced to one value."""

    def __init__(self, value):
        self.value = value

    def random(self):
        return self.value


@pytest.mark.parametrize("case", GOLDEN["val"])
def test_val_transform(case):
    image, crop = picture(case["image"], case["w"], case["h"]), case["crop"]
    transform = val_transform(crop)
    check_pixels(transform.transforms[0](image), case["resized_uint8"], LEVEL)
    tensor = transform(image)
    assert list(tensor.shape) == case["tensor"]["shape"]
    assert tensor.dtype == torch.float32
    assert tensor.mean().item() == pytest.approx(case["tensor"]["mean"], abs=1e-3)
    assert tensor.std().item() == pytest.approx(case["tensor"]["std"], abs=1e-3)
    assert tensor.abs().max().item() == pytest.approx(
        case["tensor"]["absmax"], abs=NORMALISED_LEVEL
    )
    assert tensor.mean((1, 2)).tolist() == pytest.approx(case["per_channel_mean"], abs=1e-3)


@pytest.mark.parametrize("case", GOLDEN["val_bicubic_verify"])
def test_bicubic_val_transform(case):
    image = picture(case["image"], case["w"], case["h"])
    resized = val_transform(case["crop"], "bicubic").transforms[0](image)
    check_pixels(resized, case["resized_uint8"], LEVEL)


@pytest.mark.parametrize("case", GOLDEN["val_crop_boxes"])
def test_center_crop_box(case):
    left, top, right, bottom = center_crop_box(case["w"], case["h"], case["crop"])
    # as PIL's crop rounds them
    assert (left, top) == (case["left"], case["top"])
    assert (round(right) - left, round(bottom) - top) == (case["crop_w"], case["crop_h"])


@pytest.mark.parametrize("case", GOLDEN["train_crop_boxes"])
def test_random_crop_box(case):
    rng = random.Random(case["seed"])
    box = random_crop_box(case["w"], case["h"], 224, rng)
    assert list(map(float, box)) == case["box"]
    assert rng.random() == case["next_random"]


def test_rand_augment_names():
    assert list(RAND_AUGMENT_OPS) == OPS


@pytest.mark.parametrize("draw", [0.0, 0.9])
@pytest.mark.parametrize("case", GOLDEN["randaugment_ops"], ids=lambda case: case["op"])
def test_rand_augment_operation(case, draw):
    operation, low, high = RAND_AUGMENT_OPS[case["op"]]
    assert (low, high) == (case["lo"], case["hi"])
    value = 12 / 30 * (high - low) + low
    assert value == pytest.approx(case["value_at_m12"], rel=1e-12)
    image = operation(
        picture("smooth", 160, 120), value, rng=FixedDraw(draw), np_rng=np.random.RandomState(0)
    )
    record = case["random_returns_0" if draw == 0.0 else "random_returns_0_9"]
    check_pixels(image, record, LEVEL)


@pytest.mark.parametrize("uses_global_streams", [False, True])
@pytest.mark.parametrize("case", GOLDEN["randaugment_full"], ids=lambda case: str(case["seed"]))
def test_rand_augment(case, uses_global_streams):
    seed, augment = case["seed"], RandAugment(2, 12)
    image = picture("smooth", 160, 120)
    if uses_global_streams:
        random.seed(seed)
        np.random.seed(seed)
        out, after = augment(image), random.random()
    else:
        rng = random.Random(seed)
        out, after = augment(image, rng=rng, np_rng=np.random.RandomState(seed)), rng.random()
    check_pixels(out, case["out"], LEVEL)
    assert after == case["next_random"]


@pytest.mark.parametrize("case", GOLDEN["lighting"], ids=lambda case: str(case["seed"]))
def test_lighting(case):
    generator = torch.Generator().manual_seed(case["seed"])
    added = Lighting(0.1)(torch.zeros(3, 2, 2), generator=generator)
    # float32 products of three numbers near 0.1
    assert added[:, 1, 1].tolist() == pytest.approx(case["rgb_added"], abs=1e-8)
    torch.manual_seed(case["seed"])
    assert torch.equal(Lighting(0.1)(torch.zeros(3, 2, 2)), added)


def test_order_of_steps():
    names = [type(step).__name__ for step in train_transform(224, rand_aug=True).transforms]
    assert names == GOLDEN["train_pipeline_repr"]
    names = [type(step).__name__ for step in train_transform(224).transforms]
    assert names == GOLDEN["train_pipeline_repr"][1:]
