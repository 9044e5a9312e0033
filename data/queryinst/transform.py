"""QueryInst's geometry: resize, mirror and crop, chosen first, then applied to pixels and shapes.

Sizes are (w, h), as OpenCV and MMDetection have them. Source: [queryinst.md: Data].
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np

from data.coco_format.masks import Resized


def rescale_size(size: tuple[int, int], scale: tuple[int, int]) -> tuple[int, int]:
    """(w, h) of an image that keeps its ratio and fits `scale` as tightly as it can.

    scale: limits of the longer and of the shorter side, px, in any order
    """
    factor = min(max(scale) / max(size), min(scale) / min(size))
    width, height = (int(side * factor + 0.5) for side in size)
    return width, height


class Mirrored(NamedTuple):
    """Left and right exchanged; vertical: top and bottom; diagonal: both."""

    size: tuple[int, int]
    direction: str = "horizontal"

    def image(self, pixels):
        return cv2.flip(pixels, {"horizontal": 1, "vertical": 0, "diagonal": -1}[self.direction])

    bitmap = image

    def points(self, xy):
        across, down = self.direction != "vertical", self.direction != "horizontal"
        width, height = self.size
        return xy * (-1 if across else 1, -1 if down else 1) + (width * across, height * down)


class Cropped(NamedTuple):
    """The window of this size at (left, top)."""

    corner: tuple[int, int]
    size: tuple[int, int]

    def image(self, pixels):
        (x, y), (width, height) = self.corner, self.size
        return pixels[y : y + height, x : x + width]

    bitmap = image

    def points(self, xy):
        return xy - self.corner


class Steps:
    """What is done to a sample, step by step. size: (w, h) of the result.

    factors: of the last resize, (w, h); 1, 1 without one. A `Geometry` of data.coco_format.masks.
    """

    def __init__(self, size: tuple[int, int], steps: Sequence[Any] = ()):
        self.steps = list(steps)
        self.size = self.steps[-1].size if self.steps else size
        resizes = [step for step in self.steps if isinstance(step, Resized)]
        self.factors = resizes[-1].factors if resizes else (1.0, 1.0)

    def image(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 [h, w, 3] of the source to that of the result."""
        for step in self.steps:
            pixels = step.image(pixels)
        return pixels

    def bitmap(self, mask: np.ndarray) -> np.ndarray:
        """uint8 [h, w] of 0 and 1 of the source to that of the result."""
        for step in self.steps:
            mask = step.bitmap(np.ascontiguousarray(mask))
        return mask

    def points(self, xy: np.ndarray) -> np.ndarray:
        """[k, 2] source pixels to [k, 2] result pixels, float64; may lie outside."""
        xy = np.asarray(xy, np.float64)
        for step in self.steps:
            xy = step.points(xy)
        return xy

    def boxes(self, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Boxes [n, 4] xyxy clipped step by step, [k, 4] float64, and which are left, bool [n].

        Only crops drop boxes: those that do not reach into the window.
        """
        boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
        kept = np.ones(len(boxes), bool)
        for step in self.steps:
            corners = step.points(boxes.reshape(-1, 2)).reshape(-1, 2, 2)
            corners = np.clip(np.sort(corners, axis=1), 0, step.size)
            boxes = corners.reshape(-1, 4)
            if isinstance(step, Cropped):
                kept &= (corners[:, 1] > corners[:, 0]).all(1)
        return boxes[kept], kept


def sample_geometry(transforms: Sequence[Any], size: tuple[int, int], rng: Any) -> Steps:
    """The geometry of one sample. Fixed steps need no random number.

    transforms: a pipeline's steps; each has `type` and MMDetection's keys of it
    size:       (w, h) of the source
    rng:        numpy RandomState; None where all steps are fixed
    """
    steps: list[Any] = []
    _sample_steps(transforms, size, rng, steps)
    return Steps(size, steps)


def _sample_steps(transforms, size, rng, steps):
    """Append the steps that the transforms make; return the size behind them."""
    for transform in transforms:
        if transform.type == "Resize":
            steps.append(Resized(size, _resized(size, transform.scale, transform.keep_ratio)))
        elif transform.type == "RandomChoiceResize":
            scale = transform.scales[rng.randint(len(transform.scales))]
            steps.append(Resized(size, _resized(size, scale, transform.keep_ratio)))
        elif transform.type == "RandomFlip":
            i = _drawn([chance for _, chance in transform.chances], rng)
            if i < len(transform.chances):
                steps.append(Mirrored(size, transform.chances[i][0]))
        elif transform.type == "RandomCrop":
            steps.append(_sample_crop(transform, size, rng))
        else:  # RandomChoice
            count = len(transform.lists)
            i = rng.randint(count) if transform.prob is None else _drawn(transform.prob[:-1], rng)
            chosen = transform.lists[i]
            size = _sample_steps(chosen, size, rng, steps)
            continue
        size = steps[-1].size if steps else size
    return size


def _resized(size, scale, keep_ratio):
    """(w, h) of a resized image; of a strip one pixel is left at least."""
    width, height = rescale_size(size, scale) if keep_ratio else scale
    return max(1, width), max(1, height)


def _drawn(chances, rng):
    """The number of what is drawn; that of chances when it is none of them."""
    return int(np.searchsorted(np.cumsum(chances), rng.random_sample(), side="right"))


def _sample_crop(crop, size, rng):
    # Height before width, extent before place: MMDetection's order.
    (width, height), (a, b) = size, crop.crop_size
    if crop.crop_type == "absolute":
        height, width = min(height, b), min(width, a)
    elif crop.crop_type == "relative":
        height, width = int(height * b + 0.5), int(width * a + 0.5)
    elif crop.crop_type == "relative_range":
        height, width = (int(side * (share + rng.random_sample() * (1 - share)) + 0.5)
                         for side, share in ((height, a), (width, b)))
    else:
        height, width = (int(rng.randint(min(side, a), min(side, b) + 1))
                         for side in (height, width))
    width, height = max(width, 1), max(height, 1)
    top = int(rng.randint(size[1] - height + 1))
    left = int(rng.randint(size[0] - width + 1))
    return Cropped((left, top), (width, height))
