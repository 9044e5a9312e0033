"""What one validation of instances finds beside its averages: scores by class, confusions, images.

Boxes and masks are looked at apart, at the overlap IOU. All scores here are fractions.
"""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask as rle_codec

from metrics.by_class import distinct
from metrics.coco import TABLE_ROWS, CocoEvaluator
from metrics.coco_tables import RECALLS, CocoTables
from metrics.extremes import Extremes

IOU = 0.5  # from which on a detection and an object are the same thing
EXTREME = 4  # of the best and of the worst images
SHOWN_SCORE = 0.3  # from which on a class counts that was never right, and instances are drawn
AP_LIMIT = 100  # detections an image that count for average precision


class Optimum(NamedTuple):
    """Where the F1 of a class is the greatest: there precision and recall are, from `score` on."""

    precision: float | None
    recall: float | None
    f1: float | None
    score: float | None


class InstanceScores:
    """Made of an evaluator that has all detections, after its scores were computed.

    image_ids: those that count; names: {category id: name} of the classes that count, in order

    names:     of the classes, each once; iou_types: "bbox", "segm" or both
    precision: {iou type: [101, K] at IOU and the RECALLS, NaN where no object defines it}
    confusion: {iou type: [K + 1, K + 1] int64, objects of class row that were found as column; the
               last row is what is no object, the last column what was not found}. A detection
               counts from the score on at which its class has the best F1
    given_ids: those of the images that were evaluated
    extremes:  given ids by the panoptic quality of an image: the overlaps of its right detections
               over the mean number of its objects and its detections. Images without either are
               left out
    """

    def __init__(
        self, evaluator: CocoEvaluator, image_ids: Collection[int], names: Mapping[int, str]
    ):
        self._evaluator = evaluator
        self.image_ids = sorted(image_ids)
        self.given_ids = sorted(set(image_ids) & set(evaluator.image_ids))
        self.names = distinct(list(names.values()))
        self.iou_types = evaluator.iou_types
        self._category_ids = list(names)
        self._place_of = {category: place for place, category in enumerate(names)}
        self._support = self._objects_of_classes()
        self._detected = self._detections_of_classes()
        self.precision: dict[str, np.ndarray] = {}
        self.confusion: dict[str, np.ndarray] = {}
        self._rows: dict[str, list[tuple[float | None, float | None, Optimum]]] = {}
        self.extremes: Extremes[int] = Extremes(EXTREME)
        for iou_type in self.iou_types:
            tables = evaluator.last_tables.get(iou_type) or evaluator.tables(
                iou_type, self.image_ids, self._category_ids)
            self._take_tables(iou_type, tables)
            self.confusion[iou_type] = self._confused(iou_type)

    @property
    def has_objects(self) -> bool:
        """Whether there is anything to be found."""
        return bool(self._support.any())

    def by_class(self) -> dict[str, dict[str, float | None]]:
        """{class name: {box_ap, box_ap50, box_precision, box_recall, box_f1, box_score, the same
        for mask, support}}; None where nothing defines a number.

        ap and ap50 are the averages of `compute`; precision, recall and f1 are at IOU, from the
        score on at which f1 is the greatest; support counts the objects that are no crowds.
        """
        rows: dict[str, dict[str, float | None]] = {}
        for place, name in enumerate(self.names):
            row: dict[str, float | None] = {"support": int(self._support[place])}
            for iou_type in self.iou_types:
                word = TABLE_ROWS[iou_type]
                ap, ap50, best = self._rows[iou_type][place]
                row |= {f"{word}_ap": ap, f"{word}_ap50": ap50}
                row |= {f"{word}_{key}": value for key, value in best._asdict().items()}
            rows[name] = row
        return rows

    def table(self) -> list[str]:
        """The scores by class as lines; numbers that nothing defines are `-`."""
        keys = ("ap", "ap50", "precision", "recall", "f1")
        head = ["class (scores of 1)", "objects"]
        head += [f"{TABLE_ROWS[each]} {key}" for each in self.iou_types for key in keys]
        rows = [head]
        for name, row in self.by_class().items():
            values = [row[f"{TABLE_ROWS[each]}_{key}"] for each in self.iou_types for key in keys]
            rows.append([name, str(row["support"]),
                         *("-" if value is None else f"{value:.3f}" for value in values)])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return ["  ".join(cell.ljust(width) if i == 0 else cell.rjust(width)
                          for i, (cell, width) in enumerate(zip(row, widths, strict=True)))
                for row in rows]

    def truth(self, image_id: int) -> dict[str, Any]:
        """The objects of an image that are no crowds: boxes [n, 4] xyxy px, names, rles or None."""
        objects = [one for one in self._evaluator.ground_truth.objects[image_id]
                   if not one["iscrowd"] and one["category_id"] in self._place_of]
        boxes = np.array([one["bbox"] for one in objects], float).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        has_masks = "segm" in self.iou_types
        return {"boxes": boxes, "names": [self._name(one["category_id"]) for one in objects],
                "rles": [self._evaluator.ground_truth.to_rle(one) for one in objects]
                if has_masks else None}

    def found(self, image_id: int, score: float = SHOWN_SCORE) -> dict[str, Any]:
        """The detections from `score` on, as `truth` and with scores [n]."""
        fields = self._fields(image_id)
        kept = [i for i, label in enumerate(fields["labels"].tolist())
                if fields["scores"][i] >= score and label in self._place_of]
        return {"boxes": fields["boxes"][kept], "scores": fields["scores"][kept],
                "names": [self._name(label) for label in fields["labels"][kept].tolist()],
                "rles": [fields["rles"][i] for i in kept] if "segm" in self.iou_types else None}

    def _name(self, category):
        return self.names[self._place_of[category]]

    def _fields(self, image_id):
        """What the evaluator keeps of an image; nothing for one that was never given."""
        empty = {"boxes": np.zeros((0, 4)), "scores": np.zeros(0), "mask_scores": np.zeros(0),
                 "labels": np.zeros(0, np.int64), "rles": []}
        return self._evaluator.results().get(image_id, empty)

    def _objects_of_classes(self):
        counts = np.zeros(len(self.names), np.int64)
        for image_id in self.image_ids:
            for one in self._evaluator.ground_truth.objects[image_id]:
                place = self._place_of.get(one["category_id"])
                if place is not None and not one["iscrowd"]:
                    counts[place] += 1
        return counts

    def _detections_of_classes(self):
        labels = [self._fields(image_id)["labels"] for image_id in self.image_ids]
        used, counts = np.unique(np.concatenate([np.zeros(0, np.int64), *labels]),
                                 return_counts=True)
        by_id = dict(zip(used.tolist(), counts.tolist(), strict=True))
        return [by_id.get(category, 0) for category in self._category_ids]

    def _take_tables(self, iou_type: str, tables: CocoTables) -> None:
        places = {category: place for place, category in enumerate(tables.category_ids)}
        at = int(np.argmin(np.abs(np.array(tables.thresholds) - IOU)))
        limit = tables.limits.index(AP_LIMIT) if AP_LIMIT in tables.limits else -1
        self.precision[iou_type] = np.full((len(RECALLS), len(self.names)), np.nan)
        rows = []
        for k, category in enumerate(self._category_ids):
            place = places.get(category)
            if place is None or not self._support[k]:
                rows.append((None, None, Optimum(None, None, None, None)))
                continue
            curve = tables.precision[at, :, place, 0, limit]
            self.precision[iou_type][:, k] = np.where(curve > -1, curve, np.nan)
            rows.append((
                _known(tables.mean(limit=limit, category=place)),
                _known(tables.mean(threshold=tables.thresholds[at], limit=limit, category=place)),
                optimum(curve, tables.scores[at, :, place, 0, limit], int(self._support[k]),
                        self._detected[k])))
        self._rows[iou_type] = rows

    def _confused(self, iou_type: str) -> np.ndarray:
        k = len(self.names)
        counts = np.zeros((k + 1, k + 1), np.int64)
        least = self._least_scores(iou_type)
        is_leading, given = iou_type == self.iou_types[-1], set(self.given_ids)
        for image_id in self.image_ids:
            objects = self._evaluator.ground_truth.objects[image_id]
            found = self._counted(image_id, iou_type, least)
            if not objects and not len(found[0]):
                continue
            # what is of no class that counts is left out, as crowds are
            truth = [-1 if one["iscrowd"] else self._place_of.get(one["category_id"], -1)
                     for one in objects]
            overlaps = self._overlaps(iou_type, found, objects)
            right = 0.0
            for row, column, overlap in matched(truth, found[0].tolist(), overlaps, k):
                counts[row, column] += 1
                right += overlap if row == column else 0.0
            sides = sum(place >= 0 for place in truth) + len(found[0])
            if is_leading and sides and image_id in given:
                self.extremes.offer(2 * right / sides, image_id, image_id)
        return counts

    def _least_scores(self, iou_type):
        """Of each class the score from which on its detections count."""
        known = [row[2].score for row in self._rows[iou_type]]
        others = [score for score in known if score is not None]
        other = float(np.median(others)) if others else SHOWN_SCORE
        return np.array([other if score is None else score for score in known])

    def _counted(self, image_id, iou_type, least):
        """(classes, boxes xywh, masks) of the detections that count, the surest first."""
        fields = self._fields(image_id)
        scores = fields["mask_scores"] if iou_type == "segm" else fields["scores"]
        places = np.array([self._place_of.get(label, -1) for label in fields["labels"].tolist()],
                          np.int64)
        order = np.argsort(-scores, kind="stable")[:AP_LIMIT]
        # scores and their thresholds come from one list: equal ones are meant to be equal
        order = [i for i in order.tolist() if places[i] >= 0 and scores[i] >= least[places[i]]]
        boxes = fields["boxes"][order].copy()
        boxes[:, 2:] -= boxes[:, :2]
        return places[order], boxes, [fields["rles"][i] for i in order]

    def _overlaps(self, iou_type, found, objects):
        """[detections, objects]; with a crowd the share of the detection that it covers."""
        if not objects or not len(found[0]):
            return np.zeros((len(found[0]), len(objects)))
        crowds = [one["iscrowd"] for one in objects]
        if iou_type == "segm":
            masks = [self._evaluator.ground_truth.to_rle(one) for one in objects]
            return rle_codec.iou(found[2], masks, crowds)
        return rle_codec.iou(found[1], np.array([one["bbox"] for one in objects], float), crowds)


def optimum(
    precision: np.ndarray, scores: np.ndarray, support: int, detected: int
) -> Optimum:
    """The greatest F1 on a precision-recall curve of COCO's, to a hundredth of recall.

    precision, scores: [101] at the RECALLS, 0 where a recall is not reached
    support: objects of the class, more than 0; detected: detections of it, however sure
    """
    # COCO's precision is the greatest at this recall or a higher one. F1 is the greatest only where
    # that is the curve's own value: further on the same precision comes with a higher recall.
    right = np.ceil(RECALLS * support - 1e-9)
    reached = (precision > 0) & (right > 0)
    if not reached.any():
        return Optimum(0.0 if detected else None, 0.0, 0.0, None)
    right, precision, scores = right[reached], precision[reached], scores[reached]
    f1 = 2 * right / (support + right / precision)
    best = int(np.argmax(f1))
    return Optimum(float(precision[best]), float(right[best] / support), float(f1[best]),
                   float(scores[best]))


def matched(
    truth: Sequence[int], found: Sequence[int], overlaps: np.ndarray, background: int
) -> Iterator[tuple[int, int, float]]:
    """(class of the object, class of the detection, overlap) of all in an image, each once.

    truth: class of each object, -1 for a crowd; found: of each detection, the surest first
    overlaps: [detections, objects]
    Detections of the right class come first; what they leave goes to the surest others. Who is
    alone is `background` on the other side; a detection on a crowd is left out.
    """
    free = [place >= 0 for place in truth]
    left = list(range(len(found)))
    for is_right in (True, False):
        waiting, left = left, []
        for i in waiting:
            fits = [j for j, is_free in enumerate(free) if is_free and overlaps[i, j] >= IOU
                    and (not is_right or truth[j] == found[i])]
            if not fits:
                left.append(i)
                continue
            best = max(fits, key=lambda j, i=i: overlaps[i, j])
            free[best] = False
            yield truth[best], found[i], float(overlaps[i, best])
    for i in left:
        if not any(place < 0 and overlaps[i, j] >= IOU for j, place in enumerate(truth)):
            yield background, found[i], 0.0
    for j, is_free in enumerate(free):
        if is_free:
            yield truth[j], background, 0.0


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
