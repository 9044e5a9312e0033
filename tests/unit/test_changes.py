"""What a run tells of its config and its data."""

import json
import math
from dataclasses import dataclass, field, replace

import pytest
from coco_maker import annotation, crowd, document, write

from data.coco_format import CocoIndex
from data.coco_format.facts import data_facts
from data.imagenet.folders import ClassFolders
from data.imagenet.folders import data_facts as folder_facts
from data.segmentation import data_facts as list_facts
from data.segmentation.lists import SegList
from models import queryinst, resnest, segmentation, yolact
from runtime.errors import InputError
from settings.changes import about_config, changes


@dataclass(frozen=True)
class Inner:
    lr: float = 0.1
    steps: tuple[int, ...] = (1, 2)


@dataclass(frozen=True)
class Outer:
    name: str | None = None
    inner: Inner = Inner()
    more: dict = field(default_factory=dict)
    parts: tuple[Inner, ...] = ()


def test_changes_name_the_keys_that_differ():
    other = Outer("a", Inner(math.nan, (3,)), {"x": {"y": 1}, "z": []}, (Inner(),))
    assert changes(other, Outer()) == {
        "name": ["a", None], "inner.lr": ["nan", 0.1], "inner.steps": [[3], [1, 2]],
        "more.x.y": [1, None], "more.z": [[], None], "more": [None, {}], "parts": [None, []],
        "parts.0.lr": [0.1, None], "parts.0.steps": [[1, 2], None]}
    assert changes(other, replace(other)) == {}
    json.dumps(changes(other, Outer()), allow_nan=False)


def test_a_recipe_that_needs_an_override_has_no_changes():
    def load(name):
        raise InputError(f"{name}: a key is missing")

    assert about_config("r", Outer("a"), load) == {
        "config": "r", "differs_from_defaults": {"name": ["a", None]}}
    assert about_config(None, Outer(), load) == {"config": None, "differs_from_defaults": {}}


@pytest.mark.parametrize("family, recipe, load, key, value", [
    (yolact, "yolact_shapes", lambda o: yolact.load_yolact_config("yolact_shapes", options=o),
     "max_iter", 77),
    (segmentation, "shapes", lambda o: segmentation.load_seg_config("shapes", o),
     "TRAIN.num_epoch", 77),
    (resnest, "shapes", lambda o: resnest.load_resnest_config("shapes", o),
     "TRAINING.EPOCHS", 77),
    (queryinst, "queryinst_shapes",
     lambda o: queryinst.load_queryinst_config("queryinst_shapes", options=o),
     "train_cfg.max_epochs", 77),
])
def test_each_family_tells_what_the_command_line_changed(family, recipe, load, key, value):
    facts = family.about(recipe, load([f"{key}={value}"]))
    assert list(facts["differs_from_recipe"]) == [key]
    assert facts["differs_from_recipe"][key][0] == value
    assert facts["config"] == recipe
    assert family.about(recipe, load([]))["differs_from_recipe"] == {}
    assert len(facts["differs_from_defaults"]) > 3
    json.dumps(facts)


def test_annotation_files_tell_images_and_objects(tmp_path):
    path, _ = write(tmp_path, document([annotation(1, 1), annotation(2, 2, 2), annotation(3, 2, 2),
                                        crowd(4, 1, (60, 80), (5, 5, 9, 9))]))
    facts = data_facts({"train": CocoIndex.from_file(path)})["train"]
    names = list(CocoIndex.from_file(path).categories.values())
    assert (facts["images"], facts["objects"]) == (3, 3)  # the crowd is none
    assert facts["source"] == str(path)
    assert [facts["classes"][name] for name in names[:2]] == [1, 2]
    assert facts["num_classes"] == len(names)


def test_folders_and_lists_tell_images(tmp_path):
    for part, name in (("train", "a"), ("train", "b"), ("val", "a"), ("val", "b")):
        (tmp_path / part / name).mkdir(parents=True)
        for i in range(1 + (name == "b")):
            (tmp_path / part / name / f"{i}.jpg").write_bytes(b"x")
    folders = [ClassFolders(tmp_path / part) for part in ("train", "val")]
    facts = folder_facts(folders)
    assert facts["train"]["classes"] == {"a": 1, "b": 2}
    assert (facts["val"]["images"], facts["val"]["source"]) == (3, str(tmp_path / "val"))
    records = SegList([{"fpath_img": "a.jpg", "fpath_segm": "a.png", "width": 3, "height": 4}])
    assert list_facts({"train": records}) == {"train": {"images": 1}}
