"""What --check-data shows of sound COCO files: numbers as text, and a picture of samples."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from data.coco_format.dataset import read_indexed
from data.coco_format.index import CocoIndex
from data.coco_format.masks import Resized, annotation_mask
from data.loading.image_names import image_path
from runtime.errors import SaveError
from runtime.pictures import CLEAR_SIDE_PX, draw_instances, save_grid

PICTURE = "check.png"
PICTURED = 9
READABLE = 12  # images with more objects are drawn only where there are not enough others
MOST_CLASSES = 40  # lines of the table
SMALL_PX2, LARGE_PX2 = 32**2, 96**2  # COCO's bounds of small and large objects, by their area
LOOKED_AT = 2000  # objects that are compared with all priors: shares are right to about a percent


def show_checked(
    run: Any,
    indexes: Mapping[str, CocoIndex] | None,
    images: Sequence[str | Path],
    folder: Path,
    without_prior: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> None:
    """Tell and draw what is in files that were found to be sound; "no fault found." comes last.

    run:     the Run
    indexes: {"train": ..., "valid": ...} or one of them, on rank 0; None on other ranks
    images:  image folders of the two parts
    folder:  of the run, where the picture goes
    without_prior: for boxes [n, 4] x1 y1 x2 y2 relative, which have no fitting prior, bool [n]
    Raises InputError for an unreadable image.
    """
    if indexes is None:
        return
    for index in indexes.values():
        for line in summary(index):
            run.log(line)
        if without_prior is not None:
            run.log(prior_line(index, without_prior))
    run.log(class_table(indexes))
    places = dict(zip(("train", "valid"), map(Path, images), strict=True))
    try:
        save_checked({part: (index, places[part]) for part, index in indexes.items()},
                     folder / PICTURE)
    except SaveError as error:  # a check of read-only data is no less done
        run.log(f"No picture: {error}")
    else:
        run.log(f"Samples with their boxes, masks and classes are drawn in {folder / PICTURE}.")
    run.log(f"{', '.join(index.path for index in indexes.values())}: no fault found.")


def summary(index: CocoIndex) -> list[str]:
    """Lines with the numbers and sizes of a file's images and objects."""
    number, crowds = len(index.ann_ids), int(index.ann_crowd.sum())
    empty = int((np.diff(index.ann_starts) == 0).sum())
    lines = [f"{index.path}: {len(index.image_ids)} images, {empty} of them without objects; "
             f"{number} annotations, {crowds} of them crowds; "
             f"{len(index.category_ids)} categories"]
    if len(index.image_ids):
        height, width = index.image_hw.T
        lines.append("  image sizes, min / median / max: width " + _spread(width) + ", height "
                     + _spread(height))
    objects = ~index.ann_crowd
    if objects.any():
        areas = index.ann_areas[objects]
        small, large = (areas < SMALL_PX2).mean(), (areas >= LARGE_PX2).mean()
        per_image = np.diff(index.ann_starts)
        lines.append(f"  objects: {small:.1%} small (area under 32 x 32 px), "
                     f"{1 - small - large:.1%} medium, {large:.1%} large (96 x 96 px or more); "
                     "an image with objects has "
                     + _spread(per_image[per_image > 0]) + " (min / median / max)")
    unstated = int((~index.ann_area_stated).sum())
    if unstated:
        lines.append(f"  {unstated} of {number} annotations have no usable 'area': their masks' "
                     "are taken")
    return lines


def class_table(indexes: Mapping[str, CocoIndex]) -> str:
    """Objects a class in each file, the most frequent first; crowds are not counted."""
    counts = {}  # name -> {part: number}
    for part, index in indexes.items():
        ids, numbers = np.unique(index.ann_categories[~index.ann_crowd], return_counts=True)
        numbers = dict(zip(ids.tolist(), numbers.tolist(), strict=True))
        for category, name in index.categories.items():
            own = counts.setdefault(name, dict.fromkeys(indexes, 0))
            own[part] += numbers.get(category, 0)
    ranked = sorted(counts.items(), key=lambda item: -max(item[1].values()))
    shown = ranked if len(ranked) <= MOST_CLASSES else ranked[:MOST_CLASSES - 1]
    rows = [(name, *own.values()) for name, own in shown]
    if len(shown) < len(ranked):
        rest = [own for _, own in ranked[len(shown):]]
        rows.append((f"{len(rest)} more", *(sum(own[part] for own in rest) for part in indexes)))
    width = max([len("objects of class"), *(len(row[0]) for row in rows)])
    lines = [f"{'objects of class':<{width}}" + "".join(f"{part:>10}" for part in indexes)]
    lines += [f"{name:<{width}}" + "".join(f"{number:>10}" for number in numbers)
              for name, *numbers in rows]
    for part, index in indexes.items():
        without = [name for name, own in counts.items()
                   if not own[part] and name in index.categories.values()]
        if without:
            lines.append(f"{index.path}: {len(without)} classes without objects: "
                         + ", ".join(without[:10]) + (", ..." if len(without) > 10 else ""))
    return "\n".join(lines)


def prior_line(
    index: CocoIndex, without_prior: Callable[[torch.Tensor], torch.Tensor]
) -> str:
    """Which share of the objects no prior matches, and of the small ones."""
    rows = np.flatnonzero(~index.ann_crowd[:index.ann_starts[-1]])
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, LOOKED_AT).astype(int))] if len(
        rows) else rows
    images = np.searchsorted(index.ann_starts, rows, side="right") - 1
    boxes = index.boxes[rows].astype(np.float64)
    boxes[:, 2:] += boxes[:, :2]
    boxes /= np.tile(index.image_hw[images][:, ::-1], 2)
    missed = without_prior(torch.from_numpy(boxes).float()).numpy()
    small = index.ann_areas[rows] < SMALL_PX2
    line = f"  priors: {_share(missed)} of the objects fit none well enough to be matched"
    if small.any():
        line += f", of the small ones {_share(missed[small])}"
    if len(rows) < int((~index.ann_crowd).sum()):
        line += f" ({len(rows)} objects looked at)"
    return line + "; each of these is learnt from its nearest prior alone"


def save_checked(parts: Mapping[str, tuple[CocoIndex, Path]], path: Path) -> None:
    """A grid of images from all over the files, as they are, with what the files say of them.

    parts: {part: (index, image folder)}
    Raises SaveError, InputError as `read_bgr`.
    """
    tiles, titles = [], []
    shares = {1: [PICTURED], 2: [PICTURED - PICTURED // 3, PICTURED // 3]}[len(parts)]
    for (part, (index, folder)), count in zip(parts.items(), shares, strict=True):
        numbers = np.diff(index.ann_starts)
        rows = np.flatnonzero((numbers > 0) & (numbers <= READABLE))
        if len(rows) < count:
            rows = np.flatnonzero(numbers > 0)
        rows = rows if len(rows) else np.arange(len(index.image_ids))
        for at in np.unique(np.linspace(0, len(rows) - 1, count).astype(int)).tolist():
            row = int(rows[at])
            tiles.append(_tile(index, folder, row))
            name = os.path.basename(image_path(folder, index.file_name(row)))
            titles.append(f"{part}: {name}")
    save_grid(tiles, path, titles)


def _tile(index, folder, row):
    """An image with its annotations, its shorter side CLEAR_SIDE_PX at most."""
    hw = tuple(index.image_hw[row].tolist())
    image = read_indexed(index, folder, row)[..., ::-1]
    factor = min(1.0, CLEAR_SIDE_PX / min(hw))
    height, width = (max(1, round(side * factor)) for side in hw)
    image = cv2.resize(np.ascontiguousarray(image), (width, height), interpolation=cv2.INTER_AREA)
    resized = Resized(hw[::-1], (width, height))
    annotations = index.annotations_of(row)
    masks = np.zeros((len(annotations), height, width), np.uint8)
    for annotation, mask in zip(annotations, masks, strict=True):
        annotation_mask(index, annotation, resized, mask)
    boxes = index.boxes[annotations.start:annotations.stop].astype(np.float64)
    boxes[:, 2:] += boxes[:, :2]
    captions = [("crowd: " if index.ann_crowd[i] else "")
                + index.categories.get(int(index.ann_categories[i]), "?") for i in annotations]
    return draw_instances(image, boxes * (resized.factors * 2), masks, captions)


def _spread(values):
    return f"{values.min()} / {np.median(values):.0f} / {values.max()}"


def _share(chosen):
    return f"{chosen.mean():.1%}" if len(chosen) else "none"
