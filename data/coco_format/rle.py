"""COCO's run-length encoded masks: column by column, lengths of runs of zeros and ones in turn."""

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as rle_codec


def rle_mask(counts: np.ndarray, height: int, width: int) -> np.ndarray:
    """The mask, uint8 [height, width] of 0 and 1; the counts must sum to height * width."""
    values = np.arange(len(counts), dtype=np.uint8) & 1
    return np.repeat(values, counts).reshape(width, height).T


def rle_box(counts: np.ndarray, height: int) -> tuple[int, int, int, int]:
    """x, y, width, height in pixels of the runs of ones; four zeros when there is none."""
    ends = np.cumsum(counts, dtype=np.int64)
    first, last = ends[:-1:2], ends[1::2] - 1  # of each run of ones
    filled = last >= first
    if not filled.any():
        return 0, 0, 0, 0
    left, top = np.divmod(first[filled], height)
    right, bottom = np.divmod(last[filled], height)
    wraps = right > left  # into the next column, so it reaches the bottom and starts at the top
    y0 = 0 if wraps.any() else int(top.min())
    y1 = height - 1 if wraps.any() else int(bottom.max())
    return int(left.min()), y0, int(right.max() - left.min()) + 1, y1 - y0 + 1


def encode_mask(mask: np.ndarray, encode: Callable[..., Any] = rle_codec.encode) -> dict[str, Any]:
    """COCO's compressed form, {size, counts}, of a mask [h, w] bool; encode: a package's own."""
    # the codec runs down the columns; OpenCV transposes ten times faster than numpy
    return encode(cv2.transpose(np.ascontiguousarray(mask).view(np.uint8)).T)


def counts_from_text(text: str) -> np.ndarray:
    """Run lengths, int64, from COCO's compressed form.

    Each number is a little-endian series of 6-bit characters (from "0"): 5 bits and "more
    follows"; the last one's top bit is the sign. From the fourth on a number is the difference to
    the one two places before. Raises ValueError when the text is cut off or has other characters.
    Source: pycocotools, maskApi rleToString.
    """
    codes = np.frombuffer(text.encode(), np.uint8).astype(np.int64) - 48
    if not len(codes):
        return codes
    if codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        raise ValueError("not a compressed run-length text")
    last = (codes & 32) == 0
    starts = np.flatnonzero(np.concatenate([[True], last[:-1]]))
    place = np.arange(len(codes)) - np.repeat(starts, np.diff(starts, append=len(codes)))
    if place.max() > 6:  # 7 characters hold any 32-bit number
        raise ValueError("a run length is too large")
    numbers = np.add.reduceat((codes & 31) << (5 * place), starts)
    negative = (codes[last] & 16) != 0
    numbers -= negative.astype(np.int64) << (5 * (place[last] + 1))
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers
