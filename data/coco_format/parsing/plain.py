"""Reads a COCO file as nearly all are written: one typed pass over the JSON, then arrays.

msgspec checks the whole text and takes the numbers and names; masks and boxes stay text, which
`number_text` reads in bulk. Whatever is written in another way, or wrong, is not for this module.
"""

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import Any

import msgspec
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
from data.coco_format.parsing.number_text import read_lists

_AT_ONCE = 1024  # annotations whose masks are read together: their numbers fit a core's cache


class _Image(msgspec.Struct, gc=False):
    id: int
    height: int
    width: int
    file_name: str


class _Annotation(msgspec.Struct, gc=False):
    id: int
    image_id: int
    category_id: int
    segmentation: msgspec.Raw
    bbox: msgspec.Raw
    area: float | None = None
    iscrowd: int | bool | None = None
    ignore: int | float | bool | str | None = None


class _Category(msgspec.Struct, gc=False):
    id: int
    name: str


class _Document(msgspec.Struct):
    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[_Category]


class _NotPlain(Exception):
    """Another way of reading has to say what this is."""


def parse_plain(path: Path) -> dict[str, Any] | None:
    """The fields of `CocoIndex` but `path`; None where the file is not of the usual form.

    Raises OSError when it cannot be read.
    """
    content = path.read_bytes()
    try:
        document = msgspec.json.decode(content, type=_Document)
        del content  # the annotations keep it until they are read
        fields = _image_arrays(document.images) | _category_arrays(document.categories)
        fields |= _annotation_arrays(document.annotations, fields["image_ids"], fields["image_hw"])
    except (_NotPlain, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return fields | {"missing": (), "faults": ()}


def _image_arrays(images: list[_Image]) -> dict[str, np.ndarray]:
    hw = np.array([(image.height, image.width) for image in images], np.int64).reshape(-1, 2)
    if len(hw) and (hw.min() <= 0 or hw.max() > records.MAX_SIDE_PX):
        raise _NotPlain
    name_bytes, name_ends = _names([image.file_name for image in images])
    return {"image_ids": _whole_numbers([image.id for image in images]),
            "image_hw": hw.astype(np.int32), "name_bytes": name_bytes, "name_ends": name_ends}


def _category_arrays(categories: list[_Category]) -> dict[str, np.ndarray]:
    category_bytes, category_ends = _names([category.name for category in categories])
    return {"category_ids": _whole_numbers([category.id for category in categories]),
            "category_bytes": category_bytes, "category_ends": category_ends}


def _annotation_arrays(
    annotations: list[_Annotation], image_ids: np.ndarray, image_hw: np.ndarray
) -> dict[str, np.ndarray]:
    unknown = len(image_ids)
    rows_of_ids = {image_id: row for row, image_id in enumerate(image_ids.tolist())}
    owners = [a.image_id for a in annotations]
    rows = np.fromiter(map(rows_of_ids.get, owners, repeat(unknown)), np.int64, len(owners))
    crowd = _crowds([a.iscrowd for a in annotations])
    # In the file's order, in which the records lie in memory: another takes three times as long.
    numbers = {
        "ann_ids": _whole_numbers([a.id for a in annotations]),
        "ann_image_ids": _whole_numbers(owners),
        "ann_categories": _whole_numbers([a.category_id for a in annotations]),
        "ann_ignored": np.array([bool(a.ignore) for a in annotations], bool),
        "ann_areas": np.array([_area(a.area) for a in annotations], np.float32),
        "ann_crowd": crowd,
    }
    masks = _Masks()
    for start in range(0, len(annotations), _AT_ONCE):
        masks.add(annotations[start : start + _AT_ONCE])
    annotations.clear()  # with the file's content
    order = grouped(rows, crowd)
    arrays = {name: values[order] for name, values in numbers.items()} | masks.arrays(order)
    return arrays | stated_areas(arrays, rows[order], image_hw) | {
        "ann_starts": image_starts(rows[order], unknown),
        "first_mention": first_mention(rows, unknown),
    }


@dataclass
class _Masks:
    """Boxes, polygons and run lengths, grown by some annotations at a time."""

    boxes: list[np.ndarray] = field(default_factory=list)
    coordinates: list[np.ndarray] = field(default_factory=list)
    polygon_numbers: list[np.ndarray] = field(default_factory=list)  # coordinates of each polygon
    polygons: list[np.ndarray] = field(default_factory=list)  # of each annotation
    counts: array = field(default_factory=lambda: array("i"))
    runs: list[np.ndarray] = field(default_factory=list)  # of each annotation
    hw: list[np.ndarray] = field(default_factory=list)

    def add(self, annotations: Sequence[_Annotation]) -> None:
        """Raises _NotPlain where one is not of the usual form."""
        boxes = read_lists(b",".join([a.bbox for a in annotations]))
        if boxes is None or boxes.owners.tolist() != list(range(len(annotations))) or (
                boxes.numbers != 4).any() or (boxes.depths != 1).any():
            raise _NotPlain
        self.boxes.append(_float32(boxes.values))
        drawn, text = _drawn(annotations)
        polygons = np.zeros(len(annotations), np.int64)
        if drawn:
            found = read_lists(text)
            if found is None or (found.depths != 2).any() or (found.numbers == 2).any():
                raise _NotPlain  # of lists of two numbers it may be points that are meant
            polygons[drawn] = np.bincount(found.owners, minlength=len(drawn))
            if not polygons[drawn].all():
                raise _NotPlain
            self.coordinates.append(_float32(found.values))
            self.polygon_numbers.append(found.numbers)
        self.polygons.append(polygons)
        runs, hw = np.zeros(len(annotations), np.int64), np.full((len(annotations), 2), -1, "i")
        for i in np.flatnonzero(polygons == 0).tolist():
            counts, hw[i] = _runs(annotations[i].segmentation)
            self.counts.extend(counts)
            runs[i] = len(counts)
        self.runs.append(runs)
        self.hw.append(hw.ravel())

    def arrays(self, order: np.ndarray) -> dict[str, np.ndarray]:
        """Those of `CocoIndex`; order: int64, which annotation comes first, second, ..."""
        polygons = _chained(self.polygons, np.int64)
        polygon_numbers = _chained(self.polygon_numbers, np.int64)
        last = np.concatenate([[0], np.cumsum(polygon_numbers)])[np.cumsum(polygons)]
        coordinates = np.diff(last, prepend=0)  # of each annotation
        runs = _chained(self.runs, np.int64)
        return {
            "boxes": _chained(self.boxes, np.float32).reshape(-1, 4)[order],
            "coordinates": _pieces(_chained(self.coordinates, np.float32), coordinates, order),
            "polygon_ends": np.cumsum(_pieces(polygon_numbers, polygons, order)),
            "ann_polygon_ends": np.cumsum(polygons[order]),
            "rle_counts": _pieces(np.array(self.counts), runs, order),
            "ann_rle_ends": np.cumsum(runs[order]),
            "ann_rle_hw": _chained(self.hw, np.int32).reshape(-1, 2)[order],
        }


def _drawn(annotations: Sequence[_Annotation]) -> tuple[list[int], bytes]:
    """(which annotations have polygons, not runs; those as JSON, with commas between them)."""
    # An object has polygons and a crowd has runs, nearly always: then few are looked at.
    runs = {i for i, a in enumerate(annotations) if a.iscrowd and _is_object(a.segmentation)}
    drawn = [i for i in range(len(annotations)) if i not in runs]
    text = b",".join([annotations[i].segmentation for i in drawn])
    if b"{" in text:
        drawn = [i for i in drawn if not _is_object(annotations[i].segmentation)]
        text = b",".join([annotations[i].segmentation for i in drawn])
    return drawn, text


def _runs(value: msgspec.Raw) -> tuple[array, tuple[int, int]]:
    try:
        return records.runs(msgspec.json.decode(value, type=dict))
    except ValueError as error:
        raise _NotPlain from error


def _is_object(value: msgspec.Raw) -> bool:
    return bytes(value)[:1] == b"{"


def _pieces(values: np.ndarray, lengths: np.ndarray, order: np.ndarray) -> np.ndarray:
    """The pieces of `values`, of `lengths`, in another order."""
    starts = (np.cumsum(lengths) - lengths)[order]
    lengths = lengths[order]
    ends = np.cumsum(lengths)
    found = np.empty_like(values)
    for first in range(0, len(order), _AT_ONCE):
        some = slice(first, first + _AT_ONCE)
        begin, end = int(ends[first] - lengths[first]), int(ends[some][-1])
        places = np.arange(begin, end)
        places += np.repeat(starts[some] - (ends[some] - lengths[some]), lengths[some])
        np.take(values, places, out=found[begin:end])
    return found


def _names(names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    if not all(names):
        raise _NotPlain
    return joined(names)


def _whole_numbers(values: list[int]) -> np.ndarray:
    found = np.array(values or array("q"))
    if found.dtype != np.int64:
        raise _NotPlain
    return found


def _crowds(values: Sequence[int | bool | None]) -> np.ndarray:
    if not set(values) <= {None, 0, 1}:
        raise _NotPlain
    return np.array([bool(value) for value in values], bool)


def _area(value: float | None) -> float:
    return value if value is not None and 0 < value < math.inf else UNSTATED


def _float32(values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # infinite, as a mask that no image can hold
        return values.astype(np.float32)


def _chained(parts: Sequence[np.ndarray], kind: type) -> np.ndarray:
    return np.concatenate([np.empty(0, kind), *parts])
