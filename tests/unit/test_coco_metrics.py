import contextlib
import io
import json
import math
import pickle
import sys

import numpy as np
import pytest
import torch
from pycocotools import mask as codec

from metrics import CocoEvaluator, format_table
from metrics import coco as coco_module
from metrics.coco_yolact import match
from runtime.errors import Failed, InputError, SaveError

SIZE = 100  # pixels, the side of every image here


def box_mask(x1, y1, x2, y2):
    mask = np.zeros((SIZE, SIZE), bool)
    mask[y1:y2, x1:x2] = True
    return mask


def ground_truth(objects, num_images=2, categories=(1, 2)):
    """COCO dict of [(image id, category, x1 y1 x2 y2, crowd), ...]; images are 1 .. num_images."""
    annotations = []
    for number, (image_id, category, box, crowd) in enumerate(objects, start=1):
        x1, y1, x2, y2 = box
        rle = codec.encode(np.asfortranarray(box_mask(*box), np.uint8))
        annotations.append({
            "id": number, "image_id": image_id, "category_id": category, "iscrowd": crowd,
            "bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1),
            "segmentation": {"size": rle["size"], "counts": rle["counts"].decode()}})
    return {"images": [{"id": i, "height": SIZE, "width": SIZE} for i in range(1, num_images + 1)],
            "annotations": annotations, "categories": [{"id": i} for i in categories]}


def found(*objects):
    """Fields of [(category, x1 y1 x2 y2, score), ...]."""
    return {"boxes": np.array([one[1] for one in objects], float).reshape(-1, 4),
            "scores": np.array([one[2] for one in objects], float),
            "labels": np.array([one[0] for one in objects], int),
            "masks": np.array([box_mask(*one[1]) for one in objects]).reshape(-1, SIZE, SIZE)}


BIG = (10, 10, 60, 60)
OTHER = (62, 62, 92, 92)


def random_case(seed, num_images=12):
    """Objects (one in eight a crowd) and jittered, missed, invented and mislabelled detections."""
    rng = np.random.RandomState(seed)
    objects, detections = [], {}
    for image_id in range(1, num_images + 1):
        here = []
        for _ in range(rng.randint(0, 6)):
            x1, y1 = rng.randint(0, 60, 2).tolist()
            w, h = rng.randint(5, 40, 2).tolist()
            box = (x1, y1, x1 + w, y1 + h)
            category = int(rng.randint(1, 4))
            objects.append((image_id, category, box, int(rng.rand() < 0.125)))
            jitter = np.clip(np.array(box) + rng.randint(-3, 4, 4), 0, SIZE)
            if rng.rand() < 0.8 and jitter[2] > jitter[0] and jitter[3] > jitter[1]:
                label = category if rng.rand() < 0.8 else rng.randint(1, 5)
                here.append((label, tuple(jitter), round(rng.rand(), 2)))
        if rng.rand() < 0.3:
            here.append((rng.randint(1, 5), (5, 5, 20, 30), round(rng.rand(), 2)))
        detections[image_id] = found(*here)
    return ground_truth(objects, num_images, categories=(1, 2, 3, 4)), detections


def evaluator_of(seed, **options):
    truth, detections = random_case(seed)
    evaluator = CocoEvaluator(truth, **options)
    evaluator.update(detections)
    return evaluator


def use_pycocotools(monkeypatch):
    monkeypatch.setitem(sys.modules, "hotcoco", None)


def pycocotools_stats(truth, detections, iou_type):
    """The twelve numbers straight from pycocotools' own loadRes and summarize."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    lines = []
    for image_id, fields in detections.items():
        rows = zip(fields["boxes"], fields["scores"], fields["labels"], fields["masks"],
                   strict=True)
        for box, score, label, mask in rows:
            one = {"image_id": image_id, "category_id": int(label), "score": float(score)}
            if iou_type == "bbox":
                one["bbox"] = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
            else:
                one["segmentation"] = codec.encode(np.asfortranarray(mask, np.uint8))
            lines.append(one)
    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO()
        reference.dataset = json.loads(json.dumps(truth))
        reference.createIndex()
        evaluation = COCOeval(reference, reference.loadRes(lines), iou_type)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [100 * x if x > -1 else math.nan for x in evaluation.stats]


@pytest.mark.parametrize("package", ["hotcoco", "pycocotools"])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_twelve_numbers_are_pycocotools(package, seed, monkeypatch, capfd):
    if package == "pycocotools":
        use_pycocotools(monkeypatch)
    truth, detections = random_case(seed)
    evaluator = CocoEvaluator(truth)
    evaluator.update(detections)
    metrics = evaluator.compute()
    for iou_type in ("bbox", "segm"):
        ours = [metrics[f"{iou_type}/{name}"] for name, *_ in coco_module.SUMMARY]
        # both average the same numbers, perhaps in another order
        np.testing.assert_allclose(ours, pycocotools_stats(truth, detections, iou_type),
                                   rtol=1e-12)
    assert metrics["box/all"] == metrics["bbox/AP"]
    assert metrics["mask/75"] == metrics["segm/AP75"]
    assert capfd.readouterr() == ("", "")


def test_every_key_with_both_packages(monkeypatch):
    evaluator = evaluator_of(3)
    faster = evaluator.compute()
    use_pycocotools(monkeypatch)
    plain = evaluator.compute()
    assert list(faster) == list(plain)
    assert len(plain) == 2 * (11 + 12)
    np.testing.assert_array_equal(list(faster.values()), list(plain.values()))


def test_the_ground_truth_is_left_as_it_was_and_counts_twice_the_same():
    truth, detections = random_case(4)
    before = json.dumps(truth)
    evaluator = CocoEvaluator(truth)
    evaluator.update(detections)
    first, second = evaluator.compute(), evaluator.compute()
    np.testing.assert_equal(list(first.values()), list(second.values()))
    assert json.dumps(truth) == before


def test_ground_truth_as_dict_file_and_object(tmp_path):
    from pycocotools.coco import COCO

    truth, detections = random_case(5)
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(truth))
    with contextlib.redirect_stdout(io.StringIO()):
        loaded = COCO(str(path))
    values = []
    for source in (truth, path, str(path), loaded):
        evaluator = CocoEvaluator(source)
        evaluator.update(detections)
        values.append(list(evaluator.compute().values()))
    for other in values[1:]:
        np.testing.assert_equal(other, values[0])


def test_polygons_uncompressed_and_compressed_masks_are_the_same_object():
    truth = ground_truth([(1, 1, BIG, 0)], num_images=1)
    x1, y1, x2, y2 = BIG
    polygon = [[x1, y1, x2, y1, x2, y2, x1, y2]]
    flat = box_mask(*BIG).T.reshape(-1).astype(int)  # RLE runs down the columns
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *edges, flat.size]).tolist()
    for form in (polygon, {"size": [SIZE, SIZE], "counts": counts}):
        truth["annotations"][0]["segmentation"] = form
        evaluator = CocoEvaluator(truth)
        evaluator.update({1: found((1, BIG, 0.9))})
        assert evaluator.compute()["mask/95"] == pytest.approx(100)


def test_missing_area_box_and_ids_are_derived():
    truth = ground_truth([(1, 1, BIG, 0), (1, 2, OTHER, 0)], num_images=1)
    for one in truth["annotations"]:
        for key in ("area", "bbox", "iscrowd", "id"):
            del one[key]
    evaluator = CocoEvaluator(truth)
    evaluator.update({1: found((1, BIG, 0.9), (2, OTHER, 0.8))})
    metrics = evaluator.compute()
    assert metrics["box/all"] == metrics["mask/all"] == pytest.approx(100)
    assert metrics["bbox/APm"] == pytest.approx(100)    # 50x50 px
    assert metrics["bbox/APs"] == pytest.approx(100)    # 30x30 px
    assert math.isnan(metrics["bbox/APl"])


def test_an_object_with_id_0_can_be_found():
    truth = ground_truth([(1, 1, BIG, 0)], num_images=1)
    truth["annotations"][0]["id"] = 0
    evaluator = CocoEvaluator(truth)
    evaluator.update({1: found((1, BIG, 0.9))})
    assert evaluator.compute()["box/all"] == pytest.approx(100)


def test_objects_of_images_without_detections_count_as_missed():
    evaluator = CocoEvaluator(ground_truth([(1, 1, BIG, 0), (2, 1, BIG, 0)]))
    evaluator.update({1: found((1, BIG, 0.9))})
    half = evaluator.compute()["box/50"]
    assert half == pytest.approx(100 * 51 / 101)  # recall reaches 0.5: 51 of the 101 points
    assert evaluator.compute(image_ids=evaluator.image_ids)["box/50"] == pytest.approx(100)
    evaluator.update({2: found()})
    assert evaluator.image_ids == [1, 2]
    assert evaluator.compute(image_ids=evaluator.image_ids)["box/50"] == half
    assert evaluator.compute(image_ids=[2])["box/50"] == 0
    with pytest.raises(ValueError, match="7"):
        evaluator.compute(image_ids=[1, 7])


def test_torch_and_numpy_give_the_same():
    truth, detections = random_case(6)
    evaluator, other = CocoEvaluator(truth), CocoEvaluator(truth)
    evaluator.update(detections)
    other.update({torch.tensor(image_id): {
        name: torch.from_numpy(values) for name, values in fields.items()}
        for image_id, fields in detections.items()})
    np.testing.assert_equal(list(other.compute().values()), list(evaluator.compute().values()))
    fields = found((1, BIG, 0.5))
    half = {"boxes": torch.from_numpy(fields["boxes"]).bfloat16(), "labels": [1],
            "scores": torch.tensor([0.5], dtype=torch.bfloat16, requires_grad=True),
            "masks": torch.from_numpy(fields["masks"]).bfloat16()}
    other = CocoEvaluator(ground_truth([(1, 1, BIG, 0)], num_images=1))
    other.update({1: half})
    assert other.compute()["mask/all"] == pytest.approx(100)


def test_masks_are_ranked_by_their_own_scores():
    truth = ground_truth([(1, 1, BIG, 0)], num_images=1)
    fields = found((1, BIG, 0.9), (1, OTHER, 0.1))
    evaluator = CocoEvaluator(truth)
    evaluator.update({1: fields | {"mask_scores": np.array([0.1, 0.9])}})
    for protocol in ("coco", "yolact"):
        metrics = evaluator.compute(protocol=protocol)
        assert metrics["box/50"] == pytest.approx(100)
        assert metrics["mask/50"] == pytest.approx(50)  # the false one comes first


def test_merged_parts_equal_the_whole_and_no_image_counts_twice():
    truth, detections = random_case(7)
    whole = CocoEvaluator(truth)
    whole.update(detections)
    parts = [CocoEvaluator(truth) for _ in range(3)]
    for image_id, fields in detections.items():
        parts[image_id % 3].update({image_id: fields})
        parts[0].update({image_id: fields})     # every image given twice in all
    parts[0].update(detections)
    parts[0].merge(parts[1])
    parts[0].merge(pickle.loads(pickle.dumps(parts[2].results())))
    for protocol in ("coco", "yolact"):
        np.testing.assert_equal(list(parts[0].compute(protocol=protocol).values()),
                                list(whole.compute(protocol=protocol).values()))
    # what comes second for an image is not looked at, even where it differs
    parts[0].update({1: found((3, BIG, 1.0))})
    parts[1].reset()
    parts[1].update({1: found((3, BIG, 1.0))})
    parts[0].merge(parts[1])
    np.testing.assert_equal(list(parts[0].compute().values()), list(whole.compute().values()))
    parts[0].reset()
    assert parts[0].image_ids == []
    assert parts[0].compute()["box/all"] == 0


def test_boxes_alone():
    truth = ground_truth([(1, 1, BIG, 0)], num_images=1)
    del truth["annotations"][0]["segmentation"]
    evaluator = CocoEvaluator(truth, iou_types=("bbox",))
    fields = found((1, BIG, 0.9))
    del fields["masks"]
    evaluator.update({1: fields})
    metrics = evaluator.compute()
    assert metrics["box/all"] == pytest.approx(100)
    assert not any(name.startswith(("mask", "segm")) for name in metrics)
    with pytest.raises(ValueError, match="masks are not collected"):
        evaluator.write_detections(path_mask="mask.json")


@pytest.mark.parametrize("package", ["hotcoco", "pycocotools"])
def test_ids_may_start_at_0(package, monkeypatch):
    if package == "pycocotools":
        use_pycocotools(monkeypatch)
    truth = ground_truth([(0, 0, BIG, 0), (0, 3, OTHER, 0)], categories=(0, 3))
    truth["images"] = [{"id": 0, "height": SIZE, "width": SIZE}]
    evaluator = CocoEvaluator(truth)
    evaluator.update({0: found((0, BIG, 0.9), (3, OTHER, 0.8))})
    for protocol in ("coco", "yolact"):
        metrics = evaluator.compute(protocol=protocol)
        assert metrics["box/all"] == metrics["mask/all"] == pytest.approx(100)


@pytest.mark.parametrize("package", ["hotcoco", "pycocotools"])
def test_nothing_to_find_is_not_a_number(package, monkeypatch):
    if package == "pycocotools":
        use_pycocotools(monkeypatch)
    evaluator = CocoEvaluator(ground_truth([]))
    evaluator.update({1: found((1, BIG, 0.9))})
    metrics = evaluator.compute()
    assert len(metrics) == 46
    assert all(math.isnan(value) for value in metrics.values())
    assert all(math.isnan(value) for value in evaluator.compute(image_ids=[]).values())
    assert set(evaluator.compute(protocol="yolact").values()) == {0.0}
    table = format_table(metrics)
    assert "-" in table.splitlines()[-1]
    assert "nan" not in table


def test_what_does_not_fit_is_refused():
    evaluator = CocoEvaluator(ground_truth([(1, 1, BIG, 0)], num_images=1))
    fields = found((1, BIG, 0.9))
    with pytest.raises(ValueError, match="image 9 is not in the ground truth"):
        evaluator.update({9: fields})
    with pytest.raises(ValueError, match=r"masks are \(50, 100\)"):
        evaluator.update({1: fields | {"masks": fields["masks"][:, :50]}})
    with pytest.raises(ValueError, match="numbers of detections disagree"):
        evaluator.update({1: fields | {"labels": np.array([1, 2])}})
    with pytest.raises(Failed, match=r"not finite .* lower learning rate"):
        evaluator.update({1: fields | {"scores": np.array([np.nan])}})
    with pytest.raises(ValueError, match="iou_types"):
        CocoEvaluator(ground_truth([]), iou_types=("mask",))
    with pytest.raises(ValueError, match="protocol"):
        CocoEvaluator(ground_truth([]), protocol="voc")
    assert evaluator.image_ids == []


def test_bad_ground_truth_is_one_clear_line_a_fault(tmp_path):
    with pytest.raises(InputError, match=r"absent\.json: cannot be read: No such file"):
        CocoEvaluator(tmp_path / "absent.json")
    path = tmp_path / "broken.json"
    path.write_text("{")
    with pytest.raises(InputError, match=r"broken\.json: not a JSON file"):
        CocoEvaluator(path)
    path.write_text("[]")
    with pytest.raises(InputError, match="not a COCO file: the list `images` is missing"):
        CocoEvaluator(path)
    truth = ground_truth([(1, 1, BIG, 0), (1, 1, OTHER, 0)])
    for one in truth["annotations"]:
        del one["segmentation"]
    with pytest.raises(InputError) as caught:
        CocoEvaluator(truth)
    assert [fault.split(": ")[1][:12] for fault in caught.value.faults] == [
        "annotation 1", "annotation 2"]
    truth = ground_truth([(1, 1, BIG, 0)], num_images=1)
    truth["annotations"][0]["segmentation"] = [[0, 0, 9, 0, 9, 9]]
    del truth["images"][0]["height"]
    with pytest.raises(InputError, match="image 1 has no height and width"):
        CocoEvaluator(truth).compute()


def test_yolact_boxes_must_overlap_more_than_the_threshold():
    # 50 % exactly: pycocotools counts it at .50, the original does not
    truth = ground_truth([(1, 1, (0, 0, 40, 40), 0)], num_images=1)
    evaluator = CocoEvaluator(truth, protocol="yolact")
    evaluator.update({1: found((1, (0, 0, 40, 20), 0.9))})
    assert evaluator.compute()["box/50"] == evaluator.compute()["mask/50"] == 0
    assert evaluator.compute(protocol="coco")["box/50"] == pytest.approx(100)


def test_yolact_objects_are_used_once_and_best_first():
    overlaps = np.array([[0.8, 0.9], [0.85, 0.95], [0.7, 0.6]])
    hits = match(overlaps)
    assert hits[0].tolist() == [True, True, False]      # .50: second takes what the first left
    assert hits[7].tolist() == [True, False, False]     # .85: 0.85 is not more than .85
    assert hits[8].tolist() == [False, True, False]     # .90: 0.9 is not more than .90
    assert match(np.zeros((0, 3))).shape == (10, 0)
    assert match(np.zeros((3, 0))).sum() == 0


def test_yolact_quirk_a_detections_on_crowds_are_false():
    truth = ground_truth([(1, 1, BIG, 0), (1, 1, OTHER, 1)], num_images=1)
    evaluator = CocoEvaluator(truth)
    evaluator.update({1: found((1, OTHER, 0.9), (1, BIG, 0.8))})
    assert evaluator.compute()["box/50"] == pytest.approx(100)
    assert evaluator.compute(protocol="yolact")["box/50"] == pytest.approx(50)
    # an image with nothing but a crowd is looked at: what is found there is false
    evaluator = CocoEvaluator(ground_truth([(1, 1, BIG, 0), (2, 1, OTHER, 1)]))
    evaluator.update({1: found((1, BIG, 0.8)), 2: found((1, OTHER, 0.9))})
    assert evaluator.compute(protocol="yolact")["box/50"] == pytest.approx(50)


def test_yolact_quirk_b_images_without_detections_are_forgotten():
    evaluator = CocoEvaluator(ground_truth([(1, 1, BIG, 0), (2, 1, BIG, 0), (2, 2, BIG, 0)]))
    evaluator.update({1: found((1, BIG, 0.9)), 2: found()})
    assert evaluator.compute(protocol="yolact")["box/all"] == pytest.approx(100)
    assert evaluator.compute()["box/all"] == pytest.approx(100 * 51 / 101 / 2)


def test_yolact_quirk_c_a_class_without_objects_counts_as_0():
    evaluator = CocoEvaluator(ground_truth([(1, 1, BIG, 0)], num_images=1))
    evaluator.update({1: found((1, BIG, 0.9), (2, BIG, 0.1))})
    assert evaluator.compute(protocol="yolact")["mask/all"] == pytest.approx(50)
    assert evaluator.compute()["mask/all"] == pytest.approx(100)


def test_yolact_quirk_d_images_without_annotations_are_skipped():
    evaluator = CocoEvaluator(ground_truth([(1, 1, BIG, 0)]))
    evaluator.update({1: found((1, BIG, 0.8)), 2: found((1, BIG, 0.9), (2, BIG, 0.9))})
    assert evaluator.compute(protocol="yolact")["box/all"] == pytest.approx(100)
    assert evaluator.compute()["box/all"] == pytest.approx(50)


def test_yolact_quirk_e_tiny_objects_are_not_looked_for():
    # 4/550 of 600 pixels is 4.36
    truth = {"images": [{"id": 1, "height": 600, "width": 600}, {"id": 2, "height": 600,
             "width": 600}], "categories": [{"id": 1}], "annotations": []}
    for image_id, side in ((1, 4), (1, 5), (2, 4)):
        truth["annotations"].append({"id": side, "image_id": image_id, "category_id": 1,
                                     "bbox": [side * 50, 0, side, 50], "area": side * 50})
    evaluator = CocoEvaluator(truth, iou_types=("bbox",), protocol="yolact")
    fields = {"boxes": [[250, 0, 255, 50]], "scores": [0.9], "labels": [1]}
    evaluator.update({1: fields, 2: fields})    # image 2 has a tiny object only: not visited
    assert evaluator.compute()["box/all"] == pytest.approx(100)
    assert evaluator.compute(protocol="coco")["box/all"] < 50


def test_yolact_boxes_are_truncated():
    truth = ground_truth([(1, 1, BIG, 0)], num_images=1)
    evaluator = CocoEvaluator(truth, iou_types=("bbox",), protocol="yolact")
    evaluator.update({1: {"boxes": [[10.9, 10.9, 60.9, 60.9]], "scores": [1.0], "labels": [1]}})
    assert evaluator.compute()["box/95"] == pytest.approx(100)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools'
def test_detection_files(tmp_path):
    truth = ground_truth([(1, 1, BIG, 0), (2, 2, OTHER, 0)])
    evaluator = CocoEvaluator(truth)
    fields = found((1, BIG, 0.9), (2, (5, 5, 5, 9), 0.8))
    fields["boxes"] = fields["boxes"] + np.array([[0.04, 0.06, 0.26, 0.36], [0, 0, 0, 0]])
    evaluator.update({1: fields | {"mask_scores": np.array([0.5, 0.4])}, 2: found()})
    path_bbox, path_mask = tmp_path / "bbox.json", tmp_path / "mask.json"
    evaluator.write_detections(path_bbox, path_mask)
    assert json.loads(path_bbox.read_text()) == [
        {"image_id": 1, "category_id": 1, "bbox": [10.0, 10.1, 50.2, 50.3], "score": 0.9}]
    [line] = json.loads(path_mask.read_text())
    assert isinstance(line["segmentation"]["counts"], str)
    np.testing.assert_array_equal(codec.decode(line.pop("segmentation")), box_mask(*BIG))
    assert line == {"image_id": 1, "category_id": 1, "score": 0.5}
    assert sorted(tmp_path.iterdir()) == [path_bbox, path_mask]
    # one file alone; none at all for an evaluator that saw nothing
    evaluator.reset()
    evaluator.write_detections(path_mask=path_mask)
    assert json.loads(path_mask.read_text()) == []
    with pytest.raises(SaveError, match=r"mask\.json.bbox\.json"):
        evaluator.write_detections(path_bbox=path_mask / "bbox.json")


def test_detection_files_score_the_same(tmp_path):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth, detections = random_case(8)
    evaluator = CocoEvaluator(truth)
    evaluator.update(detections)
    evaluator.write_detections(tmp_path / "bbox.json", tmp_path / "mask.json")
    metrics = evaluator.compute()
    for iou_type, name in (("bbox", "bbox.json"), ("segm", "mask.json")):
        with contextlib.redirect_stdout(io.StringIO()):
            reference = COCO()
            reference.dataset = truth
            reference.createIndex()
            evaluation = COCOeval(reference, reference.loadRes(str(tmp_path / name)), iou_type)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        # the boxes here are integers, so rounding them to 0.1 changes nothing
        assert 100 * evaluation.stats[0] == pytest.approx(metrics[f"{iou_type}/AP"], rel=1e-12)


def test_table():
    metrics = {f"{word}/{column}": value for word, value in (("box", 42.216), ("mask", 100.0))
               for column in ("all", *coco_module.THRESHOLD_NAMES)}
    lines = format_table(metrics).splitlines()
    assert [cell.strip() for cell in lines[0].split("|")] == [
        "", "all", ".50", ".55", ".60", ".65", ".70", ".75", ".80", ".85", ".90", ".95"]
    assert set(lines[1]) == {"-", "+"}
    assert [cell.strip() for cell in lines[2].split("|")] == ["box"] + ["42.22"] * 11
    assert [cell.strip() for cell in lines[3].split("|")] == ["mask"] + ["100.00"] * 11
    assert len({len(line) for line in lines}) == 1


# --- MMDetection's names


def test_mmdetection_scores_are_pycocotools_as_fractions():
    truth, detections = random_case(0)
    evaluator = CocoEvaluator(truth)
    evaluator.update(detections)
    scores = evaluator.mmdetection_scores()
    names = ("mAP", "mAP_50", "mAP_75", "mAP_s", "mAP_m", "mAP_l")
    assert list(scores) == [f"coco/{kind}_{name}" for kind in ("bbox", "segm") for name in names]
    for iou_type in ("bbox", "segm"):
        # fewer than 100 detections an image: the limits make no difference
        reference = np.array(pycocotools_stats(truth, detections, iou_type)[:6]) / 100
        ours = [scores[f"coco/{iou_type}_{name}"] for name in names]
        np.testing.assert_allclose(ours, np.nan_to_num(reference, nan=-1), rtol=1e-12)


def test_mmdetection_counts_1000_detections_except_in_the_mean():
    evaluator = CocoEvaluator(ground_truth([(1, 1, BIG, 0)]), iou_types=("bbox",))
    wrong = [(1, (0, 0, 3, 3), 0.9)] * 120
    evaluator.update({1: found(*wrong, (1, BIG, 0.5)), 2: found()})
    scores = evaluator.mmdetection_scores()
    assert scores["coco/bbox_mAP"] == 0
    assert scores["coco/bbox_mAP_50"] == pytest.approx(1 / 121, rel=1e-6)
    assert scores["coco/bbox_mAP_s"] == -1


def test_mmdetection_scores_of_some_categories():
    evaluator = CocoEvaluator(ground_truth([(1, 1, BIG, 0), (1, 2, OTHER, 0)]))
    evaluator.update({1: found((1, BIG, 0.9)), 2: found()})
    # 101 recalls, the last of which rounding may miss
    assert evaluator.mmdetection_scores()["coco/segm_mAP"] == pytest.approx(0.5)
    only = evaluator.mmdetection_scores(category_ids=[1])
    assert only["coco/segm_mAP"] == pytest.approx(1)
