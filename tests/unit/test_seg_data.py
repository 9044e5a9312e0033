"""Segmentation lists, batches and evaluation items: faults named, streams repeatable."""

import json
import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from data.loading.loader import ResumableLoader, SampleKey
from data.segmentation import (
    EvalItems,
    SegList,
    TrainBatches,
    cache_made_lists,
    check_seg_files,
    class_colors,
    color_encode,
    eval_item,
    orientation_batches,
    read_seg_list,
    resized_size,
    train_batch,
)
from runtime.errors import InputError
from settings.segmentation import DatasetConfig

SIZES = ((40, 30), (30, 40), (32, 32), (40, 30), (24, 48), (64, 32))


@pytest.fixture
def root(tmp_path):
    """Six pictures in ADE20K's layout with a list."""
    return make_set(tmp_path / "set")


def make_set(folder):
    rng = np.random.RandomState(0)
    for content in ("images", "annotations"):
        (folder / content / "training").mkdir(parents=True)
    lines = []
    for i, (width, height) in enumerate(SIZES):
        image, label = f"images/training/{i}.png", f"annotations/training/{i}.png"
        save(folder / image, rng.randint(0, 256, (height, width, 3)))
        save(folder / label, rng.randint(0, 4, (height, width)))
        lines.append(json.dumps({"fpath_img": image, "fpath_segm": label,
                                 "width": width, "height": height}))
    (folder / "training.odgt").write_text("\n".join(lines) + "\n")
    return folder


def save(path, pixels, mode=None):
    image = Image.fromarray(np.asarray(pixels, np.uint8))
    (image.convert(mode) if mode else image).save(path)


def config(root, **options):
    options = {"num_class": 3, "imgSizes": (16, 24), "imgMaxSize": 100, **options}
    return DatasetConfig(root_dataset=str(root), **options)


def records(root):
    return read_seg_list(str(root / "training.odgt"), str(root))


def one_fault(function, *arguments, **options):
    with pytest.raises(InputError) as caught:
        function(*arguments, **options)
    assert len(caught.value.faults) == 1
    return caught.value.faults[0]


def test_list_items_are_the_files_lines(root):
    found = records(root)
    assert len(found) == len(SIZES)
    lines = (root / "training.odgt").read_text().splitlines()
    assert [dict(item) for item in found] == [json.loads(line) for line in lines]
    assert found.portrait.tolist() == [height > width for width, height in SIZES]
    assert found[-1] == found[len(SIZES) - 1]
    with pytest.raises(IndexError):
        found[len(SIZES)]


def test_list_faults_name_file_and_line(root):
    path = root / "training.odgt"
    good = path.read_text().splitlines()
    path.write_text("\n".join([
        good[0],
        "{broken",
        good[1].replace("fpath_segm", "fpath_seg"),
        good[2].replace('"width": 32', '"width": "wide"'),
        "",
    ]))
    with pytest.raises(InputError) as caught:
        records(root)
    faults = caught.value.faults
    assert [fault.split(": ")[0] for fault in faults] == [f"{path}:{n}" for n in (2, 3, 4)]
    assert "fpath_segm is missing. Did you mean fpath_seg?" in faults[1]
    assert "width wants pixels" in faults[2]


def test_empty_list(root):
    (root / "training.odgt").write_text("")
    assert "the list is empty" in one_fault(records, root)


def test_missing_label_file_is_named(root):
    os.remove(root / "annotations/training/2.png")
    fault = one_fault(records, root)
    assert "annotations/training/2.png: no such label file" in fault


def test_many_missing_files_are_summed_up(tmp_path, root):
    with pytest.raises(InputError) as caught:
        read_seg_list(str(root / "training.odgt"), str(tmp_path))
    assert len(caught.value.faults) <= 21


def test_folder_pair_instead_of_a_list(tmp_path, root):
    wanted = list(records(root))
    os.remove(root / "training.odgt")
    split = read_seg_list(str(root / "training.odgt"), str(root))
    by_images = read_seg_list("images/training", str(root))
    by_pair = read_seg_list("images/training:annotations/training", str(root))
    for found in (split, by_images, by_pair):
        assert list(found) == wanted

    run = tmp_path / "run"
    run.mkdir()
    before = sorted(str(path) for path in root.rglob("*"))
    cache_made_lists(SimpleNamespace(is_main=True, folder=run), {"train": split})
    (cached,) = run.iterdir()
    assert sorted(str(path) for path in root.rglob("*")) == before  # nothing in the data set
    # the cached list is taken: a change of its text shows
    cached.write_text(cached.read_text().replace('"width": 64', '"width": 65'))
    assert read_seg_list("images/training", str(root), run).widths[-1] == 65
    # ... until a file changes
    save(root / "images/training/5.png", np.zeros((20, 64, 3)))
    assert read_seg_list("images/training", str(root), run).heights[-1] == 20


def test_a_list_that_is_nowhere(root):
    missing = str(root / "trainin.odgt")
    fault = one_fault(read_seg_list, missing, str(root), key="DATASET.list_train")
    assert fault.startswith("DATASET.list_train: no such list")
    assert "Did you mean" in fault


def test_folder_pair_with_a_label_missing(root):
    os.remove(root / "annotations/training/3.png")
    fault = one_fault(read_seg_list, "images/training", str(root))
    assert "3.png: no label" in fault


def test_images_and_labels_in_one_folder_are_refused(root):
    fault = one_fault(read_seg_list, "images/training:images/training", str(root))
    assert "images and labels lie in one folder" in fault


def test_labels_are_told_from_other_files_by_their_kind(root):
    labels = root / "annotations/training"
    wanted = list(read_seg_list("images/training", str(root)))
    for name in ("3.txt", "3.xml", "3.zip"):
        (labels / name).write_text("no label")
    assert list(read_seg_list("images/training", str(root))) == wanted
    os.rename(labels / "3.png", labels / "3.pgm")
    os.rename(root / "images/training/4.png", root / "images/training/4.PGM")
    found = list(read_seg_list("images/training", str(root)))
    assert found[3]["fpath_segm"] == "annotations/training/3.pgm"
    assert found[4]["fpath_img"] == "images/training/4.PGM"
    save(labels / "3.bmp", np.zeros((30, 40)))
    fault = one_fault(read_seg_list, "images/training", str(root))
    assert "3.pgm: 3.bmp beside it is a label of 3, too; remove one of the two" in fault


@pytest.mark.parametrize(
    "spoil, words",
    [
        (lambda p: save(p, np.full((30, 40), 9)), "label value 9 is above DATASET.num_class 3"),
        (lambda p: save(p, np.zeros((30, 41))), "the label is 41x30"),
        (lambda p: save(p, np.full((30, 40), 9), "P"), "label value 9"),
        (lambda p: save(p, np.zeros((30, 40, 3))), "RGB"),
        (lambda p: save(p, np.zeros((30, 40)), "1"), "1 bit"),
        (lambda p: p.write_bytes(b"\x89PNG\r\n\x1a\n"), "not a readable label"),
        (lambda p: p.write_bytes(p.read_bytes()[:60]), "not a readable label"),
        (os.remove, "no such label file"),
    ],
)
def test_label_faults_name_the_file(root, spoil, words):
    found = records(root)
    path = root / "annotations/training/0.png"
    spoil(path)
    for fault in (
        one_fault(train_batch, [found[0]], config(root), 16, [0]),
        one_fault(eval_item, found[0], config(root)),
        *check_seg_files(found, str(root), 3),
    ):
        assert str(path) in fault
        assert words in fault


def test_image_faults_name_the_file(root):
    found = records(root)
    path = root / "images/training/0.png"
    save(path, np.zeros((30, 44, 3)))
    save(root / "annotations/training/0.png", np.zeros((30, 44)))
    assert "the list says 40x30" in one_fault(train_batch, [found[0]], config(root), 16, [0])
    path.write_bytes(b"no image")
    assert f"{path}: damaged or not an image" in one_fault(
        train_batch, [found[0]], config(root), 16, [0])


def test_label_with_a_transparent_grey_is_a_plain_label(root):
    path = root / "annotations/training/0.png"
    pixels = np.random.RandomState(1).randint(0, 4, (30, 40)).astype(np.uint8)
    Image.fromarray(pixels).save(path, transparency=2)
    item = eval_item(records(root)[0], config(root))
    assert torch.equal(item["seg_label"][0], torch.from_numpy(pixels).long() - 1)


def test_padding_is_ignored_unless_asked(root):
    found = records(root)
    pair = [found[0], found[5]]  # 4:3 and 2:1
    ignored = train_batch(pair, config(root), 16, [0, 0])["seg_label"]
    counted = train_batch(pair, config(root, pad_label=0), 16, [0, 0])["seg_label"]
    differs = ignored != counted
    assert differs.any()
    assert (ignored[differs] == -1).all()
    assert (counted[differs] == 0).all()


def test_flip_mirrors_image_and_label(root):
    record = records(root)[2]  # square
    cfg = config(root, padding_constant=8, segm_downsampling_rate=1)
    plain = train_batch([record], cfg, 32, [0])
    flipped = train_batch([record], cfg, 32, [1])
    assert torch.equal(plain["img_data"].flip(-1), flipped["img_data"])
    assert torch.equal(plain["seg_label"].flip(-1), flipped["seg_label"])


def test_long_side_is_limited():
    assert resized_size(1600, 400, 300, 1000) == (1000, 250)


def test_orientations_do_not_mix():
    portrait = [True, False, False, True, False]
    batches = list(orientation_batches([0, 1, 2, 3, 4, 0], portrait, 2))
    assert batches == [[1, 2], [0, 3]]


def stream(found, cfg, **options):
    return TrainBatches(found, cfg, batch_size=2, batches_per_epoch=5, seed=7, **options)


def same(a, b):
    return (
        torch.equal(a["img_data"], b["img_data"])
        and torch.equal(a["seg_label"], b["seg_label"])
        and a["info"] == b["info"]
    )


def test_stream_does_not_depend_on_the_order_of_asking(root):
    found, cfg = records(root), config(root)
    keys = [SampleKey(epoch, i, i) for epoch in range(3) for i in range(5)]
    one = stream(found, cfg)
    in_order = [one[key] for key in keys]
    other = stream(found, cfg)
    for i in (14, 3, 9, 3):
        assert same(other[keys[i]], in_order[i])
    assert len({tuple(batch["info"]) for batch in in_order}) > 5
    assert not all(same(in_order[i], in_order[i + 5]) for i in range(5))
    seen = {name for batch in in_order for name in batch["info"]}
    assert len(seen) == len(SIZES)


def test_random_flip_can_be_turned_off(root):
    found = records(root)
    cfg = config(root, imgSizes=(16,), random_flip=False)
    batches = stream(found, cfg)
    for i in range(5):
        batch = batches[SampleKey(0, i, i)]
        plain = [r for name in batch["info"] for r in found if r["fpath_img"] == name]
        assert torch.equal(batch["img_data"], train_batch(plain, cfg, 16, [0, 0])["img_data"])


def test_bad_images_are_replaced_or_stop(root):
    found = records(root)
    (root / "images/training/3.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"3\.png"):
        [stream(found, config(root))[SampleKey(0, i, i)] for i in range(5)]
    batches = stream(found, config(root), bad_images="skip")
    items = [batches[SampleKey(0, i, i)] for i in range(5)]
    assert any("3.png" in fault for item in items for fault in item["skipped"])
    assert not any(name.endswith("/3.png") for item in items for name in item["info"])


@pytest.mark.parametrize("workers", [0, 2])
def test_loader_gives_a_list_of_one_batch_per_device(root, workers):
    from common.parallel import user_scattered_collate

    batches = TrainBatches(records(root), config(root), batch_size=2, batches_per_epoch=6, seed=7)
    loader = ResumableLoader(batches, 2, seed=7, workers=workers, shuffle=False,
                             collate=user_scattered_collate)
    given = [b for _, _, (pair,) in loader.steps(2, 5) for b in pair]
    wanted = [batches[SampleKey(n // 6, n % 6, n % 6)] for n in range(4, 10)]
    assert all(same(a, b) for a, b in zip(given, wanted, strict=True))


def test_evaluation_keeps_the_labels_size(root):
    items = EvalItems(records(root), config(root))
    item = items[4]
    assert items[SampleKey(0, 2, 4)]["info"] == item["info"]
    assert [tuple(x.shape) for x in item["img_data"]] == [(1, 3, 32, 16), (1, 3, 48, 24)]
    assert tuple(item["seg_label"].shape) == (1, 48, 24)
    assert item["info"] == "images/training/4.png"


def test_prediction_takes_paths_as_given(root, tmp_path):
    path = root / "images/training/4.png"
    item = eval_item({"fpath_img": str(path)}, config(tmp_path))
    assert "seg_label" not in item
    assert item["img_ori"].shape == (48, 24, 3)


def test_colours_beyond_ade20k():
    colors = class_colors(200)
    assert colors.shape == (200, 3)
    assert np.array_equal(colors, class_colors(200))
    picture = color_encode(np.array([[-1, 199]]), colors)
    assert picture.tolist() == [[[0, 0, 0], colors[199].tolist()]]


def test_a_list_is_compact():
    made = SegList({"fpath_img": f"images/training/ADE_train_{i:08d}.jpg",
                    "fpath_segm": f"annotations/training/ADE_train_{i:08d}.png",
                    "width": 683, "height": 512} for i in range(1000))
    assert len(made._text) + made._ends.nbytes + made.widths.nbytes * 2 < 120_000  # bytes


def test_grids_name_their_colours(tmp_path):
    from data.segmentation.ade20k import class_colors
    from data.segmentation.pictures import save_prediction_grid, with_class_legend

    names = [f"class {i}" for i in range(9)]
    image = np.full((60, 80, 3), 128, np.uint8)
    label, prediction = np.zeros((60, 80), int), np.full((60, 80), 3)
    label[:5] = -1
    plain = np.full((30, 300, 3), 255, np.uint8)
    with_legend = with_class_legend(plain, [label, prediction], names)
    shown = {tuple(pixel) for pixel in with_legend[30:].reshape(-1, 3)}
    wanted = [(0, 0, 0), *(tuple(class_colors(9)[i]) for i in (0, 3))]
    assert shown.issuperset(wanted)
    assert tuple(class_colors(9)[5]) not in shown
    save_prediction_grid([(image, label, prediction)] * 3, names, tmp_path / "grid.png")
    with Image.open(tmp_path / "grid.png") as grid:
        assert grid.height > 2 * 60
