"""PIL's bilinear resize, bit for bit, in a third of its time where the size ratio repeats.

PIL resizes along x, rounds to 8 bits, then along y; its weights are integers of 22 bits. Enlarging,
each new row is w0 * one row + w1 * the next, and after some rows the same weights come again: 480
to 600 has 5 kinds of rows, 480 to 700 has 35. OpenCV blends all rows of a kind in one call, in
float32. That gives PIL's number as long as no blend lies nearer to a rounding boundary than the
float error, and exact ties are pushed to the side that PIL's own weights take; both are proven for
each kind before it is used. Any other resize is PIL's own.

Of a whole training batch's time, decoding included, this saves 34 % on CamVid (480x360, the
original's default sizes: benchmarks/seg_data.py) and 6 % on photos of COCO's many sizes, of which
one resize in four has a ratio that repeats.
"""

import functools
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

_ONE = 1 << 22  # PIL's 8-bit resampling counts weights in units of 2^-22
_MARGIN = 6e-5  # 4 units in the last place of a float32 below 256: two products and two sums
_ROWS_PER_CALL = 3  # a call costs about as much as PIL spends on two rows


class _Blend(NamedTuple):
    """Rows `out` of the result = alpha * rows `first` + beta * rows `second` + gamma, rounded."""

    out: slice
    first: slice
    second: slice | None  # None: the rows are copied
    alpha: float = 1.0
    beta: float = 0.0
    gamma: float = 0.0


def resize_planes(image: Image.Image, width: int, height: int) -> list[np.ndarray]:
    """R, G and B, each [height, width] uint8, of an RGB `image` resized as PIL's BILINEAR does."""
    columns, rows = _blends(image.width, width), _blends(image.height, height)
    if columns is None or rows is None:
        planes = _planes(image.resize((width, height), Image.Resampling.BILINEAR))
        return list(planes)
    # Along x the columns lie as rows: [w0, 3 h0], the channels side by side; then [h0, 3 w].
    standing = np.empty((image.width, 3 * image.height), np.uint8)
    for channel, plane in enumerate(_planes(image)):
        cv2.transpose(plane, dst=_part(standing, channel))
    standing = _blended(standing, columns, width)
    lying = np.empty((image.height, 3 * width), np.uint8)
    for channel in range(3):
        cv2.transpose(_part(standing, channel), dst=_part(lying, channel))
    lying = _blended(lying, rows, height)
    return [_part(lying, channel) for channel in range(3)]


def _planes(image):
    """[3, h, w] views of the picture's channels."""
    shape = (image.height, image.width)
    return (np.frombuffer(image.tobytes("raw", c), np.uint8).reshape(shape) for c in "RGB")


def _part(rows, channel):
    width = rows.shape[1] // 3
    return rows[:, channel * width : (channel + 1) * width]


def _blended(source, blends, length):
    if length == len(source):
        return source
    result = np.empty((length, source.shape[1]), np.uint8)
    for out, first, second, alpha, beta, gamma in blends:
        if second is None:
            result[out] = source[first]
        else:
            cv2.addWeighted(source[first], alpha, source[second], beta, gamma, dst=result[out])
    return result


@functools.lru_cache(maxsize=4096)
def _blends(length: int, new_length: int) -> tuple[_Blend, ...] | None:
    """How to resize `length` rows to `new_length`; None where PIL is to do it."""
    divisor = int(np.gcd(length, new_length))
    period, step = new_length // divisor, length // divisor
    if new_length < length or period * _ROWS_PER_CALL > new_length:
        return None
    firsts, weights = _pil_weights(length, new_length)
    blends = []
    for phase in range(period):
        rows = range(phase, new_length, period)
        # rows at the border, which lack a neighbour, have other weights than their kind
        for start, stop in _runs([(weights[row], firsts[row] - i * step)
                                  for i, row in enumerate(rows)]):
            count, row, first = stop - start, rows[start], firsts[rows[start]]
            blend = _proven(weights[row])
            if blend is None:
                return None
            out = slice(row, row + (count - 1) * period + 1, period)
            source = slice(first, first + (count - 1) * step + 1, step)
            if blend == (1.0, 0.0, 0.0):
                blends.append(_Blend(out, source, None))
            else:
                after = slice(source.start + 1, source.stop + 1, step)
                blends.append(_Blend(out, source, after, *blend))
    return tuple(blends)


def _runs(items):
    """(start, stop) of each stretch of equal items."""
    starts = [i for i in range(len(items)) if i == 0 or items[i] != items[i - 1]]
    return list(zip(starts, [*starts[1:], len(items)], strict=True))


def _pil_weights(length, new_length):
    """For each new row the first source row and the integer weights of it and the next.

    Written after Pillow's documented triangle filter: support 1 around (row + 0.5) * scale,
    weights normalised to sum 1, then rounded to multiples of 2^-22. Only for enlarging.
    """
    scale = length / new_length
    firsts, weights = [], []
    for row in range(new_length):
        centre = (row + 0.5) * scale
        first = max(0, int(centre - 0.5))
        stop = min(length, int(centre + 1.5))
        taps = [max(0.0, 1 - abs(i - centre + 0.5)) for i in range(first, stop)]
        whole = [int(0.5 + tap / sum(taps) * _ONE) for tap in taps]
        while whole[0] == 0:
            del whole[0]
            first += 1
        while whole[-1] == 0:
            del whole[-1]
        firsts.append(first)
        weights.append(tuple(whole))
    return firsts, weights


@functools.lru_cache(maxsize=4096)
def _proven(weights: tuple[int, ...]) -> tuple[float, float, float] | None:
    """(alpha, beta, gamma) that give PIL's rounding for every pair of 8-bit values, or None."""
    if sum(weights) != _ONE or len(weights) > 2:
        return None
    if len(weights) == 1:
        return 1.0, 0.0, 0.0
    # As the weights sum to one, a blend is b + w0 * (a - b): the difference alone decides.
    differences = np.arange(-255, 256)
    pil = (weights[0] * differences + _ONE // 2) >> 22
    share = weights[0] / _ONE
    for push in (0.0, 2e-6, -2e-6, 1e-5, -1e-5, 5e-5, -5e-5, 2e-4, -2e-4):
        for gamma in (0.0, 1e-3):
            # what the float32 weights really are
            alpha, beta = float(np.float32(share + push)), float(np.float32(1 - share - push))
            # alpha * a + beta * b = alpha * (a - b) + (alpha + beta) * b, b at its worst
            slack = abs(alpha + beta - 1) * 255
            blend = alpha * differences + gamma
            if (np.abs(blend - pil) <= 0.5 - _MARGIN - slack).all():
                return alpha, beta, gamma
    return None
