"""Average precision as the original YOLACT counts it, for comparison with its published logs."""

from collections import defaultdict

import numpy as np
from pycocotools import mask as rle_codec

THRESHOLDS = np.arange(50, 100, 5) / 100
RECALLS = np.arange(101) / 100
TINY = 4 / 550  # discard_box_width and discard_box_height: fractions of the image


def yolact_precision(ground_truth, detections, image_ids, segm) -> np.ndarray:
    """Mean average precision at the ten thresholds, fractions, float64 [10].

    ground_truth: metrics.coco_ground_truth.GroundTruth.
    detections: {image id: [detection, ...]} in COCO's form: `bbox` (x, y, w, h), `score`,
                `category_id` and, with `segm`, `segmentation` (RLE).
    Source: [yolact.md: Average precision], whose letters stand beside the quirks below. Equal
    scores keep the order of `image_ids`, where the original has an order of its own.
    """
    hits = defaultdict(list)        # category -> [bool [10, detections of one image], ...]
    scores = defaultdict(list)      # category -> [float [detections of one image], ...]
    num_objects = defaultdict(int)
    for image_id in image_ids:
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
            hits[category].append(match(_overlaps(ground_truth, ranked, same, segm)))
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


def _overlaps(ground_truth, found, objects, segm):
    """IoU [D, G], float64; boxes of detections with corners truncated to integers."""
    if not objects:
        return np.zeros((len(found), 0))
    if segm:
        shapes = [one["segmentation"] for one in found]
        wanted = [ground_truth.to_rle(one) for one in objects]
    else:
        boxes = np.array([one["bbox"] for one in found], np.float64)
        corners = np.trunc(np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1))
        shapes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], 1)
        wanted = np.array([one["bbox"] for one in objects], np.float64)
    return np.asarray(rle_codec.iou(shapes, wanted, [0] * len(objects)))


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
