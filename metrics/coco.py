"""COCO box and mask average precision, in percent.

Two ways of counting: pycocotools' (the default) and the original YOLACT's own.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pycocotools import mask as rle_codec

from metrics.coco_ground_truth import GroundTruth
from metrics.coco_mmdetection import (
    MMDETECTION_ITEMS,
    MMDETECTION_LIMITS,
    class_precisions,
    class_table,
    item_of,
)
from metrics.coco_package import encode_masks
from metrics.coco_tables import LIMITS, THRESHOLDS, CocoTables, coco_tables
from metrics.coco_yolact import yolact_precision
from runtime.errors import Failed, SaveError
from runtime.files import write_text

THRESHOLD_NAMES = tuple(str(percent) for percent in range(50, 100, 5))
TABLE_ROWS = {"bbox": "box", "segm": "mask"}  # the original's words for the two IoU types

# pycocotools' twelve: name, what is averaged, overlap (None: over all ten), areas, and the place of
# the number of detections an image in LIMITS.
SUMMARY = (
    ("AP", "precision", None, "all", 2),
    ("AP50", "precision", 0.5, "all", 2),
    ("AP75", "precision", 0.75, "all", 2),
    ("APs", "precision", None, "small", 2),
    ("APm", "precision", None, "medium", 2),
    ("APl", "precision", None, "large", 2),
    ("AR1", "recall", None, "all", 0),
    ("AR10", "recall", None, "all", 1),
    ("AR100", "recall", None, "all", 2),
    ("ARs", "recall", None, "small", 2),
    ("ARm", "recall", None, "medium", 2),
    ("ARl", "recall", None, "large", 2),
)


class CocoEvaluator:
    """Collects detections image by image; `compute()` gives box and mask AP in percent.

    ground_truth: a COCO dict, the path of a COCO JSON file, or a pycocotools COCO object.
    iou_types: which of "bbox" and "segm" to score.
    protocol: "coco" counts as pycocotools does, "yolact" as the original YOLACT does
        [yolact.md: Average precision]. Only `compute` reads it.
    Raises InputError for ground truth that cannot be read or has objects without shape.

    last_tables: {iou type: CocoTables} that the last call of `tables`, `compute` or
        `mmdetection_scores` has made; empty before, and after further detections

    Each image counts once: of detections given twice (samplers pad, processes overlap) the first
    stay. Masks are kept as run-length codes, some hundred bytes each.
    """

    def __init__(
        self,
        ground_truth: Mapping | str | Path | object,
        iou_types: Iterable[str] = ("bbox", "segm"),
        protocol: str = "coco",
    ):
        self.iou_types = tuple(iou_types)
        if not self.iou_types or set(self.iou_types) - set(TABLE_ROWS):
            raise ValueError(f'iou_types is {self.iou_types}; it holds "bbox", "segm" or both')
        self.protocol = _checked_protocol(protocol)
        self.ground_truth = GroundTruth(ground_truth, self.iou_types)
        self._found = {}    # image id -> {boxes, scores, labels, mask_scores, rles}
        self.last_tables: dict[str, CocoTables] = {}

    @property
    def image_ids(self) -> list[int]:
        """Ids of the images that were given so far, those without any detection included."""
        return list(self._found)

    def reset(self) -> None:
        """Forget all detections and keep the ground truth: the start of the next validation."""
        self._found, self.last_tables = {}, {}

    def update(self, detections: Mapping[int, Mapping]) -> None:
        """Add what was found on some images: {image id: fields}; numpy arrays or torch tensors.

        boxes:       [n, 4] x1 y1 x2 y2 in pixels of the original image
        scores:      [n] float, larger is surer
        labels:      [n] integer category ids, as in the ground truth
        masks:       [n, H, W] bool at the original image's size (only for "segm"); other dtypes
                     count where they are above one half
        mask_scores: [n] float, optional: ranks the masks instead of `scores`
        n may be 0, which says that the image was looked at and nothing was found.
        Raises ValueError for an image that the ground truth lacks and for shapes that disagree,
        Failed for scores that are not finite.
        """
        self.last_tables = {}
        for image_id, fields in detections.items():
            image_id = int(image_id)
            if image_id not in self.ground_truth.objects:
                raise ValueError(f"image {image_id} is not in the ground truth")
            if image_id not in self._found:
                self._found[image_id] = self._compact(image_id, fields)

    def results(self) -> dict:
        """What `update` collected, small and picklable: `merge` of another process takes it."""
        return self._found

    def merge(self, other: "CocoEvaluator | Mapping") -> None:
        """Add what another evaluator (or its `results()`) has collected over the same images."""
        found = other.results() if isinstance(other, CocoEvaluator) else other
        self.last_tables = {}
        for image_id, fields in found.items():
            self._found.setdefault(image_id, fields)

    def compute(
        self, image_ids: Iterable[int] | None = None, protocol: str | None = None
    ) -> dict[str, float]:
        """Scores in percent over `image_ids`, or over all images of the ground truth.

        Objects of images that were never given count as missed; pass the evaluator's own
        `image_ids` to leave such images out, or the ids of a subset to score only that.

        Keys, `box` for "bbox" and `mask` for "segm": `box/all` (mean over ten IoU thresholds),
        `box/50`, `box/55` ... `box/95`. Protocol "coco" adds pycocotools' twelve numbers under
        `bbox/` or `segm/`: AP AP50 AP75 APs APm APl AR1 AR10 AR100 ARs ARm ARl (thresholds; area
        small, medium, large; detections an image). Every key is always there; where pycocotools
        has -1, because no object could be found, the value is NaN.
        """
        protocol = _checked_protocol(protocol or self.protocol)
        chosen = self._chosen(image_ids)
        metrics = {}
        for iou_type in self.iou_types:
            if protocol == "yolact":
                detections = {i: self.detections(i, iou_type) for i in chosen if i in self._found}
                precision = yolact_precision(
                    self.ground_truth, detections, chosen, iou_type == "segm")
                metrics |= _row(iou_type, 100 * precision.mean(), 100 * precision)
            else:
                metrics |= self._coco_numbers(chosen, iou_type)
        return metrics

    def tables(
        self, iou_type: str, image_ids: Iterable[int] | None = None,
        category_ids: Iterable[int] | None = None, *, limits: Sequence[int] = LIMITS,
        thresholds: Sequence[float] = THRESHOLDS,
    ) -> CocoTables:
        """Precision and recall as COCO counts them, by threshold, class, size and number.

        image_ids: as `compute`; category_ids: only these classes, None: all of the ground truth
        limits:    three numbers of detections an image; thresholds: the overlaps
        """
        chosen = self._chosen(image_ids)
        objects = self.ground_truth.annotations(chosen, segm=iou_type == "segm")
        found = [one for image_id in chosen for one in self.detections(image_id, iou_type)]
        for number, one in enumerate(found, start=1):
            one["id"] = number
        sizes = {image_id: self.ground_truth.sizes[image_id] for image_id in chosen}
        if category_ids is None:
            category_ids = self.ground_truth.category_ids
        tables = coco_tables(objects, found, sizes, sorted(category_ids), iou_type,
                             sorted(limits), sorted(thresholds))
        self.last_tables[iou_type] = tables
        return tables

    def mmdetection_scores(
        self, image_ids: Iterable[int] | None = None, category_ids: Iterable[int] | None = None,
        *, limits: Sequence[int] = MMDETECTION_LIMITS, thresholds: Sequence[float] = THRESHOLDS,
        items: Sequence[str] = MMDETECTION_ITEMS, class_names: Mapping[int, str] | None = None,
        log: Callable[[str], object] = lambda line: None,
    ) -> dict[str, float]:
        """MMDetection's scores, fractions: `coco/bbox_mAP`, `coco/bbox_mAP_50`, `_75`, `_s`, `_m`,
        `_l` and the same for `segm`; -1 where no object defines one.

        image_ids, category_ids, limits, thresholds: as `tables`; items: which scores
        `mAP` counts the 100 surest detections of an image, the others as many as the last limit.
        class_names: {category id: name}; with it, log gets a table by class for each IoU type, and
                     the scores begin with `coco/<name>_precision`, the last type's mean, or NaN
        differs: not rounded to three decimals [queryinst.md: COCO scores]. Way back: none, round
        them.
        """
        metrics, by_class = {}, {}
        for iou_type in self.iou_types:
            tables = self.tables(iou_type, image_ids, category_ids, limits=limits,
                                 thresholds=thresholds)
            if class_names is not None:
                names = [class_names[i] for i in tables.category_ids]
                rows = class_precisions(tables)
                for line in (f"{iou_type}:", *class_table(names, rows)):
                    log(line)
                by_class = {f"coco/{name}_precision": row[0]
                            for name, row in zip(names, rows, strict=True)}
            metrics |= {f"coco/{iou_type}_{item}": item_of(tables, item) for item in items}
        return by_class | metrics

    def write_detections(
        self, path_bbox: str | Path | None = None, path_mask: str | Path | None = None,
        exact: bool = False,
    ) -> None:
        """Write COCO result files, as YOLACT's --output_coco_json does.

        Boxes are x, y, w, h rounded to 0.1 pixel; masks are RLEs with text counts, scored by the
        mask score; detections whose box has no area are left out of both.
        exact: as MMDetection's outfile_prefix does: boxes as they are, in both files, and all
        Raises SaveError naming the file that could not be written, ValueError for masks that were
        not collected because `iou_types` leaves them out.
        """
        if path_mask is not None and "segm" not in self.iou_types:
            raise ValueError(f"masks are not collected with iou_types {self.iou_types}")
        wanted = {"bbox": path_bbox, "segm": path_mask}
        for iou_type, path in wanted.items():
            if path is None:
                continue
            lines = [
                json.dumps(_written(one, iou_type, exact))
                for image_id, found in self._found.items()
                for one, box in zip(self.detections(image_id, iou_type), found["boxes"],
                                    strict=True)
                if exact or (box[2] - box[0]) * (box[3] - box[1]) > 0
            ]
            text = "[" + ",\n".join(lines) + "]\n"
            write_text(path, text)

    def mmdetection_results(
        self, rules: Any, image_ids: Iterable[int], class_names: Mapping[int, str],
        log: Callable[[str], object],
    ) -> dict[str, float]:
        """What a config's evaluator asks for: files, a table by class, the scores.

        rules: an EvaluatorConfig; class_names: {category id: name} of the classes that count
        log:   gets the lines. Raises SaveError, naming the file.
        """
        if rules.outfile_prefix:
            files = self.write_mmdetection(rules.outfile_prefix)
            log(f"The detections are in {' and '.join(map(str, files))}.")
        if rules.format_only:
            return {}
        return self.mmdetection_scores(
            image_ids, class_names, limits=rules.proposal_nums, thresholds=rules.overlaps,
            items=rules.items, class_names=class_names if rules.classwise else None, log=log)

    def write_mmdetection(self, prefix: str) -> list[Path]:
        """Write PREFIX.bbox.json and, where masks are collected, PREFIX.segm.json; all detections.

        Returns the files; missing folders are made. Raises SaveError, naming the file.
        """
        kinds = ["bbox"] + ["segm"] * ("segm" in self.iou_types)
        files = [Path(f"{prefix}.{kind}.json") for kind in kinds]
        try:
            files[0].parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SaveError(f"{files[0]}: could not be written: {error.strerror}") from error
        self.write_detections(*files, exact=True)
        return files

    def _compact(self, image_id, fields):
        scores = _array(fields["scores"]).astype(np.float64).reshape(-1)
        n = len(scores)
        mask_scores = fields.get("mask_scores")
        found = {
            "boxes": _array(fields["boxes"]).astype(np.float64).reshape(-1, 4),
            "scores": scores,
            "labels": _array(fields["labels"]).astype(np.int64).reshape(-1),
            "mask_scores": scores if mask_scores is None
            else _array(mask_scores).astype(np.float64).reshape(-1),
            "rles": [None] * n,
        }
        if "segm" in self.iou_types and n:
            found["rles"] = _encode(fields["masks"], self.ground_truth.sizes[image_id], image_id)
        lengths = {name: len(values) for name, values in found.items()}
        if set(lengths.values()) != {n}:
            raise ValueError(f"image {image_id}: numbers of detections disagree: {lengths}")
        if not (np.isfinite(scores).all() and np.isfinite(found["mask_scores"]).all()):
            raise Failed(f"image {image_id}: the network's scores are not finite numbers, so that "
                         "it cannot be scored: its weights have run away; go on from an earlier "
                         "checkpoint with a lower learning rate")
        return found

    def detections(self, image_id: int, iou_type: str) -> list[dict[str, Any]]:
        """What was found on an image, as COCO annotations; [] for one that was never given.

        `image_id`, `category_id`, `bbox` x, y, w, h px, `score`, `area` px^2 and, for "segm",
        `segmentation`, a run-length code; score and area are those of the IoU type.
        """
        if image_id not in self._found:
            return []
        found = self._found[image_id]
        boxes = found["boxes"].copy()
        boxes[:, 2:] -= boxes[:, :2]
        if iou_type == "segm":
            scores = found["mask_scores"]
            areas = rle_codec.area(found["rles"]) if found["rles"] else []
        else:
            scores = found["scores"]
            areas = boxes[:, 2] * boxes[:, 3]
        columns = zip(boxes.tolist(), scores.tolist(), found["labels"].tolist(), areas,
                      found["rles"], strict=True)
        detections: list[dict[str, Any]] = []
        for box, score, label, area, rle in columns:
            one = {"image_id": image_id, "category_id": label, "bbox": box, "score": score,
                   "area": float(area), "iscrowd": 0}
            detections.append(one if iou_type == "bbox" else one | {"segmentation": rle})
        return detections

    def _coco_numbers(self, image_ids, iou_type):
        """The table's row and the twelve numbers of one IoU type."""
        tables = self.tables(iou_type, image_ids)
        at_thresholds = [100 * tables.mean(threshold=each) for each in THRESHOLDS]
        metrics = _row(iou_type, 100 * tables.mean(), at_thresholds)
        for name, kind, threshold, area, limit in SUMMARY:
            metrics[f"{iou_type}/{name}"] = 100 * tables.mean(
                kind, threshold=threshold, area=area, limit=limit)
        return metrics

    def _chosen(self, image_ids):
        """The ids to score, sorted; all of the ground truth's for None."""
        chosen = self.ground_truth.sizes if image_ids is None else image_ids
        chosen = sorted({int(image_id) for image_id in chosen})
        unknown = [image_id for image_id in chosen if image_id not in self.ground_truth.sizes]
        if unknown:
            raise ValueError(f"images not in the ground truth: {unknown[:5]}")
        return chosen


def format_table(metrics: Mapping[str, float]) -> str:
    """The original's table of what `CocoEvaluator.compute` gave: rows box and mask, two decimals.

    Numbers that are not defined (NaN) show as `-`.
    """
    columns = ("all", *THRESHOLD_NAMES)
    rows = [["", "all", *(f".{name}" for name in THRESHOLD_NAMES)]]
    for word in TABLE_ROWS.values():
        if f"{word}/all" in metrics:
            values = [metrics[f"{word}/{column}"] for column in columns]
            rows.append([word, *("-" if math.isnan(x) else f"{x:.2f}" for x in values)])
    lines = ["|".join(f" {cell:>6} " for cell in row) for row in rows]
    return "\n".join([lines[0], "+".join(["-" * 8] * len(rows[0])), *lines[1:]])


def score_lines(metrics: Mapping[str, float] | None) -> list[str]:
    """The last line of a run, with its scores as fractions; none without scores."""
    if not metrics:
        return []
    mask, mask_50, box = (metrics[name] / 100 for name in ("mask/all", "mask/50", "box/all"))
    return [f"mask AP {mask:.2f}, at IoU 0.5 {mask_50:.2f}, box AP {box:.2f}"]


def _checked_protocol(protocol):
    if protocol not in ("coco", "yolact"):
        raise ValueError(f'protocol is {protocol!r}; it is "coco" or "yolact"')
    return protocol


def _array(values):
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        values = values.float() if values.dtype == torch.bfloat16 else values  # numpy has no bf16
        return values.numpy()
    return np.asarray(values)


def _encode(masks, size, image_id):
    masks = _array(masks)
    if size is not None and tuple(masks.shape[1:]) != tuple(size):
        raise ValueError(f"image {image_id}: masks are {masks.shape[1:]}, the ground truth says "
                         f"the image is {tuple(size)} (h, w)")
    return encode_masks(masks)


def _written(detection, iou_type, exact=False):
    common = {"image_id": detection["image_id"], "category_id": detection["category_id"]}
    shape = {"bbox": detection["bbox"]} if exact else {}
    if iou_type == "bbox":
        shape = shape or {"bbox": [round(10 * x) / 10 for x in detection["bbox"]]}
    else:
        rle = detection["segmentation"]
        shape["segmentation"] = {"size": list(rle["size"]), "counts": rle["counts"].decode()}
    return common | shape | {"score": detection["score"]}


def _row(iou_type, mean, at_thresholds):
    word = TABLE_ROWS[iou_type]
    names = (f"{word}/{name}" for name in THRESHOLD_NAMES)
    row = {f"{word}/all": float(mean)}
    return row | {name: float(value) for name, value in zip(names, at_thresholds, strict=True)}
