"""Where the image of an annotation file's `file_name` lies: older spellings are understood."""

import os
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any
from urllib.parse import unquote

import numpy as np


def slashed(name: str) -> str:
    """The name with / for Windows' \\."""
    return name.replace("\\", "/")


def is_absolute(name: str) -> bool:
    """Whether it is a path from a root, of Unix or of Windows."""
    return PurePosixPath(name).is_absolute() or bool(PureWindowsPath(name).drive)


def spellings(name: str, folder: str = "") -> Iterator[str]:
    """Names under which the file may lie, the likeliest first; folder: the image folder's name."""
    yield name
    # differs: YOLACT always shortens; here a file of the full name comes first [yolact.md: Data]
    # Way back: none, the short one is found where the full one is not there.
    # parity: COCO_val2014_000000000042.jpg may lie there as 000000000042.jpg [yolact.md: Data]
    if name.startswith("COCO"):
        yield name.rpartition("_")[2]
    yield from rewritten(name)
    first, _, rest = slashed(name).removeprefix("./").partition("/")
    if rest and first == folder:  # images/a.jpg in images/
        yield rest


def rewritten(name: str) -> Iterator[str]:
    """The name as another system or tool would write it, where that differs."""
    if "\\" in name:
        yield slashed(name)
    if "%" in name:  # some tools write names as they stand in an address
        yield unquote(slashed(name))
    if name != name.strip():
        yield name.strip()
    if not name.isascii():  # archives of macOS take letters and their accents apart
        for form in ("NFC", "NFD"):
            yield unicodedata.normalize(form, name)
    stem, suffix = os.path.splitext(name)
    for other in (suffix.lower(), suffix.upper()):
        if other != suffix:
            yield stem + other


def find_names(index: Any, images_dir: Path, rows: np.ndarray) -> list[str | None]:
    """For each image row of an index the name of its file in `images_dir`; None: not there.

    Each folder is listed once instead of asking for every file. A missing folder has no files.
    """
    is_there = _listing(images_dir)
    return [next((name for name in spellings(index.file_name(row), images_dir.name)
                  if is_there(name)), None) for row in rows.tolist()]


def near_name(images_dir: Path, name: str) -> str | None:
    """A file of `images_dir` that is nearly `name`: other case, suffix, blanks or folder before it.

    None where there is none, or more than one.
    """
    wanted = PurePosixPath(slashed(name).strip())
    try:
        with os.scandir(images_dir) as entries:
            there = [entry.name for entry in entries if not entry.name.startswith(".")]
    except OSError:
        return None
    for key in (str.casefold, lambda each: PurePosixPath(each).stem.casefold()):
        found = [each for each in there if key(each) == key(wanted.name)]
        if found:
            return found[0] if len(found) == 1 else None
    with_suffix = [each for each in there if PurePosixPath(each).stem == wanted.name]
    return with_suffix[0] if len(with_suffix) == 1 else None


def image_path(images_dir: Path, name: str) -> str:
    """The file of an image; that of the name as it is where there is none.

    Text: the parts of a Path are interned, and a worker would grow with every image of an epoch.
    """
    as_it_is = os.path.join(images_dir, name)
    if os.path.isfile(as_it_is):
        return as_it_is
    paths = (os.path.join(images_dir, each) for each in spellings(name, Path(images_dir).name))
    return next(filter(os.path.isfile, paths), as_it_is)


def _listing(images_dir: Path) -> Callable[[str], bool]:
    listed: dict[str, set[str]] = {}

    def is_there(name):
        folder, _, base = name.rpartition("/")
        if folder not in listed:
            try:
                listed[folder] = set(os.listdir(images_dir / folder))
            except OSError:
                listed[folder] = set()
        return base in listed[folder]

    return is_there
