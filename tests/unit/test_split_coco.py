"""tools/split_coco.py: whole images, each class in proportion, records as they were."""

import importlib.util
import json
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from runtime.errors import InputError

TOOL = Path(__file__).parents[2] / "tools" / "split_coco.py"


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("split_coco", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def document(tmp_path):
    """100 images; class 1 in nearly all, 2 in 30, 3 in 5, 4 in one; ten images without objects."""
    rng = random.Random(0)
    annotations = []

    def add(image, category):
        annotations.append({"id": len(annotations) + 1, "image_id": image, "category_id": category,
                            "bbox": [1, 1, 5, 5], "area": 25, "iscrowd": 0, "note": "kept",
                            "segmentation": [[1, 1, 6, 1, 6, 6, 1, 6]]})

    for image in range(1, 91):
        for _ in range(rng.randint(1, 4)):
            add(image, 1)
    for category, count in ((2, 30), (3, 5), (4, 1)):
        for image in rng.sample(range(1, 91), count):
            add(image, category)
    content = {"info": {"year": 2026}, "licenses": [],
               "images": [{"id": i, "file_name": f"{i}.jpg", "height": 10, "width": 10}
                          for i in range(1, 101)],
               "annotations": annotations,
               "categories": [{"id": i, "name": f"class{i}"} for i in range(1, 5)]}
    path = tmp_path / "all.json"
    path.write_text(json.dumps(content))
    return path, content


def run(path, *words):
    return subprocess.run([sys.executable, str(TOOL), str(path), *words], capture_output=True,
                          text=True, timeout=60)


def test_both_files_hold_everything_once(document):
    path, content = document
    done = run(path, "--val", "0.2")
    assert (done.returncode, done.stderr) == (0, "")
    halves = [json.loads((path.parent / f"all_{side}.json").read_text())
              for side in ("train", "val")]
    for key in ("info", "licenses", "categories"):
        assert halves[0][key] == halves[1][key] == content[key]
    for key in ("images", "annotations"):
        both = sorted(halves[0][key] + halves[1][key], key=lambda record: record["id"])
        assert both == content[key]
    for half in halves:
        ids = {image["id"] for image in half["images"]}
        assert all(one["image_id"] in ids for one in half["annotations"])
    assert len(halves[1]["images"]) == 20
    assert "Without an object in val: class4" in done.stdout
    # a second call does not write over them
    again = run(path, "--val", "0.5")
    assert again.returncode == 2
    assert "all_train.json" in again.stderr
    assert "--force" in again.stderr
    assert len(again.stderr.splitlines()) == 1
    assert run(path, "--val", "0.5", "--force").returncode == 0
    assert len(json.loads((path.parent / "all_val.json").read_text())["images"]) == 50


@pytest.mark.parametrize("seed", range(5))
def test_each_class_has_its_share(tool, document, seed):
    _, content = document
    images = {image["id"]: Counter() for image in content["images"]}
    for one in content["annotations"]:
        images[one["image_id"]][one["category_id"]] += 1
    val = tool.choose_val(images, 20, seed)
    assert len(val) == 20
    assert val == tool.choose_val(images, 20, seed)
    for category in (1, 2, 3):
        holders = [i for i, classes in images.items() if category in classes]
        assert abs(len(val.intersection(holders)) - 0.2 * len(holders)) < 2
    assert val != tool.choose_val(images, 20, seed + 1)


@pytest.mark.parametrize("val, total, count", [
    (0.2, 10, 2), (0.01, 10, 1), (0.99, 10, 9), (3.0, 10, 3), (0.5, 2, 1)])
def test_how_many(tool, val, total, count):
    assert tool.how_many(val, total) == count


@pytest.mark.parametrize("val", [0.0, -1.0, 10.0, 2.5, float("nan")])
def test_shares_that_leave_nothing(tool, val):
    with pytest.raises(InputError, match="--val"):
        tool.how_many(val, 10)


def test_a_faulty_file_is_not_split(document):
    path, content = document
    content["annotations"][3]["image_id"] = "x"
    path.write_text(json.dumps(content))
    done = run(path)
    assert done.returncode == 2
    assert "annotation 4" in done.stderr
    assert not (path.parent / "all_val.json").exists()
