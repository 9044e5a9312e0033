"""Finds everything wrong with a COCO-format data set before a run trusts it, in one report."""

import os
from collections.abc import Collection
from pathlib import Path

import numpy as np

from common.errors import InputError
from data.coco_index import CocoIndex
from data.decode import check_image

# COCO's own boxes overshoot their images by up to about a pixel; a wrong unit or a box given as
# two corners is off by far more.
_OVERSHOOT_PX = 2.0
_OVERSHOOT_RELATIVE = 0.01
# COCO also has a few slips of the annotator's hand, boxes of no height and a pixel or so of width.
# Training drops them as the original does.
_SLIP_PX = 2.0


def check_coco(
    info_path: str | Path,
    images_dir: str | Path,
    *,
    index: CocoIndex | None = None,
    label_map: Collection[int] | None = None,
    has_gt: bool = True,
    include_empty: bool = False,
    deep: bool = False,
) -> list[str]:
    """Every fault of an annotation file and its image folder, a line each; [] when all is well.

    index:         the file's index where there is one already
    label_map:     category ids that have a class; None: all of the file's have
    has_gt, include_empty: which images are used, as CocoIndex.items; only those must be there
    deep:          also open every image: its size against the file's, its end for truncation
    """
    try:
        index = index or CocoIndex.from_file(info_path)
    except InputError as error:
        return error.faults
    path = index.path
    faults = list(index.faults)
    for key in index.missing:
        if has_gt or key == "images":
            faults.append(f"{path}: no '{key}'; see the COCO format"
                          + (" (without ground truth set dataset.has_gt=False)" if has_gt else ""))
    for found in (_ids(index), _categories(index, label_map), _boxes(index), _polygons(index),
                  _runs(index)):
        faults += [f"{path}: {fault}" for fault in found]
    rows = index.items(has_gt, include_empty)
    if not len(rows) and not faults:
        faults.append(f"{path}: no images to use; check that it is the right file")
    return faults + _files(index, Path(images_dir), rows, deep)


def first_faults(faults: list[str], limit: int = 50) -> list[str]:
    """At most `limit` lines and one that counts the rest."""
    rest = len(faults) - limit
    return faults if rest <= 0 else [*faults[:limit], f"... and {rest} more"]


def _names_on_disk(index: CocoIndex, images_dir: Path, rows: np.ndarray) -> list[str | None]:
    """For each image row the name under which its file lies in `images_dir`; None: not there.

    Each folder is listed once instead of asking for every file. A missing folder has no files.
    """
    listed: dict[str, set[str]] = {}

    def is_there(name):
        folder, _, base = name.rpartition("/")
        if folder not in listed:
            try:
                listed[folder] = set(os.listdir(images_dir / folder))
            except OSError:
                listed[folder] = set()
        return base in listed[folder]

    found = []
    for row in rows.tolist():
        name = index.file_name(row)
        short = name.rpartition("_")[2]  # COCO_val2014_000000000042.jpg -> 000000000042.jpg
        if is_there(name):
            found.append(name)
        else:
            # differs: the original always shortens; here a file of the full name comes first
            found.append(short if name.startswith("COCO") and is_there(short) else None)
    return found


def _ids(index):
    for kind, ids in (("image", index.image_ids), ("annotation", index.ann_ids),
                      ("category", index.category_ids)):
        unique, counts = np.unique(ids, return_counts=True)
        for repeated, count in zip(unique[counts > 1].tolist(), counts[counts > 1], strict=True):
            yield f"{kind} {repeated} is there {count} times; ids must differ"
    orphans = slice(index.ann_starts[-1], None)
    for annotation, image in zip(index.ann_ids[orphans].tolist(),
                                 index.ann_image_ids[orphans].tolist(), strict=True):
        yield f"annotation {annotation} is of image {image}, which 'images' lacks; add or remove it"


def _categories(index, label_map):
    known = set(index.categories)
    mapped = known if label_map is None else set(label_map)
    used, first, counts = np.unique(index.ann_categories, return_index=True, return_counts=True)
    for category, at, count in zip(used.tolist(), first, counts, strict=True):
        where = f"annotation {index.ann_ids[at]}" + (f" and {count - 1} more" if count > 1 else "")
        if category not in known and "categories" not in index.missing:
            yield (f"{where}: category_id {category} is not in 'categories' "
                   f"({_some(known)}); add the category or correct the annotation")
        elif category not in mapped:
            yield (f"{where}: category_id {category} ({index.categories.get(category, 'no name')}) "
                   "is not in the label map; correct dataset.label_map or leave it out")


def _boxes(index):
    number = int(index.ann_starts[-1])  # the rest belongs to no image
    boxes = index.boxes[:number].astype(np.float64)
    rows = np.repeat(np.arange(len(index.image_ids)), np.diff(index.ann_starts))
    hw = index.image_hw[rows].astype(np.float64)
    finite = np.isfinite(boxes).all(1)
    boxes[~finite] = (0, 0, 1, 1)
    x, y, w, h = boxes.T
    slack = np.maximum(_OVERSHOOT_PX, _OVERSHOOT_RELATIVE * hw)
    negative = (w < 0) | (h < 0)
    no_area = ~negative & ((w == 0) | (h == 0))
    slip = no_area & (w + h > 0) & (w + h < _SLIP_PX)
    outside = ((x < -slack[:, 1]) | (y < -slack[:, 0])
               | (x + w > hw[:, 1] + slack[:, 1]) | (y + h > hw[:, 0] + slack[:, 0]))
    for at in np.flatnonzero(~finite | negative | (no_area & ~slip) | outside).tolist():
        if not finite[at]:
            what = "is not finite; correct or remove it"
        elif negative[at]:
            what = "has a negative size; bbox is x, y, width, height; correct or remove it"
        elif no_area[at]:
            what = "has no area; correct or remove it"
        else:
            what = (f"reaches out of its image ({hw[at, 1]:.0f}x{hw[at, 0]:.0f}); "
                    "bbox is x, y, width, height in pixels; correct it")
        box = [round(float(value), 2) for value in index.boxes[at]]
        yield f"annotation {index.ann_ids[at]}: its bbox {box} {what}"


def _polygons(index):
    starts = np.concatenate([[0], index.polygon_ends[:-1]]).astype(np.int64)
    lengths = index.polygon_ends - starts
    annotation = np.searchsorted(index.ann_polygon_ends, np.arange(len(lengths)), side="right")
    broken = {}
    for at in np.flatnonzero((lengths < 6) | (lengths % 2 != 0)).tolist():
        broken[at] = (f"has {lengths[at]} coordinates; it needs an even number, 6 or more; "
                      "correct or remove it")
    odd_places = np.flatnonzero(~np.isfinite(index.coordinates))
    for at in np.unique(np.searchsorted(index.polygon_ends, odd_places, side="right")).tolist():
        broken[at] = "has a coordinate that is not finite; correct or remove it"
    for at, what in sorted(broken.items()):
        yield f"annotation {index.ann_ids[annotation[at]]}: a polygon of its segmentation {what}"


def _runs(index):
    number = int(index.ann_starts[-1])
    sums = np.concatenate([[0], np.cumsum(index.rle_counts, dtype=np.int64)])
    ends = index.ann_rle_ends[:number]
    starts = np.concatenate([[0], ends[:-1]]).astype(np.int64)[:number]
    negatives = np.concatenate([[0], np.cumsum(index.rle_counts < 0)])
    rows = np.repeat(np.arange(len(index.image_ids)), np.diff(index.ann_starts))
    rle_hw, image_hw = index.ann_rle_hw[:number].astype(np.int64), index.image_hw[rows]
    is_rle = rle_hw[:, 0] >= 0
    wrong_size = is_rle & (rle_hw != image_hw).any(1)
    wrong_sum = is_rle & ((sums[ends] - sums[starts] != rle_hw.prod(1))
                          | (negatives[ends] > negatives[starts]))
    for at in np.flatnonzero(wrong_size | wrong_sum).tolist():
        if wrong_size[at]:
            what = (f"is of size {rle_hw[at].tolist()}, its image of {image_hw[at].tolist()} "
                    "(height, width); encode the mask at the image's size")
        else:
            what = (f"has counts that sum to {sums[ends[at]] - sums[starts[at]]}, not to height x "
                    f"width = {rle_hw[at].prod()}; encode the mask again")
        yield f"annotation {index.ann_ids[at]}: its RLE {what}"


def _files(index, images_dir, rows, deep):
    if not images_dir.is_dir():
        return [f"{images_dir}: no such image folder; check dataset.*_images"]
    faults = []
    for row, name in zip(rows.tolist(), _names_on_disk(index, images_dir, rows), strict=True):
        if name is None:
            faults.append(f"{images_dir / index.file_name(row)}: no such image (id "
                          f"{index.image_ids[row]} of {index.path}); add it or leave it out")
        elif deep:
            try:
                check_image(images_dir / name, tuple(index.image_hw[row].tolist()))
            except InputError as error:
                faults += error.faults
    return faults


def _some(ids):
    listed = [str(i) for i in sorted(ids)]
    return ", ".join(listed[:10] + ["..."] * (len(listed) > 10)) or "it is empty"
