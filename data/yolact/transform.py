"""YOLACT's transform of an image with its instances, for training and for evaluation.

Source: [yolact.md: Augmentation]; SSD, arXiv:1512.02325, section 2.2.
"""

from typing import Any

import numpy as np

from data.yolact.geometry import CanvasCrop, whole_image
from data.yolact.pixels import Normalisation, render
from data.yolact.sampling import Photometric, sample_geometry, sample_photometric
from settings.yolact_recipes import as_yolact_config


class YolactTransform:
    """Distort, expand, crop, mirror and resize (train), or resize only; then normalise.

    cfg: the network's config, its name or its path; of it are used max_size, discard_box_width,
         discard_box_height, augment_photometric_distort, augment_expand,
         augment_random_sample_crop, augment_random_mirror and backbone.transform
    train: take the random steps that the config does not switch off
    """

    def __init__(self, cfg: Any, train: bool = False):
        self._cfg = as_yolact_config(cfg)
        self._train = train
        self._norm = Normalisation.of(self._cfg.backbone.transform)

    def __call__(
        self,
        image: np.ndarray,
        masks: np.ndarray,
        boxes: np.ndarray,
        labels: np.ndarray,
        num_crowds: int,
        rng: np.random.RandomState | None = None,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int]:
        """The sample as the network takes it.

        image:  uint8 [H, W, 3], BGR
        masks:  uint8 [n, H, W] of 0 and 1
        boxes:  [n, 4] xyxy, fractions of the image
        labels: [n], 0-based classes, -1 for crowds
        num_crowds: part of the original's interface; counted anew, from the labels that are left
        rng:    where the random numbers come from; None: NumPy's global state, as the original
        Returns image float32 [3, S, S], RGB unless the backbone says BGR, normalised; masks uint8,
        [k, S, S] in training and [k, H, W] in evaluation; boxes relative, float64 [k, 4]; labels
        [k]; the number of crowds among them.
        Raises ValueError when masks, boxes and labels differ in number.
        """
        image, masks, labels = np.asarray(image), np.asarray(masks), np.asarray(labels)
        boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
        height, width = image.shape[:2]
        if not len(labels) == len(boxes) == len(masks):
            raise ValueError(f"{len(boxes)} boxes, {len(labels)} labels, {len(masks)} masks")
        boxes_px = boxes * (width, height, width, height)
        geometry, photometric, kept, boxes = self.sample(rng, (height, width), boxes_px, labels)
        masks = masks.astype(np.uint8, copy=False)[kept]
        if self._train:
            resized = np.empty((len(masks), geometry.size, geometry.size), np.uint8)
            for mask, out in zip(masks, resized, strict=True):
                out[:] = geometry.bitmap(mask)
            masks = resized
        labels = labels[kept]
        num_crowds = int((labels < 0).sum())
        return self.render(image, geometry, photometric), masks, boxes, labels, num_crowds

    def sample(
        self, rng: Any, hw: tuple[int, int], boxes_px: np.ndarray, labels: np.ndarray
    ) -> tuple[CanvasCrop, Photometric, np.ndarray, np.ndarray]:
        """What is chosen for a sample: geometry, photometric, kept bool [n], relative boxes [k, 4].

        boxes_px: float64 [n, 4] xyxy in pixels of an image of size hw; labels: [n]
        """
        cfg = self._cfg
        if not self._train:
            geometry, photometric = whole_image(*hw, cfg.max_size), Photometric()
            boxes = boxes_px / (hw[::-1] * 2)
            # parity: the same test as below, on relative boxes, step 8 of [yolact.md: Augmentation]
            kept = self._large_enough(boxes)
            return geometry, photometric, kept, boxes[kept]
        rng = np.random if rng is None else rng
        photometric = sample_photometric(rng) if cfg.augment_photometric_distort else Photometric()
        geometry, kept = sample_geometry(rng, cfg, hw, boxes_px, labels)
        boxes = geometry.boxes(boxes_px[kept])
        # parity: a limit meant for relative boxes, applied to pixels [yolact.md: Augmentation]
        large = self._large_enough(boxes)
        kept[kept] = large
        return geometry, photometric, kept, boxes[large] / cfg.max_size

    def render(
        self, image: np.ndarray, geometry: CanvasCrop, photometric: Photometric
    ) -> np.ndarray:
        """The image, uint8 [H, W, 3] BGR, as float32 [3, S, S] under these choices."""
        return render(image, geometry, photometric, self._norm)

    def photo(self, image: np.ndarray) -> dict[str, Any]:
        """An image, uint8 [H, W, 3] BGR, of which no objects are known, as evaluation has it.

        Returns `image`, float32 [3, S, S], and `size`, (H, W).
        """
        geometry, photometric = whole_image(*image.shape[:2], self._cfg.max_size), Photometric()
        return {"image": self.render(image, geometry, photometric), "size": image.shape[:2]}

    def _large_enough(self, boxes):
        width, height = (boxes[:, 2:] - boxes[:, :2]).T
        return (width > self._cfg.discard_box_width) & (height > self._cfg.discard_box_height)
