"""Finds everything wrong with a COCO-format data set before a run trusts it, in one report."""

from collections.abc import Collection
from pathlib import Path

import numpy as np

from data.coco_format.boxes import compare_boxes
from data.coco_format.doubts import odd_things
from data.coco_format.index import CocoIndex
from data.coco_format.mask_extents import polygon_bounds
from data.loading.decode import read_bgr
from data.loading.image_names import find_names, is_absolute, near_name, slashed
from data.loading.threads import in_threads
from runtime.errors import InputError

# COCO's own boxes overshoot their images by up to about a pixel; a wrong unit or a box given as
# two corners is off by far more.
_OVERSHOOT_PX = 2.0
_OVERSHOOT_RELATIVE = 0.01
# COCO also has a few slips of the annotator's hand, boxes of no height and a pixel or so of width.
# Training drops them as the original does.
_SLIP_PX = 2.0
# No tool draws a polygon farther out of its image than this; it is cut off at the border anyway.
_FAR_OUT_PX, _FAR_OUT_RELATIVE = 5.0, 0.1
_ONE_BY_ONE = 5  # more annotations with the same kind of fault share a line


def examine_coco(
    info_path: str | Path,
    images_dir: str | Path,
    *,
    index: CocoIndex | None = None,
    label_map: Collection[int] | None = None,
    has_gt: bool = True,
    include_empty: bool = False,
    deep: bool = False,
    no_truth: str = "",
) -> tuple[list[str], list[str]]:
    """(every fault of an annotation file and its image folder, what is legal but odd); a line each.

    index:         the file's index where there is one already
    label_map:     category ids that have a class; None: all of the file's have
    has_gt, include_empty: which images are used, as CocoIndex.items; only those must be there
    deep:          also decode every image, and hold its size against the file's
    no_truth:      what the fault of a file without 'annotations' ends with
    """
    try:
        index = index or CocoIndex.from_file(info_path)
    except InputError as error:
        return error.faults, []
    path = index.path
    faults = list(index.faults)
    for key in index.missing:
        if has_gt or key == "images":
            faults.append(f"{path}: no '{key}'; see the COCO format"
                          + (no_truth if key == "annotations" else ""))
    broken_polygons, broken_runs = _polygons(index), _runs(index)
    broken = np.zeros(len(index.ann_ids), bool)
    broken[[row for row, _, _ in broken_polygons + broken_runs]] = True
    boxes, wrong = _boxes(index), np.zeros(len(broken), bool)
    wrong[[row for row, _, _ in boxes]] = True
    compared = compare_boxes(index, broken, wrong)
    boxes = [fault for fault in boxes if not compared.blamed[fault[0]]]
    broken |= wrong
    outside, doubts = _outside(index, broken | compared.blamed)
    for found in (_ids(index), _categories(index, label_map), compared.faults,
                  _condensed(index, boxes), _condensed(index, broken_polygons),
                  _condensed(index, outside), _condensed(index, broken_runs)):
        faults += [f"{path}: {fault}" for fault in found]
    rows = index.items(has_gt, include_empty)
    if not len(rows) and not faults:
        faults.append(f"{path}: no images to use; check that it is the right file")
    doubts = [f"{path}: {line}" for line in compared.doubts + doubts + odd_things(index)]
    return faults + _files(index, Path(images_dir), rows, deep), doubts


def first_faults(faults: list[str], limit: int = 50) -> list[str]:
    """At most `limit` lines and one that counts the rest."""
    rest = len(faults) - limit
    return faults if rest <= 0 else [*faults[:limit], f"... and {rest} more"]


def _ids(index):
    for kind, ids in (("image", index.image_ids), ("annotation", index.ann_ids),
                      ("category", index.category_ids)):
        unique, counts = np.unique(ids, return_counts=True)
        again = [f"{kind} {repeated} is there {count} times; ids must differ: number them anew"
                 for repeated, count in zip(unique.tolist(), counts.tolist(), strict=True)
                 if count > 1]
        yield from _at_most(again, f"ids of {kind}s are there more than once")
    orphans = slice(index.ann_starts[-1], None)
    lost = [f"annotation {annotation} is of image {image}, which 'images' lacks; add or remove it"
            for annotation, image in zip(index.ann_ids[orphans].tolist(),
                                         index.ann_image_ids[orphans].tolist(), strict=True)]
    if len(index.image_ids):  # that there are none is a fault of its own
        yield from _at_most(lost, "annotations are of images that 'images' lacks")


def _at_most(lines, what):
    """The lines, or one for more than a few of them."""
    return lines if len(lines) <= _ONE_BY_ONE else [f"{len(lines)} {what}, as {lines[0]}"]


def _categories(index, label_map):
    if "categories" in index.missing:
        return  # which is a fault of its own
    known = set(index.categories)
    mapped = known if label_map is None else set(label_map)
    used, first, counts = np.unique(index.ann_categories, return_index=True, return_counts=True)
    for category, at, count in zip(used.tolist(), first, counts, strict=True):
        where = f"annotation {index.ann_ids[at]}" + (f" and {count - 1} more" if count > 1 else "")
        if category not in known:
            yield (f"{where}: category_id {category} is not in 'categories' "
                   f"({_some(known)}); add the category or correct the annotation")
        elif category not in mapped:
            yield (f"{where}: category_id {category} ({index.categories.get(category, 'no name')}) "
                   "is not in the label map; correct dataset.label_map or leave it out")


def _condensed(index, found):
    """Lines of [(annotation row, kind of fault, sentence), ...]; many of a kind share one."""
    kinds = {}
    for row, kind, sentence in found:  # the first of an annotation's polygons stands for it
        kinds.setdefault(kind, {}).setdefault(row, sentence)
    for kind, cases in kinds.items():
        lines = [f"annotation {index.ann_ids[row]}: {sentence}" for row, sentence in cases.items()]
        if len(lines) <= _ONE_BY_ONE:
            yield from lines
        else:
            yield f"{len(lines)} of {len(index.ann_ids)} annotations {kind}, as {lines[0]}"


def _boxes(index):
    """Faults of boxes that show without a look at their masks."""
    number = int(index.ann_starts[-1])  # the rest belongs to no image
    boxes = index.boxes[:number].astype(np.float64)
    rows = np.repeat(np.arange(len(index.image_ids)), np.diff(index.ann_starts))
    hw = index.image_hw[rows].astype(np.float64)
    finite = np.isfinite(boxes).all(1)
    boxes[~finite] = (0, 0, 1, 1)
    x, y, w, h = boxes.T
    slack = _slack(hw)
    negative = (w < 0) | (h < 0)
    no_area = ~negative & ((w == 0) | (h == 0))
    slip = no_area & (w + h > 0) & (w + h < _SLIP_PX)
    outside = ((x < -slack[:, 1]) | (y < -slack[:, 0])
               | (x + w > hw[:, 1] + slack[:, 1]) | (y + h > hw[:, 0] + slack[:, 0]))
    wrong = ~finite | negative | (no_area & ~slip) | outside
    found = []
    for at in np.flatnonzero(wrong).tolist():
        if not finite[at]:
            kind, what = "have a bbox that is not finite", "is not finite; correct or remove it"
        elif negative[at]:
            kind, what = "have a bbox of negative size", (
                "has a negative size; bbox is x, y, width, height; correct or remove it")
        elif no_area[at]:
            kind, what = "have a bbox without area", "has no area; correct or remove it"
        else:
            kind, what = "have a bbox that reaches out of its image", (
                f"reaches out of its image ({hw[at, 1]:.0f}x{hw[at, 0]:.0f}); "
                "bbox is x, y, width, height in pixels; correct it")
        box = [round(float(value), 2) for value in index.boxes[at]]
        found.append((at, kind, f"its bbox {box} {what}"))
    return found


def _slack(hw):
    return np.maximum(_OVERSHOOT_PX, _OVERSHOOT_RELATIVE * hw)


def _owners(index):
    """int64 [P]: the annotation row of each polygon."""
    places = np.arange(len(index.polygon_ends))
    return np.searchsorted(index.ann_polygon_ends, places, side="right")


def _polygons(index):
    starts = np.concatenate([[0], index.polygon_ends[:-1]]).astype(np.int64)
    lengths = index.polygon_ends - starts
    owner = _owners(index)
    broken = {}
    for at in np.flatnonzero((lengths < 6) | (lengths % 2 != 0)).tolist():
        broken[at] = ("have polygons with too few or an odd number of coordinates",
                      f"has {lengths[at]} coordinates; it needs an even number, 6 or more; "
                      "correct or remove it")
    odd_places = np.flatnonzero(~np.isfinite(index.coordinates))
    for at in np.unique(np.searchsorted(index.polygon_ends, odd_places, side="right")).tolist():
        broken[at] = ("have polygons that are not finite",
                      "has a coordinate that is not finite; correct or remove it")
    return [(int(owner[at]), kind, f"a polygon of its segmentation {what}")
            for at, (kind, what) in sorted(broken.items())]


def _outside(index, blamed):
    """(faults of polygons that lie far out of their images, a line about those a little out)."""
    owner = _owners(index)
    known = owner < index.ann_starts[-1]
    bounds, owner = polygon_bounds(index)[known], owner[known]
    images = np.searchsorted(index.ann_starts, owner, side="right") - 1
    hw = index.image_hw[images].astype(np.float64)
    beyond = np.maximum(-bounds[:, :2], bounds[:, 2:] - hw[:, ::-1])[:, ::-1]  # in y, in x
    away = (bounds[:, 2:] < -_OVERSHOOT_PX).any(1) | (
        bounds[:, :2] > hw[:, ::-1] + _OVERSHOOT_PX).any(1)
    far = (beyond > np.maximum(_FAR_OUT_PX, _FAR_OUT_RELATIVE * hw)).any(1) | away
    far &= np.isfinite(bounds).all(1) & ~blamed[owner]
    found = []
    for at in np.flatnonzero(far).tolist():
        kind, what = (("have polygons that lie outside their image", "lies outside its image")
                      if away[at] else ("have polygons that reach far out of their image",
                                        "reaches far out of its image"))
        spans = [round(float(value), 2) for value in bounds[at]]
        found.append((int(owner[at]), kind, f"a polygon of its segmentation {what} "
                      f"({hw[at, 1]:.0f}x{hw[at, 0]:.0f}): it spans x {spans[0]} to {spans[2]}, y "
                      f"{spans[1]} to {spans[3]}; coordinates are in pixels of the image; correct "
                      "or remove it"))
    a_little = np.unique(owner[(beyond > _slack(hw)).any(1) & ~far & ~blamed[owner]])
    if not len(a_little):
        return found, []
    return found, [f"{len(a_little)} of {len(index.ann_ids)} annotations have polygons that reach "
                   f"a little out of their image (annotation {index.ann_ids[a_little[0]]}); they "
                   "are cut off there"]


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
    found = []
    for at in np.flatnonzero(wrong_size | wrong_sum).tolist():
        if wrong_size[at]:
            kind, what = "have an RLE of another size than their image", (
                f"is of size {rle_hw[at].tolist()}, its image of {image_hw[at].tolist()} "
                "(height, width); encode the mask at the image's size")
        else:
            kind, what = "have an RLE whose counts do not sum to its size", (
                f"has counts that sum to {sums[ends[at]] - sums[starts[at]]}, not to height x "
                f"width = {rle_hw[at].prod()}; encode the mask again")
        found.append((at, kind, f"its RLE {what}"))
    return found


def _files(index, images_dir, rows, deep):
    if not images_dir.is_dir():
        return [f"{images_dir}: no such image folder; check dataset.*_images"]
    faults, names, found = [], find_names(index, images_dir, rows), []
    if len(names) > _ONE_BY_ONE and not any(names):
        row = int(rows[0])
        return [f"{index.path}: none of its {len(names)} images is in {images_dir}, such as "
                f"{index.file_name(row)} (id {index.image_ids[row]}){_near(images_dir, index, row)}"
                "; correct the image folder, or write file names relative to it"]
    for row, name in zip(rows.tolist(), names, strict=True):
        if name is None and is_absolute(index.file_name(row)):
            faults.append(f"{index.path}: image {index.image_ids[row]}: file_name is the absolute "
                          f"path {index.file_name(row)}; write it relative to the image folder "
                          f"({images_dir})")
        elif name is None:
            faults.append(f"{images_dir / slashed(index.file_name(row))}: no such image (id "
                          f"{index.image_ids[row]} of {index.path})"
                          f"{_near(images_dir, index, row)}; add it or leave it out")
        else:
            found.append((images_dir / name, tuple(index.image_hw[row].tolist())))
    return faults + [line for lines in in_threads(_damage, found if deep else ())
                     for line in lines]


def _damage(image):
    path, size = image
    try:
        read_bgr(path, size)
    except InputError as error:
        return error.faults
    return []


def _near(images_dir, index, row):
    near = near_name(images_dir, index.file_name(row))
    return f", there is {near}" if near else ""


def _some(ids):
    listed = [str(i) for i in sorted(ids)]
    return ", ".join(listed[:10] + ["..."] * (len(listed) > 10)) or "it is empty"
