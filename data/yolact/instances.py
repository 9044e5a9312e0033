"""YOLACT's samples from a COCO index: from the file on disk to collated tensors."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data.coco_format.classes import join_classes
from data.coco_format.dataset import IndexedImages
from data.coco_format.image_order import evaluation_order
from data.coco_format.index import CocoIndex
from data.coco_format.masks import annotation_mask
from data.loading.bad_images import fault_lines, usable
from data.loading.loader import SampleKey
from data.yolact.transform import YolactTransform
from runtime.errors import InputError

# what the network's training takes of a batch, in its order; "matched" where there is one
INPUTS = ("images", "targets", "masks", "num_crowds", "matched")


class InstanceDataset(IndexedImages):
    """Images with their instances, transformed as YOLACT does.

    index, images_dir: the annotation file's index and the folder with its images
    cfg:           the network's config: what YolactTransform takes of it, and dataset.label_map,
                   dataset.class_names, dataset.has_gt
    train:         augment, and index with `SampleKey`; else resize only, and index with int
    seed:          of the run; a training sample depends on it and its key only
    bad_images:    "stop" raises InputError for an unreadable image; "skip" takes another one in
                   training and leaves it out in evaluation, and names the file in `skipped`
    trained:       the index of the training file, whose category ids dataset.label_map has; None:
                   this one. Categories are joined with it by their names
    include_empty: images without objects are negatives; without it they are never visited, and a
                   sample that augmentation leaves without objects is replaced

    A sample is a dict: image float32 [3, S, S]; target float32 [n, 5] (relative xyxy, 0-based
    class, -1 for crowds, which come last); masks uint8 [n, S, S] of 0 and 1; num_crowds;
    image_id; size (h, w) of the image; skipped, a list of fault lines.
    `category_ids`: int64 [classes], the id of each class in this annotation file; classes that it
    lacks have negative numbers, which are no category's.
    Raises InputError when the index is faulty, a category has no class, or nothing is to be used.
    """

    def __init__(
        self,
        index: CocoIndex,
        images_dir: str | Path,
        cfg: Any,
        *,
        train: bool,
        seed: int,
        bad_images: str = "stop",
        include_empty: bool = False,
        trained: CocoIndex | None = None,
    ):
        super().__init__(index, images_dir, train=train, seed=seed, bad_images=bad_images)
        self._include_empty = include_empty
        self._transform = YolactTransform(cfg, train)
        self._size, self.names = cfg.max_size, cfg.dataset.class_names
        label_map = _label_map(index, cfg.dataset, trained)
        self._labels = _labels(index, label_map)
        # where several ids share a class, its objects are reported under the lowest
        ids = {label: category for category, label in sorted(label_map.items(), reverse=True)}
        self.category_ids = torch.tensor(
            [ids.get(label, -label) for label in range(1, len(cfg.dataset.class_names) + 1)])
        self._rows = index.items(cfg.dataset.has_gt, include_empty)
        if not len(self._rows):
            raise InputError(f"{index.path}: it has no images to use")
        if train and not include_empty and not len(index.ann_ids):
            raise InputError(f"{index.path}: it has no annotations to train on")

    def scattered(self, limit: int) -> list[int]:
        """At most `limit` positions, the original's: a cross-section for a validation."""
        ids = [self.image_id(i) for i in range(len(self))]
        return evaluation_order(ids)[:limit].tolist()

    @property
    def largest_size(self) -> tuple[int, int]:
        """(h, w) of the largest image that a batch holds, px."""
        return self._size, self._size

    def largest_batch(self, count: int) -> dict[str, Any]:
        """A training batch of `count` images with as many objects as any: the fullest, repeated."""
        sample = self[SampleKey(0, 0, self._fullest())]
        return collate_instances([sample] * count)

    def _teaches(self, sample):
        return len(sample["target"]) or self._include_empty

    def _sample(self, row, image, rng):
        annotations = self._index.annotations_of(row)
        labels = self._labels[annotations.start:annotations.stop]
        boxes = self._index.boxes[annotations.start:annotations.stop].astype(np.float64)
        boxes[:, 2:] += boxes[:, :2]
        geometry, photometric, kept, boxes = self._transform.sample(
            rng, image.shape[:2], boxes, labels)
        kept = np.flatnonzero(kept)
        masks = np.zeros((len(kept), self._size, self._size), np.uint8)
        for i, out in zip(kept.tolist(), masks, strict=True):
            annotation_mask(self._index, annotations[i], geometry, out)
        target = np.empty((len(kept), 5), np.float32)
        target[:, :4], target[:, 4] = boxes, labels[kept]
        return {
            "image": torch.from_numpy(self._transform.render(image, geometry, photometric)),
            "target": torch.from_numpy(target),
            "masks": torch.from_numpy(masks),
            "num_crowds": int((labels[kept] < 0).sum()),
            "image_id": int(self._index.image_ids[row]),
            "size": image.shape[:2],
        }


def collate_instances(
    samples: list[dict[str, Any]], match: Callable[..., list[Any]] | None = None
) -> dict[str, Any]:
    """A batch: images [B, 3, S, S]; lists targets, masks, num_crowds, image_ids, sizes; skipped.

    match:   match(targets, num_crowds) gives a list, which the batch then has under "matched"
    skipped: the fault lines of all samples, one list. An evaluation's batch lacks the samples that
             could not be read; B may be 0, then images are [0]
    """
    faults, samples = fault_lines(samples), usable(samples)
    images = [sample["image"] for sample in samples]
    batch = {
        "images": torch.stack(images) if images else torch.empty(0),
        "targets": [sample["target"] for sample in samples],
        "masks": [sample["masks"] for sample in samples],
        "num_crowds": [sample["num_crowds"] for sample in samples],
        "image_ids": [sample["image_id"] for sample in samples],
        "sizes": [sample["size"] for sample in samples],
        "skipped": faults,
    }
    if match is not None:
        batch["matched"] = match(batch["targets"], batch["num_crowds"])
    return batch


def _label_map(index, dataset, trained):
    """{category id of this file: 1-based class}."""
    label_map = dataset.label_map or {i + 1: i + 1 for i in range(len(dataset.class_names))}
    if trained is None or trained is index or not index.categories:
        return label_map
    return join_classes(label_map, trained.categories, index.categories)


def _labels(index, label_map):
    """0-based class of every annotation, int32, -1 for crowds."""
    used, inverse = np.unique(index.ann_categories, return_inverse=True)
    unmapped = [str(category) for category in used.tolist() if category not in label_map]
    if unmapped:
        raise InputError(f"{index.path}: category ids {', '.join(unmapped)} are not in the label "
                         "map; correct dataset.label_map or leave it out")
    classes = np.array([label_map[category] - 1 for category in used.tolist()], dtype=np.int32)
    return np.where(index.ann_crowd, np.int32(-1), classes[inverse])
