"""What --check-data tells of sound files, and what the runs say at their start."""

from dataclasses import dataclass

import cv2
import numpy as np
import pytest
import torch
from coco_maker import annotation, crowd, document, write

from common.losses.boxes import center_to_corner, pairwise_iou
from data.coco_format import CocoIndex, open_coco
from data.coco_format.summary import class_table, prior_line, show_checked, summary
from models.yolact import build_yolact, load_yolact_config, objects_without_prior
from runtime.errors import InputError

HW = (60, 80)


class Lines:
    """A run that keeps what is told."""

    def __init__(self):
        self.logged, self.warned = [], []
        self.log, self.warn = self.logged.append, self.warned.append


def own_set(folder, content):
    folder.mkdir()
    return write(folder, content)


def section(train, valid, include_empty=False):
    @dataclass(frozen=True)
    class Section:
        train_info: object = train[0]
        train_images: object = train[1]
        valid_info: object = valid[0]
        valid_images: object = valid[1]
        has_gt: bool = True
        include_empty: bool = False
        class_names: tuple = ()
        label_map: object = None

    return Section(include_empty=include_empty)


def test_numbers_of_a_file(tmp_path):
    content = document([annotation(1, 1, area=1023), annotation(2, 1, area=1024),
                        annotation(3, 2, area=9216), annotation(4, 2, area=0),
                        crowd(5, 2, HW, (5, 6, 7, 8))], num_images=4)
    content["images"][3].update(width=100, height=50)
    index = CocoIndex.from_file(write(tmp_path, content)[0])
    first, sizes, objects, areas = summary(index)
    assert "4 images, 2 of them without objects; 5 annotations, 1 of them crowds; 2 cat" in first
    assert sizes.endswith("width 80 / 80 / 100, height 50 / 60 / 60")
    assert "50.0% small" in objects
    assert "25.0% medium, 25.0% large" in objects
    assert objects.endswith("has 2 / 2 / 3 (min / median / max)")
    assert "1 of 5 annotations have no usable 'area'" in areas


def test_table_of_classes(tmp_path):
    annotations = [annotation(i, 1, 1 + i % 50) for i in range(300)]
    train = CocoIndex.from_file(own_set(
        tmp_path / "a", document([*annotations, annotation(400, 1, 7), annotation(401, 1, 7)],
                                 categories=range(1, 53)))[0])
    valid = CocoIndex.from_file(own_set(tmp_path / "b", document(
        [annotation(1, 1, 3), crowd(2, 1, HW, (5, 6, 7, 8), 3)], categories=range(1, 4)))[0])
    lines = class_table({"train": train, "valid": valid}).splitlines()
    assert lines[0].split() == ["objects", "of", "class", "train", "valid"]
    assert lines[1].split() == ["class", "7", "8", "0"]
    rows = [line for line in lines if not line.startswith(("objects", train.path, valid.path))]
    assert len(rows) == 40
    assert rows[-1].split() == ["13", "more", str(11 * 6), "0"]
    assert lines[-2] == f"{train.path}: 2 classes without objects: class 51, class 52"
    assert lines[-1] == f"{valid.path}: 2 classes without objects: class 1, class 2"


def test_share_of_objects_without_a_prior(tmp_path):
    annotations = [annotation(i, 1, box=(5, 5, 10 + i, 40)) for i in range(10)]
    content = document([*annotations, crowd(99, 1, HW, (5, 6, 7, 8))])
    index = CocoIndex.from_file(write(tmp_path, content)[0])
    asked = []

    def narrow(boxes):
        asked.append(boxes)
        return boxes[:, 2] - boxes[:, 0] < 12.5 / 80

    assert "priors: 30.0% of the objects" in prior_line(index, narrow)
    assert asked[0].shape == (10, 4)  # without the crowd
    assert asked[0][0].tolist() == pytest.approx([5 / 80, 5 / 60, 15 / 80, 45 / 60])


def test_priors_of_the_network_are_asked():
    cfg = load_yolact_config("yolact_shapes")
    rng = np.random.default_rng(0)
    first = rng.uniform(0, 0.6, (40, 2))
    boxes = torch.tensor(np.concatenate([first, first + rng.uniform(0.01, 0.4, (40, 2))], 1),
                         dtype=torch.float32)
    net = build_yolact(cfg)
    priors = net.forward_heads(torch.zeros(1, 3, cfg.max_size, cfg.max_size))["priors"]
    best = pairwise_iou(boxes, center_to_corner(priors)).amax(1)
    found = objects_without_prior(cfg, boxes)
    assert found.tolist() == (best < cfg.positive_iou_threshold).tolist()
    assert 0 < found.sum() < 40
    assert objects_without_prior(cfg, boxes[:0]).tolist() == []


def test_text_and_picture(tmp_path):
    content = document([annotation(1, 1, box=(20, 10, 40, 30)), crowd(2, 2, HW, (5, 6, 7, 8))])
    for image in content["images"]:
        image["file_name"] = f"{image['id']}.png"
    train, valid = own_set(tmp_path / "a", content), own_set(tmp_path / "b", content)
    black = np.zeros((*HW, 3), np.uint8)
    cv2.imwrite(str(train[1] / "1.png"), black)
    indexes = {"train": CocoIndex.from_file(train[0]), "valid": CocoIndex.from_file(valid[0])}
    run = Lines()
    show_checked(run, indexes, (train[1], valid[1]), tmp_path / "run")
    assert run.logged[-1] == f"{train[0]}, {valid[0]}: no fault found."
    assert str(tmp_path / "run" / "check.png") in run.logged[-2]
    tile = cv2.imread(str(tmp_path / "run" / "check.png"))[24:24 + 360, 6:6 + 480]
    # six times the size: the mask is coloured inside, and nothing is drawn elsewhere
    assert tile[80:220, 150:330].max(2).min() > 50
    assert tile[300:, :].max() == 0
    (tmp_path / "file").touch()  # as on a read-only disk
    show_checked(run, indexes, (train[1], valid[1]), tmp_path / "file")
    assert run.logged[-1] == f"{train[0]}, {valid[0]}: no fault found."
    assert run.logged[-2].startswith(f"No picture: {tmp_path / 'file' / 'check.png'}: could not be")
    show_checked(run, None, (train[1], valid[1]), tmp_path / "none")  # another rank
    assert not (tmp_path / "none").exists()


def test_what_a_run_says_of_its_files(tmp_path):
    train = own_set(tmp_path / "a", document([annotation(1, 1)], num_images=4))
    valid = own_set(tmp_path / "b", document([annotation(1, 2, 2), annotation(2, 2, 2)],
                                             num_images=4, categories=(2, 1)))
    valid = valid[0], train[1]  # in the same folder
    run = Lines()
    dataset, _ = open_coco(section(train, valid), ["train", "valid"], run=run)
    assert dataset.class_names == ("class 1", "class 2")
    assert run.logged == [
        f"{info}: {left} of {number} images have no objects and are left out "
        "(dataset.include_empty=True keeps them)."
        for info, left, number in ((train[0], 3, 4), (valid[0], 3, 4))]
    assert [line.partition(": ")[2] for line in run.warned] == [
        "1 of 2 annotations repeat another one of the same image: same category, box and mask "
        "(annotation 2)",
        f"4 of its 4 images are in {train[0]}, too; what is trained on should not be validated on"]
    run = Lines()
    open_coco(section(train, valid, include_empty=True), ["train", "valid"], run=run)
    assert run.logged == []


def test_files_without_any_object(tmp_path):
    full = own_set(tmp_path / "a", document([annotation(1, 1)]))
    empty = own_set(tmp_path / "b", document([]))
    with pytest.raises(InputError, match=r"none of its 3 images has an object, .* learnt; correct"):
        open_coco(section(empty, full), ["train", "valid"])
    run = Lines()
    open_coco(section(full, empty), ["train", "valid"], run=run)
    assert run.warned == [
        f"{empty[0]}: none of its 3 images has an object, so that nothing can be scored"]


def test_crowds_alone_teach_and_score_nothing(tmp_path):
    full = own_set(tmp_path / "a", document([annotation(1, 1)]))
    crowds = own_set(tmp_path / "b", document([crowd(1, 2, HW, (5, 6, 7, 8))]))
    with pytest.raises(InputError, match=r"has an object but 1 crowds \(iscrowd 1\), .* learnt"):
        open_coco(section(crowds, full), ["train", "valid"])
    run = Lines()
    open_coco(section(full, crowds), ["train", "valid"], run=run)
    assert any("so that nothing can be scored" in line for line in run.warned)


def test_categories_of_validation_that_training_lacks(tmp_path):
    train = own_set(tmp_path / "a", document([annotation(1, 1)]))
    valid = own_set(tmp_path / "c", document([annotation(1, 2)], categories=(1, 2, 3)))
    run = Lines()
    open_coco(section(train, valid), ["train", "valid"], run=run)
    line, = run.warned
    assert "categories class 3 are not among the classes trained on; no annotation is" in line
    valid = own_set(tmp_path / "b", document([annotation(1, 2, 3)], categories=(1, 3)))
    with pytest.raises(InputError, match="categories class 3 are not among"):
        open_coco(section(train, valid), ["train", "valid"])


def test_equal_names_in_one_file_are_a_fault(tmp_path):
    content = document([annotation(1, 1)])
    content["categories"][1]["name"] = "class 1"
    train = own_set(tmp_path / "a", content)
    with pytest.raises(InputError, match="categories 1 and 2 have the same name, class 1; give"):
        open_coco(section(train, train), ["train"])
