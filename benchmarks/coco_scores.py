"""COCO scores and masks' run-length codes beside pycocotools', in the same run.

    python benchmarks/coco_scores.py [IMAGES]

10,700 detections with tied scores on 510 images of 640 x 480, 80 classes, a few crowds: `compute()`
of all numbers for boxes and masks by `CocoEvaluator`, with hotcoco and without it; and the encoding
of the masks. Processor time, medians; all results are
compared, too.
"""

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import cv2
import numpy as np
from figures import Figure, LeftOut
from pycocotools import mask as codec

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from metrics.coco import CocoEvaluator
from metrics.coco_package import encode_masks, fast_package

H, W, CLASSES = 480, 640, 80
IMAGES, OBJECTS, DETECTIONS = 510, 7, 21
ROUNDS = 3


def ellipse(box: np.ndarray) -> np.ndarray:
    x, y, w, h = box
    rows, columns = np.ogrid[:H, :W]
    return ((columns - x - w / 2) / (w / 2)) ** 2 + ((rows - y - h / 2) / (h / 2)) ** 2 < 1


def generate(images: int) -> tuple[dict, dict]:
    """(ground truth, detections of each image, with `shapes`, the boxes of ellipses, as masks)."""
    rng = np.random.default_rng(0)
    turn = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    objects, detections = [], {}
    for image_id in range(1, images + 1):
        wh = rng.uniform(20, 250, (OBJECTS, 2))
        boxes = np.concatenate([rng.uniform(0, 1, (OBJECTS, 2)) * ((W, H) - wh), wh], 1)
        classes = rng.integers(1, CLASSES + 1, OBJECTS)
        for category, (x, y, w, h) in zip(classes.tolist(), boxes.tolist(), strict=True):
            outline = np.stack([x + w / 2 * (1 + np.cos(turn)), y + h / 2 * (1 + np.sin(turn))], 1)
            objects.append({
                "id": len(objects) + 1, "image_id": image_id, "category_id": category,
                "bbox": [x, y, w, h], "area": w * h * np.pi / 4,
                "iscrowd": int(rng.random() < 0.02), "segmentation": [outline.ravel().tolist()]})
        of = np.arange(DETECTIONS) % OBJECTS
        found = boxes[of] + rng.normal(0, 6, (DETECTIONS, 4))
        found[:, 2:] = found[:, 2:].clip(min=2)
        is_right = rng.random(DETECTIONS) < 0.7
        detections[image_id] = {
            "boxes": np.concatenate([found[:, :2], found[:, :2] + found[:, 2:]], 1),
            "scores": rng.random(DETECTIONS).round(2), "shapes": found,
            "labels": np.where(is_right, classes[of], rng.integers(1, CLASSES + 1, DETECTIONS))}
    truth = {"images": [{"id": i, "height": H, "width": W} for i in range(1, images + 1)],
             "annotations": objects, "categories": [{"id": i} for i in range(1, CLASSES + 1)]}
    return truth, detections


def seconds_of(call: Callable[[], object]) -> tuple[float, object]:
    begin = time.process_time()
    answer = call()
    return time.process_time() - begin, answer


def plain_encode(masks: np.ndarray) -> list:
    """Each mask turned by OpenCV, coded by pycocotools."""
    return [codec.encode(cv2.transpose(mask.view(np.uint8)).T) for mask in masks]


def without_hotcoco():
    return mock.patch.dict(sys.modules, {"hotcoco": None})


def figures(datasets: Path) -> list[Figure]:
    if fast_package() is None:
        raise LeftOut("hotcoco is not installed")
    scores, codes = compare(IMAGES)
    return [Figure("COCO scores, boxes and masks", scores, "pycocotools' time", 1 / 8,
                   is_cost=True),
            Figure("codes of 640 x 480 masks", codes, "pycocotools' time", 0.5, is_cost=True)]


def compare(images: int) -> tuple[float, float]:
    """Ours divided by pycocotools': (scores, codes)."""
    truth, detections = generate(images)
    evaluator = CocoEvaluator(truth)
    count, pairs = images * DETECTIONS, []
    fast_s = plain_s = 0.0
    for image_id, found in detections.items():
        masks = np.array([ellipse(box) for box in found.pop("shapes")])
        seconds, codes = seconds_of(lambda masks=masks: encode_masks(masks))
        fast_s += seconds
        seconds, others = seconds_of(lambda masks=masks: plain_encode(masks))
        plain_s += seconds
        assert codes == others
        evaluator.update({image_id: found | {"masks": masks}})
    print(f"{count} masks: {fast_s / count * 1e3:.3f} ms each, pycocotools "
          f"{plain_s / count * 1e3:.3f} ms")
    evaluator.compute()  # the ground truth's polygons become codes once
    for i in range(ROUNDS):
        ours, found = seconds_of(evaluator.compute)
        with without_hotcoco():
            theirs, wanted = seconds_of(evaluator.compute)
        np.testing.assert_array_equal(list(found.values()), list(wanted.values()))
        print(f"round {i + 1}: compute() {ours:.2f} s, with pycocotools {theirs:.2f} s")
        pairs.append(ours / theirs)
    return statistics.median(pairs), fast_s / plain_s


if __name__ == "__main__":
    scores, codes = compare(int(sys.argv[1]) if len(sys.argv) > 1 else IMAGES)
    print(f"of pycocotools' processor time: scores {scores:.3f} (wanted 0.125), codes {codes:.2f} "
          "(wanted 0.5)")
