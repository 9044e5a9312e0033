"""Reads a COCO annotation file into the arrays of `CocoIndex`, collecting what does not fit."""

import gc
import json
from array import array
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import InputError
from data.coco_rle import counts_from_text, rle_box

KEYS = ("images", "annotations", "categories")
_MAX_SIDE = 2**31 - 1


def parse_coco(path: Path) -> dict[str, Any]:
    """The fields of `CocoIndex` but `path`. Raises InputError when there is no JSON object."""
    faults: list[str] = []
    with _no_garbage_collection():
        document = _read_json(path)
        images, annotations, categories = (_records(document, key, path, faults) for key in KEYS)
        fields = _image_arrays(images, path, faults)
        fields |= _category_arrays(categories, path, faults)
        # A malformed image is reported itself; its annotations are not to blame.
        refused = {_hashable(image.get("id")) for image in images}
        refused -= {None, *fields["image_ids"].tolist()}
        if refused:
            annotations = [a for a in annotations if _hashable(a.get("image_id")) not in refused]
        fields |= _annotation_arrays(annotations, fields["image_ids"], path, faults)
    fields["missing"] = tuple(key for key in KEYS if key not in document)
    fields["faults"] = tuple(faults)
    return fields


@contextmanager
def _no_garbage_collection():
    """Millions of new lists and dicts, none of them garbage: looking for it costs a third."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _read_json(path):
    try:
        document = json.loads(path.read_bytes())
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path}:{error.lineno}: not valid JSON at column {error.colno} ({error.msg}); "
            "is the file complete?"
        ) from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path}: not valid JSON ({error}); is it the annotation file?") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    if not isinstance(document, dict):
        raise InputError(f"{path}: wants a JSON object with the keys {', '.join(KEYS)}")
    return document


def _records(document, key, path, faults):
    records = document.get(key, [])
    if isinstance(records, list) and all(isinstance(record, dict) for record in records):
        return records
    faults.append(f"{path}: '{key}' is not a list of objects; see the COCO format")
    return []


def _image_arrays(images, path, faults):
    ids, sizes, names = array("q"), array("i"), []
    for i, image in enumerate(images):
        try:
            image_id = _integer(image, "id")
            height, width = _integer(image, "height"), _integer(image, "width")
            name = _text(image, "file_name")
        except ValueError as error:
            faults.append(f"{path}: {_called('image', image, i)}: {error}")
            continue
        if max(height, width) > _MAX_SIDE or min(height, width) <= 0:
            faults.append(f"{path}: {_called('image', image, i)}: its size {width}x{height} is not "
                          "possible; correct width and height")
            continue
        ids.append(image_id)
        sizes.extend((height, width))
        names.append(name)
    name_bytes, name_ends = _joined(names)
    return {"image_ids": _numpy(ids), "image_hw": _numpy(sizes).reshape(-1, 2),
            "name_bytes": name_bytes, "name_ends": name_ends}


def _category_arrays(categories, path, faults):
    ids, names = array("q"), []
    for i, category in enumerate(categories):
        try:
            category_id, name = _integer(category, "id"), _text(category, "name")
        except ValueError as error:
            faults.append(f"{path}: {_called('category', category, i)}: {error}")
            continue
        ids.append(category_id)
        names.append(name)
    category_bytes, category_ends = _joined(names)
    return {"category_ids": _numpy(ids), "category_bytes": category_bytes,
            "category_ends": category_ends}


def _annotation_arrays(annotations, image_ids, path, faults):
    rows_of_ids = {image_id: row for row, image_id in enumerate(image_ids.tolist())}
    unknown = len(image_ids)
    # An annotation without a usable image id is reported below, wherever it is sorted to.
    rows = np.array([rows_of_ids.get(_hashable(a.get("image_id")), unknown) for a in annotations],
                    dtype=np.int64)
    crowd = np.array([bool(a.get("iscrowd")) for a in annotations], dtype=bool)
    lists = _Lists()
    kept = []
    for i in np.lexsort((crowd, rows)).tolist():  # a stable sort: the file's order within groups
        try:
            lists.add(annotations[i])
            kept.append(i)
        except ValueError as error:
            faults.append(f"{path}: {_called('annotation', annotations[i], i)}: {error}")
    kept = np.array(kept, dtype=np.int64)
    mentioned, at = np.unique(rows, return_index=True)
    first_mention = mentioned[np.argsort(at)]
    return lists.arrays() | {
        "ann_crowd": crowd[kept],
        "ann_starts": np.searchsorted(rows[kept], np.arange(unknown + 1)),
        "first_mention": first_mention[first_mention < unknown].astype(np.int32),
    }


class _Lists:
    """Grows the arrays of annotations, one annotation after the other."""

    def __init__(self):
        self.ids, self.image_ids, self.categories = array("q"), array("q"), array("q")
        self.ignored = array("b")
        self.boxes = array("f")
        self.coordinates, self.polygon_ends = array("f"), array("q")
        self.ann_polygon_ends = array("q")
        self.rle_counts, self.ann_rle_ends, self.rle_hw = array("i"), array("q"), array("i")

    def add(self, annotation):
        """Raises ValueError, before anything is added, when the annotation is malformed."""
        numbers = [_integer(annotation, key) for key in ("id", "image_id", "category_id")]
        segmentation = annotation.get("segmentation")
        polygons, counts, hw = [], array("i"), (-1, -1)
        if isinstance(segmentation, dict):
            counts, hw = _runs(segmentation)
        else:
            polygons = _polygons(segmentation)
        box = _box(annotation, polygons, counts, hw)
        for numbers_of, number in zip((self.ids, self.image_ids, self.categories), numbers,
                                      strict=True):
            numbers_of.append(number)
        self.ignored.append(_is_ignored(annotation))
        self.boxes.extend(box)
        for polygon in polygons:
            self.coordinates.extend(polygon)
            self.polygon_ends.append(len(self.coordinates))
        self.ann_polygon_ends.append(len(self.polygon_ends))
        self.rle_counts.extend(counts)
        self.ann_rle_ends.append(len(self.rle_counts))
        self.rle_hw.extend(hw)

    def arrays(self):
        return {
            "ann_ids": _numpy(self.ids),
            "ann_image_ids": _numpy(self.image_ids),
            "ann_categories": _numpy(self.categories),
            "ann_ignored": _numpy(self.ignored).astype(bool),
            "boxes": _numpy(self.boxes).reshape(-1, 4),
            "coordinates": _numpy(self.coordinates),
            "polygon_ends": _numpy(self.polygon_ends),
            "ann_polygon_ends": _numpy(self.ann_polygon_ends),
            "rle_counts": _numpy(self.rle_counts),
            "ann_rle_ends": _numpy(self.ann_rle_ends),
            "ann_rle_hw": _numpy(self.rle_hw).reshape(-1, 2),
        }


def _is_ignored(annotation):
    area = annotation.get("area", 1)
    return bool(annotation.get("ignore")) or (type(area) in (int, float) and area <= 0)


def _polygons(segmentation):
    if not isinstance(segmentation, list) or not segmentation:
        raise ValueError("it has no segmentation; give polygons or RLE, or remove it")
    try:
        return [array("f", polygon) for polygon in segmentation]
    except (TypeError, OverflowError):
        raise ValueError("its segmentation is not a list of polygons [x, y, x, y, ...]; "
                         "correct or remove it") from None


def _runs(segmentation):
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if not (isinstance(size, list) and len(size) == 2
            and all(type(side) is int and 0 < side <= _MAX_SIDE for side in size)):
        raise ValueError("the size of its RLE is not [height, width]; correct it")
    try:
        if isinstance(counts, str):
            counts = counts_from_text(counts).tolist()
        return array("i", counts), tuple(size)
    except (TypeError, OverflowError, ValueError):
        raise ValueError("the counts of its RLE are no run lengths; "
                         "encode the mask again") from None


def _box(annotation, polygons, counts, hw):
    if "bbox" in annotation:
        try:
            box = array("f", annotation["bbox"])
        except (TypeError, OverflowError):
            box = ()
        if len(box) != 4:
            raise ValueError("its bbox is not [x, y, width, height] in pixels; correct it")
        return box
    # differs: the original reports such an object and then mixes up boxes and masks (section 6);
    # here the mask gives the box.
    if polygons:
        xs = [x for polygon in polygons for x in polygon[0::2]]
        ys = [y for polygon in polygons for y in polygon[1::2]]
        if not xs or not ys:
            raise ValueError("it has neither a bbox nor a polygon to take it from; add its bbox")
        return min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)
    runs = np.array(counts, dtype=np.int64)
    if runs.min(initial=0) < 0 or runs.sum() != hw[0] * hw[1]:
        raise ValueError("the counts of its RLE do not sum to its size; encode the mask again")
    return rle_box(runs, hw[0])


def _integer(record, key):
    value = record.get(key)
    if type(value) is float and value.is_integer():
        value = int(value)
    if type(value) is not int or abs(value) >= 2**63:
        found = "is missing" if key not in record else f"is {value!r:.40}, not a whole number"
        raise ValueError(f"'{key}' {found}; correct it")
    return value


def _text(record, key):
    value = record.get(key)
    if type(value) is not str or not value:
        found = "is missing" if key not in record else f"is {value!r:.40}, not a text"
        raise ValueError(f"'{key}' {found}; correct it")
    return value


def _called(kind, record, position):
    """How a fault names a record: by its id, or by its place in the file."""
    if "id" in record:
        return f"{kind} {record['id']!r:.40}"
    return f"{kind} number {position} (from 0)"


def _hashable(value):
    return value if isinstance(value, int | float) else None


def _joined(texts):
    # A lone surrogate cannot be encoded; its image is then reported as missing.
    encoded = [text.encode(errors="replace") for text in texts]
    ends = np.cumsum([len(text) for text in encoded], dtype=np.int64)
    return np.frombuffer(b"".join(encoded), np.uint8), ends


def _numpy(numbers):
    return np.array(numbers)
