"""Scores by class, confusions and extremes of instances, beside numbers by hand and of COCO."""

import numpy as np
import pytest
from PIL import Image

from data.predicting.findings import classes_of, save_findings
from metrics.coco import CocoEvaluator
from metrics.instances import InstanceScores, matched, optimum
from runtime.run.ending import PicturesOfBest

SIDE = 100
NAMES = {3: "cat", 5: "ox", 9: "bee"}


def truth(objects, images=3):
    """A COCO dict of objects (image, category, x, y, side[, crowd])."""
    annotations = []
    for number, (image, category, x, y, side, *crowd) in enumerate(objects):
        box = [x, y, side, side]
        corners = [x, y, x + side, y, x + side, y + side, x, y + side]
        annotations.append({"id": number + 1, "image_id": image, "category_id": category,
                            "bbox": box, "area": side * side, "segmentation": [corners],
                            "iscrowd": 0})
        if crowd:
            rows = np.zeros((SIDE, SIDE), np.uint8)
            rows[y:y + side, x:x + side] = 1
            runs = np.flatnonzero(np.diff(np.r_[0, rows.T.ravel(), 0]))
            counts = np.diff(np.r_[0, runs, SIDE * SIDE]).tolist()
            annotations[-1] |= {"iscrowd": 1,
                                "segmentation": {"size": [SIDE, SIDE], "counts": counts}}
    return {"images": [{"id": i, "height": SIDE, "width": SIDE} for i in range(1, images + 1)],
            "annotations": annotations, "categories": [{"id": i, "name": n}
                                                       for i, n in NAMES.items()]}


def squares(*found):
    """What `update` takes, of (category, x, y, side, score)."""
    masks = np.zeros((len(found), SIDE, SIDE), bool)
    for mask, (_, x, y, side, _) in zip(masks, found, strict=True):
        mask[y:y + side, x:x + side] = True
    return {"boxes": [[x, y, x + side, y + side] for _, x, y, side, _ in found],
            "labels": [each[0] for each in found], "masks": masks,
            "scores": [each[-1] for each in found]}


def scores_of(objects, found, compute=True, iou_types=("bbox", "segm")):
    evaluator = CocoEvaluator(truth(objects), iou_types)
    evaluator.update({image: squares(*rows) for image, rows in found.items()})
    if compute:
        evaluator.compute()
    return InstanceScores(evaluator, evaluator.ground_truth.sizes, NAMES)


OBJECTS = [(1, 3, 0, 0, 20), (1, 5, 50, 50, 20), (2, 3, 0, 0, 20), (2, 3, 50, 0, 20)]
FOUND = {
    1: [(3, 0, 0, 20, 0.9), (3, 50, 50, 20, 0.8)],       # the ox is taken for a cat
    2: [(3, 0, 0, 20, 0.7), (3, 80, 80, 15, 0.2)],       # one is missed, one is nowhere
}


def test_scores_by_class_by_hand():
    rows = scores_of(OBJECTS, FOUND).by_class()
    assert list(rows) == ["cat", "ox", "bee"]
    cat = rows["cat"]
    # in order of score: right, wrong, right, wrong; of 3 objects
    assert cat["support"] == 3
    for word in ("box", "mask"):
        assert cat[f"{word}_precision"] == pytest.approx(2 / 3)
        assert cat[f"{word}_recall"] == pytest.approx(2 / 3)
        assert cat[f"{word}_f1"] == pytest.approx(2 / 3)
        assert cat[f"{word}_score"] == pytest.approx(0.7)
        # 34 of 101 recalls at precision 1, 33 at 2/3
        assert cat[f"{word}_ap50"] == pytest.approx((34 + 33 * 2 / 3) / 101)
    ox = {"support": 1, **{f"{word}_{key}": value for word in ("box", "mask") for key, value in (
        ("ap", 0), ("ap50", 0), ("precision", None), ("recall", 0), ("f1", 0), ("score", None))}}
    assert rows["ox"] == ox
    assert rows["bee"]["support"] == 0
    assert all(value is None for key, value in rows["bee"].items() if key != "support")


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
def test_confusions_by_hand(iou_type):
    found = scores_of(OBJECTS, FOUND)
    # what has a lower score than 0.7, where F1 is the best, does not count
    assert found.confusion[iou_type].tolist() == [
        [2, 0, 0, 1],   # cats: found, found, missed
        [1, 0, 0, 0],   # the ox
        [0, 0, 0, 0],
        [0, 0, 0, 0]]


def test_extremes_are_the_images_with_most_and_least_right():
    found = scores_of(OBJECTS, FOUND)
    worst = [(round(score, 3), image) for score, _, image in found.extremes.worst]
    # image 1: one right of 2 objects and 2 detections; 2: one of 2 and 1; 3 has nothing at all
    assert worst == [(0.5, 1), (0.667, 2)]


def test_averages_are_those_of_the_evaluation():
    rng = np.random.RandomState(0)
    objects, found = [], {}
    for image in (1, 2, 3):
        rows = []
        for _ in range(12):
            category = [3, 5][rng.randint(2)]
            x, y, side = rng.randint(0, 60), rng.randint(0, 60), rng.randint(8, 40)
            objects.append((image, category, x, y, side))
            if rng.rand() < 0.8:
                label = category if rng.rand() < 0.8 else 8 - category
                rows.append((label, x + rng.randint(3), y, side, rng.rand()))
        found[image] = rows
    evaluator = CocoEvaluator(truth(objects))
    evaluator.update({image: squares(*rows) for image, rows in found.items()})
    metrics = evaluator.compute()
    seen = InstanceScores(evaluator, [1, 2, 3], NAMES)
    rows = seen.by_class()
    for word in ("box", "mask"):
        for key, name in (("ap", "all"), ("ap50", "50")):
            mean = np.mean([rows[each][f"{word}_{key}"] for each in ("cat", "ox")])
            assert 100 * mean == pytest.approx(metrics[f"{word}/{name}"])
    # each object and each detection that counts stands in the matrix once
    for iou_type, word in (("bbox", "box"), ("segm", "mask")):
        counts = seen.confusion[iou_type]
        assert counts[:3].sum() == len(objects)
        least = {3: rows["cat"][f"{word}_score"], 5: rows["ox"][f"{word}_score"]}
        counted = sum(row[-1] >= least[row[0]] for each in found.values() for row in each)
        assert counts[:, :3].sum() == counted
        for place, name in enumerate(("cat", "ox")):
            right = counts[place, place]
            assert rows[name][f"{word}_recall"] == pytest.approx(right / counts[place].sum())


def test_without_tables_they_are_made():
    assert scores_of(OBJECTS, FOUND, compute=False).by_class() == scores_of(
        OBJECTS, FOUND).by_class()
    evaluator = CocoEvaluator(truth(OBJECTS))
    evaluator.update({1: squares(*FOUND[1])})
    evaluator.compute()
    evaluator.update({2: squares(*FOUND[2])})  # what was computed is out of date
    late = InstanceScores(evaluator, [1, 2, 3], NAMES)
    assert late.by_class() == scores_of(OBJECTS, FOUND).by_class()


def test_boxes_alone_lead_where_there_are_no_masks():
    found = scores_of(OBJECTS, FOUND, iou_types=("bbox",))
    assert list(found.confusion) == ["bbox"]
    assert len(found.extremes.worst) == 2
    assert "mask_ap" not in found.by_class()["cat"]
    assert found.truth(1)["rles"] is None


def test_nothing_found_and_nothing_there():
    empty = scores_of(OBJECTS, {1: [], 2: []})
    assert empty.by_class()["cat"]["box_recall"] == 0
    assert empty.by_class()["cat"]["box_precision"] is None
    assert empty.confusion["segm"][:, -1].tolist() == [3, 1, 0, 0]
    nothing = scores_of([], FOUND)
    assert not nothing.has_objects
    assert nothing.confusion["bbox"][-1].tolist() == [3, 0, 0, 0]  # of scores from 0.3 on


# --- the optimum and the matching


@pytest.mark.parametrize("support", [1, 2, 7, 60, 1000])
def test_the_optimum_is_that_of_all_detections(support):
    rng = np.random.RandomState(support)
    count = 2 * support
    is_right = rng.rand(count) < np.linspace(0.8, 0.1, count)
    is_right[np.flatnonzero(is_right)[support:]] = False
    scores = np.sort(rng.rand(count))[::-1]
    right = np.cumsum(is_right)
    precision = right / np.arange(1, count + 1)
    curve, at_scores = np.zeros(101), np.zeros(101)
    best_later = np.maximum.accumulate(precision[::-1])[::-1]
    for i, place in enumerate(np.searchsorted(right / support, np.linspace(0, 1, 101))):
        if place < count:
            curve[i], at_scores[i] = best_later[place], scores[place]
    found = optimum(curve, at_scores, support, count)
    f1 = 2 * right / (support + np.arange(1, count + 1))
    if not is_right.any():
        assert found == (0.0, 0.0, 0.0, None)
        return
    tolerance = 0 if support <= 100 else 0.01  # recall is known to a hundredth
    assert found.f1 == pytest.approx(f1.max(), abs=tolerance + 1e-9)
    at = int(np.searchsorted(-scores, -found.score))
    assert f1[at] == pytest.approx(found.f1)
    assert precision[at] == pytest.approx(found.precision)


@pytest.mark.parametrize("truth, found, overlaps, wanted", [
    # the surer detection of another class does not take the object from the right one
    ([0], [1, 0], [[0.9], [0.6]], [(0, 0, 0.6), (9, 1, 0.0)]),
    # of two right ones the surer
    ([0], [0, 0], [[0.6], [0.9]], [(0, 0, 0.6), (9, 0, 0.0)]),
    # each takes what it covers best
    ([0, 0], [0, 0], [[0.6, 0.8], [0.7, 0.9]], [(0, 0, 0.8), (0, 0, 0.7)]),
    # too little overlap
    ([0], [0], [[0.49]], [(9, 0, 0.0), (0, 9, 0.0)]),
    # on a crowd nothing is wrong, and a crowd is not missed
    ([-1, 1], [0, 1], [[0.9, 0.0], [0.8, 0.0]], [(1, 9, 0.0)]),
])
def test_matching(truth, found, overlaps, wanted):
    assert list(matched(truth, found, np.array(overlaps), 9)) == wanted


def test_a_crowd_does_not_count():
    found = scores_of([(1, 3, 0, 0, 60, True), (1, 3, 70, 70, 20)],
                      {1: [(3, 70, 70, 20, 0.9), (3, 10, 10, 20, 0.95)]})
    assert found.by_class()["cat"]["support"] == 1
    for counts in found.confusion.values():
        assert counts.tolist() == [[1, 0, 0, 0], [0] * 4, [0] * 4, [0] * 4]
    assert len(found.truth(1)["boxes"]) == 1


# --- what is told and drawn


class Run:
    def __init__(self, folder):
        self.folder, self.lines = folder, []

    def log(self, text):
        self.lines += text.splitlines()


class Photos:
    def pixels(self, image_id):
        return np.full((SIDE, SIDE, 3), 60 * image_id, np.uint8)

    def file_name(self, image_id):
        return f"{image_id}.jpg"


def test_the_table_has_names(tmp_path):
    run = Run(tmp_path)
    found = scores_of(OBJECTS, FOUND)
    assert classes_of(run, found) == found.by_class()
    assert run.lines[0].startswith("class (scores of 1)  objects  box ap  box ap50")
    assert run.lines[1].split() == ["cat", "3", *["0.554", "0.554", "0.667", "0.667", "0.667"] * 2]
    assert run.lines[3].split() == ["bee", "0", *["-"] * 10]
    assert (tmp_path / "classes.txt").read_text().splitlines() == run.lines
    found.names = [f"class {i}" for i in range(31)]
    found.table = lambda: ["many"]
    found.by_class = dict
    classes_of(run, found)
    assert run.lines[-1] == f"The scores of 31 classes are in {tmp_path / 'classes.txt'}."
    assert classes_of(run, None) is None


def test_pictures_are_drawn(tmp_path):
    save_findings(Run(tmp_path), Photos(), scores_of(OBJECTS, FOUND), "best, iteration 7")
    names = ["confusion_box.png", "confusion_mask.png", "extremes.png", "precision_recall.png",
             "predictions.png"]
    assert sorted(path.name for path in tmp_path.glob("*.png")) == names
    assert all(min(Image.open(tmp_path / name).size) > 200 for name in names)
    # 3 images in two columns of pairs; 2 extremes
    wide, high = Image.open(tmp_path / "extremes.png").size
    assert wide > 4 * 320
    assert high < 500


def test_without_objects_only_predictions_are_drawn(tmp_path):
    save_findings(Run(tmp_path), Photos(), scores_of([], FOUND), "x")
    assert [path.name for path in tmp_path.glob("*.png")] == ["predictions.png"]


def test_where_nothing_was_scored_nothing_is_drawn(tmp_path):
    save_findings(Run(tmp_path), Photos(), None, "x")
    assert list(tmp_path.iterdir()) == []


def test_images_that_were_not_evaluated_are_not_drawn(tmp_path):
    found = scores_of(OBJECTS, {2: FOUND[2]})
    assert found.given_ids == [2]
    assert [image for *_, image in found.extremes.worst] == [2]
    assert found.confusion["bbox"].sum() == 4  # missed objects of image 1 count


def test_pictures_of_the_best_take_a_tenth_of_the_time(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("runtime.run.ending.time.perf_counter", lambda: now[0])
    drawn = []

    def draw(found, which):
        drawn.append((found, which))
        now[0] += 5

    pictures = PicturesOfBest(draw)
    pictures.validated("a", 1, is_best=True, is_last=False)
    pictures.validated("b", 2, is_best=True, is_last=False)  # too soon
    pictures.validated("c", 3, is_best=False, is_last=False)
    now[0] = 49
    pictures.validated("d", 4, is_best=False, is_last=False)
    assert drawn == [("a", "best, iteration 1")]
    now[0] = 50
    pictures.validated("e", 5, is_best=False, is_last=False)
    assert drawn[1:] == [("b", "best, iteration 2")]
    pictures.validated("f", 6, is_best=True, is_last=False)
    pictures.validated("g", 7, is_best=False, is_last=True)
    assert drawn[2:] == [("f", "best, iteration 6")]
    pictures.validated("h", 8, is_best=None, is_last=True)  # none is kept as the best
    assert drawn[3:] == [("h", "iteration 8")]
