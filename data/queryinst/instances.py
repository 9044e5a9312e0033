"""QueryInst's samples from a COCO index: from the file on disk to padded batches.

Source: [queryinst.md: Data].
"""

import functools
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch

from data.coco_format.dataset import IndexedImages
from data.coco_format.index import CocoIndex
from data.coco_format.masks import annotation_mask
from data.loading.bad_images import fault_lines, unusable_ids, usable
from data.loading.loader import SampleKey
from data.queryinst.opening import category_labels, left_out
from data.queryinst.transform import sample_geometry
from runtime.errors import InputError

METAS = ("img_shape", "ori_shape", "scale_factor")  # of a sample, for the network
MOST_DRAWN, DRAWS = 200, 5  # images, and draws of each, of which the largest size is known
MIN_SIDE_PX = 1  # narrower or lower boxes are no objects


class QueryInstDataset(IndexedImages):
    """Images with their instances, as a config's dataset section makes them.

    index:      the annotation file's index
    cfg:        a dataset section: images_path, transforms, filter_cfg, test_mode, indices, times
    names:      the class names, in order
    train:      index with `SampleKey` and filter images; else index with int and take them all
    divisor:    batches are padded to multiples of it, px
    seed:       of the run; a training sample depends on it and its key only
    bad_images: "stop" raises InputError for an unreadable image; "skip" takes another one in
                training and leaves it out in evaluation, and names the file in `skipped`

    A sample is a dict: image uint8 [3, h, w] RGB; img_shape and ori_shape (h, w); scale_factor
    (w, h); image_id; skipped, a list of fault lines; in training also boxes float32 [n, 4] xyxy
    pixels, labels int64 [n], masks bool [n, h, w]; n may be 0.
    `portrait`: bool [number of samples], whether the image is higher than wide.
    Raises InputError when no image is left.
    """

    def __init__(
        self,
        index: CocoIndex,
        cfg: Any,
        names: Sequence[str],
        *,
        train: bool,
        divisor: int,
        seed: int = 0,
        bad_images: str = "stop",
    ):
        super().__init__(index, cfg.images_path, train=train, seed=seed, bad_images=bad_images)
        self._cfg, self._divisor = cfg, divisor
        self.names = tuple(names)
        self.labels_of = category_labels(index, names)
        self._labels = np.array([self.labels_of.get(category, -1)
                                 for category in index.ann_categories.tolist()], np.int64)
        self._rows = self._chosen()
        if not len(self._rows):
            raise InputError(f"{index.path}: no image is left to use; filter_cfg drops those "
                             "without annotations of a known category and the smallest ones")
        height, width = index.image_hw[self._rows].T
        self.portrait = width < height

    def _chosen(self):
        """Image rows of an epoch, in the file's order, `times` over."""
        cfg, rows = self._cfg, np.arange(len(self._index.image_ids))
        if self._train and not cfg.test_mode:
            empty, small = left_out(self._index, self.labels_of, cfg.filter_cfg)
            rows = np.flatnonzero(~empty & ~small)
        return np.tile(rows[positions_of(cfg.indices, len(rows))], cfg.times)

    @property
    def category_ids(self) -> torch.Tensor:
        """int64 [classes]: the category id of each class, as the annotation file has it."""
        ids = {label: category for category, label in self.labels_of.items()}
        return torch.tensor([ids.get(label, -1) for label in range(len(self.names))])

    def collate(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        """A batch: images uint8 [B, 3, H, W], padded right and below; lists of B dicts.

        samples: boxes, labels, masks bool [n, H, W] and img_shape of each image (training)
        metas:   img_shape, ori_shape, scale_factor of each
        image_ids: a list; skipped: the fault lines of all samples
        An evaluation's batch lacks the samples that could not be read, whose image ids are in
        `left_out`; B may be 0.
        """
        faults, left_out, samples = fault_lines(samples), unusable_ids(samples), usable(samples)
        images = padded_images(samples, self._divisor)
        height, width = images.shape[2:]
        truths = []
        for sample in samples:
            h, w = sample["img_shape"]
            if "masks" in sample:
                masks = torch.zeros(len(sample["masks"]), height, width, dtype=torch.bool)
                masks[:, :h, :w] = sample["masks"]
                truths.append({"boxes": sample["boxes"], "labels": sample["labels"],
                               "masks": masks, "img_shape": sample["img_shape"]})
        return {
            "images": images,
            "samples": truths,
            "metas": [{key: sample[key] for key in METAS} for sample in samples],
            "image_ids": [sample["image_id"] for sample in samples],
            "skipped": faults,
            "left_out": left_out,
        }

    @functools.cached_property
    def largest_size(self) -> tuple[int, int]:
        """(h, w) that holds every image of a training batch, px; found by drawing, so that what
        only a rare draw makes may be a little larger."""
        rng = np.random.RandomState(0)
        spread = np.linspace(0, len(self._rows) - 1, min(len(self._rows), MOST_DRAWN)).astype(int)
        sizes = self._index.image_hw[self._rows[spread]].tolist()
        drawn = np.array([sample_geometry(self._cfg.transforms, (width, height), rng).size
                          for height, width in sizes for _ in range(DRAWS)])
        # batches are upright or wide: the one with more pixels
        wide = drawn[:, 0] >= drawn[:, 1]
        limits = [drawn[part].max(0).tolist() for part in (wide, ~wide) if part.any()]
        width, height = max(limits, key=lambda sides: sides[0] * sides[1])
        return self._padded(height), self._padded(width)

    def largest_batch(self, count: int) -> dict[str, Any]:
        """A training batch of `count` images of `largest_size` with as many objects as any."""
        sample = self[SampleKey(0, 0, self._fullest())]
        height, width = self.largest_size
        masks = torch.zeros(len(sample["masks"]), height, width, dtype=torch.bool)
        inside = sample["masks"][:, :height, :width]
        masks[:, :inside.shape[1], :inside.shape[2]] = inside
        image = torch.zeros(3, height, width, dtype=torch.uint8)
        return self.collate([sample | {"image": image, "masks": masks,
                                       "img_shape": (height, width)}] * count)

    def _padded(self, side):
        return -(-side // self._divisor) * self._divisor

    def _sample(self, row, image, rng):
        return self._transformed(row, image, self._cfg.transforms, rng, truth=self._train)

    def _transformed(self, row, image, transforms, rng, truth):
        height, width = image.shape[:2]
        sample, geometry = transformed_image(image, transforms, rng)
        sample["image_id"] = int(self._index.image_ids[row])
        return sample | self._objects(row, (width, height), geometry) if truth else sample

    def _objects(self, row, size, geometry):
        index = self._index
        own = index.annotations_of(row)
        annotations = np.arange(own.start, own.stop)
        annotations = annotations[self._usable(annotations, size)]
        corners = index.boxes[annotations].astype(np.float64)
        corners[:, 2:] += corners[:, :2]
        boxes, kept = geometry.boxes(corners)
        annotations = annotations[kept]
        masks = np.zeros((len(annotations), *geometry.size[::-1]), np.uint8)
        for annotation, out in zip(annotations.tolist(), masks, strict=True):
            annotation_mask(index, annotation, geometry, out)
        return {
            "boxes": torch.from_numpy(boxes.astype(np.float32)),
            "labels": torch.from_numpy(self._labels[annotations]),
            "masks": torch.from_numpy(masks.view(bool)),
        }

    def _usable(self, annotations, size):
        """bool [n]: the annotations of an image that are objects to learn."""
        index = self._index
        boxes = index.boxes[annotations].astype(np.float64).reshape(-1, 4)
        sides = boxes[:, 2:]
        first = np.maximum(boxes[:, :2], 0)
        last = np.minimum(boxes[:, :2] + sides, size)
        return (
            (self._labels[annotations] >= 0)
            & ~index.ann_crowd[annotations]
            & ~index.ann_ignored[annotations]
            # differs: the original goes by the file's word and leaves out an object of area 0,
            # whatever its mask; here a mask that has pixels counts [queryinst.md: Data]
            # Way back: none, `"ignore": 1` in the file leaves an object out.
            & (index.ann_areas[annotations] > 0)
            & (sides >= MIN_SIDE_PX).all(1)
            & (last > first).all(1)
        )


def positions_of(indices: tuple[int, ...] | int | None, count: int) -> Any:
    """What takes a data set's `indices` out of an array of `count` rows.

    Raises InputError for a position that there is not.
    """
    if indices is None:
        return slice(None)
    if isinstance(indices, int):
        return slice(indices) if indices >= 0 else slice(indices, None)
    beyond = [i for i in indices if not -count <= i < count]
    if beyond:
        raise InputError(f"dataset.indices names image {beyond[0]}, and there are {count}, counted "
                         "from 0")
    return np.array(indices, np.int64)


def transformed_image(image: np.ndarray, transforms: Sequence[Any], rng: Any) -> tuple[Any, Any]:
    """(sample of an image, uint8 [h, w, 3] BGR; the geometry that `transforms` made of it).

    The sample has image, uint8 [3, h, w] RGB, and the METAS. rng: None where all steps are fixed
    """
    height, width = image.shape[:2]
    geometry = sample_geometry(transforms, (width, height), rng)
    planes = np.empty((3, *geometry.size[::-1]), np.uint8)
    cv2.split(geometry.image(image), [planes[2], planes[1], planes[0]])  # BGR to RGB
    return {
        "image": torch.from_numpy(planes),
        "img_shape": geometry.size[::-1],
        "ori_shape": (height, width),
        "scale_factor": geometry.factors,
    }, geometry


def padded_images(samples: Sequence[dict[str, Any]], divisor: int) -> torch.Tensor:
    """The samples' images, uint8 [B, 3, H, W], padded with 0 to multiples of `divisor`."""
    height, width = (-(-max((sample["img_shape"][axis] for sample in samples), default=0)
                       // divisor) * divisor for axis in (0, 1))
    images = torch.zeros(len(samples), 3, height, width, dtype=torch.uint8)
    for out, sample in zip(images, samples, strict=True):
        h, w = sample["img_shape"]
        out[:, :h, :w] = sample["image"]
    return images


def network_input(batch: dict[str, Any], device: torch.device, cfg: Any) -> torch.Tensor:
    """The images of a batch as the network takes them, float32 [B, 3, H, W], on `device`.

    cfg: a config's data_preprocessor: mean and std of the channels as the network takes them, which
         are R, G, B, or B, G, R. Padding is pad_value after normalising.
    """
    images = batch["images"].to(device, non_blocking=True).float()
    if not cfg.bgr_to_rgb:
        images = images.flip(1)
    # a blocking copy would wait for the device
    mean, std = torch.tensor([cfg.mean, cfg.std]).to(device, non_blocking=True).view(2, 3, 1, 1)
    images = (images - mean) / std
    for image, meta in zip(images, batch["metas"], strict=True):
        height, width = meta["img_shape"]
        image[:, height:] = cfg.pad_value
        image[:, :, width:] = cfg.pad_value
    return images
