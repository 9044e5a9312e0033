"""Average precision as the original YOLACT counts it, for comparison with its published logs."""

from collections import defaultdict

import numpy as np
from pycocotools import mask as rle_codec

from data.coco_format.image_order import evaluation_order

THRESHOLDS = np.arange(50, 100, 5) / 100
RECALLS = np.arange(101) / 100
TINY = 4 / 550  # discard_box_width and discard_box_height: fractions of the image


def yolact_precision(ground_truth, detections, image_ids, segm) -> np.ndarray:
    """Mean average precision at the ten thresholds, fractions, float64 [10].

    ground_truth: metrics.coco_ground_truth.GroundTruth.
    detections: {image id: [detection, ...]} in COCO's form: `bbox` (x, y, w, h), `score`,
                `category_id` and, with `segm`, `segmentation` (RLE).
    Source: [yolact.md: Average precision], whose letters stand beside the quirks below. Equal
    scores of one image keep their order; images follow each other in the original's order.
    """
    hits = defaultdict(list)        # category -> [bool [10, detections of one image], ...]
    scores = defaultdict(list)      # category -> [float [detections of one image], ...]
    num_objects = defaultdict(int)
    image_ids = list(image_ids)
    for i in evaluation_order(image_ids):
        image_id = image_ids[i]
        found = detections.get(image_id, [])
        objects = _kept_objects(ground_truth, image_id)
        # parity: (b) where nothing is reported the objects are not missed but forgotten;
        # (d) images without annotations are skipped, whatever is reported there
        # [yolact.md: Average precision]
        # differs: (f) an image whose objects are all tiny is left out; the original puts a random
        # other image in its place [yolact.md: Average precision]. Way back: none, it is chance.
        if not found or not objects:
            continue
        # parity: (a) crowds match nothing, and what is found on them is false
        # [yolact.md: Average precision]
        objects = [one for one in objects if not one["iscrowd"]]
        for one in objects:
            num_objects[one["category_id"]] += 1
        for category in {one["category_id"] for one in found}:
            ranked = sorted((one for one in found if one["category_id"] == category),
                            key=lambda one: -one["score"])
            same = [one for one in objects if one["category_id"] == category]
            scores[category].append([one["score"] for one in ranked])
            hits[category].append(match(_overlaps(ground_truth, image_id, ranked, same,
                                                 segm)))
    # parity: (c) a class without objects counts as 0 as soon as it is reported once
    # [yolact.md: Average precision]
    categories = set(num_objects) | set(scores)
    precisions = [
        _average_precision(scores[category], hits[category], num_objects[category])
        for category in categories
    ]
    return np.mean(precisions, axis=0) if precisions else np.zeros(len(THRESHOLDS))


def match(overlaps: np.ndarray) -> np.ndarray:
    """Which detections hit an object: bool [10, D] for IoU [D, G], detections best first.

    Greedy: each takes the unused object that it overlaps most, where that is strictly more than
    the threshold (pycocotools: at least the threshold).
    """
    num_detections, num_objects = overlaps.shape
    hits = np.zeros((len(THRESHOLDS), num_detections), bool)
    used = np.zeros((len(THRESHOLDS), num_objects), bool)
    rows = np.arange(len(THRESHOLDS))
    for i in np.flatnonzero((overlaps > THRESHOLDS[0]).any(1)):
        free = np.where(used, 0.0, overlaps[i])     # [10, G]
        best = free.argmax(1)
        hit = free[rows, best] > THRESHOLDS
        hits[:, i] = hit
        used[rows[hit], best[hit]] = True
    return hits


def _kept_objects(ground_truth, image_id):
    # parity: (e) objects under 4/550 of the image in width or height are not looked for
    # [yolact.md: Average precision]
    objects = ground_truth.objects[image_id]
    if not objects or ground_truth.sizes[image_id] is None:
        return objects
    h, w = ground_truth.sizes[image_id]
    return [one for one in objects if one["bbox"][2] / w > TINY and one["bbox"][3] / h > TINY]


def _overlaps(ground_truth, image_id, found, objects, segm):
    """IoU [D, G]; boxes of detections with corners truncated to integers.

    parity: of single precision, though held in float64. A detection that meets a threshold such as
    0.6 exactly lies above it then, or below, as single precision rounds it
    [yolact.md: Average precision].
    """
    if not objects:
        return np.zeros((len(found), 0))
    if segm:
        shapes = [one["segmentation"] for one in found]
        wanted = [ground_truth.to_rle(one) for one in objects]
        exact = np.asarray(rle_codec.iou(shapes, wanted, [0] * len(objects)))
        return exact.astype(np.float32).astype(np.float64)
    boxes = np.array([one["bbox"] for one in found], np.float64)
    corners = np.trunc(np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1))
    wanted = np.array([one["bbox"] for one in objects], np.float64)
    wanted[:, 2:] += wanted[:, :2]
    if ground_truth.sizes[image_id] is not None:
        h, w = ground_truth.sizes[image_id]
        size = np.array([w, h, w, h])
        # the objects' boxes come as fractions of the image, in single precision as well
        wanted = (wanted / size).astype(np.float32) * size.astype(np.float32)
    return _box_overlaps(corners.astype(np.float32), wanted.astype(np.float32))


def _box_overlaps(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """IoU of corner boxes [D, 4] and [G, 4], float32: float64 [D, G]; 0 where both are empty."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared = (high - low).clip(min=0).prod(-1)
    areas, other_areas = (np.prod(part[:, 2:] - part[:, :2], axis=-1) for part in (boxes, others))
    union = areas[:, None] + other_areas[None] - shared
    overlaps = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return overlaps.astype(np.float64)


def _average_precision(scores, hits, num_objects):
    """Mean of the precision envelope at 101 recalls, for each threshold: float64 [10]."""
    if num_objects == 0 or not scores:
        return np.zeros(len(THRESHOLDS))
    order = np.argsort(-np.concatenate(scores), kind="stable")
    right = np.cumsum(np.concatenate(hits, axis=1)[:, order], axis=1)
    precision = right / np.arange(1, len(order) + 1)
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    reached = np.zeros(len(THRESHOLDS))
    for t, recall in enumerate(right / num_objects):
        at = np.searchsorted(recall, RECALLS, side="left")
        reached[t] = envelope[t, at[at < len(order)]].sum() / len(RECALLS)
    return reached
