"""Masks of a COCO index as pixels of a sample, whatever was done to the sample's picture."""

from typing import NamedTuple, Protocol

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from data.coco_format.index import CocoIndex


class Geometry(Protocol):
    """What happens to a picture on its way into a sample, for what lies on the picture.

    Each family has its own; it says where points go, and makes bitmaps go the way of the pixels.
    """

    def points(self, xy: np.ndarray) -> np.ndarray:
        """[k, 2] source pixels to [k, 2] result pixels, float64; may lie outside."""

    def bitmap(self, mask: np.ndarray) -> np.ndarray:
        """uint8 [h, w] of 0 and 1 of the source to that of the result."""


class Resized(NamedTuple):
    """To another size, sizes as (w, h): bilinear for images, the nearest pixel for bitmaps."""

    old: tuple[int, int]
    size: tuple[int, int]

    @property
    def factors(self) -> tuple[float, float]:
        return self.size[0] / self.old[0], self.size[1] / self.old[1]

    def image(self, pixels: np.ndarray) -> np.ndarray:
        return cv2.resize(pixels, self.size, interpolation=cv2.INTER_LINEAR)

    def bitmap(self, mask: np.ndarray) -> np.ndarray:
        return cv2.resize(mask, self.size, interpolation=cv2.INTER_NEAREST)

    def points(self, xy: np.ndarray) -> np.ndarray:
        return xy * self.factors


def annotation_mask(
    index: CocoIndex, annotation: int, geometry: Geometry, out: np.ndarray
) -> None:
    """The mask of an annotation row under the geometry, into `out`, uint8 [h, w] of zeros.

    Polygons are moved and rasterised once, at the final size; run lengths become a bitmap that goes
    the way of the image.
    differs: the originals make a bitmap of the source's size for each and resize that
    [yolact.md: Augmentation]. Way back: none, they differ by pixels of the edge.
    """
    if index.is_rle(annotation):
        out[:] = geometry.bitmap(index.rle_mask(annotation))
    else:
        rasterise([geometry.points(polygon) for polygon in index.polygons(annotation)], out)


def rasterise(polygons: list[np.ndarray], out: np.ndarray) -> None:
    """Set to 1 the pixels of `out`, uint8 [h, w], that lie in any of the polygons, [k, 2] each.

    Done by pycocotools, as the ground truth of an evaluation is, but only in the window that the
    polygons span: most objects are small.
    """
    corners = np.concatenate(polygons)
    left, top = np.maximum(np.floor(corners.min(0)), 0).astype(int).tolist()
    right, bottom = np.minimum(np.ceil(corners.max(0)), out.shape[::-1]).astype(int).tolist()
    if left >= right or top >= bottom:
        return
    moved = [(polygon - (left, top)).ravel() for polygon in polygons]
    runs = coco_mask.merge(coco_mask.frPyObjects(moved, bottom - top, right - left))
    out[top:bottom, left:right] = coco_mask.decode(runs)
