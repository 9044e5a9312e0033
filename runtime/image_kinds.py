"""Which files are images, by their names."""

from collections.abc import Mapping
from pathlib import Path

# torchvision's list for class folders
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
_NOT_READ = (".avif", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jpe")  # pictures all the same


def left_pictures(folder: str | Path, suffixes: Mapping[str, int]) -> str:
    """A line about pictures in a folder that are not read, by their kind; "" where there are none.

    suffixes: {suffix of a file, in small letters: how many have it}
    """
    kinds = {suffix: suffixes[suffix] for suffix in _NOT_READ if suffixes.get(suffix)}
    if not kinds:
        return ""
    counts = ", ".join(f"{count} with {suffix}" for suffix, count in kinds.items())
    return (f"{folder}: {sum(kinds.values())} pictures are left out, as their kind is not read "
            f"({counts}); save them as one of {', '.join(IMAGE_SUFFIXES)}")
