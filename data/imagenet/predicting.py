"""The surest classes of images: a table, and their names on pictures."""

import csv
import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from runtime.files import write_text
from runtime.pictures import draw_lines
from runtime.predicting import Item, Plan

TABLE = "predictions.csv"
COLUMNS = ("image_id", "file", "rank", "class", "name", "probability")
USUAL_K = 5

Found = list[tuple[int, float]]  # (class, probability), the surest first


def surest_classes(probabilities: Any, top_k: int | None, threshold: float = 0.0) -> list[Found]:
    """For each image its classes above `threshold`, the surest first; the surest one always.

    probabilities: [B, C] tensor, any device; top_k: at most so many, None: USUAL_K
    """
    count = min(top_k or USUAL_K, probabilities.shape[1])
    values, classes = probabilities.float().topk(count, dim=1)
    rows = zip(classes.tolist(), values.tolist(), strict=True)
    return [[pair for i, pair in enumerate(zip(*row, strict=True))
             if i == 0 or pair[1] > threshold] for row in rows]


def as_sample(image: Any, transform: Callable[[Any], Any]) -> dict[str, Any]:
    """What `transform` makes of an image."""
    return {"image": transform(image)}


class ClassResults:
    """`Results` of a classifier.

    names: of the classes; log: called with a line for each image

    predictions.csv has a row for each image and class, with the columns of COLUMNS; rank counts
    from 1, class from 0.
    """

    def __init__(
        self, names: Sequence[str], log: Callable[[str], object] = lambda line: None
    ):
        self._names, self._log = names, log
        self._rows: list[tuple[int, list[tuple]]] = []

    def add(self, item: Item, found: Found) -> None:
        """Take the classes of an image."""
        rows = [(item.image_id, item.path, rank, label, self._names[label], f"{probability:.6f}")
                for rank, (label, probability) in enumerate(found, 1)]
        self._rows.append((item.number, rows))
        if item.name:
            self._log(f"{item.path}: {', '.join(self._texts(found))}")

    def draw(self, pixels: np.ndarray, found: Found, is_frame: bool) -> np.ndarray:
        """The image with its classes and their probabilities at the top."""
        return draw_lines(pixels, self._texts(found), is_frame)

    def save_beside(self, plan: Plan, item: Item, found: Found) -> None:
        """Nothing: all data are in one file."""

    def collected(self) -> list:
        """What `merge` takes."""
        return self._rows

    def merge(self, other: list) -> None:
        """Add what another rank has collected."""
        self._rows += other

    def save(self, plan: Plan) -> list[str]:
        """Write the table. Raises SaveError."""
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(COLUMNS)
        for _, rows in sorted(self._rows, key=lambda each: each[0]):
            table.writerows(rows)
        write_text(plan.folder / TABLE, text.getvalue())
        return [TABLE]

    def _texts(self, found):
        return [f"{self._names[label]} {probability:.2f}" for label, probability in found]
