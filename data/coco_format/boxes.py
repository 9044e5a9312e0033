"""Compares each bbox of a COCO index with its own mask, and names the mistake where they disagree.

Boxes a few pixels off, and boxes that hold more than the visible part of an object, are legal. What
is called a fault has to be certain: less than half of a mask in its box, or a box that fits its
mask exactly once it is read in another way.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from data.coco_format.index import CocoIndex
from data.coco_format.mask_extents import mask_bounds, share_inside

AGREE_PX, AGREE_RELATIVE = 3.0, 0.05  # rounding, resizing, masks drawn more coarsely than boxes
FIT_PX, FIT_RELATIVE = 1.5, 0.03  # another reading of a box must hit its mask
HELD = 0.9  # share of the mask's extent in its box from which on the box holds it
LOST = 0.5  # share below which it certainly does not
LARGE = 2.0  # boxes of more than that many times their mask's extent are mentioned
SMALLEST_SIDE_PX = 16  # of an image in which coordinates up to 1 are no pixels
ONE_BY_ONE = 3  # more boxes with the same mistake share a line
LOOKED_AT = 2000  # boxes whose masks are drawn, or compared with their neighbours'


class Reading(NamedTuple):
    """A way in which a box may have been meant, where it is not x, y, width, height in pixels."""

    mistake: str  # behind "it is" and "they are"
    remedy: str
    corners: Callable[[np.ndarray, np.ndarray], np.ndarray]  # of boxes [n, 4], sizes (w, h) [n, 2]


def _sized(boxes, factor, centred):
    """Corners of boxes with `factor` times the sides, around the same centre or corner."""
    sides = boxes[:, 2:] * factor
    first = boxes[:, :2] + (boxes[:, 2:] - sides) / 2 * centred
    return np.concatenate([first, first + sides], 1)


def _centred(boxes):
    return np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], 1)


def _as_corners(boxes):
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)


_TIMES_SIZE = "multiply by the image's width and height"
_SIDES = "give boxes the size of their masks"
READINGS = (
    Reading("[x1, y1, x2, y2], not [x, y, width, height]", "write [x1, y1, x2 - x1, y2 - y1]",
            lambda boxes, wh: boxes),
    Reading("[centre x, centre y, width, height], not [x, y, width, height]",
            "subtract half of width and height from the centre", lambda boxes, wh: _centred(boxes)),
    Reading("[y, x, height, width], not [x, y, width, height]", "change their order",
            lambda boxes, wh: _as_corners(boxes[:, [1, 0, 3, 2]])),
    Reading("[y1, x1, y2, x2], not [x, y, width, height]", "write [x1, y1, x2 - x1, y2 - y1]",
            lambda boxes, wh: boxes[:, [1, 0, 3, 2]]),
    Reading("in fractions of the image (0 to 1), not in pixels", _TIMES_SIZE,
            lambda boxes, wh: _as_corners(boxes * np.tile(wh, 2))),
    Reading("in fractions of the image (0 to 1) and [x1, y1, x2, y2], not [x, y, width, height] "
            "in pixels", f"{_TIMES_SIZE}, then write [x1, y1, x2 - x1, y2 - y1]",
            lambda boxes, wh: boxes * np.tile(wh, 2)),
    Reading("in fractions of the image (0 to 1) and [centre x, centre y, width, height], not [x, "
            "y, width, height] in pixels", f"{_TIMES_SIZE}, then subtract half of width and height "
            "from the centre", lambda boxes, wh: _centred(boxes * np.tile(wh, 2))),
    Reading("half as wide and high as the mask", _SIDES, lambda boxes, wh: _sized(boxes, 2, 0)),
    Reading("half as wide and high as the mask", _SIDES, lambda boxes, wh: _sized(boxes, 2, 1)),
    Reading("twice as wide and high as the mask", _SIDES, lambda boxes, wh: _sized(boxes, .5, 0)),
    Reading("twice as wide and high as the mask", _SIDES, lambda boxes, wh: _sized(boxes, .5, 1)),
    Reading("[x, y, height, width], not [x, y, width, height]", "exchange width and height",
            lambda boxes, wh: _as_corners(boxes[:, [0, 1, 3, 2]])),
)
_FRACTIONS = READINGS[4]


@dataclass
class Comparison:
    """faults: a line each; doubts: what is legal but odd, a line each; blamed: bool [M]."""

    blamed: np.ndarray
    faults: list[str] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)  # annotations behind each fault
    doubts: list[str] = field(default_factory=list)


class _Pairs:
    """The boxes and masks of the annotations that have both, as far as they disagree."""

    def __init__(self, index, broken):
        number = int(index.ann_starts[-1])  # the rest belongs to no image
        self.index = index
        self.boxes = index.boxes[:number].astype(np.float64)
        self.images = np.repeat(np.arange(len(index.image_ids)), np.diff(index.ann_starts))
        self.wh = index.image_hw[self.images][:, ::-1].astype(np.float64)
        self.masks = mask_bounds(index)[:number]
        self.usable = (np.isfinite(self.boxes).all(1) & (self.boxes[:, 2:] > 0).all(1)
                       & np.isfinite(self.masks).all(1) & ~broken[:number])
        self.corners = _as_corners(self.boxes)
        self.sides = np.maximum(self.masks[:, 2:] - self.masks[:, :2], 1)
        self.slack = np.tile(np.maximum(AGREE_PX, AGREE_RELATIVE * self.sides), 2)
        shown = np.clip(self.masks, 0, np.tile(self.wh, 2))  # some clip boxes, not polygons
        agree = ((np.abs(self.corners - self.masks) <= self.slack)
                 | (np.abs(self.corners - shown) <= self.slack)).all(1)
        self.rows = np.flatnonzero(self.usable & ~agree)
        self.agree = agree

    def share_held(self, rows):
        """Which share of each mask's extent lies in its box, allowing for the slack."""
        slack = self.slack[rows]
        first = np.maximum(self.masks[rows, :2], (self.corners[rows] - slack)[:, :2])
        last = np.minimum(self.masks[rows, 2:], (self.corners[rows] + slack)[:, 2:])
        extent = np.maximum(self.masks[rows, 2:] - self.masks[rows, :2], 1e-3)
        return np.clip((last - first) / extent, 0, 1).prod(1)

    def fit(self, corners, rows):
        """Whether corners [n, 4] hit the masks of `rows`, closely."""
        near = np.tile(np.maximum(FIT_PX, FIT_RELATIVE * self.sides[rows]), 2)
        return (np.abs(corners - self.masks[rows]) <= near).all(1)

    def sentence(self, row):
        """bbox and mask of a row, for a line."""
        x0, y0, x1, y1 = self.masks[row]
        return _rounded(self.index.boxes[row]), _rounded((x0, y0, x1 - x0, y1 - y0))


def compare_boxes(index: CocoIndex, broken: np.ndarray, wrong: np.ndarray) -> Comparison:
    """What is wrong and what is odd with the boxes of an index, seen from their masks.

    broken: bool [M], annotations whose masks are faulty themselves
    wrong:  bool [M], those whose boxes are faulty anyway: they are only named where it shows why
    """
    pairs = _Pairs(index, broken)
    found = Comparison(np.zeros(len(index.ann_ids), bool))
    _coordinates_in_fractions(pairs, found)
    rows = pairs.rows
    if not len(rows):
        _only_the_systematic(pairs, found)
        return found
    held = pairs.share_held(rows)
    extent = pairs.boxes[rows, 2:].prod(1) / pairs.sides[rows].prod(1)
    kind = np.where(held < LOST, 0, np.where(held < HELD, 1, 2))
    open_ = _misread(pairs, found, rows, kind, extent)
    open_ = _of_others(pairs, found, rows, kind, open_)
    if _only_the_systematic(pairs, found):
        return found
    open_ &= ~wrong[rows]
    lost = rows[open_ & (kind == 0)]
    certain = [row for row in lost[:LOOKED_AT].tolist() if _is_lost(pairs, row)]
    _report(pairs, found, np.array(certain, int), "does not hold its mask", "do not hold their "
            "masks", "correct the boxes or the masks")
    within = np.maximum(-pairs.masks[rows, :2], pairs.masks[rows, 2:] - pairs.wh[rows]).max(
        1) <= AGREE_PX  # else the polygon is to blame, not the box
    left = rows[open_ & ~found.blamed[rows] & (kind < 2) & within]
    _doubt(pairs, found, left, "leave out a part of their mask")
    large = rows[open_ & (kind == 2) & (extent > LARGE)]
    _doubt(pairs, found, large, f"are more than {LARGE:.0f} times as large as their mask (right "
           "where they are for the hidden parts of objects, too)")
    return found


def _only_the_systematic(pairs, found):
    """Whether one mistake is behind most boxes: then the others' lines are of the same making."""
    if not found.counts or max(found.counts) < max(ONE_BY_ONE + 1, pairs.usable.sum() / 2):
        return False
    found.faults = [found.faults[int(np.argmax(found.counts))]]
    found.blamed[np.flatnonzero(pairs.usable)] = True
    return True


def _coordinates_in_fractions(pairs, found):
    """Polygons that are together no larger than a pixel in the image's corner."""
    inside = (pairs.masks >= 0).all(1) & (pairs.masks[:, 2:] <= 1.01).all(1)
    drawn = pairs.index.ann_rle_hw[:len(inside), 0] < 0
    tiny = pairs.usable & inside & drawn & (pairs.wh.min(1) >= SMALLEST_SIDE_PX) & (
        pairs.masks[:, 2:] > 0).all(1)
    boxes_too = (pairs.boxes < 1.01).all(1)
    what = "in fractions of the image (0 to 1), not in pixels"
    _report(pairs, found, np.flatnonzero(tiny & boxes_too), f"is, as its polygon, {what}",
            f"are, as their polygons, {what}", _TIMES_SIZE)
    _report(pairs, found, np.flatnonzero(tiny & ~boxes_too), f"has a polygon {what}",
            f"have polygons {what}", _TIMES_SIZE)
    pairs.rows = np.setdiff1d(pairs.rows, np.flatnonzero(tiny))


def _misread(pairs, found, rows, kind, extent):
    """Reports boxes that fit in another reading. Returns which rows have none, bool."""
    open_ = np.ones(len(rows), bool)
    for mistake in dict.fromkeys(reading.mistake for reading in READINGS):
        same = [reading for reading in READINGS if reading.mistake == mistake]
        fits = np.zeros(len(rows), bool)
        for reading in same:
            fits |= pairs.fit(reading.corners(pairs.boxes[rows], pairs.wh[rows]), rows)
        if same[0] is _FRACTIONS:  # too coarsely rounded to hit the mask
            fits |= (pairs.boxes[rows].max(1) <= 1) & (pairs.boxes[rows].min(1) >= 0) & (
                pairs.wh[rows].min(1) >= SMALLEST_SIDE_PX) & ~_fits_later(pairs, rows, mistake)
        chosen = open_ & fits & _not_by_chance(fits, kind, extent)
        open_ &= ~chosen
        _report(pairs, found, rows[chosen], f"is {mistake}", f"are {mistake}", same[0].remedy)
    scale = pairs.sides[rows] / pairs.boxes[rows, 2:]
    first = pairs.boxes[rows, :2] * scale
    near = np.maximum(FIT_PX, FIT_RELATIVE * pairs.sides[rows])
    fits = (np.abs(first - pairs.masks[rows, :2]) <= near).all(1)
    fits &= (np.abs(np.log(scale)) > 0.14).any(1)  # 15 %
    chosen = open_ & fits & (kind < 2) & _not_by_chance(fits, kind, extent)
    if chosen.any():
        w, h = 1 / np.median(scale[chosen], axis=0)
        how = f"at {w:.3g} x {h:.3g} times the scale of the mask"
        _report(pairs, found, rows[chosen], f"is {how}", f"are {how}",
                "boxes, masks, width and height must be of the same image size")
    return open_ & ~chosen


def _fits_later(pairs, rows, mistake):
    """Whether one of the readings behind this one hits the mask exactly."""
    at = [reading.mistake for reading in READINGS].index(mistake)
    return np.any([pairs.fit(reading.corners(pairs.boxes[rows], pairs.wh[rows]), rows)
                   for reading in READINGS[at + 1:]], axis=0)


def _not_by_chance(fits, kind, extent):
    """bool [n]: a box off its mask, or one of those that explain half of all that are like it.

    Among many boxes that show the hidden parts of objects, too, some fit anything by chance.
    """
    sure = kind == 0
    for each in (1, 2):
        alike = (kind == each) & ((each == 1) | (extent > 1.5))
        hits = fits & alike
        if hits.sum() * 2 >= alike.sum():
            sure = sure | hits
    return sure


def _of_others(pairs, found, rows, kind, open_):
    """Reports boxes that are those of other masks of the image. Returns which rows are left."""
    candidates = np.flatnonzero(open_ & (kind < 2))[:LOOKED_AT]
    owners = {}
    for at in candidates.tolist():
        row = int(rows[at])
        others = np.array(pairs.index.annotations_of(int(pairs.images[row])))
        others = others[(others != row) & pairs.usable[others]]
        fitting = others[pairs.fit(np.tile(pairs.corners[row], (len(others), 1)), others)]
        if kind[at] == 1:  # an overlapping neighbour counts where the two are exchanged
            fitting = [i for i in fitting.tolist()
                       if pairs.fit(pairs.corners[[i]], np.array([row]))[0]]
        if len(fitting):
            owners[at] = int(pairs.index.ann_ids[fitting[0]])
    hit = np.array(list(owners), int)
    found.blamed[rows[hit]] = True
    if len(hit) > ONE_BY_ONE:
        _line(pairs, found, rows[hit], "", "do not hold their masks but those of other objects of "
              "the image", "the order of boxes and masks was mixed up; correct it")
    else:
        for at, owner in owners.items():
            _line(pairs, found, rows[[at]], f"does not hold its mask: it is the box of annotation "
                  f"{owner}", "", "give each object its own box")
    open_ = open_.copy()
    open_[hit] = False
    return open_


def _is_lost(pairs, row):
    slack = pairs.slack[row]
    box = pairs.corners[row] + slack * (-1, -1, 1, 1)
    return share_inside(pairs.index, row, box, pairs.wh[row][::-1]) < LOST


def _report(pairs, found, rows, one, many, remedy):
    found.blamed[rows] = True
    if len(rows):
        _line(pairs, found, rows, one, many, remedy)


def _line(pairs, found, rows, one, many, remedy):
    if len(rows) > ONE_BY_ONE:
        found.counts.append(len(rows))
        examples = ", ".join(_example(pairs, row) for row in rows[:2].tolist())
        found.faults.append(f"{len(rows)} of {len(pairs.boxes)} bboxes {many} ({examples}); "
                            f"{remedy}")
        return
    for row in rows.tolist():
        found.counts.append(1)
        box, mask = pairs.sentence(row)
        found.faults.append(f"annotation {pairs.index.ann_ids[row]}: its bbox {box} {one}; its "
                            f"mask spans {mask}; {remedy}")


def _doubt(pairs, found, rows, what):
    if len(rows) and len(rows) >= 0.001 * len(pairs.boxes):
        found.doubts.append(f"{len(rows)} of {len(pairs.boxes)} bboxes {what} "
                            f"({_example(pairs, int(rows[0]))})")


def _example(pairs, row):
    box, mask = pairs.sentence(row)
    return f"annotation {pairs.index.ann_ids[row]}: {box}, its mask spans {mask}"


def _rounded(numbers):
    return [round(float(value), 2) for value in numbers]
