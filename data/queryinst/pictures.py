"""Pictures of QueryInst's samples and predictions, with boxes, masks and names drawn in."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from data.loading.loader import SampleKey
from data.queryinst.instances import QueryInstDataset
from runtime.pictures import CLEAR_SIDE_PX, instances_tile, save_grid, save_pairs


def query_tile(
    image: Any, boxes: Any, masks: Any, labels: Any, names: Sequence[str], scores: Any = None
) -> np.ndarray:
    """The image with its instances, uint8 RGB; larger ones than needed are shrunk.

    image: uint8 [3, h, w] RGB; boxes: [n, 4] xyxy pixels; masks: [n, h, w] bool
    labels: [n] 0-based classes; scores: [n], as `instances_tile`
    """
    pixels = np.ascontiguousarray(np.asarray(image).transpose(1, 2, 0))
    boxes, masks = np.asarray(boxes, np.float64).reshape(-1, 4), np.asarray(masks)
    height, width = pixels.shape[:2]
    factor = CLEAR_SIDE_PX / min(height, width)
    if factor < 1:
        size = (round(width * factor), round(height * factor))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
        shrunk = np.zeros((len(masks), *size[::-1]), np.uint8)
        for out, mask in zip(shrunk, masks, strict=True):
            cv2.resize(mask.astype(np.uint8), size, dst=out, interpolation=cv2.INTER_NEAREST)
        boxes, masks = boxes * ((size[0] / width, size[1] / height) * 2), shrunk
    return instances_tile(pixels, boxes, masks, [names[int(label)] for label in labels], scores)


def save_query_samples(dataset: QueryInstDataset, path: str | Path, count: int = 9) -> None:
    """A grid of the first augmented training samples. Raises SaveError."""
    samples = [dataset[SampleKey(0, i, i)] for i in range(min(count, len(dataset)))]
    save_grid([query_tile(sample["image"], sample["boxes"], sample["masks"], sample["labels"],
                          dataset.names) for sample in samples], path)


def save_query_predictions(
    dataset: QueryInstDataset,
    found: Mapping[int, Mapping[str, Any]],
    path: str | Path,
    threshold: float = 0.3,
) -> None:
    """Pairs of ground truth and prediction on the original images. Raises SaveError.

    found: for positions in the data set what `predict` gave, in the original image's frame; only
           instances with a score of at least `threshold` are drawn
    """
    pairs = []
    for position, instances in found.items():
        truth = dataset.original(position)
        boxes, masks, labels, scores = (
            instances[key].cpu()[instances["scores"].cpu() >= threshold]
            for key in ("boxes", "masks", "labels", "scores"))
        pairs.append((
            query_tile(truth["image"], truth["boxes"], truth["masks"], truth["labels"],
                       dataset.names),
            query_tile(truth["image"], boxes, masks, labels, dataset.names, scores)))
    save_pairs(pairs, path)
