"""What is legal in a COCO index, but often a slip: one line each, with counts and an example."""

import numpy as np

from data.coco_format.index import CocoIndex

WORTH_SAYING = 0.001  # share of the annotations; the large public sets have slips below it
MANY_CROWDS = 0.2


def odd_things(index: CocoIndex) -> list[str]:
    """Lines about duplicates, empty masks, boxes without area, crowds and images named twice."""
    number = len(index.ann_ids)
    lines = []
    if number:
        lines += _counted(index, _duplicates(index), "repeat another one of the same image: same "
                          "category, box and mask")
        lines += _counted(index, _without_mask(index), "have an empty mask")
        lines += _counted(index, _larger_than_image(index), "state an 'area' larger than their "
                          "image; scores of small, medium and large objects go by it")
        lines += _counted(index, np.flatnonzero((index.boxes[:, 2:] == 0).any(1)),
                          "have a bbox of no width or height; they are not learnt")
        crowds = np.flatnonzero(index.ann_crowd)
        if len(crowds) > MANY_CROWDS * number:
            lines += _counted(index, crowds, "are crowds (iscrowd 1), which are not learnt as "
                              "objects")
    names = index.file_names()
    if len(set(names)) < len(names):
        seen = set()
        repeated = [name for name in names if name in seen or seen.add(name)]
        lines.append(f"{len(repeated)} of {len(names)} images have the file_name of another one "
                     f"({repeated[0].decode()})")
    return lines


def shared_images(first: CocoIndex, second: CocoIndex) -> int:
    """How many file names of `second` are names of `first`, too."""
    names = set(first.file_names())
    return sum(name in names for name in second.file_names())


def _counted(index, rows, what):
    number = len(index.ann_ids)
    if not len(rows) or len(rows) < WORTH_SAYING * number:
        return []
    return [f"{len(rows)} of {number} annotations {what} (annotation {index.ann_ids[rows[0]]})"]


def _without_mask(index):
    """Rows of masks without a pixel, also where an area is stated: a single run is one of zeros."""
    runs = np.diff(index.ann_rle_ends, prepend=0)
    is_coded = index.ann_rle_hw[:, 0] >= 0
    return np.flatnonzero((index.ann_areas <= 0) | (is_coded & (runs <= 1)))


def _larger_than_image(index):
    number = int(index.ann_starts[-1])  # the rest belongs to no image
    pixels = np.repeat(index.image_hw.prod(1, dtype=np.float64), np.diff(index.ann_starts))
    return np.flatnonzero(index.ann_area_stated[:number] & (index.ann_areas[:number] > pixels))


def _duplicates(index):
    """Rows of annotations that are there before, with the very same box and as large a mask."""
    number = int(index.ann_starts[-1])
    if not number:
        return np.zeros(0, int)
    images = np.repeat(np.arange(len(index.image_ids)), np.diff(index.ann_starts))
    lengths = [np.diff(ends, prepend=0)[:number]
               for ends in (index.ann_polygon_ends, index.ann_rle_ends)]
    keys = np.column_stack([
        images, index.ann_categories[:number], index.ann_crowd[:number], *lengths,
        index.boxes[:number].view(np.int32), index.ann_areas[:number].view(np.int32)])
    # sorting one number each is enough to leave out the many that have no equal
    mixed = keys @ (np.arange(1, keys.shape[1] + 1) * 0x9E3779B97F4A7C1 % 2**61)
    order = np.argsort(mixed, kind="stable")
    near = np.diff(mixed[order]) == 0
    order = order[np.concatenate([near, [False]]) | np.concatenate([[False], near])]
    order = order[np.lexsort(keys[order].T[::-1])]
    same = (np.diff(keys[order], axis=0) == 0).all(1)
    return np.sort(order[1:][same])
