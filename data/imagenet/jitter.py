"""Colour jitter: torchvision's ColorJitter on PIL images, and the same numbers computed faster.

PIL blends two pictures as trunc(first + factor * (second - first)) in float32, clipped to 0..255.
The fast path does that arithmetic in NumPy: on the 256 levels where a step treats all pixels of a
level alike (brightness, contrast), on the planes for saturation. Where PIL was compiled with fused
multiply-add (some ARM builds), a pixel in thousands may differ by one level.
"""

from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from PIL import Image, ImageEnhance

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)  # the order in which torchvision samples them
_ENHANCERS = {
    BRIGHTNESS: ImageEnhance.Brightness,
    CONTRAST: ImageEnhance.Contrast,
    SATURATION: ImageEnhance.Color,
}
# PIL's grey: (19595 R + 38470 G + 7471 B + 2^15) >> 16. As multiples of 2^-16 below 256, the
# products and their sums are exact in float32.
_GREY_WEIGHTS = np.array([19595, 38470, 7471], np.float32) / np.float32(1 << 16)

IDENTITY = np.arange(256, dtype=np.float32)

Step = tuple[int, float]  # what to change, the enhancement factor


class Planes(NamedTuple):
    """A picture whose levels are still to be looked up.

    pixels: [3, h, w] uint8, R, G and B; levels: [256] float32, the whole number that each becomes
    """

    pixels: np.ndarray
    levels: np.ndarray


class ColorJitter:
    """Brightness, contrast and saturation, each times a factor of 1 +- strength, in random order.

    Called with an RGB PIL image and keyword generator (torch.Generator; None: torch's global one).
    The random numbers are torchvision's, one by one; hue is left alone.
    """

    def __init__(self, strength: float):
        self.low, self.high = max(0.0, 1.0 - strength), 1.0 + strength

    def __call__(self, image: Image.Image, *, generator: Any = None) -> Image.Image:
        for kind, factor in self.sample(generator):
            image = _ENHANCERS[kind](image).enhance(factor)
        return image

    def sample(self, generator: Any = None) -> list[Step]:
        """The steps in the order in which they apply."""
        order = torch.randperm(4, generator=generator).tolist()
        # one call for the three: the stream is that of three calls
        factors = torch.empty(3).uniform_(self.low, self.high, generator=generator).tolist()
        return [(kind, factors[kind]) for kind in order if kind != HUE]


def jittered_planes(image: Image.Image, steps: list[Step], flip: bool) -> Planes:
    """`image` (RGB) mirrored if `flip`, then `steps` applied, exactly as PIL does both.

    A step that treats every level alike only changes the table of levels.
    """
    pixels, levels = planes_of(image, flip), IDENTITY
    for kind, factor in steps:
        if kind == BRIGHTNESS:
            levels = np.floor(_blend(levels.copy(), 0.0, factor))
            continue
        now = _looked_up(pixels, levels)
        grey = _grey(now)
        if kind == CONTRAST:
            mean = int(cv2.sumElems(grey)[0] / grey.size + 0.5)
            levels = np.floor(_blend(levels.copy(), mean, factor))
        else:
            pixels = _blend(now, grey.astype(np.float32), factor).astype(np.uint8)  # truncates
            levels = IDENTITY
    return Planes(pixels, levels)


def planes_of(image: Image.Image, flip: bool = False) -> np.ndarray:
    """[3, h, w] uint8 of an RGB image, mirrored left to right if `flip`."""
    width, height = image.size
    # PIL keeps four bytes a pixel, so this copy is much cheaper than one of three.
    pixels = np.frombuffer(image.tobytes("raw", "RGBX"), np.uint8).reshape(height, width, 4)
    planes = np.empty((4, height, width), np.uint8)
    cv2.split(pixels, list(planes))  # written in place, as their sizes fit
    if flip:
        lines = planes[:3].reshape(-1, width)
        return cv2.flip(lines, 1).reshape(3, height, width)
    return planes[:3]


def as_tensor(planes: Planes, tables: np.ndarray) -> torch.Tensor:
    """float32 [3, h, w]: in channel c the level v becomes tables[c, v], [3, 256] float32."""
    pixels = planes.pixels
    result = np.empty(pixels.shape, np.float32)
    tables = np.take(tables, planes.levels.astype(np.intp), axis=1)
    for channel in range(3):
        cv2.LUT(pixels[channel], tables[channel], dst=result[channel])
    return torch.from_numpy(result)


def _looked_up(pixels, levels):
    """[3, h, w] float32, a fresh array."""
    if levels is IDENTITY:
        return pixels.astype(np.float32)
    return cv2.LUT(pixels.reshape(-1, pixels.shape[2]), levels).reshape(pixels.shape)


def _blend(values, base, factor):
    """PIL's blend from `base` to `values` before it truncates, 0..255; in place."""
    values -= base
    values *= factor
    values += base
    if factor > 1.0:
        np.clip(values, 0.0, 255.0, out=values)
    return values


def _grey(pixels):
    """PIL's conversion to grey of [3, h, w] float32, [h, w] uint8."""
    grey = _GREY_WEIGHTS @ pixels.reshape(3, -1)
    grey += np.float32(0.5)
    return grey.astype(np.uint8).reshape(pixels.shape[1:])
