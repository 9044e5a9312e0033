"""What a COCO evaluation counts: precision and recall by threshold, class, size and number.

Computed by hotcoco, whose tables are pycocotools' bit by bit, or without it by pycocotools.
"""

import contextlib
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from metrics.coco_package import fast_package

LIMITS = (1, 10, 100)  # pycocotools' own numbers of detections an image
THRESHOLDS = tuple(np.linspace(0.5, 0.95, 10).tolist())
AREAS = ("all", "small", "medium", "large")  # the last three: below 32^2 px, 96^2, above
_PARTS = ("precision", "scores", "recall")  # of both packages' results
RECALLS = np.linspace(0, 1, 101)  # at which precision is asked for


@dataclass(frozen=True)
class CocoTables:
    """Counts of one IoU type; -1 marks what no object defines.

    precision: [T, 101, K, 4, M] at T overlaps and the RECALLS, for K classes, the AREAS and M
               numbers of detections an image
    scores:    of the same shape, the score of the detection at which that recall is reached
    recall:    [T, K, 4, M], the greatest
    thresholds, category_ids, limits: the T overlaps, the K classes and the M numbers
    """

    precision: np.ndarray
    scores: np.ndarray
    recall: np.ndarray
    thresholds: tuple[float, ...]
    category_ids: tuple[int, ...]
    limits: tuple[int, ...]

    def mean(
        self, kind: str = "precision", *, threshold: float | None = None, area: str = "all",
        limit: int = -1, category: int | None = None,
    ) -> float:
        """The mean of what is defined, a fraction; NaN where nothing is.

        kind: "precision" or "recall"; threshold: an overlap, None: all of them
        limit: the place of a number of detections; category: the place of a class, None: all
        """
        table = {"precision": self.precision, "recall": self.recall}[kind]
        table = table[..., AREAS.index(area), limit]
        if category is not None:
            table = table[..., category]
        if threshold is not None:
            table = table[np.isclose(self.thresholds, threshold)]
        defined = table[table > -1]
        return float(defined.mean()) if defined.size else math.nan


def coco_tables(
    objects: list[dict[str, Any]], found: list[dict[str, Any]], sizes: Mapping[int, Any],
    category_ids: Sequence[int], iou_type: str, limits: Sequence[int] = LIMITS,
    thresholds: Sequence[float] = THRESHOLDS,
) -> CocoTables:
    """Match what was found with the objects, both as COCO annotations.

    sizes: {image id: (h, w) or None} of the images that count; category_ids: those that count
    limits: three numbers, ascending; thresholds: overlaps, ascending
    """
    given = tuple(thresholds), tuple(category_ids), tuple(limits)
    if not sizes or not category_ids:  # pycocotools takes an empty list for "all"
        empty = np.zeros([len(given[0]), 101, 0, 4, 3])
        return CocoTables(empty, empty, empty[:, 0], *given)
    what = objects, found, sizes, category_ids, iou_type, limits, thresholds
    package = fast_package()
    counts = _by_pycocotools(*what) if package is None else _by_hotcoco(package, *what)
    return CocoTables(*(np.asarray(counts[name]) for name in _PARTS), *given)


def _by_hotcoco(package, objects, found, sizes, category_ids, iou_type, limits, thresholds):
    # by their places: it takes no negative ids, and where scores are equal the order of ids counts
    images = {image_id: place for place, image_id in enumerate(sorted(sizes))}
    classes = {category_id: place for place, category_id in enumerate(sorted(category_ids), 1)}
    heads = [{"id": place, **_measures(sizes[image_id])} for image_id, place in images.items()]
    named = [{"id": place, "name": str(place)} for place in classes.values()]
    sides = []
    for annotations in (objects, found):
        known = [one for one in annotations if one["category_id"] in classes]
        sides.append(package.COCO({"images": heads, "categories": named, "annotations": [
            {**one, "image_id": images[one["image_id"]],
             "category_id": classes[one["category_id"]]} for one in known]}))
    evaluation = package.COCOeval(*sides, iou_type)
    evaluation.params.maxDets = [int(limit) for limit in limits]
    evaluation.params.iouThrs = [float(threshold) for threshold in thresholds]
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation.eval


def _by_pycocotools(objects, found, sizes, category_ids, iou_type, limits, thresholds):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    images = [{"id": image_id, **_measures(size)} for image_id, size in sizes.items()]
    sides = []
    # it reports its progress with print
    with contextlib.redirect_stdout(io.StringIO()):
        for annotations in (objects, found):
            side = COCO()
            side.dataset = {"images": images, "annotations": annotations,
                            "categories": [{"id": i} for i in category_ids]}
            side.createIndex()
            sides.append(side)
        evaluation = COCOeval(*sides, iouType=iou_type)
        evaluation.params.maxDets = list(limits)
        evaluation.params.iouThrs = np.asarray(thresholds, np.float64)
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval


def _measures(size):
    return {"height": size[0], "width": size[1]} if size else {}
