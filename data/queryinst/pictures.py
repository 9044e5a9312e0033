"""Pictures of QueryInst's samples and predictions, with boxes, masks and names drawn in."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from data.loading.loader import SampleKey
from data.queryinst.instances import QueryInstDataset
from runtime.pictures import instances_tile, save_grid, shrunk


def query_tile(
    image: Any, boxes: Any, masks: Any, labels: Any, names: Sequence[str], scores: Any = None
) -> np.ndarray:
    """The image with its instances, uint8 RGB; larger ones than needed are shrunk.

    image: uint8 [3, h, w] RGB; boxes: [n, 4] xyxy pixels; masks: [n, h, w] bool
    labels: [n] 0-based classes; scores: [n], as `instances_tile`
    """
    pixels = np.ascontiguousarray(np.asarray(image).transpose(1, 2, 0))
    pixels, boxes, masks = shrunk(pixels, boxes, masks)
    return instances_tile(pixels, boxes, masks, [names[int(label)] for label in labels], scores)


def save_query_samples(run: Any, dataset: QueryInstDataset, count: int = 9) -> None:
    """train_samples.png in the run's folder: the first augmented training samples; rank 0 draws.

    run: the Run. Raises SaveError.
    """
    if not run.is_main:
        return
    samples = [dataset[SampleKey(0, i, i)] for i in range(min(count, len(dataset)))]
    save_grid([query_tile(sample["image"], sample["boxes"], sample["masks"], sample["labels"],
                          dataset.names) for sample in samples], run.folder / "train_samples.png")
