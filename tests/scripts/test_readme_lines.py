"""The README's lines for own data run as they stand, on data laid out as it says."""

import re
import shlex

import plain_sets
import pytest
from preloaded import ROOT, Preloaded

README = (ROOT / "README.md").read_text(encoding="utf-8")


def own_data_lines():
    block = README.partition("**Your own data on a CPU**")[2].partition("```\n")[2]
    return re.findall(r"^python (.+)$", block.partition("```")[0], re.MULTILINE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where a user sits: photos/, train.json, val.json, scenes/, flowers/."""
    here = tmp_path_factory.mktemp("own")
    infos = plain_sets.write_instances(here / "instances", 8, 4)
    (here / "instances" / "images").rename(here / "photos")
    for part, name in (("train", "train.json"), ("valid", "val.json")):
        infos[part].rename(here / name)
    plain_sets.write_label_maps(here / "maps", 8, 4)
    for kind in ("images", "annotations"):
        for path in sorted((here / "maps" / kind).iterdir()):
            part = "training" if int(path.stem) < 8 else "validation"
            target = here / "scenes" / kind / part
            target.mkdir(parents=True, exist_ok=True)
            path.rename(target / path.name)
    plain_sets.write_class_folders(here / "flowers", 6, 2)
    return here


@pytest.fixture(scope="module")
def preloaded():
    with Preloaded() as server:
        yield server


def test_there_is_a_line_for_each_script():
    assert [line.partition(".py")[0] for line in own_data_lines()] == [
        "train_yolact", "train_seg", "train_resnest", "train_queryinst"]


@pytest.mark.parametrize("number", range(4))
def test_own_data_lines_run_as_they_stand(preloaded, folder, number):
    script, *words = shlex.split(own_data_lines()[number])
    before = {path.name for path in folder.iterdir()}
    status, text, errors = preloaded.run(script, [*words, "--dry-run"], folder)
    assert status == 0, errors
    assert "Dry run done" in text
    assert {path.name for path in folder.iterdir()} - before <= {"out.txt", "err.txt"}


def predict_lines():
    block = README.partition("**Predict.**")[2].partition("```\n")[2].partition("```")[0]
    return re.findall(r"^python (.+)$", block, re.MULTILINE)


def test_there_is_a_line_of_prediction_for_each_script():
    assert [line.partition(".py")[0] for line in predict_lines()] == [
        "train_yolact", "train_seg", "train_resnest", "train_queryinst"]


@pytest.mark.parametrize("number", range(4))
def test_predict_lines_run_as_they_stand(preloaded, folder, number):
    """Each after the line for own data of its script, cut to one update without a validation."""
    short = (["--validation_epoch", "0"], ["VAL.interval", "0"], [],
             ["train_cfg.val_interval=100"])[number]
    script, *words = shlex.split(own_data_lines()[number])
    status, _, errors = preloaded.run(script, [*words, *short, "--max-iters", "1"], folder)
    assert status == 0, errors
    script, *words = shlex.split(predict_lines()[number])
    status, text, errors = preloaded.run(script, words, folder)
    assert status == 0, errors
    where = re.search(r" are in (.+)\.$", text, re.MULTILINE)[1]
    data = ("images.json", "classes.csv", "predictions.csv", "images.json")[number]
    assert (folder / where / data).stat().st_size > 20
    assert list((folder / where).glob("*.png"))
