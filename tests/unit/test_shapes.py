import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from data.drawn import shapes
from data.drawn.scenes import CLASSES, render_scene
from data.drawn.shapes import (
    ensure_shapes,
    mask_to_rle,
    write_ade,
    write_class_folders,
    write_coco,
)
from runtime.errors import SaveError

ROOT = Path(__file__).resolve().parents[2]


def digest(folder):
    """Hash over all file names and contents below a folder."""
    total = hashlib.sha256()
    for path in sorted(Path(folder).rglob("*")):
        if path.is_file():
            total.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return total.hexdigest()


@pytest.fixture
def small_samples(monkeypatch):
    for name in ("SAMPLE_TRAIN", "SAMPLE_VAL", "CLASS_TRAIN", "CLASS_VAL"):
        monkeypatch.setattr(shapes, name, 2)
    monkeypatch.setattr(shapes, "SAMPLE_SIZE_PX", 48)


def test_coco_set_reads_back(tmp_path):
    paths = write_coco(tmp_path, 60, 4, 96, seed=3)
    coco = COCO(str(paths.train_info))
    assert len(coco.imgs) == 60
    kinds = set()
    for annotation in coco.anns.values():
        image = coco.imgs[annotation["image_id"]]
        mask = coco.annToMask(annotation)
        assert mask.shape == (image["height"], image["width"])
        is_rle = isinstance(annotation["segmentation"], dict)
        assert is_rle or not annotation["iscrowd"]
        kinds.add((is_rle, annotation["iscrowd"]))
        if is_rle:
            assert mask.sum() == annotation["area"]
            box = coco_mask.toBbox(coco_mask.encode(np.asfortranarray(mask)))
            assert box.tolist() == annotation["bbox"]
        else:
            # Rasterising the outline may add or lose a pixel along the border.
            border = 2 * sum(annotation["bbox"][2:])
            assert abs(int(mask.sum()) - annotation["area"]) <= 0.45 * border
    assert kinds == {(False, 0), (True, 0), (True, 1)}
    ids = []
    for info in (paths.train_info, paths.valid_info):
        for image in json.loads(info.read_text())["images"]:
            pixels = cv2.imread(str(paths.train_images / image["file_name"]))
            assert pixels.shape == (image["height"], image["width"], 3)
            ids.append(image["id"])
    assert len(set(ids)) == len(ids) == 64


@pytest.mark.parametrize("category_ids", [(0, 1, 2, 3, 4, 5), (7, 90, 3, 12, 5, 6)])
def test_category_ids_are_as_asked(tmp_path, category_ids):
    plain = json.loads(write_coco(tmp_path / "a", 8, 0, 64, 3).train_info.read_text())
    paths = write_coco(tmp_path / "b", 8, 0, 64, 3, category_ids)
    other = json.loads(paths.train_info.read_text())
    assert [(each["id"], each["name"]) for each in other["categories"]] == list(
        zip(category_ids, CLASSES, strict=True)
    )
    assert [category_ids[each["category_id"] - 1] for each in plain["annotations"]] == [
        each["category_id"] for each in other["annotations"]
    ]


def test_one_class_and_a_wrong_number_of_ids(tmp_path):
    paths = write_coco(tmp_path, 3, 1, 64, 0, classes=("star",), category_ids=(42,))
    content = json.loads(paths.train_info.read_text())
    assert {each["category_id"] for each in content["annotations"]} == {42}
    with pytest.raises(ValueError, match="zip"):
        write_coco(tmp_path, 1, 1, 64, 0, category_ids=(1, 2))


def test_larger_sets_begin_with_the_smaller_ones_scenes(tmp_path):
    write_coco(tmp_path / "a", 2, 1, 64, 3)
    write_coco(tmp_path / "b", 4, 1, 64, 3)
    for name in ("train_000001.jpg", "train_000002.jpg", "val_000001.jpg"):
        a, b = ((tmp_path / part / "images" / name).read_bytes() for part in "ab")
        assert a == b
    train, val = (tmp_path / f"a/images/{part}_000001.jpg" for part in ("train", "val"))
    assert train.read_bytes() != val.read_bytes()


def test_ade_set_reads_back(tmp_path):
    paths = write_ade(tmp_path, 60, 3, 96, seed=3)
    seen = set()
    for odgt, count in ((paths.train_list, 60), (paths.val_list, 3)):
        records = [json.loads(line) for line in odgt.read_text().splitlines()]
        assert len(records) == count
        for record in records:
            assert list(record) == ["fpath_img", "fpath_segm", "width", "height"]
            label = Image.open(paths.root / record["fpath_segm"])
            assert label.mode == "L"
            assert label.size == (record["width"], record["height"])
            assert Image.open(paths.root / record["fpath_img"]).size == label.size
            seen |= set(np.unique(np.asarray(label)).tolist())
    assert seen == set(range(len(CLASSES) + 2))


def test_pictures_keep_their_colours(tmp_path):
    write_coco(tmp_path, 6, 0, 96, seed=3)
    for number in range(6):
        shape = ((96, 96), (96, 72), (72, 96))[number % 3]
        drawn = render_scene(np.random.RandomState((3, shapes.TRAIN, number)), shape).image
        stored = np.asarray(Image.open(tmp_path / f"images/train_{number + 1:06d}.jpg"))
        # JPEG of quality 95 smooths the noise by some levels but moves no channel's mean.
        np.testing.assert_allclose(stored.mean((0, 1)), drawn.mean((0, 1)), atol=1.5)


def test_labels_agree_with_the_instances(tmp_path):
    coco = write_coco(tmp_path / "coco", 12, 0, 96, seed=3)
    write_ade(tmp_path / "ade", 12, 0, 96, seed=3)
    content = json.loads(coco.train_info.read_text())
    area_px = np.zeros(len(CLASSES) + 2)
    for each in content["annotations"]:
        area_px[0 if each["iscrowd"] else each["category_id"] + 1] += each["area"]
    found = np.zeros(len(CLASSES) + 2)
    for path in (tmp_path / "ade/annotations/training").iterdir():
        found += np.bincount(np.asarray(Image.open(path)).ravel(), minlength=len(found))
    assert found[0] == area_px[0]
    assert found[2:].tolist() == area_px[2:].tolist()


def test_class_folders(tmp_path):
    paths = write_class_folders(tmp_path, 3, 2, 64, seed=3)
    for part, count in ((paths.train, 3), (paths.val, 2)):
        assert sorted(each.name for each in part.iterdir()) == sorted(CLASSES)
        for folder in part.iterdir():
            files = sorted(folder.iterdir())
            assert len(files) == count
            assert all(Image.open(file).size == (64, 64) for file in files)
            assert len({file.read_bytes() for file in files}) == count


@pytest.mark.parametrize("kind", ["coco", "ade", "classes"])
def test_sample_sets_are_drawn_once_and_the_same(tmp_path, kind, small_samples):
    paths = ensure_shapes(tmp_path / "a", kind)
    ensure_shapes(tmp_path / "b", kind)
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    for each in vars(paths).values():
        assert each.exists()
    assert [each.name for each in (tmp_path / "a").iterdir()] == [kind]


def test_the_sample_label_maps_are_full(tmp_path, monkeypatch):
    for name, number in (("SAMPLE_TRAIN", 20), ("SAMPLE_VAL", 1)):
        monkeypatch.setattr(shapes, name, number)
    ensure_shapes(tmp_path, "ade")
    labels = [np.array(Image.open(file))
              for file in (tmp_path / "ade/annotations/training").iterdir()]
    shares = [np.mean(each > 1) for each in labels]
    assert np.mean(shares) > 0.25


def test_existing_folders_are_left_alone(tmp_path, small_samples):
    ensure_shapes(tmp_path, "coco")
    (tmp_path / "coco/annotations/instances_val.json").unlink()
    victim = tmp_path / "coco/images/train_000001.jpg"
    victim.write_bytes(b"mine")
    before = digest(tmp_path)
    ensure_shapes(tmp_path, "coco")
    assert digest(tmp_path) == before
    (tmp_path / "ade").mkdir()
    ensure_shapes(tmp_path, "ade")
    assert not any((tmp_path / "ade").iterdir())


@pytest.mark.parametrize("kind", ["coco", "ade", "classes"])
def test_another_recipe_is_told_once(tmp_path, kind, small_samples, monkeypatch, caplog):
    monkeypatch.setattr(shapes, "SAMPLE_SEED", 8)
    ensure_shapes(tmp_path / "a", kind)
    ensure_shapes(tmp_path / "a", kind)
    (tmp_path / "unknown" / kind).mkdir(parents=True)
    assert not caplog.records
    monkeypatch.setattr(shapes, "SAMPLE_SEED", 9)
    for root in ("a", "a", "unknown"):
        ensure_shapes(tmp_path / root, kind)
    told = [record.getMessage() for record in caplog.records]
    assert [text.split(": not the scenes")[0] for text in told] == [
        str(tmp_path / root / kind) for root in ("a", "unknown")]


def test_the_loser_of_a_race_keeps_the_winners_files(tmp_path, small_samples, monkeypatch):
    rename = os.rename

    def beaten(source, target):
        target.mkdir()
        (target / "first").write_text("winner")
        rename(source, target)

    monkeypatch.setattr(os, "rename", beaten)
    ensure_shapes(tmp_path, "classes")
    assert [each.name for each in tmp_path.rglob("*")] == ["classes", "first"]


def test_processes_at_once(tmp_path):
    code = (
        "from data.drawn import shapes; shapes.CLASS_TRAIN = shapes.CLASS_VAL = 3;"
        "import sys; shapes.ensure_shapes(sys.argv[1], 'classes')"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    started = [subprocess.Popen(command, cwd=ROOT) for _ in range(3)]
    assert [each.wait(timeout=60) for each in started] == [0, 0, 0]
    assert [each.name for each in tmp_path.iterdir()] == ["classes"]
    assert len(list(tmp_path.rglob("*.jpg"))) == 6 * 6


@pytest.mark.fault
def test_a_failed_drawing_leaves_nothing(tmp_path, small_samples, monkeypatch):
    def full(path, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(SaveError, match="ade: could not be drawn: No space left"):
        ensure_shapes(tmp_path, "ade")
    assert list(tmp_path.iterdir()) == []


def test_unknown_kind(tmp_path):
    with pytest.raises(ValueError, match="wanted coco, ade or classes"):
        ensure_shapes(tmp_path, "voc")


@pytest.mark.parametrize("fill", ["nothing", "all", "corners", "random"])
def test_mask_to_rle(fill):
    mask = np.zeros((7, 5), bool)
    if fill == "all":
        mask[:] = True
    elif fill == "corners":
        mask[0, 0] = mask[-1, -1] = True
    elif fill == "random":
        mask = np.random.RandomState(0).rand(7, 5) > 0.5
    rle = mask_to_rle(mask)
    assert sum(rle["counts"]) == mask.size
    decoded = coco_mask.decode(coco_mask.frPyObjects(json.loads(json.dumps(rle)), 7, 5))
    np.testing.assert_array_equal(decoded, mask)
