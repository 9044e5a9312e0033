"""Pixels and masks of a YOLACT sample, computed once at the final size from its draws."""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from data.yolact_draws import Geometry, Photometric

MEANS = (103.94, 116.78, 123.68)  # BGR, 0..255
STDS = (57.38, 57.12, 58.40)


@dataclass(frozen=True)
class Normalisation:
    """value * scale + shift for each of B, G, R; planes: where B, G, R go in the output."""

    scale: tuple[float, float, float]
    shift: tuple[float, float, float]
    planes: tuple[int, int, int]

    @classmethod
    def of(cls, transform: Any) -> "Normalisation":
        """transform: a backbone's, has normalize, subtract_means, to_float, channel_order."""
        scale, shift = np.ones(3), np.zeros(3)
        if transform.normalize:
            scale = 1 / np.array(STDS)
            shift = -np.array(MEANS) / STDS
        elif transform.subtract_means:
            shift = -np.array(MEANS)
        elif transform.to_float:
            scale = scale / 255
        planes = tuple("RGB".index(channel) for channel in "BGR")
        if transform.channel_order == "BGR":
            planes = (0, 1, 2)
        return cls(tuple(scale.tolist()), tuple(shift.tolist()), planes)


def render(
    image: np.ndarray, geometry: Geometry, photometric: Photometric, norm: Normalisation
) -> np.ndarray:
    """The network's input, float32 [3, S, S], from a source image, uint8 [h, w, 3] BGR.

    Equal, up to float32 rounding, to the original's chain: distort, paste on a canvas of the mean
    colour, crop, mirror, resize (bilinear), normalise. Only source pixels inside the crop are
    touched, and normalisation comes before the resize, as a linear map may.
    """
    size = geometry.size
    top, left, window = _visible(image, geometry)
    if window.shape[:2] == geometry.crop_size:
        out = np.empty((3, size, size), np.float32)
        planes = _distorted(window, photometric, norm.scale, norm.shift)
        for plane, channel in zip(planes, norm.planes, strict=True):
            cv2.resize(plane, (size, size), dst=out[channel])
        return out
    # The canvas around the image becomes zero and is added at the end, so it need not be made.
    out = np.zeros((3, size, size), np.float32)
    if window.size:
        shift = -np.array(MEANS) * norm.scale
        planes = _distorted(window, photometric, norm.scale, shift)
        for plane, channel in zip(planes, norm.planes, strict=True):
            _resize_surrounded(plane, top, left, geometry.crop_size, out[channel])
    fill = np.array(MEANS) * norm.scale + norm.shift
    if np.abs(fill).max() > 1e-6:
        out[list(norm.planes)] += fill[:, None, None].astype(np.float32)
    return out


def resize_bitmap(mask: np.ndarray, geometry: Geometry, out: np.ndarray) -> None:
    """A source mask, uint8 [h, w] of 0 and 1, into `out`, uint8 [S, S], contiguous."""
    top, left, window = _visible(mask, geometry)
    if window.shape != geometry.crop_size:
        canvas = np.zeros(geometry.crop_size, np.uint8)
        canvas[top:top + window.shape[0], left:left + window.shape[1]] = window
        window = canvas
    cv2.resize(np.ascontiguousarray(window), (geometry.size, geometry.size), dst=out)


def _visible(source, geometry):
    """(top, left, pixels): the part of the source inside the crop, mirrored; its place there."""
    x0, y0, x1, y1 = geometry.crop
    columns = np.clip((x0 - geometry.left, x1 - geometry.left), 0, geometry.width).tolist()
    rows = np.clip((y0 - geometry.top, y1 - geometry.top), 0, geometry.height).tolist()
    window = source[slice(*rows), slice(*columns)]
    left = columns[0] + geometry.left - x0
    if geometry.mirror and window.size:
        left = x1 - x0 - left - window.shape[1]
        window = cv2.flip(np.ascontiguousarray(window), 1)
    return rows[0] + geometry.top - y0, left, window


def _distorted(window, photometric, scale, shift):
    """Three float32 planes B, G, R: the distorted colours * scale + shift, never clipped."""
    values = (np.arange(256) + photometric.brightness) * photometric.contrast
    changes_hsv = photometric.saturation != 1 or photometric.hue != 0
    # To HSV and back changes nothing, unless brightness made a pixel's largest value negative:
    # OpenCV divides by its magnitude, which turns the colour round.
    if not changes_hsv and photometric.brightness >= 0:
        table = (values[:, None] * scale + shift).astype(np.float32)
        return cv2.split(cv2.LUT(window, table.reshape(1, 256, 3)))
    hsv = cv2.cvtColor(cv2.LUT(window, values.astype(np.float32)), cv2.COLOR_BGR2HSV)
    if changes_hsv:
        # H runs from 0 to 360 and OpenCV takes it modulo 360, but not below 0.
        hue = photometric.hue + 360 * (photometric.hue < 0)
        change = np.array([[1, 0, 0, hue], [0, photometric.saturation, 0, 0], [0, 0, 1, 0]])
        hsv = cv2.transform(hsv, change)
    planes = cv2.split(cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR))
    for plane, factor, offset in zip(planes, scale, shift, strict=True):
        np.multiply(plane, np.float32(factor), out=plane)
        np.add(plane, np.float32(offset), out=plane)
    return planes


def _resize_surrounded(plane, top, left, crop_size, out):
    """cv2.resize of a crop_size array of zeros that holds `plane` at top, left, into `out`.

    Rows are interpolated here, and only those that meet the plane; OpenCV does the columns.
    out: float32 [S, S], zero
    """
    crop_height, crop_width = crop_size
    size = len(out)
    at = (np.arange(size) + 0.5) * (crop_height / size) - 0.5
    upper = np.floor(at)
    weight = at - upper
    upper = upper.astype(np.int64)
    lower = np.clip(upper + 1, 0, crop_height - 1) - top
    upper = np.clip(upper, 0, crop_height - 1) - top
    upper_inside, lower_inside = ((0 <= row) & (row < len(plane)) for row in (upper, lower))
    touched = np.flatnonzero(upper_inside | lower_inside)
    if not len(touched):
        return  # the plane lies between two rows of samples
    rows = slice(int(touched[0]), int(touched[-1]) + 1)
    wide = np.zeros((rows.stop - rows.start, crop_width), np.float32)
    inner = wide[:, left:left + plane.shape[1]]
    last = len(plane) - 1
    upper_weight = ((1 - weight) * upper_inside)[rows, None].astype(np.float32)
    lower_weight = (weight * lower_inside)[rows, None].astype(np.float32)
    np.multiply(plane[np.clip(upper[rows], 0, last)], upper_weight, out=inner)
    inner += plane[np.clip(lower[rows], 0, last)] * lower_weight
    cv2.resize(wide, (size, len(wide)), dst=out[rows])
