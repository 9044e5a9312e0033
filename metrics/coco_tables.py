"""What a COCO evaluation counts: precision and recall by threshold, class, size and number.

Computed by faster-coco-eval where it is installed, else by pycocotools, with the same numbers.
"""

import contextlib
import importlib.util
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

LIMITS = (1, 10, 100)  # pycocotools' own numbers of detections an image
THRESHOLDS = tuple(np.linspace(0.5, 0.95, 10).tolist())
AREAS = ("all", "small", "medium", "large")  # the last three: below 32^2 px, 96^2, above
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
    coco, coco_eval = _coco_api()
    images = [{"id": image_id, "height": size[0], "width": size[1]} if size else {"id": image_id}
              for image_id, size in sizes.items()]
    sides = []
    # pycocotools reports its progress with print
    with contextlib.redirect_stdout(io.StringIO()):
        for annotations in (objects, found):
            side = coco()
            side.dataset = {"images": images, "annotations": annotations,
                            "categories": [{"id": i} for i in category_ids]}
            side.createIndex()
            sides.append(side)
        evaluation = coco_eval(*sides, iouType=iou_type)
        evaluation.params.maxDets = list(limits)
        evaluation.params.iouThrs = np.asarray(thresholds, np.float64)
        evaluation.evaluate()
        evaluation.accumulate()
    parts = (np.asarray(evaluation.eval[name]) for name in ("precision", "scores", "recall"))
    return CocoTables(*parts, *given)


def _coco_api():
    """(COCO, COCOeval) of the faster package where it is installed, else pycocotools' own."""
    if importlib.util.find_spec("faster_coco_eval"):
        from faster_coco_eval import COCO, COCOeval_faster

        return COCO, COCOeval_faster
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    return COCO, COCOeval
