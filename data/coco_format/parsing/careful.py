"""Reads a COCO file record by record, each in any spelling, collecting what does not fit."""

import json
import re
from array import array
from pathlib import Path
from typing import Any

import numpy as np

from data.coco_format import records
from data.coco_format.parsing.arrays import (
    UNSTATED,
    first_mention,
    grouped,
    image_starts,
    joined,
    stated_areas,
)
from data.coco_format.rle import rle_box
from runtime.errors import InputError

KEYS = ("images", "annotations", "categories")
_VALUE = re.compile(r"(?<=' is ).*(?=[,;] )")  # of a fault's text: what the record holds
ONE_BY_ONE = 5  # more records with the very same fault share a line


def parse_carefully(path: Path, content: bytes) -> dict[str, Any]:
    """The fields of `CocoIndex` but `path`, whatever form the records have.

    content: of the file. Raises InputError when it is no JSON object.
    """
    faults = _Faults(path)
    document = _read_json(path, content)
    images, annotations, categories = (_records(document, key, faults) for key in KEYS)
    if not any("id" in annotation for annotation in annotations):  # nothing refers to them
        annotations = [each | {"id": i} for i, each in enumerate(annotations, start=1)]
    fields = _image_arrays(images, faults)
    fields |= _category_arrays(categories, faults)
    # A malformed image is reported itself; its annotations are not to blame.
    refused = {_id(image, "id") for image in images}
    refused -= {None, *fields["image_ids"].tolist()}
    if refused:
        annotations = [a for a in annotations if _id(a, "image_id") not in refused]
    fields |= _annotation_arrays(annotations, fields["image_ids"], fields["image_hw"], faults)
    fields["missing"] = tuple(key for key in KEYS if key not in document)
    fields["faults"] = faults.lines()
    return fields


class _Faults:
    """What could not be read, in the file's order; records with the same fault share a line."""

    def __init__(self, path):
        self._path = path
        self._names = {}  # what is wrong -> places and names of the records

    def add(self, what, kind="", record=None, position=0):
        name = "" if record is None else _called(kind, record, position)
        case = (position, name, str(what))
        self._names.setdefault((kind, _VALUE.sub("", str(what))), []).append(case)

    def lines(self):
        found = []
        for named in self._names.values():
            cases = sorted(named)
            if len(cases) > ONE_BY_ONE:
                names = ", ".join(name for _, name, _ in cases[:3])
                like = "" if len({what for *_, what in cases}) == 1 else "each as the first: "
                found.append(f"{self._path}: {names} and {len(cases) - 3} more: {like}"
                             f"{cases[0][2]}")
            else:
                found += [f"{self._path}: {name}{': ' if name else ''}{what}"
                          for _, name, what in cases]
        return tuple(found)


def _read_json(path, content):
    try:
        document = json.loads(content)
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path}:{error.lineno}: not valid JSON at column {error.colno} ({error.msg}); "
            "is the file complete?"
        ) from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path}: not valid JSON ({error}); is it the annotation file?") from error
    if not isinstance(document, dict):
        raise InputError(f"{path}: wants a JSON object with the keys {', '.join(KEYS)}")
    return document


def _records(document, key, faults):
    found = document.get(key, [])
    if isinstance(found, list) and all(isinstance(record, dict) for record in found):
        return found
    faults.add(f"'{key}' is not a list of objects; see the COCO format")
    return []


def _image_arrays(images, faults):
    ids, sizes, names = array("q"), array("i"), []
    for i, image in enumerate(images):
        try:
            image_id = records.whole_number(image, "id")
            height, width = (records.whole_number(image, key) for key in ("height", "width"))
            name = records.text(image, "file_name")
        except ValueError as error:
            faults.add(error, "image", image, i)
            continue
        if max(height, width) > records.MAX_SIDE_PX or min(height, width) <= 0:
            faults.add(f"its size {width}x{height} is not possible; correct width and height",
                       "image", image, i)
            continue
        ids.append(image_id)
        sizes.extend((height, width))
        names.append(name)
    name_bytes, name_ends = joined(names)
    return {"image_ids": _numpy(ids), "image_hw": _numpy(sizes).reshape(-1, 2),
            "name_bytes": name_bytes, "name_ends": name_ends}


def _category_arrays(categories, faults):
    ids, names = array("q"), []
    for i, category in enumerate(categories):
        try:
            category_id = records.whole_number(category, "id")
            name = records.text(category, "name")
        except ValueError as error:
            faults.add(error, "category", category, i)
            continue
        ids.append(category_id)
        names.append(name)
    category_bytes, category_ends = joined(names)
    return {"category_ids": _numpy(ids), "category_bytes": category_bytes,
            "category_ends": category_ends}


def _annotation_arrays(annotations, image_ids, image_hw, faults):
    rows_of_ids = {image_id: row for row, image_id in enumerate(image_ids.tolist())}
    unknown = len(image_ids)
    # An annotation without a usable image id is reported below, wherever it is sorted to.
    rows = np.array([rows_of_ids.get(_id(a, "image_id"), unknown) for a in annotations],
                    dtype=np.int64)
    crowd, unreadable = _crowds(annotations)
    lists = _Lists()
    kept = []
    for i in grouped(rows, crowd).tolist():
        try:
            if i in unreadable:
                raise unreadable[i]
            lists.add(annotations[i])
            kept.append(i)
        except ValueError as error:
            faults.add(error, "annotation", annotations[i], i)
    kept = np.array(kept, dtype=np.int64)
    arrays = lists.arrays()
    return arrays | stated_areas(arrays, rows[kept], image_hw) | {
        "ann_crowd": crowd[kept],
        "ann_starts": image_starts(rows[kept], unknown),
        "first_mention": first_mention(rows, unknown),
    }


def _crowds(annotations):
    """(bool [n], {place: ValueError} of those where it cannot be told)."""
    try:
        return np.array([records.is_crowd(a) for a in annotations], dtype=bool), {}
    except ValueError:
        crowd, unreadable = np.zeros(len(annotations), bool), {}
    for i, annotation in enumerate(annotations):
        try:
            crowd[i] = records.is_crowd(annotation)
        except ValueError as error:
            unreadable[i] = error
    return crowd, unreadable


class _Lists:
    """Grows the arrays of annotations, one annotation after the other."""

    def __init__(self):
        self.ids, self.image_ids, self.categories = array("q"), array("q"), array("q")
        self.areas, self.ignored = array("f"), array("b")
        self.boxes = array("f")
        self.coordinates, self.polygon_ends = array("f"), array("q")
        self.ann_polygon_ends = array("q")
        self.rle_counts, self.ann_rle_ends, self.rle_hw = array("i"), array("q"), array("i")

    def add(self, annotation):
        """Raises ValueError, before anything is added, when the annotation is malformed."""
        numbers = [records.whole_number(annotation, key)
                   for key in ("id", "image_id", "category_id")]
        segmentation = annotation.get("segmentation")
        polygons, counts, hw = [], array("i"), (-1, -1)
        if isinstance(segmentation, dict):
            counts, hw = records.runs(segmentation)
        else:
            polygons = records.polygons(segmentation, "f")
        area = records.stated_area(annotation)
        box = _box(annotation, polygons, counts, hw)
        for numbers_of, number in zip((self.ids, self.image_ids, self.categories), numbers,
                                      strict=True):
            numbers_of.append(number)
        self.areas.append(UNSTATED if area is None else area)
        self.ignored.append(bool(annotation.get("ignore")))
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
            "ann_areas": _numpy(self.areas),
            "ann_ignored": _numpy(self.ignored).astype(bool),
            "boxes": _numpy(self.boxes).reshape(-1, 4),
            "coordinates": _numpy(self.coordinates),
            "polygon_ends": _numpy(self.polygon_ends),
            "ann_polygon_ends": _numpy(self.ann_polygon_ends),
            "rle_counts": _numpy(self.rle_counts),
            "ann_rle_ends": _numpy(self.ann_rle_ends),
            "ann_rle_hw": _numpy(self.rle_hw).reshape(-1, 2),
        }


def _box(annotation, polygons, counts, hw):
    box = records.stated_box(annotation, "f")
    if box is not None:
        return box
    # differs: YOLACT reports such an object and then mixes up boxes and masks [yolact.md: Data];
    # here the mask gives the box. Way back: none, it damages what is learnt.
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


def _called(kind, record, position):
    """How a fault names a record: by its id, or by its place in the file."""
    if "id" in record:
        return f"{kind} {record['id']!r:.40}"
    return f"{kind} number {position} (from 0)"


def _id(record, key):
    value = record.get(key)
    if type(value) is int:
        return value
    try:
        return records.whole_number(record, key)
    except ValueError:
        return None


def _numpy(numbers):
    return np.array(numbers)
