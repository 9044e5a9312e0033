"""How far a checkpoint has come: the iteration that it holds inside, read without loading it."""

import os
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

from runtime.vetting.pickles import (
    MAX_PICKLE_BYTES,
    BadFile,
    Box,
    ForeignName,
    Machine,
    scan_pickle,
)
from runtime.vetting.scan import check_end_of_zip, open_checkpoint

_PLACES = (("iteration",), ("meta", "iter"), ("training", "iteration"))


def read_iteration(path: str | Path) -> int | None:
    """The updates done that the file says: `iteration`, or `meta.iter` as MMDetection has it.

    Only the archive's directory and its pickle, never a tensor, are read, and nothing is built of
    the size it claims. None when it says nothing of the kind, or is of the format before zip
    archives. Raises BadFile when it is damaged, as far as that shows there.
    """
    with open_checkpoint(Path(path)) as file:
        start = file.read(4)
        if start != b"PK\x03\x04":
            if start[:2] == b"\x80\x02":
                return None
            raise BadFile("not a PyTorch checkpoint")
        try:
            data = _read_pickle(file)
        except (zipfile.BadZipFile, ValueError, RuntimeError, EOFError, OSError) as error:
            raise BadFile(f"damaged: {error}") from error
    try:
        value = scan_pickle(data, machine_type=_FirstWords).value
    except _Found as found:
        return found.iteration
    except ForeignName:
        return None
    return next((number for place in _PLACES if (number := _at(value, place)) is not None), None)


def _read_pickle(file: BinaryIO) -> bytes:
    """The archive's data.pkl; its own checksum is compared."""
    size = file.seek(0, os.SEEK_END)
    check_end_of_zip(file, size)  # before a list of records without end is read
    with zipfile.ZipFile(file) as archive:
        names = {info.filename.partition("/")[2]: info for info in archive.infolist()}
        info = names.get("data.pkl")
        if info is None:
            raise zipfile.BadZipFile("no pickle in it")
        is_stored = info.compress_type == zipfile.ZIP_STORED
        if not is_stored or info.file_size > min(MAX_PICKLE_BYTES, size):
            raise zipfile.BadZipFile("its pickle has an absurd size")
        return archive.read(info)


class _Found(Exception):
    def __init__(self, iteration: int):
        self.iteration = iteration


class _FirstWords(Machine):
    """Stops as soon as the iteration is known: our files and MMDetection's begin with it."""

    def step(self, name: str, argument: Any) -> None:
        super().step(name, argument)
        stack = self.stack
        if len(stack) == 4 and stack[2] == "iteration" and isinstance(stack[0], Box):
            _found(stack[3])
        elif name == "SETITEMS" and len(stack) == 4 and stack[2] == "meta":
            _found(_at(stack[3], ("iter",)))


def _found(value: Any) -> None:
    if _is_count(value):
        raise _Found(value)


def _at(value: Any, place: tuple[str, ...]) -> int | None:
    for key in place:
        if not isinstance(value, Box) or value.kind not in ("dict", "ordered dict"):
            return None
        keys, values = value.items[::2], value.items[1::2]
        value = values[keys.index(key)] if key in keys else None
    return value if _is_count(value) else None


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63
