"""Labels of every form, EXIF turns, and what a check says of a segmentation set."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from data.loading.loader import SampleKey
from data.loading.photo_summary import class_table, copies
from data.segmentation import TrainBatches, eval_item, open_lists, read_seg_list
from data.segmentation.pairs import inspect_label, read_label
from runtime.errors import InputError
from runtime.predicting import find_inputs
from settings.segmentation import DatasetConfig

SAME = "what is trained on should not be validated on"
LABELS = np.random.RandomState(0).randint(0, 4, (30, 40)).astype(np.uint8)
LABELS[0, :4] = range(4)
RARE_ZERO = LABELS + 1  # 0 to 4, and 0 in a single pixel
RARE_ZERO[0, 0] = 0
COLOURS = [0, 0, 0, 200, 0, 0, 0, 200, 0, 0, 0, 200]


def as_palette(colours=COLOURS):
    image = Image.fromarray(LABELS)
    image.putpalette(colours)
    return image


@pytest.mark.parametrize("image, name, form", [
    (Image.fromarray(LABELS), "a.png", ""),
    (Image.fromarray(LABELS), "a.tif", ""),
    (Image.fromarray(LABELS), "a.bmp", ""),
    (Image.fromarray(LABELS.astype(np.uint16)), "a.png", ""),
    (Image.fromarray(LABELS.astype(np.int32)), "a.tif", ""),
    (Image.fromarray(np.dstack([LABELS, np.full_like(LABELS, 255)]), "LA"), "a.png", ""),
    (as_palette(), "a.png", "palette"),
    (as_palette([0, 0, 0] * 4), "a.png", "palette"),
    (Image.fromarray(LABELS).convert("P"), "a.png", "palette"),
])
def test_labels_that_are_certain(tmp_path, image, name, form):
    image.save(tmp_path / name)
    label = inspect_label(tmp_path / name, 3)
    assert label.values.dtype == np.uint8
    np.testing.assert_array_equal(label.values, LABELS)
    assert label.form == form


@pytest.mark.parametrize("image, words", [
    (Image.fromarray(np.repeat(LABELS[..., None], 3, 2)), "RGB PNG.*whose channels are equal"),
    (Image.fromarray(np.dstack([LABELS, LABELS]), "LA"), "grey with alpha PNG"),
    (Image.fromarray(LABELS > 1), "grey PNG with 1 bits"),
    (Image.fromarray(np.full((30, 40), 255, np.uint8)), "255 is above .*'ignore', is 0 here"),
    (Image.fromarray(LABELS.astype(np.uint16) * 257), "771 is above DATASET.num_class 3"),
    # 3, 2, 1, 0 in grey: a program has sorted the colours anew
    (as_palette([3, 3, 3, 2, 2, 2, 1, 1, 1, 0, 0, 0]), "either may be the classes"),
])
def test_labels_that_are_not(tmp_path, image, words):
    image.save(tmp_path / "a.png")
    with pytest.raises(InputError, match=rf"a\.png: .*{words}"):
        read_label(tmp_path / "a.png", 3)


def make_set(folder, labels=LABELS, count=3, name="{}.png", orientation=1, listed=None):
    """`count` images with these labels; listed: (width, height) in the list."""
    for part in ("images", "annotations"):
        (folder / part).mkdir(parents=True)
    exif = Image.Exif()
    exif[274] = orientation
    lines = []
    for i in range(count):
        pixels = np.random.RandomState(i).randint(0, 256, (30, 40, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"images/{i}.png", exif=exif)
        Image.fromarray(labels).save(folder / "annotations" / name.format(i))
        width, height = listed or labels.shape[::-1]
        lines.append(json.dumps({
            "fpath_img": f"images/{i}.png", "fpath_segm": f"annotations/{name.format(i)}",
            "width": width, "height": height}))
    (folder / "a.odgt").write_text("\n".join(lines))
    return folder


def config(root, **options):
    options = {"num_class": 3, "imgSizes": (16,), "imgMaxSize": 100, **options}
    lists = dict.fromkeys(("list_train", "list_val"), str(root / "a.odgt"))
    return DatasetConfig(root_dataset=str(root), **lists, **options)


def opened(cfg, folder, parts=("train",), **options):
    """(log, warnings) of `open_lists`, without the one that both parts are the same list."""
    log, warnings = [], []
    open_lists(cfg, parts, folder, log.append, warn=warnings.append, **options)
    return log, [line for line in warnings if not line.endswith(SAME)]


def test_images_of_both_lists_are_told(tmp_path):
    cfg, warnings = config(make_set(tmp_path / "set")), []
    open_lists(cfg, ("train", "val"), tmp_path, print, warn=warnings.append)
    assert warnings == [f"{cfg.list_val}: 3 of its 3 images are in {cfg.list_train}, too; {SAME}"]


@pytest.mark.parametrize("listed", [(30, 40), (40, 30)])
def test_exif_is_named_and_turned_when_asked(tmp_path, listed):
    root = make_set(tmp_path / "set", LABELS.T.copy(), orientation=6, listed=listed)
    with pytest.raises(InputError) as caught:
        opened(config(root), tmp_path)
    assert all("EXIF orientation 6" in fault and "DATASET.exif_turn True" in fault
               for fault in caught.value.faults)
    cfg = config(root, exif_turn=True)
    for deep in (False, True):
        opened(cfg, tmp_path, ("train", "val"), deep=deep)
    found = read_seg_list(cfg.list_train, str(root), turn=True)
    assert found.portrait.all()
    item = eval_item(found[0], cfg)
    shown = np.rot90(np.asarray(Image.open(root / "images/0.png")), -1)
    np.testing.assert_array_equal(item["img_ori"], shown)
    np.testing.assert_array_equal(item["seg_label"][0].numpy(), LABELS.T.astype(int) - 1)
    predicted = eval_item({"fpath_img": "images/0.png"}, cfg)
    np.testing.assert_array_equal(predicted["img_ori"], shown)
    assert torch.equal(predicted["img_data"][0], item["img_data"][0])
    batches = TrainBatches(found, cfg, batch_size=2, batches_per_epoch=2, seed=0)
    assert batches[SampleKey(0, 0, 0)]["img_data"].shape == (2, 3, 24, 16)


def test_a_turn_that_nobody_wants_is_named(tmp_path):
    root = make_set(tmp_path / "set", orientation=6, listed=(40, 30))
    with pytest.raises(InputError, match=r"EXIF orientation 6 of 0\.png has turned it; "
                                         r"DATASET\.exif_turn False"):
        opened(config(root, exif_turn=True), tmp_path)
    for deep in (False, True):
        _, warnings = opened(config(root), tmp_path, deep=deep)
        assert ["3 of 3 pictures carry an EXIF turn" in line for line in warnings] == [True]


@pytest.mark.parametrize("deep", [False, True])
def test_labels_from_zero_are_one_warning(tmp_path, deep):
    root = make_set(tmp_path / "set", (LABELS == 2).astype(np.uint8))
    _, warnings = opened(config(root, num_class=2), tmp_path, ("train", "val"), deep=deep)
    (line,) = [line for line in warnings if "count from 1" in line]
    share = 100 * (LABELS != 2).mean()
    assert f"covers {share:.1f}% of the pixels of 3 labels" in line
    assert "label 2 of 2 is in none of 3 labels" in line
    assert len(warnings) == 1


@pytest.mark.parametrize("labels, num_class, words", [
    (np.where(LABELS == 3, 1, 0), 1, "set DATASET.num_class 2"),  # background not counted
    (np.where(LABELS > 0, 1, 0), 1, "with DATASET.num_class 1"),
    (RARE_ZERO, 5, "label 5 of 5 is in none of 3 labels, and 0, which"),
    (LABELS, 3, None),
    (np.where(LABELS == 0, 1, LABELS), 4, None),  # a class too many, but all is labelled
])
def test_when_labels_are_doubted(tmp_path, labels, num_class, words):
    root = make_set(tmp_path / "set", labels.astype(np.uint8))
    _, warnings = opened(config(root, num_class=num_class), tmp_path)
    assert len(warnings) == (words is not None)
    assert words is None or words in warnings[0]


def test_jpeg_labels_beyond_the_classes_name_the_kind_of_file(tmp_path):
    Image.fromarray(LABELS * 3).save(tmp_path / "a.jpg", quality=30)
    with pytest.raises(InputError, match=r"is above DATASET.*this is a JPEG file, .* as PNG"):
        read_label(tmp_path / "a.jpg", 3)


@pytest.mark.parametrize("deep", [False, True])
def test_jpeg_and_palette_labels_are_said(tmp_path, deep):
    root = make_set(tmp_path / "jpeg", np.where(LABELS > 1, 1, 2).astype(np.uint8), 4, "{}.jpg")
    _, warnings = opened(config(root, num_class=9), tmp_path, deep=deep)
    (line,) = [line for line in warnings if "JPEG" in line]
    assert "4 of 4 labels are JPEG files" in line
    assert "as PNG" in line
    root = make_set(tmp_path / "palette")
    as_palette().save(root / "annotations/1.png")
    log, warnings = opened(config(root), tmp_path, deep=deep)
    assert not warnings
    assert [line for line in log if "1 of 3 labels are palette pictures" in line]


def test_check_says_what_is_there(tmp_path):
    root = make_set(tmp_path / "set")
    cfg = config(root, class_names=("sky", "sea", "sand"))
    log, warnings = opened(cfg, tmp_path / "run", ("train", "val"), deep=True)
    text = "\n".join(log)
    assert not warnings
    counts = np.bincount(LABELS.ravel())
    for i, name in enumerate(("sky", "sea", "sand"), start=1):
        pixels, share = 3 * counts[i], 100 * counts[i] / counts[1:].sum()
        assert any(line.split() == [str(i), name, str(pixels), "3", f"{share:.2f}%"]
                   for line in log), text
    assert f"unlabelled (0): {100 * (LABELS == 0).mean():.2f}%" in text
    assert "width 40 / 40 / 40, height 30 / 30 / 30" in text
    assert log[-1] == f"{cfg.list_val}: no fault found."
    picture = tmp_path / "run" / "check.png"
    assert f"Samples with their labels: {picture}" in log
    # 2 pairs in a row, 2 rows, and the legend below; sky's colour is there
    pixels = np.asarray(Image.open(picture).convert("RGB"))
    assert pixels.shape[0] > 2 * 180
    assert pixels.shape[1] > 4 * 240
    assert (pixels == (120, 120, 120)).all(2).sum() > 1000


def test_a_dark_16_bit_picture_is_said(tmp_path):
    root = make_set(tmp_path / "set")
    Image.fromarray(np.full((30, 40), 4000, np.uint16)).save(root / "images/2.png")
    _, warnings = opened(config(root), tmp_path, deep=True)
    assert ["1 of 3 pictures hold 16 bits" in line for line in warnings] == [True]


def test_16_bit_photos_are_not_white(tmp_path):
    root = make_set(tmp_path / "set")
    values = np.random.RandomState(1).randint(0, 1 << 16, (30, 40)).astype(np.uint16)
    Image.fromarray(values).save(root / "images/0.png")
    image = eval_item({"fpath_img": "images/0.png"}, config(root))["img_ori"]
    np.testing.assert_array_equal(image[..., 0], values >> 8)


def test_long_tables_are_summed():
    counts = np.arange(100)
    lines = class_table([f"n{i}" for i in range(100)], {"pixels": counts})
    assert len(lines) == 41
    assert lines[1].split()[:2] == ["n99", "99"]
    assert lines[-1].split()[:4] == ["61", "more", "classes", str(counts[:61].sum())]


def test_copies(tmp_path):
    for name, content in (("a", b"12"), ("b", b"34"), ("c", b"12"), ("d", b"567")):
        (tmp_path / name).write_bytes(content)
    paths = [tmp_path / name for name in "abcd"]
    assert copies(paths[:2], paths[2:]) == [(paths[0], paths[2])]


def test_predictions_leave_names_with_a_dot_alone(tmp_path):
    for name in ("a.jpg", "._a.jpg"):
        (tmp_path / name).write_bytes(b"x")
    assert find_inputs(str(tmp_path), tmp_path / "out").images == (str(tmp_path / "a.jpg"),)
