"""What `--predict` names: an image, a folder, a pattern, a video, or a list on stdin."""

import glob
import os
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from runtime.errors import InputError
from runtime.image_kinds import IMAGE_SUFFIXES, left_pictures

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv")
STDIN = "-"


@dataclass(frozen=True)
class Inputs:
    """What there is to look at.

    images: paths in order; none where there is a video
    video:  the path of one, or None
    left:   a line about pictures in a folder whose kind is not read, or ""
    """

    images: tuple[str, ...] = ()
    video: str | None = None
    left: str = ""


def find_inputs(named: str, but_not: str | Path, lines: Iterable[str] | None = None) -> Inputs:
    """The images or the video that `--predict NAMED` means.

    but_not: a folder that is not looked into: the one of the outputs
    lines:   what stands on stdin, for "-"; None reads it
    Images of a folder, and below it, come in the order of their paths; hidden ones are left out.
    Raises InputError when there is nothing.
    """
    if named == STDIN:
        # as bytes: a path need not be UTF-8
        return Inputs(_listed(map(os.fsdecode, sys.stdin.buffer) if lines is None else lines))
    if os.path.isdir(named):
        images, suffixes = _below(named, but_not)
        if not images:
            raise InputError(f"--predict {named}: no image in this folder or below it; images end "
                             f"with {', '.join(IMAGE_SUFFIXES)}, and a video is named itself")
        return Inputs(tuple(images), left=left_pictures(named, suffixes))
    if os.path.exists(named):
        if named.lower().endswith(VIDEO_SUFFIXES):
            return Inputs(video=named)
        return Inputs((named,))
    if not glob.has_magic(named):
        raise InputError(f"--predict {named}: no such image, video or folder")
    found = sorted(glob.glob(os.path.expanduser(named), recursive=True))
    images = [path for path in found if _is_image(path) and os.path.isfile(path)]
    if not images:
        raise InputError(f"--predict {named}: no image matches this pattern; a video "
                         "is named itself")
    return Inputs(tuple(images))


def _listed(lines: Iterable[str]) -> tuple[str, ...]:
    """The paths of a list, one a line, each once."""
    paths = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not paths:
        raise InputError("--predict -: no path on stdin; write one a line, for example "
                         "find photos -name '*.jpg' | python ...")
    return tuple(paths)


def _below(folder: str, but_not: str | Path) -> tuple[list[str], Counter[str]]:
    """(images, suffixes of all files)"""
    own = os.path.realpath(but_not)
    found: list[str] = []
    suffixes: Counter[str] = Counter()
    for where, below, names in os.walk(folder):
        below[:] = [name for name in below if not name.startswith(".")
                    and os.path.realpath(os.path.join(where, name)) != own]
        found += [os.path.join(where, name) for name in names if _is_image(name)]
        suffixes.update(os.path.splitext(name)[1].lower() for name in names)
    return sorted(found), suffixes


def _is_image(path: str) -> bool:
    return path.lower().endswith(IMAGE_SUFFIXES) and not os.path.basename(path).startswith(".")
