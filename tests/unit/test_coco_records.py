"""Values that can only mean one thing are read, in training and in evaluation; others are named."""

import json
import math

import numpy as np
import pytest
from coco_maker import annotation, check_coco, crowd, document, write

from data.coco_format import CocoIndex
from metrics import CocoEvaluator
from runtime.errors import InputError

HW = (60, 80)


def read(tmp_path, content):
    """(index, the evaluator's objects by image) of the same file, which has no fault."""
    info, images = write(tmp_path, content)
    index = CocoIndex.from_file(info)
    assert index.faults == ()
    assert check_coco(info, images, index=index) == []
    return index, CocoEvaluator(info).ground_truth.objects


@pytest.mark.parametrize("value, crowds", [
    (0, False), ("0", False), (None, False), (False, False), (0.0, False), ("", False),
    ("false", False), ("0.0", False), (1, True), ("1", True), (True, True), (1.0, True),
    (" 1 ", True), ("True", True)])
def test_what_says_whether_it_is_a_crowd(tmp_path, value, crowds):
    content = document([annotation(1, 1)])
    content["annotations"][0]["iscrowd"] = value
    index, objects = read(tmp_path, content)
    assert index.ann_crowd.tolist() == [crowds]
    assert objects[1][0]["iscrowd"] == crowds


def test_crowds_in_text_come_last_as_others_do(tmp_path):
    index, _ = read(tmp_path, document([annotation(1, 1, iscrowd="1"),
                                        annotation(2, 1, box=(30, 5, 9, 9), iscrowd="0")]))
    assert index.ann_ids.tolist() == [2, 1]


@pytest.mark.parametrize("value, area", [
    (12, 12), ("12", 12), (" 1.5e2 ", 150), (None, 400), ("", 400), (0, 400), ("0", 400),
    (-400, 400), (math.nan, 400), ("nan", 400), (math.inf, 400)])
def test_what_gives_the_area(tmp_path, value, area):
    for own in (annotation(1, 1), crowd(1, 1, HW, (10, 10, 20, 20)) | {"iscrowd": 0}):
        own["area"] = value
        index, objects = read(tmp_path, document([own]))
        assert index.ann_areas.tolist() == [area]
        assert objects[1][0]["area"] == area


def test_areas_of_masks(tmp_path):
    """Of every form of mask, and 0 only where not one pixel is set."""
    polygons = [[10, 10, 30, 10, 30, 30, 10, 30], [40, 10, 50, 10, 50, 30]]
    sliver = [[5.2, 5.2, 5.4, 5.2, 5.4, 5.4, 5.2, 5.4]]  # within one pixel, which it does not fill
    thin = [[5, 20, 25, 20, 25, 20]]  # measures nothing by its corners
    empty = {"size": list(HW), "counts": [HW[0] * HW[1]]}
    content = document([
        annotation(1, 1, area=None, segmentation=polygons, bbox=None),
        annotation(2, 1, area=0, segmentation=sliver, bbox=None),
        annotation(3, 1, area=0, segmentation=thin, bbox=[5, 20, 20, 1]),
        annotation(4, 1, area=0, segmentation=empty),
        crowd(5, 2, HW, (5, 6, 7, 8)) | {"area": 0}])
    index = CocoIndex.from_file(write(tmp_path, content)[0])
    objects = CocoEvaluator(content).ground_truth.objects
    drawn = [one["area"] for image in (1, 2) for one in objects[image]]
    assert index.ann_areas.tolist()[0] == 500  # by the corners
    assert (index.ann_areas == 0).tolist() == [area == 0 for area in drawn]
    assert index.ann_areas[4] == drawn[4] == 56
    assert not index.ann_area_stated.any()


def test_numbers_in_text(tmp_path):
    plain = document([annotation(1, 1, box=(10.5, 10, 20, 20.25)), crowd(2, 3, HW, (5, 6, 7, 8))])
    spelt = json.loads(json.dumps(plain))
    for record in spelt["images"]:
        record |= {key: str(record[key]) for key in ("id", "width", "height")}
    for record in spelt["categories"]:
        record["id"] = f"{record['id']}.0"
    for record in spelt["annotations"]:
        record |= {key: str(record[key]) for key in ("id", "image_id", "category_id", "area")}
        record["bbox"] = [str(value) for value in record["bbox"]]
        shape = record["segmentation"]
        if isinstance(shape, dict):
            shape["counts"] = [str(count) for count in shape["counts"]]
        else:
            record["segmentation"] = [[str(value) for value in shape[0]]]
    (tmp_path / "a").mkdir()
    index, objects = read(tmp_path / "a", plain)
    info = tmp_path / "spelt.json"
    info.write_text(json.dumps(spelt))
    other = CocoIndex.from_file(info)
    assert other.faults == ()
    assert other.fingerprint == index.fingerprint
    assert CocoEvaluator(info).ground_truth.objects == objects


@pytest.mark.parametrize("change, fault", [
    ({"iscrowd": 2}, "'iscrowd' is 2; it is 0 for an object, 1 for a crowd; correct it"),
    ({"iscrowd": "yes"}, "'iscrowd' is 'yes'"),
    ({"iscrowd": []}, "'iscrowd' is []"),
    ({"iscrowd": math.nan}, "'iscrowd' is nan"),
    ({"area": "large"}, "'area' is 'large', no number"),
    ({"area": [1]}, "'area' is [1], no number"),
    ({"bbox": ["1,5", 2, 3, 4]}, "its bbox is not [x, y, width, height] in pixels"),
    ({"bbox": {"x": 1, "y": 2, "w": 3, "h": 4}}, "its bbox is not"),
    ({"segmentation": [1, 2, 3, 4, 5, 6]}, "write [[x, y, ...]]"),
    ({"segmentation": {"size": [60, 80], "counts": [1.5]}}, "the counts of its RLE"),
    ({"category_id": "cat"}, "'category_id' is 'cat', not a whole number"),
    ({"image_id": True}, "'image_id' is True, not a whole number"),
])
def test_training_and_evaluation_name_the_same_fault(tmp_path, change, fault):
    info, images = write(tmp_path, document([annotation(6, 1), annotation(7, 1) | change]))
    found, = check_coco(info, images)
    with pytest.raises(InputError) as error:
        CocoEvaluator(info)
    assert error.value.faults == [found]
    assert f"info.json: annotation 7: {fault}" in found or (
        "info.json: annotation 7: " in found and fault in found)


def test_numbers_of_numpy_are_numbers():
    content = document([annotation(np.int64(1), np.int64(1), np.int32(2), iscrowd=np.int8(0),
                                   area=np.float32(400), bbox=np.array([10, 10, 20, 20]))])
    one, = CocoEvaluator(content).ground_truth.objects[1]
    assert (one["category_id"], one["area"], one["bbox"]) == (2, 400, [10, 10, 20, 20])


@pytest.mark.parametrize("key", ["images", "annotations", "categories"])
@pytest.mark.parametrize("value", [7, "none", [1], {"id": 1}, None])
def test_lists_of_something_else(key, value):
    with pytest.raises(InputError, match=f"'{key}' is not a list of objects"):
        CocoEvaluator(document([annotation(1, 1)]) | {key: value})


@pytest.mark.parametrize("size", [[60.0, 80.0], ["60", "80"], [60, 80]])
def test_the_size_of_a_mask_however_its_numbers_are_spelt(tmp_path, size):
    content = document([annotation(1, 1, segmentation={"size": size, "counts": [0, 4800]})])
    index = CocoIndex.from_file(write(tmp_path, content)[0])
    assert index.faults == ()
    assert index.ann_rle_hw[0].tolist() == [60, 80]


def test_a_mask_without_a_size_is_said(tmp_path):
    content = document([annotation(1, 1, segmentation={"counts": [0, 4800]})])
    (fault,) = CocoIndex.from_file(write(tmp_path, content)[0]).faults
    assert "its RLE has no size; add [height, width] of the image" in fault


def test_annotations_without_ids_are_numbered(tmp_path):
    """Nothing refers to them. Where only some have one, that is a slip."""
    content = document([annotation(5, 1), annotation(6, 2)])
    for each in content["annotations"]:
        del each["id"]
    index, truth = read(tmp_path, content)
    assert index.ann_ids.tolist() == [1, 2]
    assert {i: len(objects) for i, objects in truth.items()} == {1: 1, 2: 1, 3: 0}
    content["annotations"][0]["id"] = 7
    (fault,) = CocoIndex.from_file(write(tmp_path, content)[0]).faults
    assert "'id' is missing" in fault
