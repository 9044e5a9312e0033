"""What class folders hold, for --check-data: counts, sizes, doubts, and a picture of samples."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from data.loading.decode import read_rgb
from data.loading.photo_summary import (
    PhotoCounts,
    class_table,
    copies,
    copies_warning,
    imbalance,
    short_name,
)
from runtime.errors import SaveError
from runtime.pictures import draw_grid, save_image

SAMPLES = 24  # in the picture
TILE_PX = 160  # a square
MAX_TITLE = 20  # characters
_EXIF_REMEDY = "store the turned pixels (ImageMagick: mogrify -auto-orient) if they lie on the side"


def tell(
    train: Any,
    val: Any,
    photos: Sequence[PhotoCounts],
    log: Callable[[str], None],
    warn: Callable[[str], None],
    run_folder: str | Path | None,
) -> None:
    """Log what the two ClassFolders hold and warn of doubts; samples go to run_folder/check.png.

    photos: counts of train's and of val's images
    """
    log(f"{train.folder.parent}: images of each class, shares of the training images")
    for line in class_table(train.classes, {"train": train.counts(), "val": val.counts()}):
        log(line)
    for line in imbalance(train.classes, train.counts(), "training images"):
        log(line)
    for folders, counts in zip((train, val), photos, strict=True):
        log(f"{folders.folder}: {len(folders)} images")
        for line in counts.lines():
            log(line)
        for line in counts.warnings(str(folders.folder), _EXIF_REMEDY):
            warn(line)
    paths = [[folders.path(i) for i in range(len(folders))] for folders in (train, val)]
    for line in copies_warning(str(val.folder), copies(*paths), len(val)):
        warn(line)
    if run_folder is not None:
        path = Path(run_folder, "check.png")
        try:
            save_sample_grid(train, path)
        except SaveError as error:  # a check of read-only data is no less done
            log(f"No picture: {error}")
        else:
            log(f"Samples with their classes: {path}")


def save_sample_grid(folders: Any, path: Path) -> None:
    """Images of as many classes as there is room for, as they are stored. Raises SaveError."""
    counts = folders.counts()
    present = np.flatnonzero(counts)
    classes = present[np.unique(np.linspace(0, len(present) - 1, min(SAMPLES, len(present)))
                                .astype(int))]
    per_class = max(1, SAMPLES // len(classes))
    chosen = [i for label in classes for i in _spread(np.flatnonzero(folders.labels == label),
                                                      per_class)]
    tiles = [_tile(np.asarray(read_rgb(folders.path(int(i))))) for i in chosen]
    titles = [short_name(folders.classes[folders.labels[i]], MAX_TITLE) for i in chosen]
    save_image(draw_grid(tiles, titles), path)


def _spread(rows, count):
    return rows[np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int))]


def _tile(pixels):
    """The whole image, scaled to fit a grey square."""
    height, width = pixels.shape[:2]
    scale = TILE_PX / max(height, width)
    size_wh = (max(1, round(width * scale)), max(1, round(height * scale)))
    kind = cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST
    small = cv2.resize(pixels, size_wh, interpolation=kind)
    tile = np.full((TILE_PX, TILE_PX, 3), 230, np.uint8)
    top, left = (TILE_PX - size_wh[1]) // 2, (TILE_PX - size_wh[0]) // 2
    tile[top : top + size_wh[1], left : left + size_wh[0]] = small
    return tile
