"""The original YOLACT's own counting against a loop that is written from its description alone."""

import numpy as np
import pytest
import torch

from data.coco_format.image_order import evaluation_order
from metrics import CocoEvaluator

SIZE = 140  # pixels; not a power of two, so that relative boxes are rounded
THRESHOLDS = [percent / 100 for percent in range(50, 100, 5)]


def mixed(number):
    for _ in range(2):
        number = (((number >> 16) ^ number) * 0x45D9F3B) & 0xFFFFFFFF
    return ((number >> 16) ^ number) & 0xFFFFFFFF


def case(seed, num_images=12):
    """(COCO dict, {image id: fields}): whole boxes, one object in four a crowd, scores of 0.1.

    Detections are moved objects, whose IoU is often a threshold exactly.
    """
    rng = np.random.RandomState(seed)
    ids = (rng.permutation(10_000)[:num_images] + 1).tolist()
    annotations, detections = [], {}
    for image_id in ids:
        boxes = rng.randint(0, 8, (rng.randint(1, 6), 2)) * 10
        boxes = np.concatenate([boxes, boxes + rng.randint(1, 7, boxes.shape) * 10], axis=1)
        labels = rng.randint(1, 4, len(boxes))
        for box, label in zip(boxes.tolist(), labels.tolist(), strict=True):
            annotations.append({
                "id": len(annotations) + 1, "image_id": image_id, "category_id": label,
                "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
                "area": (box[2] - box[0]) * (box[3] - box[1]),
                "iscrowd": int(rng.rand() < 0.25)})
        moved = np.repeat(boxes, 2, axis=0)
        moved[:, 2:] += rng.randint(-1, 4, (len(moved), 2)) * 5
        detections[image_id] = {
            "boxes": moved.astype(float), "scores": rng.randint(1, 8, len(moved)) / 10,
            "labels": np.where(rng.rand(len(moved)) < 0.9, np.repeat(labels, 2), 1)}
    truth = {"images": [{"id": i, "height": SIZE, "width": SIZE} for i in sorted(ids)],
             "annotations": annotations, "categories": [{"id": i} for i in (1, 2, 3)]}
    return truth, detections


def overlap(box, other):
    """IoU in single precision, one of the boxes given as fractions of the image."""
    box = torch.tensor(box, dtype=torch.float32)
    other = torch.tensor([side / SIZE for side in other]).float() * SIZE
    sides = (torch.minimum(box[2:], other[2:]) - torch.maximum(box[:2], other[:2])).clamp(min=0)
    shared = sides[0] * sides[1]
    areas = [(one[2] - one[0]) * (one[3] - one[1]) for one in (box, other)]
    return (shared / (areas[0] + areas[1] - shared)).item()


def expected(truth, detections, order):
    """Mean AP in percent for each threshold."""
    precisions = []
    for threshold in THRESHOLDS:
        points, total = {}, {}
        for image_id in order:
            objects = [one for one in truth["annotations"]
                       if one["image_id"] == image_id and not one["iscrowd"]]
            for one in objects:
                total[one["category_id"]] = total.get(one["category_id"], 0) + 1
            fields, used = detections[image_id], set()
            for i in sorted(range(len(fields["scores"])), key=lambda i: -fields["scores"][i]):
                label, best, at = int(fields["labels"][i]), threshold, None
                for j, one in enumerate(objects):
                    x, y, w, h = one["bbox"]
                    iou = overlap(fields["boxes"][i].tolist(), [x, y, x + w, y + h])
                    if one["category_id"] == label and j not in used and iou > best:
                        best, at = iou, j
                if at is not None:
                    used.add(at)
                points.setdefault(label, []).append((fields["scores"][i], at is not None))
        precisions.append(np.mean([area(points.get(label, []), total.get(label, 0))
                                   for label in {*points, *total}]))
    return 100 * np.array(precisions)


def area(points, total):
    points = sorted(points, key=lambda point: -point[0])
    right, curve = 0, []
    for number, (_, hit) in enumerate(points, start=1):
        right += hit
        curve.append((right / total if total else 0, right / number))
    reached = [max((p for recall, p in curve if recall >= step / 100), default=0)
               for step in range(101)]
    return np.mean(reached) if total else 0.0


@pytest.mark.parametrize("seed", range(4))
def test_equal_scores_count_in_the_originals_order(seed):
    truth, detections = case(seed)
    evaluator = CocoEvaluator(truth, iou_types=("bbox",), protocol="yolact")
    evaluator.update(detections)
    scores = evaluator.compute()
    found = [scores[f"box/{int(100 * threshold + 0.5)}"] for threshold in THRESHOLDS]
    order = sorted(detections, key=mixed)
    np.testing.assert_allclose(found, expected(truth, detections, order), rtol=0, atol=1e-9)
    in_files_order = expected(truth, detections, sorted(detections))
    assert np.abs(found - in_files_order).max() > 0.01  # the order is worth a test


def test_order_of_images():
    ids = [*range(1, 40), 139, 285, 397133, 581929, 2**31 - 1, 2**32 + 5, 2**40 + 3]
    order = evaluation_order(ids)
    assert [ids[i] for i in order] == sorted(ids, key=mixed)
    assert evaluation_order([]).tolist() == []


@pytest.mark.parametrize("number", [1, 139, 581929, 2**32 - 1])
def test_the_hash_is_the_published_one(number):
    inverse = mixed(number)
    for _ in range(2):  # with the published inverse of the multiplier
        inverse = (((inverse >> 16) ^ inverse) * 0x119DE1F3) & 0xFFFFFFFF
    assert (inverse >> 16) ^ inverse == number
