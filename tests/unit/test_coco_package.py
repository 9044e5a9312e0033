"""hotcoco beside pycocotools: every number of every table, and the bytes of masks' codes."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as codec

from metrics import coco_package
from metrics.coco import CocoEvaluator
from metrics.coco_package import encode_masks, fast_package
from metrics.coco_tables import coco_tables

ROOT = Path(__file__).resolve().parents[2]
H, W = 60, 80
LIMITS = ((1, 10, 100), (100, 300, 1000), (1, 2, 3), (5, 5, 5))


@pytest.fixture
def without(monkeypatch):
    """Calls a function where hotcoco is not installed."""
    def call(function, *arguments):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, "hotcoco", None)
            assert fast_package() is None
            return function(*arguments)

    return call


def one(rng, image_id, category, box, **more):
    """An annotation with a mask that fills nine tenths of its box, in places."""
    x, y, w, h = box
    mask = np.zeros((H, W), np.uint8, order="F")
    part = mask[max(0, int(y)) : max(0, int(np.ceil(y + h))),
                max(0, int(x)) : max(0, int(np.ceil(x + w)))]
    part[:] = rng.rand(*part.shape) < 0.9
    rle = codec.encode(mask)
    return {"image_id": image_id, "category_id": category, "bbox": list(map(float, box)),
            "area": float(codec.area(rle)), "segmentation": rle, "iscrowd": 0, **more}


def scene(seed, images=6, classes=4, most=12, dets=30, crowds=0.15, empty=0.2, ties=True,
          tiny=False):
    """(objects, detections, sizes, category ids): jittered, doubled, mislabelled, invented."""
    rng = np.random.RandomState(seed)
    objects, found = [], []
    ids = (rng.permutation(images * 3)[:images] + 1).tolist()
    for image_id in ids:
        boxes = []
        for _ in range(0 if rng.rand() < empty else rng.randint(0, most + 1)):
            w, h = rng.uniform(0 if tiny else 2, 6 if tiny else 50, 2)
            boxes.append((rng.randint(1, classes + 1),
                          (rng.uniform(0, W - w), rng.uniform(0, H - h), w, h)))
            objects.append(one(rng, image_id, *boxes[-1], id=len(objects) + 1,
                               iscrowd=int(rng.rand() < crowds)))
        for _ in range(rng.randint(0, dets + 1)):
            label = rng.randint(1, classes + 2)  # the last is no class of the ground truth
            box = (*rng.uniform(0, 50, 2), *rng.uniform(0, 30, 2))
            if boxes and rng.rand() < 0.7:
                category, near = boxes[rng.randint(len(boxes))]
                label = category if rng.rand() < 0.8 else label
                box = near if rng.rand() < 0.3 else np.maximum(near + rng.randint(-2, 3, 4), 0)
            found.append(one(rng, image_id, label, box, id=len(found) + 1,
                             score=round(rng.rand(), 1 if ties else 9)))
    return objects, found, dict.fromkeys(sorted(ids), (H, W)), list(range(1, classes + 1))


def check_same(without, *arguments):
    ours, theirs = coco_tables(*arguments), without(coco_tables, *arguments)
    for name in ("precision", "scores", "recall"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name), strict=True)
    return ours


SCENES = [
    {}, {"ties": False}, {"crowds": 1}, {"crowds": 0.6, "most": 60}, {"empty": 1}, {"empty": 0.9},
    {"dets": 0}, {"dets": 400, "images": 2}, {"most": 120, "dets": 350, "images": 2},
    {"tiny": True}, {"classes": 1}, {"classes": 20, "images": 15}, {"images": 1},
]


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
@pytest.mark.parametrize("number", range(len(SCENES)))
def test_every_number_is_pycocotools(without, capfd, iou_type, number):
    what = scene(number, **SCENES[number])
    for limits in LIMITS:
        tables = check_same(without, *what, iou_type, limits)
    assert tables.precision.shape == (10, 101, len(what[3]), 4, 3)
    check_same(without, *what, iou_type, LIMITS[0], (0.1, 0.5, 0.999, 1.0))
    assert capfd.readouterr() == ("", "")
    if number < 2:
        assert (tables.precision > 0).any()


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
def test_odd_ids_scores_and_boxes(without, iou_type):
    def changed(which, **changes):
        objects, found, sizes, classes = scene(50)
        group = {"found": found, "objects": objects}[which]
        for number, each in enumerate(group):
            each.update({key: change(each[key], number) for key, change in changes.items()})
        return objects, found, sizes, classes, iou_type

    nan, inf = float("nan"), float("inf")
    for score in (lambda s, i: s - 0.5, lambda s, i: -0.0 if i % 2 else 0.0, lambda s, i: 0.5,
                  lambda s, i: s * 1e300):
        check_same(without, *changed("found", score=score))
    for box in ((0, 0, 0, 0), (5, 5, -3, 4), (5, 5, -3, -4), (5, 5, inf, 4), (nan, 5, 4, 4)):
        check_same(without, *changed("found", bbox=lambda b, i, box=box: list(map(float, box))))
    check_same(without, *changed("objects", bbox=lambda b, i: [*b[:2], 0.0, 0.0]))
    for area in (0.0, 32.0**2, 96.0**2, 1e11, -1.0, nan):
        check_same(without, *changed("objects", area=lambda a, i, area=area: area))
    objects, found, sizes, classes, _ = changed("found")
    for far in (-100, 2**53 + 1, 2**62):
        moved = [[{**each, "image_id": each["image_id"] + far} for each in group]
                 for group in (objects, found)]
        check_same(without, *moved, {i + far: size for i, size in sizes.items()}, classes, iou_type)
    moved = [[{**each, "category_id": each["category_id"] - 3} for each in group]
             for group in (objects, found)]
    check_same(without, *moved, sizes, [each - 3 for each in classes], iou_type)
    check_same(without, objects, found, sizes, [2], iou_type)
    check_same(without, objects, found, sizes, [77], iou_type)
    check_same(without, objects, found, dict.fromkeys(sizes), classes, "bbox")
    for few in (([], found), (objects, []), ([], [])):
        check_same(without, *few, sizes, classes, iou_type)


@pytest.mark.parametrize("fill", ["none", "all", "first", "last", "noise", "ellipse"])
def test_codes_of_masks_have_the_same_bytes(without, fill):
    mask = np.zeros((37, 53), bool)
    y, x = np.ogrid[:37, :53]
    mask[:] = {"none": 0, "all": 1, "first": (x == 0) & (y == 0), "last": (x == 52) & (y == 36),
               "noise": np.random.RandomState(0).rand(37, 53) < 0.5,
               "ellipse": (x - 20) ** 2 / 99 + (y - 20) ** 2 / 200 < 1}[fill]
    kinds = [mask[None], np.where(mask, 0.51, 0.5)[None], np.asfortranarray(mask)[None]]
    for kind in kinds:
        (fast,), (plain,) = encode_masks(kind), without(encode_masks, kind)
        assert fast == plain == codec.encode(np.asfortranarray(mask, np.uint8))
        assert type(fast["counts"]) is bytes


def test_the_fast_package_is_used_where_it_is_there(monkeypatch, without):
    """A fallback that came always would pass every other test."""
    objects, found, sizes, classes = scene(1)
    calls = []

    class Counting:
        mask, COCO, COCOeval = (getattr(fast_package(), name) for name in
                                ("mask", "COCO", "COCOeval"))

        def __getattribute__(self, name):
            calls.append(name)
            return object.__getattribute__(self, name)

    monkeypatch.setattr(coco_package, "fast_package", Counting)
    monkeypatch.setattr("metrics.coco_tables.fast_package", Counting)
    coco_tables(objects, found, sizes, classes, "segm")
    encode_masks(np.zeros((1, 2, 2), bool))
    assert calls == ["COCO", "COCO", "COCOeval", "mask"]


def test_a_package_that_cannot_be_loaded_is_done_without(tmp_path):
    """A wheel for another C library, say."""
    (tmp_path / "hotcoco.py").write_text("raise ImportError('GLIBC_2.99 not found')")
    code = (f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
            "from metrics.coco_package import fast_package\nassert fast_package() is None")
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=120)


def test_it_is_a_core_requirement():
    lines = (ROOT / "requirements.txt").read_text().partition("# Only for `make test`")[0]
    assert re.search(r"^hotcoco>=1\.3 +# ", lines, re.MULTILINE)
    assert fast_package() is not None


def test_the_evaluator_gives_the_same_with_both(without):
    objects, found, sizes, classes = scene(3, ties=False)
    truth = {"images": [{"id": i, "height": H, "width": W} for i in sizes],
             "annotations": objects, "categories": [{"id": i} for i in classes]}
    evaluator = CocoEvaluator(truth)
    for image_id in sizes:
        own = [each for each in found if each["image_id"] == image_id]
        boxes = np.array([each["bbox"] for each in own]).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        masks = [codec.decode(each["segmentation"]) for each in own]
        evaluator.update({image_id: {
            "boxes": boxes, "scores": np.array([each["score"] for each in own]),
            "labels": np.array([each["category_id"] for each in own]),
            "masks": np.array(masks, bool).reshape(-1, H, W)}})
    ours, theirs = evaluator.compute(), without(evaluator.compute)
    assert ours["box/all"] > 0
    assert list(ours) == list(theirs)
    np.testing.assert_array_equal(list(ours.values()), list(theirs.values()))
    np.testing.assert_array_equal(list(evaluator.mmdetection_scores().values()),
                                  list(without(evaluator.mmdetection_scores).values()))
