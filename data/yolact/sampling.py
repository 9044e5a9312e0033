"""The random numbers of YOLACT's augmentation: what happens to a sample is chosen first.

No pixel is needed for that, so that the pixels can then be computed once, at the final size, and
only where they survive.
"""

from typing import Any, NamedTuple

import numpy as np

from data.yolact.geometry import CanvasCrop

CROP_MODES = 6  # mode 0 keeps the whole image
CROP_TRIES = 50


class Photometric(NamedTuple):
    """Distortion of colours: (value + brightness) * contrast, then saturation and hue in HSV.

    The original leaves to chance which of contrast and HSV part comes first, but both orders give
    the same: a positive factor scales V and leaves H and S.
    """

    brightness: float = 0.0
    contrast: float = 1.0
    saturation: float = 1.0
    hue: float = 0.0  # degrees


def sample_photometric(rng: Any) -> Photometric:
    """Random brightness, contrast, saturation and hue; rng: numpy RandomState or numpy.random."""
    brightness = _half_the_time(rng, -32, 32, otherwise=0.0)
    # parity: the original's stream of random numbers, step 3 of [yolact.md: Augmentation]
    contrast = 1.0
    contrast_first = rng.randint(2)
    if contrast_first:
        contrast = _half_the_time(rng, 0.5, 1.5, otherwise=1.0)
    saturation = _half_the_time(rng, 0.5, 1.5, otherwise=1.0)
    hue = _half_the_time(rng, -18, 18, otherwise=0.0)
    if not contrast_first:
        contrast = _half_the_time(rng, 0.5, 1.5, otherwise=1.0)
    return Photometric(brightness, contrast, saturation, hue)


def sample_geometry(
    rng: Any, cfg: Any, hw: tuple[int, int], boxes_px: np.ndarray, labels: np.ndarray
) -> tuple[CanvasCrop, np.ndarray]:
    """Random canvas, crop and mirroring for an image of size hw.

    cfg: has augment_expand, augment_random_sample_crop, augment_random_mirror, max_size
    boxes_px: [n, 4] xyxy; labels: [n], -1 for crowds
    Returns the geometry and which objects the crop keeps, bool [n].
    """
    height, width = canvas_height, canvas_width = hw
    left = top = 0
    if cfg.augment_expand and not rng.randint(2):
        ratio = _uniform(rng, 1, 4)
        left = int(_uniform(rng, 0, width * ratio - width))
        top = int(_uniform(rng, 0, height * ratio - height))
        canvas_height, canvas_width = int(height * ratio), int(width * ratio)
    crop, kept = (0, 0, canvas_width, canvas_height), np.ones(len(labels), dtype=bool)
    if cfg.augment_random_sample_crop:
        centres = (boxes_px[:, :2] + boxes_px[:, 2:]) / 2 + (left, top)
        sampled = _sample_crop(rng, canvas_height, canvas_width, centres[labels >= 0].tolist(),
                           any_will_do=not len(labels))
        if sampled is not None:
            crop = sampled
            kept = ((centres > crop[:2]) & (centres < crop[2:])).all(1)
    mirror = bool(cfg.augment_random_mirror and rng.randint(2))
    geometry = CanvasCrop(height, width, canvas_height, canvas_width, left, top, crop, mirror,
                        cfg.max_size)
    return geometry, kept


def _sample_crop(rng, height, width, centres, any_will_do):
    """x0, y0, x1, y1 with at least one of the centres inside; None: keep the whole image.

    any_will_do: a crop without a centre is fine too.
    """
    # parity: the modes 1 to 5 ask for an overlap that the original's test never checks, step 5 of
    # [yolact.md: Augmentation]. Without an object that could be kept, only mode 0 ends the search.
    while rng.randint(CROP_MODES):
        for _ in range(CROP_TRIES):
            crop_width = _uniform(rng, 0.3 * width, width)
            crop_height = _uniform(rng, 0.3 * height, height)
            if not 0.5 <= crop_height / crop_width <= 2:
                continue
            # parity: the original samples between width - crop_width and 1, not 0 and the former
            # [yolact.md: Augmentation]
            left = _uniform(rng, width - crop_width, 1.0)
            top = _uniform(rng, height - crop_height, 1.0)
            x0, y0, x1, y1 = int(left), int(top), int(left + crop_width), int(top + crop_height)
            if any(x0 < x < x1 and y0 < y < y1 for x, y in centres):
                return x0, y0, x1, y1
            if any_will_do and x0 < x1 and y0 < y1:
                return x0, y0, x1, y1
    return None


def _half_the_time(rng, low, high, otherwise):
    return _uniform(rng, low, high) if rng.randint(2) else otherwise


def _uniform(rng, low, high):
    # RandomState.uniform's own arithmetic; `high` may be the smaller one.
    return low + (high - low) * rng.random_sample()
