"""Bounds and areas of all masks of a COCO index at once."""

from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from data.coco_format.rle import rle_mask

_RUNS_AT_ONCE = 2_000_000  # run lengths that are looked at together: some 200 MB
_EXACT_BELOW_PX = 16.0  # polygons that measure less may cover no pixel at all, or some by chance


def polygon_bounds(index: Any) -> np.ndarray:
    """x0, y0, x1, y1 of each polygon in pixels, float64 [P, 4].

    index: has the arrays of a CocoIndex. Polygons without a point have (inf, inf, -inf, -inf).
    """
    points, ends = _whole_points(index)
    starts = np.concatenate([[0], ends[:-1]]).astype(np.int64)
    bounds = np.tile([np.inf, np.inf, -np.inf, -np.inf], (len(ends), 1))
    filled = ends > starts
    if filled.any():
        at = starts[filled]
        for axis in (0, 1):
            bounds[filled, axis] = np.minimum.reduceat(points[:, axis], at)
            bounds[filled, axis + 2] = np.maximum.reduceat(points[:, axis], at)
    return bounds


def mask_bounds(index: Any) -> np.ndarray:
    """x0, y0, x1, y1 of each annotation's mask in pixels, float64 [M, 4]; NaN where it is empty.

    index: has the arrays of a CocoIndex. An RLE whose runs do not sum to its size counts as empty.
    """
    bounds = np.tile([np.inf, np.inf, -np.inf, -np.inf], (len(index.ann_ids), 1))
    ends = index.ann_polygon_ends
    starts = np.concatenate([[0], ends[:-1]]).astype(np.int64)
    owners = np.flatnonzero(ends > starts)
    if len(owners):
        of_polygons = polygon_bounds(index)
        low, high = of_polygons[:, :2], of_polygons[:, 2:]
        bounds[owners, :2] = np.minimum.reduceat(low, starts[owners], axis=0)
        bounds[owners, 2:] = np.maximum.reduceat(high, starts[owners], axis=0)
    encoded = np.flatnonzero(index.ann_rle_hw[:, 0] >= 0)
    for chosen in _portions(index, encoded):
        bounds[chosen] = _rle_bounds(index, chosen)
    bounds[~np.isfinite(bounds).all(1)] = np.nan
    return bounds


def mask_areas(index: Any, chosen: np.ndarray, image_hw: np.ndarray) -> np.ndarray:
    """Areas of the masks of the annotation rows `chosen`, square pixels, float64; 0: it is empty.

    index: has the arrays of a CocoIndex; image_hw: int [M, 2], of each annotation's image
    Polygons are measured by their corners; small ones are rasterised, so that 0 is exact.
    """
    measured = np.zeros(len(index.ann_ids))
    points, ends = _whole_points(index)
    starts = np.concatenate([[0], ends[:-1]]).astype(np.int64)
    filled = np.flatnonzero(ends > starts)
    if len(filled):
        after = np.arange(1, len(points) + 1)
        after[ends[filled] - 1] = starts[filled]  # the last corner's neighbour is the first
        x, y = points[:, 0].astype(np.float64), points[:, 1].astype(np.float64)
        doubled = np.add.reduceat(x * y[after] - x[after] * y, starts[filled])
        owner = np.searchsorted(index.ann_polygon_ends, filled, side="right")
        measured += np.bincount(owner, np.abs(doubled) / 2, minlength=len(measured))
    encoded = np.flatnonzero(index.ann_rle_hw[:, 0] >= 0)
    for part in _portions(index, encoded):
        counts, own, _, ones = _runs_of(index, part)
        measured[part] = np.bincount(own, np.where(ones, counts, 0), minlength=len(part))
    for row in chosen.tolist():
        if index.ann_rle_hw[row, 0] < 0 and not measured[row] >= _EXACT_BELOW_PX:
            measured[row] = _pixels(index, row, image_hw[row]).sum()
    return measured[chosen]


def share_inside(index: Any, row: int, box: np.ndarray, hw: np.ndarray) -> float:
    """Which share of the pixels of an annotation's mask lies in `box` (x0, y0, x1, y1 px).

    1 for a mask without pixels.
    """
    mask = _pixels(index, row, hw)
    total = int(mask.sum())
    x0, y0 = np.maximum(np.floor(box[:2]), 0).astype(int)
    x1, y1 = np.maximum(np.ceil(box[2:]), 0).astype(int)
    return float(mask[y0:y1, x0:x1].sum()) / total if total else 1.0


def _pixels(index, row, hw):
    """uint8 [h, w] of 0 and 1; zeros for polygons that span no area, which are faults."""
    if index.ann_rle_hw[row, 0] >= 0:
        counts = index.rle_counts[slice(*_span(index.ann_rle_ends, row))]
        return rle_mask(counts, *index.ann_rle_hw[row].tolist())
    height, width = (int(side) for side in hw)
    found = [index.coordinates[slice(*_span(index.polygon_ends, p))].astype(np.float64).tolist()
             for p in range(*_span(index.ann_polygon_ends, row))]
    found = [polygon for polygon in found
             if len(polygon) >= 6 and len(polygon) % 2 == 0 and np.isfinite(polygon).all()]
    if not found:
        return np.zeros((height, width), np.uint8)
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(found, height, width)))


def _whole_points(index):
    """(points [n, 2], where each polygon's end); a last x without its y is left out."""
    coordinates, ends = index.coordinates, index.polygon_ends.astype(np.int64)
    starts = np.concatenate([[0], ends[:-1]]).astype(np.int64)
    odd = (ends - starts) % 2 == 1
    if odd.any():
        keep = np.ones(len(coordinates), bool)
        keep[ends[odd] - 1] = False
        coordinates, ends = coordinates[keep], ends - np.cumsum(odd)
    return coordinates.reshape(-1, 2), ends // 2


def _portions(index, rows):
    """The RLE rows in groups of bounded size, those with impossible runs left out."""
    ends = index.ann_rle_ends[rows]
    starts = np.where(rows > 0, index.ann_rle_ends[rows - 1], 0)
    sums = np.concatenate([[0], np.cumsum(index.rle_counts, dtype=np.int64)])
    negatives = np.concatenate([[0], np.cumsum(index.rle_counts < 0)])
    sound = ((sums[ends] - sums[starts] == index.ann_rle_hw[rows].astype(np.int64).prod(1))
             & (negatives[ends] == negatives[starts]) & (ends > starts))
    rows, lengths = rows[sound], (ends - starts)[sound]
    group = np.cumsum(lengths) // _RUNS_AT_ONCE
    for one in np.unique(group).tolist():
        yield rows[group == one]


def _runs_of(index, rows):
    """(counts, which of `rows` each is of, pixels before it in its mask, whether it is of ones)."""
    ends = index.ann_rle_ends[rows]
    starts = np.where(rows > 0, index.ann_rle_ends[rows - 1], 0)
    lengths = ends - starts
    own = np.repeat(np.arange(len(rows)), lengths)
    first = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    place = np.arange(len(own)) - first[own]
    counts = index.rle_counts[starts[own] + place].astype(np.int64)
    before = np.cumsum(counts) - counts
    return counts, own, before - before[first][own], place % 2 == 1


def _rle_bounds(index, rows):
    counts, own, before, ones = _runs_of(index, rows)
    shown = ones & (counts > 0)
    counts, own, before = counts[shown], own[shown], before[shown]
    height = index.ann_rle_hw[rows, 0].astype(np.int64)[own]
    (left, top), (right, bottom) = (np.divmod(pixel, height)
                                    for pixel in (before, before + counts - 1))
    wraps = right > left  # into the next column, so it reaches the bottom and starts at the top
    bounds = np.tile([np.inf, np.inf, -np.inf, -np.inf], (len(rows), 1))
    np.minimum.at(bounds[:, 0], own, left)
    np.minimum.at(bounds[:, 1], own, np.where(wraps, 0, top))
    np.maximum.at(bounds[:, 2], own, right + 1)
    np.maximum.at(bounds[:, 3], own, np.where(wraps, height, bottom + 1))
    return bounds


def _span(ends, i):
    return int(ends[i - 1]) if i else 0, int(ends[i])
