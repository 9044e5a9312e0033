"""Reads the single records of a COCO file, for training, checks and evaluation alike.

Where a value is written in another way than the format has it but can only mean one thing ("0" for
0, null for "not given"), it is read. Everything else raises ValueError with what is wrong and what
to do, to stand behind the record's name.
"""

import math
import numbers
import re
from array import array
from collections.abc import Mapping
from typing import Any

from data.coco_format.rle import counts_from_text

MAX_SIDE_PX = 2**31 - 1
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_CROWD_WORDS = {"": False, "false": False, "true": True}
_NO_AREA_WORDS = ("", "nan", "null", "none")


def whole_number(record: Mapping, key: str) -> int:
    """The integer under `key`: 3, 3.0 and "3" are 3."""
    value = record.get(key)
    if type(value) is not int:
        number = _number(value)
        if number is not None and float(number).is_integer():
            value = int(number)
    if type(value) is not int or abs(value) >= 2**63:
        found = "is missing" if key not in record else f"is {value!r:.40}, not a whole number"
        raise ValueError(f"'{key}' {found}; correct it")
    return value


def text(record: Mapping, key: str) -> str:
    """The text under `key`, not empty."""
    value = record.get(key)
    if type(value) is not str or not value:
        found = "is missing" if key not in record else f"is {value!r:.40}, not a text"
        raise ValueError(f"'{key}' {found}; correct it")
    return value


def is_crowd(annotation: Mapping) -> bool:
    """Its `iscrowd`: 0 or 1, also as text, truth value or float; not given, null and "" are 0."""
    value = annotation.get("iscrowd", 0)
    if type(value) is int and 0 <= value <= 1:
        return value == 1
    if value is None or isinstance(value, bool):
        return bool(value)
    if isinstance(value, str) and value.strip().lower() in _CROWD_WORDS:
        return _CROWD_WORDS[value.strip().lower()]
    number = _number(value)
    if number not in (0, 1):
        raise ValueError(f"'iscrowd' is {value!r:.40}; it is 0 for an object, 1 for a crowd; "
                         "correct it")
    return number == 1


def stated_area(annotation: Mapping) -> float | None:
    """Its `area` in square pixels, > 0; None where there is no usable one: the mask's counts.

    Not given, null, "", 0, negative (polygons that run the other way round) and NaN say nothing.
    Raises ValueError for what is no number at all.
    """
    value = annotation.get("area")
    if type(value) is not float and type(value) is not int:
        if value is None or (isinstance(value, str) and value.strip().lower() in _NO_AREA_WORDS):
            return None
        number = _number(value)
        if number is None:
            raise ValueError(f"'area' is {value!r:.40}, no number; correct it, or leave it out and "
                             "the mask's is taken")
        value = number
    return float(value) if 0 < value < math.inf else None


def stated_box(annotation: Mapping, kind: str = "d") -> array | None:
    """Its `bbox`, x, y, width, height in pixels, as an array of type `kind`, which may hold NaN.

    None where there is none (not given, null, empty): the mask's bounds count.
    """
    value = annotation.get("bbox")
    if type(value) is list and len(value) == 4:  # as nearly all are: quickly
        try:
            return array(kind, value)
        except (TypeError, OverflowError):
            pass
    try:
        if value is None or len(value) == 0:
            return None
        box = _numbers(value, kind) if not isinstance(value, str | Mapping) else ()
    except (TypeError, ValueError):
        box = ()
    if len(box) != 4:
        raise ValueError("its bbox is not [x, y, width, height] in pixels; correct it")
    return box


def polygons(segmentation: Any, kind: str = "d") -> list[array]:
    """Polygons x, y, x, y, ... in pixels, arrays of type `kind`."""
    if isinstance(segmentation, str) and segmentation:
        raise ValueError(f"its segmentation is the text {segmentation!r:.40}, no list of polygons; "
                         "write [[x, y, x, y, ...]] without quotes")
    if not isinstance(segmentation, list | tuple) or not len(segmentation):
        raise ValueError("it has no segmentation; give polygons or RLE, or remove it")
    try:
        found = [array(kind, polygon) for polygon in segmentation]
    except (TypeError, OverflowError):
        found = _spelt_polygons(segmentation, kind)
    if len(found) > 2 and all(len(polygon) == 2 for polygon in found):
        raise ValueError("its segmentation is a list of points [x, y]; a polygon is one flat list "
                         "in a list of polygons: write [[x, y, x, y, ...]]")
    return found


def runs(segmentation: Mapping) -> tuple[array, tuple[int, int]]:
    """(run lengths, (height, width)) of an RLE."""
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if "size" not in segmentation:
        raise ValueError("its RLE has no size; add [height, width] of the image")
    try:
        size = [whole_number({"side": side}, "side") for side in size]
    except (TypeError, ValueError):
        size = []
    if not (len(size) == 2 and all(0 < side <= MAX_SIDE_PX for side in size)):
        raise ValueError("the size of its RLE is not [height, width]; correct it")
    try:
        if isinstance(counts, str):
            counts = counts_from_text(counts).tolist()
        return _whole_numbers(counts), tuple(size)
    except (TypeError, OverflowError, ValueError):
        raise ValueError("the counts of its RLE are no run lengths; "
                         "encode the mask again") from None


def _spelt_polygons(segmentation, kind):
    try:
        return [_numbers(polygon, kind) for polygon in segmentation]
    except (TypeError, ValueError):
        raise ValueError(_wrong_form(segmentation)) from None


def _wrong_form(segmentation):
    if all(_number(value) is not None for value in segmentation):
        return ("its segmentation is not a list of polygons but one flat list [x, y, ...]; a "
                "polygon must stand in a list of its own: write [[x, y, ...]]")
    if all(isinstance(polygon, list) and polygon and isinstance(polygon[0], list)
           for polygon in segmentation):
        return ("its polygons are lists of points [[x, y], [x, y], ...]; a polygon is one flat "
                "list: write [[x, y, x, y, ...]]")
    return ("its segmentation is not a list of polygons [[x, y, x, y, ...], ...]; "
            "correct or remove it")


def _numbers(values, kind):
    if isinstance(values, str):  # whose letters could be digits
        raise ValueError("not numbers")
    try:
        return array(kind, values)
    except (TypeError, OverflowError):
        found = [_number(value) for value in values]
        if None in found:
            raise ValueError("not numbers") from None
        return array(kind, found)


def _whole_numbers(counts):
    try:
        return array("i", counts)
    except TypeError:
        return array("i", [whole_number({"count": count}, "count") for count in counts])


def _number(value):
    """The int or float that `value` is or spells; None when it does neither."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        return float(value) if _NUMBER.fullmatch(value.strip()) else None
    if isinstance(value, numbers.Integral):
        return int(value)
    return float(value) if isinstance(value, numbers.Real) else None
