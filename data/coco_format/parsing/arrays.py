"""What both ways of reading make of an annotation file's records: the arrays of `CocoIndex`."""

from collections.abc import Mapping, Sequence
from types import SimpleNamespace

import numpy as np

from data.coco_format.mask_extents import mask_areas

UNSTATED = float("nan")  # an area that the mask has to give


def joined(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """(the texts in UTF-8, one after the other, uint8; where each ends, int64)."""
    # A lone surrogate cannot be encoded; its image is then reported as missing.
    encoded = [text.encode(errors="replace") for text in texts]
    ends = np.cumsum([len(text) for text in encoded], dtype=np.int64)
    return np.frombuffer(b"".join(encoded), np.uint8), ends


def grouped(rows: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """The order of the annotations: by image row, crowds last, else the file's. int64 [n]."""
    return np.lexsort((crowd, rows))  # a stable sort


def image_starts(rows: np.ndarray, images: int) -> np.ndarray:
    """Where each image's annotations start, int64 [images + 1]; rows: sorted image rows."""
    return np.searchsorted(rows, np.arange(images + 1))


def first_mention(rows: np.ndarray, images: int) -> np.ndarray:
    """Image rows in the order in which annotations first mention them, int32.

    rows: of each annotation in the file's order; `images` and above are unknown ones
    """
    mentioned, at = np.unique(rows, return_index=True)
    order = mentioned[np.argsort(at)]
    return order[order < images].astype(np.int32)


def stated_areas(
    arrays: Mapping[str, np.ndarray], rows: np.ndarray, image_hw: np.ndarray
) -> dict[str, np.ndarray]:
    """ann_areas, with the mask's where the file states none, and ann_area_stated.

    arrays: of the index, with UNSTATED areas; rows: image row of each annotation
    """
    areas = arrays["ann_areas"]
    unstated = np.isnan(areas)
    if unstated.any():
        # an annotation of an unknown image is a fault of its own
        hw = np.concatenate([image_hw.reshape(-1, 2), [[1, 1]]])[rows]
        chosen = np.flatnonzero(unstated)
        areas[chosen] = mask_areas(SimpleNamespace(**arrays), chosen, hw)
    return {"ann_areas": areas, "ann_area_stated": ~unstated}
