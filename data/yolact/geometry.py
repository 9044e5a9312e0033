"""The way of a YOLACT picture over canvas, crop and mirroring to its final size: one mapping."""

from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True)
class CanvasCrop:
    """From the source image over a larger canvas, a crop of it and a mirroring to size x size.

    All in pixels; left, top: where the canvas has the source's corner; crop: x0, y0, x1, y1 on the
    canvas; mirror: left and right are exchanged. A `Geometry` of data.coco_format.masks.
    """

    height: int
    width: int
    canvas_height: int
    canvas_width: int
    left: int
    top: int
    crop: tuple[int, int, int, int]
    mirror: bool
    size: int

    @property
    def crop_size(self) -> tuple[int, int]:
        """Height and width of the crop."""
        x0, y0, x1, y1 = self.crop
        return y1 - y0, x1 - x0

    def points(self, xy: np.ndarray) -> np.ndarray:
        """[k, 2] source pixels -> [k, 2] output pixels, float64; may lie outside."""
        height, width = self.crop_size
        moved = xy + np.array([self.left - self.crop[0], self.top - self.crop[1]], np.float64)
        if self.mirror:
            moved[:, 0] = width - moved[:, 0]
        return moved * (self.size / width, self.size / height)

    def boxes(self, boxes_px: np.ndarray) -> np.ndarray:
        """[n, 4] xyxy in source pixels -> [n, 4] xyxy in output pixels, clipped to the crop."""
        height, width = self.crop_size
        x0, y0, x1, y1 = self.crop
        boxes = boxes_px + np.array([self.left, self.top] * 2, np.float64)
        boxes[:, :2] = np.maximum(boxes[:, :2], (x0, y0)) - (x0, y0)
        boxes[:, 2:] = np.minimum(boxes[:, 2:], (x1, y1)) - (x0, y0)
        if self.mirror:
            boxes[:, 0::2] = width - boxes[:, 2::-2]
        return boxes * ((self.size / width, self.size / height) * 2)

    def bitmap(self, mask: np.ndarray) -> np.ndarray:
        """A source mask, uint8 [h, w] of 0 and 1, as uint8 [S, S]."""
        top, left, window = self.visible(mask)
        if window.shape != self.crop_size:
            canvas = np.zeros(self.crop_size, np.uint8)
            canvas[top:top + window.shape[0], left:left + window.shape[1]] = window
            window = canvas
        return cv2.resize(np.ascontiguousarray(window), (self.size, self.size))

    def visible(self, source: np.ndarray) -> tuple[int, int, np.ndarray]:
        """(top, left, pixels): the part of the source inside the crop, mirrored; its place there.

        source: [h, w] or [h, w, c]
        """
        x0, y0, x1, y1 = self.crop
        columns = np.clip((x0 - self.left, x1 - self.left), 0, self.width).tolist()
        rows = np.clip((y0 - self.top, y1 - self.top), 0, self.height).tolist()
        window = source[slice(*rows), slice(*columns)]
        left = columns[0] + self.left - x0
        if self.mirror and window.size:
            left = x1 - x0 - left - window.shape[1]
            window = cv2.flip(np.ascontiguousarray(window), 1)
        return rows[0] + self.top - y0, left, window


def whole_image(height: int, width: int, size: int) -> CanvasCrop:
    """The geometry that only resizes."""
    return CanvasCrop(height, width, height, width, 0, 0, (0, 0, width, height), False, size)
