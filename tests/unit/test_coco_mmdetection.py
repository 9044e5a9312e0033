"""MMDetection's scores, table by class and result files, as mmdet 3.3.0's CocoMetric gives them.

The expected numbers are what it gave for these very boxes.
"""

import json

import numpy as np
import pytest
from pycocotools import mask as rle_codec

from metrics.coco import CocoEvaluator
from metrics.coco_mmdetection import MMDETECTION_ITEMS, mmdetection_names
from settings.queryinst.evaluating import EvaluatorConfig

SIDE = 64
NAMES = {10: "cat", 20: "dog bowl", 30: "zebra", 40: "nothing"}
SCORES = {"bbox": (0.316, 0.568, 0.257, 0.262, 0.491, -1),
          "segm": (0.324, 0.568, 0.249, 0.284, 0.480, -1)}


def mask_of(box):
    """A box without its upper left corner."""
    x, y, w, h = (round(value) for value in box)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[y : y + max(h, 1), x : x + max(w, 1)] = 1
    mask[y : y + max(1, h // 4), x : x + max(1, w // 4)] = 0
    return mask


@pytest.fixture(scope="module")
def scenes():
    """(ground truth, {image id: detections}), drawn with numpy's old generator: the same always."""
    rng = np.random.RandomState(3)
    images, annotations, found = [], [], {}
    for image_id in range(1, 13):
        images.append({"id": image_id, "file_name": f"{image_id}.jpg", "height": SIDE,
                       "width": SIDE})
        boxes, scores, labels, masks = [], [], [], []
        for _ in range(rng.randint(1, 5)):
            w, h = rng.randint(6, 60, 2)
            x, y = rng.randint(0, SIDE - w + 1), rng.randint(0, SIDE - h + 1)
            box, category = [int(x), int(y), int(w), int(h)], int(rng.randint(1, 4))
            rle = rle_codec.encode(np.asfortranarray(mask_of(box)))
            annotations.append({
                "id": len(annotations) + 1, "image_id": image_id, "category_id": 10 * category,
                "bbox": box, "area": float(mask_of(box).sum()), "iscrowd": 0,
                "segmentation": {"size": [SIDE, SIDE], "counts": rle["counts"].decode()}})
            for _ in range(rng.randint(0, 4)):
                near = [float(max(0, value + rng.randint(-3, 4))) for value in box]
                near[2:] = max(near[2], 2.0), max(near[3], 2.0)
                boxes.append([near[0], near[1], near[0] + near[2], near[1] + near[3]])
                scores.append(float(np.float32(rng.rand())))
                labels.append(10 * (int(rng.randint(0, 4)) + 1 if rng.rand() < 0.2 else category))
                masks.append(mask_of(near))
        found[image_id] = {"boxes": np.array(boxes).reshape(-1, 4), "scores": np.array(scores),
                           "labels": np.array(labels, int),
                           "masks": np.array(masks, bool).reshape(-1, SIDE, SIDE)}
    truth = {"images": images, "annotations": annotations,
             "categories": [{"id": i, "name": name} for i, name in NAMES.items()]}
    return truth, found


@pytest.fixture
def evaluator(scenes):
    truth, found = scenes
    evaluator = CocoEvaluator(truth)
    evaluator.update(found)
    return evaluator


def results(evaluator, **settings):
    """(scores, lines) as the script asks for them."""
    lines = []
    scores = evaluator.mmdetection_results(EvaluatorConfig(**settings), list(range(1, 13)), NAMES,
                                           lines.append)
    return scores, lines


def expected(**changed):
    """{name: score} with other numbers for some items."""
    return {f"coco/{kind}_{item}": changed.get(item, value)
            for kind, values in SCORES.items()
            for item, value in zip(MMDETECTION_ITEMS, values, strict=True)}


def test_scores(evaluator):
    scores, lines = results(evaluator)
    assert lines == []
    assert scores == pytest.approx(expected(), abs=6e-4)  # MMDetection's are rounded
    assert list(scores) == EvaluatorConfig().scores_of(NAMES.values())
    assert list(scores) == mmdetection_names(("bbox", "segm"))


def test_scores_with_other_limits(evaluator):
    scores, _ = results(evaluator, proposal_nums=(1, 10, 50))
    assert scores == pytest.approx(expected(mAP=-1), abs=6e-4)
    scores, _ = results(evaluator, proposal_nums=(1, 100, 3))
    assert scores == pytest.approx(expected(), abs=6e-4)


def test_other_items(evaluator):
    items = ("mAP", "AR@100", "AR_s@1000", "AR_l@1000")
    scores, _ = results(evaluator, metric_items=items)
    assert scores == pytest.approx({
        "coco/bbox_mAP": 0.316, "coco/bbox_AR@100": 0.436, "coco/bbox_AR_s@1000": 0.308,
        "coco/bbox_AR_l@1000": -1, "coco/segm_mAP": 0.324, "coco/segm_AR@100": 0.439,
        "coco/segm_AR_s@1000": 0.324, "coco/segm_AR_l@1000": -1}, abs=6e-4)
    few, _ = results(evaluator, metric_items=("AR@100", "AR@300"), proposal_nums=(1, 3, 100),
                     metric="bbox")
    assert few["coco/bbox_AR@100"] == pytest.approx(0.279, abs=6e-4)
    assert few["coco/bbox_AR@300"] == pytest.approx(0.414, abs=6e-4)


def test_other_overlaps(evaluator):
    scores, _ = results(evaluator, iou_thrs=(0.9, 0.5, 0.3))
    whole = evaluator.tables("bbox", limits=(1, 10, 100), thresholds=(0.3, 0.5, 0.9))
    assert whole.thresholds == (0.3, 0.5, 0.9)
    each = [whole.mean(threshold=t) for t in whole.thresholds]
    assert each[0] >= each[1] > each[2]
    assert scores["coco/bbox_mAP"] == pytest.approx(np.mean(each))
    assert scores["coco/bbox_mAP_50"] == pytest.approx(each[1]) == pytest.approx(0.568, abs=6e-4)
    assert scores["coco/bbox_mAP_75"] == -1


def test_table_by_class(evaluator):
    scores, lines = results(evaluator, classwise=True)
    assert lines == """\
bbox:
+----------+-------+--------+--------+-------+-------+-------+
| category | mAP   | mAP_50 | mAP_75 | mAP_s | mAP_m | mAP_l |
+----------+-------+--------+--------+-------+-------+-------+
| cat      | 0.25  | 0.408  | 0.225  | 0.109 | 0.458 | nan   |
| dog bowl | 0.333 | 0.627  | 0.265  | 0.301 | 0.489 | nan   |
| zebra    | 0.367 | 0.668  | 0.281  | 0.377 | 0.527 | nan   |
| nothing  | nan   | nan    | nan    | nan   | nan   | nan   |
+----------+-------+--------+--------+-------+-------+-------+
segm:
+----------+-------+--------+--------+-------+-------+-------+
| category | mAP   | mAP_50 | mAP_75 | mAP_s | mAP_m | mAP_l |
+----------+-------+--------+--------+-------+-------+-------+
| cat      | 0.243 | 0.408  | 0.162  | 0.109 | 0.441 | nan   |
| dog bowl | 0.343 | 0.627  | 0.303  | 0.309 | 0.489 | nan   |
| zebra    | 0.387 | 0.668  | 0.281  | 0.433 | 0.51  | nan   |
| nothing  | nan   | nan    | nan    | nan   | nan   | nan   |
+----------+-------+--------+--------+-------+-------+-------+""".splitlines()
    by_class = {"coco/cat_precision": 0.243, "coco/dog bowl_precision": 0.343,
                "coco/zebra_precision": 0.387, "coco/nothing_precision": float("nan")}
    assert scores == pytest.approx(by_class | expected(), abs=6e-4, nan_ok=True)
    assert list(scores) == EvaluatorConfig(classwise=True).scores_of(NAMES.values())


def test_result_files(evaluator, scenes, tmp_path):
    prefix = str(tmp_path / "new" / "a")
    scores, (line,) = results(evaluator, format_only=True, outfile_prefix=prefix)
    assert scores == {}
    assert line == f"The detections are in {prefix}.bbox.json and {prefix}.segm.json."
    boxes, masks = (json.loads((tmp_path / "new" / f"a.{kind}.json").read_text())
                    for kind in ("bbox", "segm"))
    assert boxes[0] == {"image_id": 1, "bbox": [8.0, 0.0, 30.0, 7.0],
                        "score": pytest.approx(0.04063073545694351), "category_id": 20}
    number = sum(len(found["scores"]) for found in scenes[1].values())
    assert len(boxes) == len(masks) == number
    assert {key: value for key, value in masks[0].items() if key != "segmentation"} == boxes[0]
    rle = masks[0]["segmentation"]
    assert rle["size"] == [SIDE, SIDE]
    assert (rle_codec.decode(rle) == scenes[1][1]["masks"][0]).all()
    both, lines = results(evaluator, outfile_prefix=prefix)
    assert both
    assert len(lines) == 1


def test_detections_are_there_for_others(evaluator):
    first = evaluator.detections(1, "segm")[0]
    assert {"image_id", "category_id", "bbox", "score", "area", "segmentation"} <= set(first)
    assert evaluator.detections(12345, "bbox") == []
    tables = evaluator.tables("segm", [1, 2, 3], [10, 30])
    assert tables.precision.shape == tables.scores.shape == (10, 101, 2, 4, 3)
    assert tables.recall.shape == (10, 2, 4, 3)
    assert tables.category_ids == (10, 30)
