"""RandAugment as the original has it: sixteen operations on PIL images, quirks included.

Source: [resnest.md: RandAugment]; RandAugment, arXiv:1909.13719.
"""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

MAX_MAGNITUDE = 30
CUTOUT_COLOR = (125, 123, 114)

Operation = Callable[..., Image.Image]  # (image, value, rng=, np_rng=)


class RandAugment:
    """`n` operations chosen with replacement, each kept half the time, at magnitude `m` of 30.

    Called with an RGB PIL image and keywords rng (random.Random; None: Python's global stream) and
    np_rng (numpy RandomState, used by CutoutAbs alone; None: numpy's global stream).
    """

    def __init__(self, n: int, m: int):
        self.n, self.m = n, m
        self._operations = list(RAND_AUGMENT_OPS.values())

    def __call__(self, image: Image.Image, *, rng: Any = None, np_rng: Any = None) -> Image.Image:
        rng = rng or random
        for operation, low, high in rng.choices(self._operations, k=self.n):
            # two random numbers, in this order; on average one operation of two is kept
            if rng.random() > rng.uniform(0.2, 0.8):
                continue
            value = (float(self.m) / MAX_MAGNITUDE) * float(high - low) + low
            image = operation(image, value, rng=rng, np_rng=np_rng)
        return image


def _fixed(function: Callable[[Image.Image, float], Image.Image]) -> Operation:
    """An operation without random numbers, with every operation's signature."""

    def operation(image, value, rng=None, np_rng=None):
        return function(image, value)

    return operation


def _signed(function: Callable[[Image.Image, float], Image.Image]) -> Operation:
    """An operation whose value changes its sign half the time."""

    def operation(image, value, rng=None, np_rng=None):
        return function(image, -value if (rng or random).random() > 0.5 else value)

    return operation


def _posterize(image, value):
    return ImageOps.posterize(image, int(value))


def _solarize_add(image, value):
    levels = np.clip(np.arange(256) + value, 0, 255).astype(np.uint8)
    levels = np.where(levels < 128, levels, 255 - levels)  # PIL's solarize at 128
    return image.point(levels.tolist() * 3)


def _affine(image, coefficients):
    return image.transform(
        image.size, Image.Transform.AFFINE, coefficients, Image.Resampling.BICUBIC
    )


def _translated(image, dx, dy):
    if dx == int(dx) and dy == int(dy):
        # Bicubic interpolation at whole pixels is a copy, at a hundredth of the cost.
        width, height = image.size
        return image.crop((int(dx), int(dy), int(dx) + width, int(dy) + height))
    return _affine(image, (1, 0, dx, 0, 1, dy))


def _cutout_abs(image, value, rng=None, np_rng=None):
    np_rng = np_rng or np.random
    width, height = image.size
    # parity: numpy's uniform(low=width), whose high is 1 [resnest.md: RandAugment]
    center_x, center_y = np_rng.uniform(width), np_rng.uniform(height)
    x0, y0 = int(max(0, center_x - value / 2.0)), int(max(0, center_y - value / 2.0))
    image = image.copy()
    # parity: PIL fills the far edge as well [resnest.md: RandAugment]
    box = (x0, y0, min(width, x0 + value), min(height, y0 + value))
    ImageDraw.Draw(image).rectangle(box, CUTOUT_COLOR)
    return image


# parity: absolute pixels and degrees, and enhancement factors that at m = 12 only ever weaken
# [resnest.md: RandAugment]
RAND_AUGMENT_OPS: dict[str, tuple[Operation, float, float]] = {
    "AutoContrast": (_fixed(lambda image, _: ImageOps.autocontrast(image)), 0, 1),
    "Equalize": (_fixed(lambda image, _: ImageOps.equalize(image)), 0, 1),
    "Invert": (_fixed(lambda image, _: ImageOps.invert(image)), 0, 1),
    "Rotate": (_signed(lambda image, degrees: image.rotate(degrees)), 0, 30),
    "Posterize": (_fixed(_posterize), 0, 4),
    "Solarize": (_fixed(ImageOps.solarize), 0, 256),
    "SolarizeAdd": (_fixed(_solarize_add), 0, 110),
    "Color": (_fixed(lambda image, f: ImageEnhance.Color(image).enhance(f)), 0.1, 1.9),
    "Contrast": (_fixed(lambda image, f: ImageEnhance.Contrast(image).enhance(f)), 0.1, 1.9),
    "Brightness": (_fixed(lambda image, f: ImageEnhance.Brightness(image).enhance(f)), 0.1, 1.9),
    "Sharpness": (_fixed(lambda image, f: ImageEnhance.Sharpness(image).enhance(f)), 0.1, 1.9),
    "ShearX": (_signed(lambda image, v: _affine(image, (1, v, 0, 0, 1, 0))), 0.0, 0.3),
    "ShearY": (_signed(lambda image, v: _affine(image, (1, 0, 0, v, 1, 0))), 0.0, 0.3),
    "CutoutAbs": (_cutout_abs, 0, 40),
    "TranslateXabs": (_signed(lambda image, px: _translated(image, px, 0)), 0.0, 100),
    "TranslateYabs": (_signed(lambda image, px: _translated(image, 0, px)), 0.0, 100),
}
