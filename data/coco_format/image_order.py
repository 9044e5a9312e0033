"""The order in which the original YOLACT evaluates images: mixed, and always the same."""

from collections.abc import Sequence

import numpy as np

_MULTIPLIER = 0x45D9F3B
_BITS = 0xFFFFFFFF


def evaluation_order(image_ids: Sequence[int] | np.ndarray) -> np.ndarray:
    """Positions of `image_ids`, int64 [n], sorted by a 32-bit hash of the ids.

    The first N of them are the original's images for --validation_size N, and images whose
    detections have equal scores are counted in this order.
    parity: [yolact.md: Average precision]
    """
    # what Python's unbounded integers would keep: the lowest 32 bits after each product
    key = np.asarray(image_ids, np.int64)
    mixed = (((key >> 16) ^ key) & _BITS).astype(np.uint64)
    mixed = (mixed * _MULTIPLIER) & _BITS
    mixed = (((mixed >> 16) ^ mixed) * _MULTIPLIER) & _BITS
    mixed = (mixed >> 16) ^ mixed
    return np.argsort(mixed, kind="stable")
