"""Reads .odgt lists: one JSON object with paths and sizes on each line."""

import io
import json
from typing import Any

from runtime.errors import InputError, did_you_mean

_MOST_FAULTS = 20  # a wrong root_dataset makes every line wrong
_PATHS, _SIZES = ("fpath_img", "fpath_segm"), ("width", "height")
_MARK = "\ufeff"
_BYTE_ORDER_MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\xef\xbb": "utf-8-sig"}


def read_odgt(path: str) -> list[dict[str, Any]]:
    """The records of the list: fpath_img, fpath_segm and, where they are given, width and height.

    Blank lines, any line ends, byte order marks and UTF-16 are fine, and so are whole numbers
    written as 64.0 or "64", commas behind the records and a JSON list of all of them.
    Raises InputError with a line for each fault.
    """
    records, faults = [], []
    text = _text(path)
    for number, line in _whole_list(text) or enumerate(io.StringIO(text, newline=None), start=1):
        line = line.strip().strip(_MARK).strip()  # joined files have a mark in their midst
        if line:
            _take_line(line.removesuffix(","), f"{path}:{number}", records, faults)
    if faults:
        raise InputError(at_most(faults))
    return records


def at_most(faults: list[str]) -> list[str]:
    """The first faults, and how many more there are."""
    more = len(faults) - _MOST_FAULTS
    return faults if more <= 0 else [*faults[:_MOST_FAULTS], f"... and {more} more of this kind"]


def _whole_list(text):
    """[(number, JSON text)] of the records of a list in brackets; None where it is no such list."""
    if not text.lstrip(_MARK).lstrip().startswith("["):
        return None
    try:
        return [(f"record {i}", json.dumps(record))
                for i, record in enumerate(json.loads(text.lstrip(_MARK)), start=1)]
    except (ValueError, RecursionError):
        return None


def _text(path):
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError as error:
        raise InputError(f"{path}: not a readable list: {error}") from error
    encoding = _BYTE_ORDER_MARKS.get(content[:2], "utf-8")
    if content[:2] in (b"{\0", b"\0{"):  # UTF-16 without its mark
        encoding = "utf-16-le" if content[:1] == b"{" else "utf-16-be"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise InputError(
            f"{path}:{line}: not a readable list: this is no {encoding.upper()} text; save the "
            "list as UTF-8"
        ) from error


def _take_line(line, where, records, faults):
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        faults.append(f"{where}: not a JSON object; an .odgt file holds one on each line")
        return
    if not isinstance(record, dict):
        faults.append(f"{where}: want a JSON object with fpath_img, fpath_segm, width, height")
        return
    for name in _PATHS:
        if name not in record:
            faults.append(f"{where}: {name} is missing.{did_you_mean(name, record)}")
        elif not isinstance(record[name], str):
            faults.append(f"{where}: {name} wants a path, got {record[name]!r}")
    for name in _SIZES:
        if record.get(name) in (None, ""):
            record.pop(name, None)
            continue
        pixels = _whole_number(record[name])
        if pixels is None or not 0 < pixels < 1 << 31:
            faults.append(f"{where}: {name} wants pixels, got {record[name]!r}")
        record[name] = pixels
    records.append(record)


def _whole_number(value):
    """An integer, also as 64.0 or "64"; None for anything else."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return int(value) if abs(value) < 1 << 31 and value == int(value) else None
