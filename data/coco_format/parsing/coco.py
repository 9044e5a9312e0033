"""Chooses how an annotation file is read."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from data.coco_format.parsing.careful import parse_carefully
from data.coco_format.parsing.plain import parse_plain
from runtime.errors import InputError


def parse_coco(path: Path) -> dict[str, Any]:
    """The fields of `CocoIndex` but `path`. Raises InputError when there is no JSON object."""
    with _no_garbage_collection():
        try:
            fields = parse_plain(path)
            return parse_carefully(path, path.read_bytes()) if fields is None else fields
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from error


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Millions of new objects, none of them garbage: looking for it costs a third."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
