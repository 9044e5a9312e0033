"""What the labels of a segmentation set hold: counts, doubts, and a picture of samples."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from data.loading.photo_summary import absent_classes, class_table, imbalance
from data.segmentation.ade20k import class_colors, color_encode
from data.segmentation.pairs import JPEG, PALETTE, Label, read_pair
from data.segmentation.pictures import with_class_legend
from runtime.pictures import draw_grid, fitted, save_image, side_by_side

MOSTLY, NOTABLE = 0.5, 0.05  # shares of unlabelled pixels
SAMPLES = 12  # in the picture
TILE_PX = 240


def label_names(names: Sequence[str]) -> list[str]:
    """The classes' names behind the values that stand for them in label files, from 1 on."""
    return [f"label {i}" if name == f"class {i - 1}" else f"{i} {name}"
            for i, name in enumerate(names, start=1)]


class LabelCounts:
    """Values and forms of the label maps that were given to `add`.

    pixels, images: [256] int64: pixels of each value, and label maps that hold it
    """

    def __init__(self):
        self.pixels, self.images = np.zeros(256, np.int64), np.zeros(256, np.int64)
        self.maps, self._forms = 0, {}

    def add(self, label: Label, path: str) -> None:
        # OpenCV's histogram: a tenth of the time of numpy's bincount
        counts = cv2.calcHist([np.ascontiguousarray(label.values)], [0], None, [256], [0, 256])
        self.add_counts(counts.ravel().astype(np.int64), label.form, path)

    def add_counts(self, pixels: np.ndarray, form: str, path: str) -> None:
        """Count a label map by its histogram [256]."""
        self.pixels += pixels
        self.images += pixels > 0
        self.maps += 1
        count, example = self._forms.get(form, (0, path))
        self._forms[form] = count + 1, example

    @property
    def unlabelled_share(self) -> float:
        return self.pixels[0] / max(1, self.pixels.sum())

    def lines(self, names: Sequence[str]) -> list[str]:
        """A table of the classes, the unlabelled share and the imbalance."""
        pixels, images = (each[1 : len(names) + 1] for each in (self.pixels, self.images))
        return [
            *class_table(names, {"pixels": pixels, "images": images}),
            f"  unlabelled (0): {100 * self.unlabelled_share:.2f}% of all pixels, in "
            f"{self.images[0]} of {self.maps} labels; the shares above are of the labelled ones",
            *imbalance(names, pixels, "pixels"),
        ]

    def notes(self, source: str) -> list[str]:
        """What is read in another than the plain way, with certainty."""
        count, example = self._forms.get(PALETTE, (0, ""))
        if not count:
            return []
        return [f"{source}: {count} of {self.maps} labels are palette pictures, such as {example}: "
                "their indices are the labels, whatever the colours"]

    def warnings(self, source: str, names: Sequence[str]) -> dict[str, str]:
        """{kind: line} of what is legal but suspicious.

        source: the list; with how many labels were looked at, where these are not all
        """
        found = {}
        count, example = self._forms.get(JPEG, (0, ""))
        if count:
            found["jpeg"] = (
                f"{source}: {count} of {self.maps} labels are JPEG files, such as {example}: JPEG "
                "changes pixels, so that borders get values of other classes; make the labels "
                "anew as PNG (8-bit grey)"
            )
        num_class, share = len(names), self.unlabelled_share
        absent = absent_classes(names, self.pixels[1 : num_class + 1])
        lacks_last = self.pixels[num_class] == 0
        others_occur = num_class > 2 and self.pixels[:num_class].all()  # 0 to N - 1, then
        if share > MOSTLY or (lacks_last and (share > NOTABLE or others_occur)):
            last = (f"{names[-1]} of {num_class} is in none of {self.maps} labels, and "
                    if lacks_last else "")
            found["zero"] = (
                f"{source}: {last}0, which is unlabelled and ignored, covers {100 * share:.1f}% of "
                f"the pixels of {self.maps} labels: labels count from 1; if 0 is a class of yours "
                f"(background, for one), add 1 to every label{_class_count(self, num_class)}"
            )
        elif num_class == 1:
            found["zero"] = (
                f"{source}: with DATASET.num_class 1 every pixel is predicted as that class, as 0 "
                "is ignored; to find objects give the background a class of its own, 1 or 2"
            )
        if absent and not (lacks_last and "zero" in found and absent.startswith("1 of ")):
            found["absent"] = f"{source}: {absent} are in none of {self.maps} labels"
        return found


def _class_count(counts, num_class):
    """What num_class would be then."""
    needed = int(np.flatnonzero(counts.pixels).max()) + 1
    return f" and set DATASET.num_class {needed}" if needed > num_class else ""


def save_sample_grid(records, root: str, names: Sequence[str], turn: bool, path: Path) -> None:
    """Pairs of image and coloured label from all over the list, and the colours' names.

    names:   as `label_names` gives them
    records: a SegList whose files are known to be good. Raises SaveError.
    """
    colours = class_colors(len(names))
    chosen = np.unique(np.linspace(0, len(records) - 1, min(SAMPLES, len(records))).astype(int))
    pairs, maps = [], []
    for i in chosen:
        image, label = read_pair(records[int(i)], root, len(names), turn)
        values = label.values.astype(np.int64) - 1
        maps.append(values)
        pairs.append([fitted(each, TILE_PX, enlarge=True)
                      for each in (np.asarray(image), color_encode(values, colours))])
    per_row = 2 if len(pairs) > 1 else 1
    grid = draw_grid(side_by_side(pairs, per_row), ["image", "label"] * per_row)
    save_image(with_class_legend(grid, maps, names), path)
