"""Crop boxes of the classifier: the centre's and the random one's, as the original samples them.

Boxes are (x0, y0, x1, y1) in pixels as PIL's crop takes them, x1 and y1 exclusive.
Source: [resnest.md: Validation transform], [resnest.md: Training transform].
"""

import math
import random
from typing import Any

CENTER_MARGIN_PX = 32  # the centre crop is what a resize to crop_size + margin would leave
ASPECT_RANGE = (3.0 / 4.0, 4.0 / 3.0)
MIN_AREA_REL = 0.1
ATTEMPTS = 10


def center_crop_box(
    width: int, height: int, crop_size: int, margin: int = CENTER_MARGIN_PX
) -> tuple[float, float, float, float]:
    """The square of side crop_size / (crop_size + margin) x the shorter side, in the middle.

    Its corner is whole, its side may not be: PIL's crop rounds the far edges.
    """
    side = crop_size / (crop_size + margin) * min(width, height)
    # Python's rounding: halves go to the even number
    top, left = round((height - side) / 2.0), round((width - side) / 2.0)
    return left, top, left + side, top + side


def random_crop_box(
    width: int,
    height: int,
    crop_size: int,
    rng: Any = None,
    min_area: float = MIN_AREA_REL,
    margin: int = CENTER_MARGIN_PX,
) -> tuple[float, float, float, float]:
    """A box of `min_area` to 1 of the image's area, aspect ratio 3/4 to 4/3, by `rng`.

    The centre crop when the box would be the whole image or ten tries do not fit (very long
    images), with `margin`. rng: random.Random; None: Python's global stream
    """
    rng = rng or random
    area = width * height
    for _ in range(ATTEMPTS):
        # parity: uniform in the ratio itself, not in its logarithm [resnest.md: Training transform]
        aspect = rng.uniform(*ASPECT_RANGE)  # width / height
        low = round(math.sqrt(min_area * area / aspect))
        high = round(math.sqrt(area / aspect))
        if high * aspect > width:
            high = int((width + 0.5 - 1e-7) / aspect)
            if high * aspect > width:
                high -= 1
        high = min(high, height)
        low = min(low, high)
        box_height = round(rng.uniform(low, high))
        box_width = round(box_height * aspect)
        box_area = box_width * box_height
        if box_area < min_area * area or box_area > area:
            continue
        if box_width > width or box_height > height:
            continue
        if (box_width, box_height) == (width, height):
            break
        x = rng.randint(0, width - box_width)
        y = rng.randint(0, height - box_height)
        return x, y, x + box_width, y + box_height
    return center_crop_box(width, height, crop_size, margin)
