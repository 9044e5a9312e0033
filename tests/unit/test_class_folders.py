"""Class folders as systems leave them behind, and what a check says of them."""

import os
import shutil

import numpy as np
import pytest
from PIL import Image

from data.imagenet.folders import ClassFolders, open_class_folders
from runtime.errors import InputError


def picture(path, seed=0, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.RandomState(seed).randint(0, 256, (20, 30, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.fixture
def root(tmp_path):
    """train: 3 ants, 2 bees; val: 1 ant, 2 bees; all pictures differ."""
    seeds = iter(range(100))
    for part, counts in (("train", (3, 2)), ("val", (1, 2))):
        for name, count in zip(("ant", "bee"), counts, strict=True):
            for i in range(count):
                picture(tmp_path / "set" / part / name / f"{i}.png", next(seeds))
    return tmp_path / "set"


def names(folders):
    return [folders.name(i) for i in range(len(folders))]


def opened(root, **options):
    log, warnings = [], []
    open_class_folders(root, log=log.append, warn=warnings.append, **options)
    return log, warnings


def test_what_systems_leave_behind_is_left_alone(root):
    wanted = names(ClassFolders(root / "train"))
    before = ClassFolders(root / "train").fingerprint
    for name in ("ant/._0.png", "ant/.hidden/3.png", "ant/__MACOSX/0.png", ".git/x.png",
                 "__MACOSX/ant/0.png", "@eaDir/0.png"):
        path = root / "train" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"no picture")
    for name in ("Thumbs.db", ".DS_Store", "desktop.ini"):
        (root / "train" / "bee" / name).write_bytes(b"x")
    found = ClassFolders(root / "train")
    assert names(found) == wanted
    assert found.classes == ("ant", "bee")
    assert found.fingerprint == before
    log, warnings = opened(root, deep=True)
    assert not warnings, log


@pytest.mark.parametrize("target", ["..", ".", "../..", "../../train/ant"])
def test_links_that_lead_back_are_left_alone(root, target):
    wanted = names(ClassFolders(root / "train"))
    os.symlink(target, root / "train" / "ant" / "loop")
    found = ClassFolders(root / "train")
    assert names(found) == wanted
    (line,) = opened(root)[1]
    assert line.startswith(f"{root}/train/ant/loop: a link to ")
    assert "left alone" in line


@pytest.mark.parametrize("target", ["..", ".", "../.."])
def test_a_link_that_leads_back_is_no_class(root, target):
    """All pictures of all classes would be of this class, too."""
    os.symlink(target, root / "train" / "all")
    found = ClassFolders(root / "train")
    assert found.classes == ("ant", "bee")
    assert len(found) == 5
    (line,) = opened(root)[1]
    assert line.startswith(f"{root}/train/all: a link to ")


def test_pictures_of_other_kinds_are_said(root):
    for name in ("ant/a.gif", "ant/b.GIF", "bee/c.heic", "bee/notes.txt"):
        (root / "train" / name).write_bytes(b"x")
    (line,) = opened(root)[1]
    assert line.startswith(f"{root}/train: 3 pictures are left out")
    assert "(2 with .gif, 1 with .heic); save them as one of .jpg" in line


def test_what_is_odd_about_the_folders_is_said(root):
    picture(root / "train" / "loose.png", 50)
    line = f"{root / 'train'}: 1 image beside the class folders, such as loose.png, is left out"
    assert line in opened(root)[1]
    for part in ("train", "val"):
        shutil.rmtree(root / part / "bee")
    assert any("one class only, ant: there is nothing to tell apart" in line
               for line in opened(root)[1])


def test_accents_apart_from_their_letters_are_one_name(root):
    (root / "train" / "bee").rename(root / "train" / "b\u00e9e")
    (root / "val" / "bee").rename(root / "val" / "be\u0301e")
    train, val = open_class_folders(root)
    assert val.classes == train.classes == ("ant", "b\u00e9e")
    assert val.labels.tolist() == [0, 1, 1]


def test_another_name_of_the_folder_is_told(root):
    (root / "val").rename(root / "valid")
    with pytest.raises(InputError, match=r"val: no such folder\. .* There is valid: rename it"):
        opened(root)


def test_links_in_a_circle_end(root):
    os.symlink("../bee", root / "train" / "ant" / "sub")
    os.symlink("../ant", root / "train" / "bee" / "sub")
    found = ClassFolders(root / "train")
    assert names(found)[:5] == ["ant/0.png", "ant/1.png", "ant/2.png",
                                "ant/sub/0.png", "ant/sub/1.png"]
    assert len(found) == 10
    assert len(found.remarks) == 2


def test_other_links_are_followed(root, tmp_path):
    picture(tmp_path / "elsewhere" / "deep" / "9.png")
    os.symlink(tmp_path / "elsewhere", root / "train" / "ant" / "more")
    os.rename(root / "train" / "bee", tmp_path / "bee")
    os.symlink(tmp_path / "bee", root / "train" / "bee")
    found = ClassFolders(root / "train")
    assert names(found)[3:] == ["ant/more/deep/9.png", "bee/0.png", "bee/1.png"]
    assert not found.remarks


def test_classes_without_validation_images_are_said(root):
    picture(root / "train" / "cow" / "0.png", 50)
    (line,) = opened(root)[1]
    assert "no images of 1 of 3 classes (cow)" in line
    # val's labels are training's, whatever its own folders are
    picture(root / "train" / "aardvark" / "0.png", 51)
    _, val = open_class_folders(root)
    assert val.labels.tolist() == [1, 2, 2]


def test_a_class_folder_without_images_says_what_it_holds(root):
    (root / "train" / "cow").mkdir()
    for name in ("a.heic", "b.HEIC", "notes"):
        (root / "train" / "cow" / name).write_bytes(b"x")
    with pytest.raises(InputError) as caught:
        ClassFolders(root / "train")
    (line,) = caught.value.faults
    assert "cow: no images in it" in line
    assert "2 with .heic" in line


def test_check_says_what_is_there(root, tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    picture(root / "val" / "bee" / "turned.jpg", 60, exif=exif)
    (root / "val" / "ant" / "copy.png").write_bytes((root / "train/ant/1.png").read_bytes())
    log, warnings = opened(root, deep=True, run_folder=tmp_path / "run")
    rows = [line.split() for line in log]
    assert ["ant", "3", "2", "60.00%"] in rows
    assert ["bee", "2", "3", "40.00%"] in rows
    text = "\n".join(log)
    assert "ant has 1.5 times as many training images as bee" in text
    assert "width 30 / 30 / 30, height 20 / 20 / 20" in text
    turned, copied = warnings
    assert "1 of 5 pictures carry an EXIF turn (1 a quarter turn)" in turned
    assert "1 of 5 validation pictures are in the training set, too" in copied
    assert "copy.png" in copied
    picture_file = tmp_path / "run" / "check.png"
    assert log[-1] == f"Samples with their classes: {picture_file}"
    assert min(Image.open(picture_file).size) > 300  # 5 tiles of 160, 3 in a row


def test_a_picture_that_cannot_be_written_ends_nothing(root, tmp_path):
    (tmp_path / "run").write_text("a file")
    log, _ = opened(root, deep=True, run_folder=tmp_path / "run")
    assert log[-1].startswith("No picture: ")


def test_refused_forms_are_faults_of_the_check(root):
    path = root / "train" / "ant" / "f.tif"
    Image.fromarray(np.zeros((4, 4), np.float32)).save(path)
    with pytest.raises(InputError, match=r"f\.tif: float pixels"):
        opened(root, deep=True)


def test_fingerprint(root):
    train, val = open_class_folders(root)
    assert train.fingerprint == ClassFolders(root / "train").fingerprint
    assert len({train.fingerprint, val.fingerprint}) == 2
    os.rename(root / "train/ant/2.png", root / "train/ant/3.png")
    renamed = ClassFolders(root / "train").fingerprint
    os.rename(root / "train/ant", root / "train/wasp")
    assert len({train.fingerprint, renamed, ClassFolders(root / "train").fingerprint}) == 3
