"""Instances found on images: COCO's results with the names of the classes, and pictures."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as rle_codec

from data.coco_format.rle import encode_mask
from runtime.files import write_text
from runtime.pictures import draw_instances, fitting_font, instance_colours, surest, with_note
from runtime.predicting import Item, Plan
from settings.datasets import COCO_CLASSES, COCO_IDS

RESULTS, IMAGES = "predictions.json", "images.json"


def category_ids(names: Sequence[str], label_map: Mapping[int, int] | None) -> list[int]:
    """The COCO id of each class, from {category id: 1-based class}; of several ids the lowest.

    Without a map COCO's own for its 80 classes, else 1, 2, 3, ...
    """
    if label_map is None:
        return list(COCO_IDS if tuple(names) == COCO_CLASSES else range(1, len(names) + 1))
    ids = {label: category for category, label in sorted(label_map.items(), reverse=True)}
    return [ids.get(label, -label) for label in range(1, len(names) + 1)]


def compact(size: tuple[int, int], parts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """What is found on an image of `size` (h, w), small: numpy arrays, masks as run-length codes.

    parts: dicts of tensors, some instances each, at least one dict: boxes [n, 4] xyxy pixels,
           scores [n], labels [n] 0-based classes, masks [n, h, w] bool; mask_scores [n] where
           masks have scores of their own. A part is let go before the next one is asked for
    """
    small: dict[str, list[np.ndarray]] = {}
    rles: list[dict[str, Any]] = []
    for part in parts:
        rles += [encode_mask(mask.cpu().numpy()) for mask in part["masks"]]
        for name, value in part.items():
            if name != "masks":
                small.setdefault(name, []).append(value.cpu().numpy())
    found = {name: np.concatenate(pieces) for name, pieces in small.items()}
    return {"mask_scores": found["scores"], **found, "rles": rles, "size": tuple(size)}


class InstanceResults:
    """`Results` of instances.

    dataset:      class_names, in order; label_map as `category_ids` takes it
    shown_score:  what has a lower one is not drawn
    log:          called with a line of what an image holds

    predictions.json is a list as COCO's tools take it, with image_id, category_id, bbox (x, y, w,
    h in pixels), segmentation (size, counts) and score, and beside them category_name, file_name
    and, where the network rates masks by themselves, mask_score. What has a box without area is
    left out, as by an evaluation. images.json says which images and categories the ids mean.
    """

    def __init__(
        self, dataset: Any, shown_score: float, log: Callable[[str], object] = lambda line: None
    ):
        names = dataset.class_names
        self._names, self._shown_score, self._log = names, shown_score, log
        self._category_ids = category_ids(names, dataset.label_map)
        self._colours = instance_colours(max(1, len(names)))
        self._images: list[dict[str, Any]] = []
        self._found: list[tuple[int, list[str]]] = []  # number of the image, lines of JSON

    def add(self, item: Item, found: dict[str, Any]) -> None:
        """Take what `compact` gives for an image."""
        height, width = found["size"]
        self._images.append({"id": item.image_id, "file_name": item.path, "height": height,
                             "width": width, "number": item.number})
        lines = [json.dumps(one) for one in self._written(item, found)]
        self._found.append((item.number, lines))
        shown = int((found["scores"] >= self._shown_score).sum())
        if item.name:
            self._log(f"{item.path}: {shown} of score {self._shown_score:g} and above")

    def draw(self, pixels: np.ndarray, found: dict[str, Any], is_frame: bool) -> np.ndarray:
        """The image with its surest instances; a frame's colours are its classes'."""
        enough = found["scores"] >= self._shown_score
        order = [i for i in surest(found["scores"]) if enough[i]]
        labels, scores = found["labels"][order], found["scores"][order]
        masks = [rle_codec.decode(found["rles"][i]) for i in order]
        size = pixels.shape[:2]
        picture = draw_instances(
            pixels, found["boxes"][order], np.array(masks).reshape(-1, *size),
            [f"{self._names[label]} {score:.2f}"
             for label, score in zip(labels, scores, strict=True)],
            [self._colours[label] for label in labels] if is_frame else None, is_frame)
        more = int(enough.sum())
        if is_frame or more == len(order):
            return picture
        return with_note(picture, f"the {len(order)} surest of {more}",
                         fitting_font(*picture.shape[:2]))

    def save_beside(self, plan: Plan, item: Item, found: dict[str, Any]) -> None:
        """Nothing: all data are in one file."""

    def collected(self) -> tuple[list, list]:
        """What `merge` takes."""
        return self._images, self._found

    def merge(self, other: tuple[list, list]) -> None:
        """Add what another rank has collected."""
        self._images += other[0]
        self._found += other[1]

    def save(self, plan: Plan) -> list[str]:
        """Write both files. Raises SaveError."""
        lines = [line for _, lines in sorted(self._found, key=lambda each: each[0])
                 for line in lines]
        text = "[" + ",\n".join(lines) + "]\n"
        write_text(plan.folder / RESULTS, text)
        images = [{key: value for key, value in image.items() if key != "number"}
                  for image in sorted(self._images, key=lambda image: image["number"])]
        categories = [{"id": category, "name": name}
                      for category, name in zip(self._category_ids, self._names, strict=True)]
        content = {"images": images, "categories": categories}
        write_text(plan.folder / IMAGES, json.dumps(content, indent=1) + "\n")
        return [RESULTS, IMAGES]

    def _written(self, item, found):
        columns = (found["boxes"].tolist(), found["scores"].tolist(), found["labels"].tolist(),
                   found["mask_scores"].tolist(), found["rles"])
        for (x, y, right, bottom), score, label, mask_score, rle in zip(*columns, strict=True):
            if (right - x) * (bottom - y) <= 0:
                continue
            one = {"image_id": item.image_id, "category_id": int(self._category_ids[label]),
                   "category_name": self._names[label], "bbox": [x, y, right - x, bottom - y],
                   "score": score, "segmentation": {"size": list(rle["size"]),
                                                    "counts": rle["counts"].decode()},
                   "file_name": item.path}
            yield one | {"mask_score": mask_score} if mask_score != score else one
