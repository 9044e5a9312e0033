"""Label maps of images: the original's pictures, PNGs with a palette, and a legend."""

import csv
import io
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data.loading.decode import read_rgb
from data.predicting import RGB, Reader
from data.segmentation.ade20k import class_colors, class_names, color_encode
from data.segmentation.batches import scaled_images
from data.segmentation.lists import exif_turn
from data.segmentation.pictures import class_shares
from runtime.files import write_atomically, write_text
from runtime.pictures import draw_legend, save_image
from runtime.predicting import Item, Plan
from runtime.predicting.outputs import picture_names

LABEL_MAPS = "label_maps"  # folder in that of the pictures
CLASSES, LEGEND = "classes.csv", "legend.png"
COLUMNS = ("value", "name", "red", "green", "blue", "pixels", "percent")
LEGEND_PX = 640
MOST_8_BIT = 255  # classes whose values, 0 being unlabelled, 8 bits hold


def reader_of(dataset_cfg: Any) -> Reader:
    """How DATASET has images read."""
    return RGB._replace(read=partial(read_rgb, turn=exif_turn(dataset_cfg)))


def photo_item(image: Image.Image, dataset_cfg: Any) -> dict[str, Any]:
    """An image as `eval_item` gives it: `img_data`, a list of [1, 3, H, W], and `size` (h, w)."""
    return {"img_data": scaled_images(image, dataset_cfg), "size": image.size[::-1]}


class LabelMaps:
    """`Results` of segmentation: a class map [h, w] for each image.

    dataset_cfg: the DATASET section, for classes and colours
    log:         called with the original's lines on each image

    A picture is [image | prediction in the original's colours], as test.py writes it; a frame has
    the colours laid over it. label_maps/ has the classes of each image as the data sets do: PNG,
    value 1 for the first class, in the same colours. classes.csv says which value, name and colour
    belong together and how many pixels had it; legend.png shows those that were found.
    """

    def __init__(self, dataset_cfg: Any, log: Callable[[str], object] = lambda line: None):
        self._names, self._log = class_names(dataset_cfg), log
        self._colours = class_colors(len(self._names))
        self._counts = np.zeros(len(self._names), np.int64)
        self._files: list[str] = []

    def add(self, item: Item, found: np.ndarray) -> None:
        """Count the classes of an image's map and say their shares."""
        self._counts += np.bincount(found.ravel(), minlength=len(self._names))
        if item.name:
            shares = class_shares(found, self._names)
            self._log("\n".join([f"Predictions in [{item.path}]:", *shares]))

    def draw(self, pixels: np.ndarray, found: np.ndarray, is_frame: bool) -> np.ndarray:
        """The picture of an image; of a frame one of its size."""
        colours = color_encode(found, self._colours)
        if is_frame:
            return (0.5 * pixels + 0.5 * colours).astype(np.uint8)
        return np.concatenate([pixels, colours], axis=1)

    def save_beside(self, plan: Plan, item: Item, found: np.ndarray) -> None:
        """Write the label map. Raises SaveError."""
        if not self._files:
            self._files = picture_names(plan.names)  # those of pictures may differ in suffix alone
        write_label_map(plan.folder / LABEL_MAPS / self._files[item.number], found, self._colours)

    def collected(self) -> np.ndarray:
        """What `merge` takes."""
        return self._counts

    def merge(self, other: np.ndarray) -> None:
        """Add what another rank has counted."""
        self._counts += other

    def save(self, plan: Plan) -> list[str]:
        """Write classes.csv and legend.png. Raises SaveError."""
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(COLUMNS)
        shares = 100 * self._counts / max(1, self._counts.sum())
        rows = zip(self._names, self._colours.tolist(), self._counts.tolist(), shares, strict=True)
        for value, (name, colour, count, share) in enumerate(rows, 1):
            table.writerow((value, name, *colour, count, f"{share:.3f}"))
        write_text(plan.folder / CLASSES, text.getvalue())
        found = [i for i in np.argsort(-self._counts, kind="stable") if self._counts[i]]
        entries = [(f"{self._names[i]}, {shares[i]:.1f} %", tuple(self._colours[i].tolist()))
                   for i in found]
        save_image(draw_legend(entries, LEGEND_PX), plan.folder / LEGEND)
        beside = [] if plan.inputs.video else [f"{LABEL_MAPS}/"]
        return [*beside, CLASSES, LEGEND]


def write_label_map(path: Path, found: np.ndarray, colours: np.ndarray) -> None:
    """A class map [h, w] as PNG: values are class + 1, 0 is none's; 8 bits with the colours as
    palette, [C, 3] uint8, or 16 bits without for more than MOST_8_BIT classes. Raises SaveError.
    """
    if len(colours) > MOST_8_BIT:
        image = Image.fromarray((found + 1).astype(np.uint16))
    else:
        image = Image.fromarray((found + 1).astype(np.uint8))
        image.putpalette([0, 0, 0, *colours.ravel().tolist()])
    encoded = io.BytesIO()
    image.save(encoded, "PNG")
    write_atomically(path, lambda file: file.write(encoded.getvalue()))
