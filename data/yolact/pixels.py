"""Pixels of a YOLACT sample, computed once, at the final size."""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from data.yolact.geometry import CanvasCrop
from data.yolact.sampling import Photometric
from settings.datasets import YOLACT_MEANS as MEANS
from settings.datasets import YOLACT_STDS as STDS

STRIP_PIXELS = 1 << 14  # two float32 strips of three channels: 400 kB


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
    image: np.ndarray, geometry: CanvasCrop, photometric: Photometric, norm: Normalisation
) -> np.ndarray:
    """The network's input, float32 [3, S, S], from a source image, uint8 [h, w, 3] BGR.

    Equal, up to float32 rounding, to the original's chain: distort, paste on a canvas of the mean
    colour, crop, mirror, resize (bilinear), normalise. Only source pixels inside the crop are
    touched, and normalisation comes before the resize, as a linear map may.
    """
    size = geometry.size
    top, left, window = geometry.visible(image)
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
        rows, wide = _stretch_rows(planes, top, left, geometry)
        for plane, channel in zip(wide, norm.planes, strict=True):
            if len(plane):
                cv2.resize(plane, (size, len(plane)), dst=out[channel, rows])
    fill = np.array(MEANS) * norm.scale + norm.shift
    if np.abs(fill).max() > 1e-6:
        out[list(norm.planes)] += fill[:, None, None].astype(np.float32)
    return out


def _distorted(window, photometric, scale, shift):
    """float32 [3, h, w], planes B, G, R: the distorted colours * scale + shift, never clipped.

    The window goes through in strips of rows, which stay in the processor's cache.
    """
    height, width = window.shape[:2]
    planes = np.empty((3, height, width), np.float32)
    strip_rows = min(height, max(1, STRIP_PIXELS // width))
    buffers = np.empty((2, strip_rows, width, 3), np.float32)
    values = (np.arange(256) + photometric.brightness) * photometric.contrast
    changes_hsv = photometric.saturation != 1 or photometric.hue != 0
    # To HSV and back changes nothing, unless brightness made a pixel's largest value negative:
    # OpenCV divides by its magnitude, which turns the colour round.
    if not changes_hsv and photometric.brightness >= 0:
        values = values[:, None] * scale + shift
        scale, shift, change = (1, 1, 1), (0, 0, 0), None
    else:
        # H runs from 0 to 360 and OpenCV takes it modulo 360, but not below 0.
        hue = photometric.hue + 360 * (photometric.hue < 0)
        change = np.array([[1, 0, 0, hue], [0, photometric.saturation, 0, 0], [0, 0, 1, 0]])
    table = np.ascontiguousarray(values.reshape(1, 256, -1), dtype=np.float32)
    for y in range(0, height, strip_rows):
        strip = window[y:y + strip_rows]
        colours, hsv = buffers[:, :len(strip)]
        cv2.LUT(strip, table, dst=colours)
        if change is not None:
            cv2.cvtColor(colours, cv2.COLOR_BGR2HSV, dst=hsv)
            cv2.transform(hsv, change, dst=colours)
            cv2.cvtColor(colours, cv2.COLOR_HSV2BGR, dst=hsv)
            colours = hsv
        strips = planes[:, y:y + strip_rows]
        cv2.split(colours, list(strips))
        if change is not None:
            for plane, factor, offset in zip(strips, scale, shift, strict=True):
                np.multiply(plane, np.float32(factor), out=plane)
                np.add(plane, np.float32(offset), out=plane)
    return planes


def _stretch_rows(planes, top, left, geometry):
    """Interpolate the rows of a crop that is zero except for `planes` at top, left.

    planes: float32 [3, h, w]
    Returns the output rows that meet the planes, a slice, and float32 [3, rows, crop width].
    """
    (crop_height, crop_width), size = geometry.crop_size, geometry.size
    height, width = planes.shape[1:]
    at = (np.arange(size) + 0.5) * (crop_height / size) - 0.5
    upper = np.floor(at)
    weight = (at - upper).astype(np.float32)
    lower = np.minimum(upper + 1, crop_height - 1).astype(np.intp) - top
    upper = np.maximum(upper, 0).astype(np.intp) - top
    upper_weight = (1 - weight) * ((upper >= 0) & (upper < height))
    lower_weight = weight * ((lower >= 0) & (lower < height))
    touched = np.flatnonzero((upper < height) & (lower >= 0))
    rows = slice(touched[0], touched[-1] + 1) if len(touched) else slice(0, 0)
    wide = np.zeros((3, rows.stop - rows.start, crop_width), np.float32)
    inner = wide[:, :, left:left + width]
    above = planes.take(upper[rows], axis=1, mode="clip")
    np.multiply(above, upper_weight[rows, None], out=inner)
    below = planes.take(lower[rows], axis=1, mode="clip")
    np.multiply(below, lower_weight[rows, None], out=below)
    inner += below
    return rows, wide
