"""Pictures of instance samples, as the network sees them, with boxes, masks and names drawn in."""

from pathlib import Path
from typing import Any

import numpy as np

from data.loading.loader import SampleKey
from data.yolact.instances import InstanceDataset
from data.yolact.pixels import Normalisation
from runtime.pictures import instances_tile, save_grid


def shown_image(image: Any, transform: Any) -> np.ndarray:
    """[3, S, S] float, normalised as a backbone's `transform` says, back to uint8 [S, S, 3] RGB."""
    norm = Normalisation.of(transform)
    bgr = np.asarray(image)[list(norm.planes)].transpose(1, 2, 0)
    pixels = (bgr - np.float32(norm.shift)) / np.float32(norm.scale)
    return np.ascontiguousarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8)[..., ::-1])


def instance_tile(
    cfg: Any, image: Any, boxes: Any, masks: Any, labels: Any, scores: Any = None
) -> np.ndarray:
    """The image with its instances, uint8 RGB.

    cfg:    the network's config: max_size, backbone.transform, dataset.class_names
    image:  [3, S, S] float, normalised
    boxes:  [n, 4] xyxy, fractions of the image; masks: [n, S, S]
    labels: [n] 0-based classes, -1 for crowds; scores: [n], as `instances_tile`
    """
    names = ("crowd", *cfg.dataset.class_names)
    boxes_px = np.asarray(boxes, np.float64).reshape(-1, 4) * cfg.max_size
    pixels = shown_image(image, cfg.backbone.transform)
    return instances_tile(pixels, boxes_px, np.asarray(masks),
                          [names[int(label) + 1] for label in labels], scores)


def save_samples(dataset: InstanceDataset, cfg: Any, path: Path, count: int = 9) -> None:
    """A grid of the first augmented training samples. Raises SaveError."""
    keys = [SampleKey(0, i, i) for i in range(min(count, len(dataset)))]
    samples = [dataset[key] for key in keys]
    save_grid([instance_tile(cfg, sample["image"], sample["target"][:, :4], sample["masks"],
                             sample["target"][:, 4]) for sample in samples], path)
