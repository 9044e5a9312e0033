"""hotcoco, which counts and encodes as pycocotools does, bit by bit, in a fraction of the time."""

from types import ModuleType
from typing import Any

import numpy as np
from pycocotools import mask as rle_codec

from data.coco_format.rle import encode_mask


def fast_package() -> ModuleType | None:
    """hotcoco; None where it is not installed or cannot be loaded: pycocotools does it then."""
    try:
        import hotcoco
    except ImportError:
        return None
    return hotcoco


def encode_masks(masks: np.ndarray) -> list[dict[str, Any]]:
    """Run-length codes of masks [n, H, W], bool or numbers that count above one half.

    One mask at a time, so that one copy is in memory.
    """
    package = fast_package()
    encode = (rle_codec if package is None else package.mask).encode
    binary = (mask if mask.dtype == bool else mask > 0.5 for mask in masks)
    return [encode_mask(mask, encode) for mask in binary]
