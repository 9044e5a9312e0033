"""Pictures of label maps: beside their images as the original writes them, and grids of them."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data.loading.loader import SampleKey
from data.segmentation.ade20k import class_colors, class_names, color_encode
from data.segmentation.batches import TrainBatches
from runtime.curves import plot_confusion
from runtime.pictures import (
    draw_grid,
    draw_legend,
    fitted,
    save_image,
    side_by_side,
    stack,
    with_note,
)
from settings.datasets import IMAGENET_MEAN, IMAGENET_STD

__all__ = [
    "as_classes",
    "class_names",
    "class_shares",
    "picture_name",
    "save_beside",
    "save_findings",
    "save_prediction_grid",
    "save_training_grid",
]

Triple = tuple[np.ndarray, np.ndarray, np.ndarray]  # image, label, prediction

_MEAN, _STD = np.array(IMAGENET_MEAN), np.array(IMAGENET_STD)
_SMALLEST_SHARE = 0.1  # percent of an image, below which a class is not listed
_TILE_PX = 320  # longest side of a grid's tile
LEGEND_ENTRIES = 60  # classes that a legend names


def picture_name(path: str) -> str:
    """The original's name for the picture of an image: `.jpg` becomes `.png`, no other does."""
    return os.path.basename(path).replace(".jpg", ".png")


def save_beside(
    path: str, folder: str | Path, num_class: int, image: np.ndarray, *labels: np.ndarray
) -> None:
    """Write `image` [h, w, 3] and label maps [h, w] beside each other, as the original does.

    path: of the image; the picture gets its name and format, in `folder`
    Labels are in the original's colours, -1 black. Raises SaveError.
    """
    colors = class_colors(num_class)
    pixels = np.concatenate([image, *(color_encode(each, colors) for each in labels)], axis=1)
    save_image(pixels, Path(folder, picture_name(path)))


def class_shares(prediction: np.ndarray, names: Sequence[str]) -> list[str]:
    """The original's lines `  name: xx.xx%`, by falling share, of the classes above 0.1 %."""
    counts = np.bincount(prediction.ravel(), minlength=len(names))
    shares = counts / prediction.size * 100
    order = np.argsort(-shares, kind="stable")
    return [f"  {names[i]}: {shares[i]:.2f}%" for i in order if shares[i] > _SMALLEST_SHARE]


def save_training_grid(batches: TrainBatches, dataset_cfg, path: Path, count: int = 4) -> None:
    """Rows of image | label: the first training batches, as the network sees them."""
    rows, labels = [], []
    for i in range(count):
        batch = batches[SampleKey(0, i, i)]
        for image, label in zip(batch["img_data"], batch["seg_label"], strict=True):
            pixels = image.numpy().transpose(1, 2, 0) * _STD + _MEAN
            pixels = np.clip(np.rint(pixels * 255), 0, 255).astype(np.uint8)
            rate = dataset_cfg.segm_downsampling_rate
            enlarged = label.numpy().repeat(rate, 0).repeat(rate, 1)
            colours = color_encode(enlarged, class_colors(dataset_cfg.num_class))
            rows.append([fitted(pixels, _TILE_PX), fitted(colours, _TILE_PX)])
            labels.append(label.numpy())
    grid = draw_grid(side_by_side(rows, 2), ["image", "label"] * 2)
    save_image(with_class_legend(grid, labels, class_names(dataset_cfg)), path)


def save_prediction_grid(
    triples: Sequence[Triple], names: Sequence[str], path: Path, notes: Sequence[str] = (),
    title: str = "",
) -> None:
    """Rows of image | label | prediction and the names of their colours.

    triples: (image [h, w, 3] uint8 RGB, label [h, w], prediction [h, w])
    notes:   a line below each image, or none at all; title: a line below everything
    Raises SaveError.
    """
    colors = class_colors(len(names))
    rows = []
    for i, (image, label, prediction) in enumerate(triples):
        tiles = [fitted(each, _TILE_PX, enlarge=True)
                 for each in (image, color_encode(label, colors), color_encode(prediction, colors))]
        rows.append([with_note(tiles[0], notes[i]) if notes else tiles[0], *tiles[1:]])
    titles = ["image", "label", "prediction"] * min(2, max(1, len(rows)))
    grid = draw_grid(side_by_side(rows, 2), titles)
    maps = [each for _, *both in triples for each in both]
    save_image(with_note(with_class_legend(grid, maps, names), title), path)


def save_findings(run: Any, found: Any, which: str) -> None:
    """predictions.png, extremes.png and confusion.png of a validation; rank 0 draws.

    run:   the Run, whose folder they go to; found: its SegmentationScores
    which: the weights that they are of, for the titles
    Raises SaveError.
    """
    if not run.is_main:
        return
    title = f"{which}: mean IoU {found.meter.compute()['mean_iou']:.4f}"
    save_prediction_grid(found.shown, found.names, run.folder / "predictions.png", title=title)
    rows = [*(("worst", *row) for row in found.extremes.worst),
            *(("best", *row) for row in found.extremes.best)]
    notes = [f"{kind}, {score:.2f}: {os.path.basename(file)}"
             for kind, score, _, (file, _) in rows]
    save_prediction_grid([triple for *_, (_, triple) in rows], found.names,
                         run.folder / "extremes.png", notes, title)
    plot_confusion(found.meter.counts, found.names, run.folder / "confusion.png", title,
                   "labelled pixels")


def with_class_legend(
    picture: np.ndarray, maps: Sequence[np.ndarray], names: Sequence[str]
) -> np.ndarray:
    """The RGB picture with the names of the colours that its class maps [h, w] use below it.

    Of more than LEGEND_ENTRIES classes those with most pixels are named.
    """
    counts = np.zeros(len(names) + 1, np.int64)  # the first: -1, unlabelled
    for each in maps:
        counts += np.bincount(each.ravel().astype(np.int64) + 1, minlength=len(counts))
    commonest = np.argsort(-counts[1:], kind="stable")[:LEGEND_ENTRIES]
    colours = class_colors(len(names))
    entries = [(names[i], tuple(colours[i].tolist())) for i in sorted(commonest) if counts[i + 1]]
    if counts[0]:
        entries.insert(0, ("unlabelled, ignored", (0, 0, 0)))
    return stack([picture, draw_legend(entries, picture.shape[1])])


def as_classes(scores: torch.Tensor) -> np.ndarray:
    """[h, w] int64 class map of scores [1, num_class, h, w]."""
    return scores.argmax(dim=1)[0].cpu().numpy()
