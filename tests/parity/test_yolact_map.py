"""CocoEvaluator against the original's and pycocotools' numbers of golden/yolact_map.json."""

import copy

import numpy as np
import pytest
from goldens import load_golden

from metrics import CocoEvaluator

GOLDEN = load_golden("yolact_map")
# values are rounded to 9 significant digits; percent
CLOSE = {"rtol": 0, "atol": 1e-6}


def draw(item, height, width):
    """A filled box, or the ellipse inscribed in it (pixels whose centre lies inside)."""
    x1, y1, x2, y2 = item["box"]
    if item["shape"] == "rect":
        mask = np.zeros((height, width), bool)
        mask[y1:y2, x1:x2] = True
        return mask
    y, x = np.mgrid[:height, :width] + 0.5
    rx, ry = (x2 - x1) / 2, (y2 - y1) / 2
    return ((x - (x1 + x2) / 2) / rx) ** 2 + ((y - (y1 + y2) / 2) / ry) ** 2 <= 1


def images_of(record):
    name, _, rest = record["images_ref"].partition(" ")
    images = copy.deepcopy(GOLDEN[name])
    if "every crowd gt removed" in rest:
        for image in images:
            image["gts"] = [gt for gt in image["gts"] if not gt["crowd"]]
    return images


def ground_truth_of(images):
    from pycocotools import mask as codec

    annotations = []
    for image in images:
        for gt in image["gts"]:
            mask = draw(gt, image["height"], image["width"])
            x1, y1, x2, y2 = gt["box"]
            rle = codec.encode(np.asfortranarray(mask, np.uint8))
            annotations.append({
                "id": len(annotations) + 1, "image_id": image["id"],
                "category_id": gt["class"] + 1, "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": int(mask.sum()), "iscrowd": gt["crowd"], "segmentation": rle})
    return {
        "images": [{key: image[key] for key in ("id", "width", "height")} for image in images],
        "annotations": annotations,
        "categories": [{"id": i, "name": f"c{i}"} for i in range(1, 6)],
    }


def detections_of(image, two_scores):
    found = image["dets"]
    height, width = image["height"], image["width"]
    fields = {
        "boxes": np.array([one["box"] for one in found]).reshape(-1, 4),
        "scores": np.array([one["score"] for one in found]),
        "labels": np.array([one["class"] + 1 for one in found], int),
        "masks": np.array([draw(one, height, width) for one in found], bool)
        .reshape(-1, height, width),
    }
    if two_scores:
        fields["mask_scores"] = np.array([one["mask_score"] for one in found])
    return {image["id"]: fields}


@pytest.fixture(params=GOLDEN["sets"])
def case(request):
    record = GOLDEN["sets"][request.param]
    images = images_of(record)
    evaluator = CocoEvaluator(ground_truth_of(images))
    for image in images:
        evaluator.update(detections_of(image, record["two_scores"]))
    return record, images, evaluator


def check(metrics, expected):
    for word in ("box", "mask"):
        keys = [f"{word}/{name}" for name in expected[word]]
        np.testing.assert_allclose(
            [metrics[key] for key in keys], list(expected[word].values()), **CLOSE, err_msg=word)


def test_original_protocol(case):
    record, _, evaluator = case
    metrics = evaluator.compute(protocol="yolact")
    check(metrics, record["original_full"])
    rounded = {name: round(value, 2) for name, value in metrics.items()}
    check(rounded, record["original_rounded"])


def test_pycocotools_on_all_images(case):
    record, _, evaluator = case
    check(evaluator.compute(), record["pycocotools_on_all_images"])


def test_pycocotools_on_annotated_images(case):
    record, images, evaluator = case
    annotated = [image["id"] for image in images if image["gts"]]
    check(evaluator.compute(image_ids=annotated), record["pycocotools_on_annotated_images"])
