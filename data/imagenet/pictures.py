"""Pictures of classified images, as the network sees them, with class names over them."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from data.imagenet.folders import ClassificationDataset
from data.imagenet.transforms import MEAN, STD
from data.loading.loader import SampleKey
from data.loading.photo_summary import short_name
from runtime.curves import plot_confusion
from runtime.pictures import draw_grid, save_grid, save_image, with_note

TILE_PX = 224  # smaller images are enlarged to it, so that a title has room
MAX_TITLE = 30  # characters
MISTAKES = "mistakes.png"


def shown_pixels(image: torch.Tensor) -> np.ndarray:
    """[3, n, n] float, normalised, back to RGB uint8, at least TILE_PX wide."""
    mean, std = (torch.tensor(each)[:, None, None] for each in (MEAN, STD))
    pixels = (image * std + mean).mul(255).round().clamp(0, 255)
    pixels = np.ascontiguousarray(pixels.byte().permute(1, 2, 0).numpy())
    height, width = pixels.shape[:2]
    if width >= TILE_PX:
        return pixels
    size_wh = (TILE_PX, round(height * TILE_PX / width))
    return cv2.resize(pixels, size_wh, interpolation=cv2.INTER_NEAREST)


def save_class_samples(dataset: ClassificationDataset, path: Path, count: int = 16) -> None:
    """A grid of augmented training samples from all over the set. Raises SaveError."""
    chosen = np.linspace(0, len(dataset) - 1, min(count, len(dataset))).astype(int)
    samples = [dataset[SampleKey(0, i, int(index))] for i, index in enumerate(chosen)]
    classes = dataset.folders.classes
    save_grid([shown_pixels(sample["image"]) for sample in samples], path,
              [short_name(classes[sample["label"]], MAX_TITLE) for sample in samples])


def save_mistakes(
    rows: Sequence[tuple[float, int, int, int]], dataset: ClassificationDataset, path: Path,
    title: str = "",
) -> None:
    """A grid of wrongly classified validation images: "class, not class, probability" above each,
    its file's name below.

    rows:  (probability, image index, label, predicted class), as `ConfidentMistakes.rows`
    title: a line below everything
    Raises SaveError.
    """
    classes = dataset.folders.classes
    room = MAX_TITLE // 2 - 4
    short = [short_name(name, room) for name in classes]
    titles = [f"{short[label]}, not {short[predicted]} {prob:.2f}"
              for prob, _, label, predicted in rows]
    tiles = [with_note(shown_pixels(dataset[index]["image"]), dataset.folders.path(index).name)
             for _, index, _, _ in rows]
    save_image(with_note(draw_grid(tiles, titles), title), path)


def save_findings(
    run: Any, found: Any, dataset: ClassificationDataset, which: str
) -> None:
    """confusion.png and, where there are any, mistakes.png of a validation; rank 0 draws.

    run: the Run; found: the ClassScores over all ranks, of `dataset`
    which: the weights that they are of, for the titles
    Raises SaveError.
    """
    if not run.is_main:
        return
    title = f"{which}: Top-1 {found.top.compute()['top1']:.2f} %"
    if found.matrix is not None:
        plot_confusion(found.matrix.counts.numpy(), dataset.folders.classes,
                       run.folder / "confusion.png", title)
    if found.mistakes.rows:
        save_mistakes(found.mistakes.rows, dataset, run.folder / MISTAKES, title)
    else:  # what an earlier validation left there is not true any more
        with contextlib.suppress(OSError):
            (run.folder / MISTAKES).unlink()
