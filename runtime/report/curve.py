"""A quantity over a run of any length, in a bounded number of points."""

from collections.abc import Sequence

import numpy as np

MOST_POINTS = 1000  # of a curve; more than a screen has columns for it


class Curve:
    """Values over the iterations; where they become too many, neighbours are put together.

    Each point keeps the mean, the least and the greatest of the values that it stands for, so that
    a peak of one update is never lost. Values that are no finite number count as missing.
    """

    def __init__(self, most_points: int = MOST_POINTS):
        self._most = most_points
        self._width = 1  # values of a whole point
        self._points = np.empty((0, 6))  # first and last iteration, mean, least, greatest, count
        self._rest = np.empty((0, 2))  # iteration and value, not yet in a point

    def add(self, iterations: Sequence[float], values: Sequence[float] | np.ndarray) -> None:
        """Further values, in the order of the run; missing ones are NaN."""
        new = np.array([iterations, values], float).T
        new[~np.isfinite(new[:, 1]), 1] = np.nan
        rest = np.concatenate([self._rest, new])
        whole = len(rest) // self._width * self._width
        points = np.concatenate([self._points, _grouped(_raw(rest[:whole]), self._width)])
        self._rest = rest[whole:]
        while len(points) > self._most:
            points = _grouped(points, 2)
            self._width *= 2
        self._points = points

    def points(self) -> np.ndarray:
        """[n, 5], n at most `most_points` + 1: first and last iteration, mean, least, greatest.

        NaN where all values of a point are missing.
        """
        last = _grouped(_raw(self._rest), self._width)
        return np.concatenate([self._points, last])[:, :5]

    def __len__(self) -> int:
        return len(self._points) + (len(self._rest) > 0)


def _raw(pairs: np.ndarray) -> np.ndarray:
    """A point [n, 6] of each pair [n, 2]."""
    x, y = pairs[:, 0], pairs[:, 1]
    return np.stack([x, x, y, y, y, np.isfinite(y).astype(float)], 1)


def _grouped(points: np.ndarray, width: int) -> np.ndarray:
    """`width` neighbours put together to one; the last may have fewer."""
    if width == 1 or not len(points):
        return points
    starts = np.arange(0, len(points), width)
    ends = np.append(starts[1:], len(points)) - 1
    count = np.add.reduceat(points[:, 5], starts)
    # fractions, because a sum of large values may overflow where their mean does not
    share = points[:, 5] / np.repeat(np.maximum(count, 1), np.diff(np.append(starts, len(points))))
    weighted = np.where(points[:, 5] > 0, points[:, 2], 0.0) * share
    mean = np.where(count > 0, np.add.reduceat(weighted, starts), np.nan)
    return np.stack([points[starts, 0], points[ends, 1], mean,
                     np.fmin.reduceat(points[:, 3], starts),
                     np.fmax.reduceat(points[:, 4], starts), count], 1)
