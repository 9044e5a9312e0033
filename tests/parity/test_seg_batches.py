"""Batches, evaluation items, colours and the meter against golden/seg_{batch,eval}.json."""

import hashlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from goldens import image_batch, load_golden
from PIL import Image

from data.segmentation import (
    ADE20K_CLASSES,
    ADE20K_COLORS,
    color_encode,
    eval_item,
    orientation_batches,
    resized_size,
    train_batch,
)
from metrics.segmentation import SegmentationMeter
from models.segmentation import pixel_accuracy

BATCH = load_golden("seg_batch")
EVAL = load_golden("seg_eval")
PALETTE = load_golden("seg_palette")
SIZES = BATCH["sizes_wh"]
# a summary's float64 mean of float32 values; samples have 10 digits
CLOSE = {"rtol": 1e-8, "atol": 1e-8}


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """The eight pictures that the golden file describes."""
    folder = tmp_path_factory.mktemp("golden_images")
    made = []
    for k, (width, height) in enumerate(SIZES):
        y, x = np.mgrid[:height, :width]
        pixels = np.stack([(3 * x + 5 * y + 50 * c + 11 * k) % 256 for c in range(3)], axis=-1)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{k}.png")
        label = (x // 16 + 7 * (y // 16) + k) % 151
        Image.fromarray(label.astype(np.uint8)).save(folder / f"{k}_label.png")
        made.append({"fpath_img": f"{k}.png", "fpath_segm": f"{k}_label.png",
                     "width": width, "height": height, "root": str(folder)})
    return made


def config(records, case):
    return SimpleNamespace(
        root_dataset=records[0]["root"],
        num_class=150,
        pad_label=0,  # the original's
        **{key: case[key] for key in (
            "imgSizes", "imgMaxSize", "padding_constant", "segm_downsampling_rate")},
    )


def check(values, wanted):
    flat = values.double().flatten()
    np.testing.assert_allclose(flat.mean(), wanted["mean"], **CLOSE)
    np.testing.assert_allclose(flat.std(correction=0), wanted["std"], **CLOSE)
    if "absmax" in wanted:
        np.testing.assert_allclose(flat.abs().max(), wanted["absmax"], **CLOSE)
    if "samples" in wanted:
        count = len(wanted["samples"])
        samples = flat[[(i * (len(flat) - 1)) // (count - 1) for i in range(count)]]
        np.testing.assert_allclose(samples, wanted["samples"], **CLOSE)


def originals_order(rng, start):
    """The list's records, reshuffled in the moment the last one is taken."""
    numbers = list(start)
    while True:
        taken = list(numbers)
        for position, number in enumerate(taken):
            if position == len(taken) - 1:
                rng.shuffle(numbers)
            yield number


@pytest.mark.parametrize("name", list(BATCH["cases"]))
def test_batches(records, name):
    case = BATCH["cases"][name]
    cfg = config(records, case)
    start = list(range(len(records)))
    if name.startswith("E_"):
        rng = np.random.RandomState(int(name.rsplit("_", 1)[1]))
        rng.shuffle(start)
    else:
        rng = np.random.RandomState(0)
    portrait = [height > width for width, height in SIZES]
    stream = orientation_batches(originals_order(rng, start), portrait, case["batch_per_gpu"])
    for wanted in case["batches"]:
        numbers = next(stream)
        short_size = int(rng.choice(cfg.imgSizes))
        flips = [int(rng.choice([0, 1])) for _ in numbers]
        assert (numbers, short_size, flips) == (
            wanted["images"], wanted["short_size"], wanted["flips"])
        batch = train_batch([records[i] for i in numbers], cfg, short_size, flips)
        images, labels = batch["img_data"], batch["seg_label"]
        assert list(images.shape) == wanted["img_shape"]
        assert list(labels.shape) == wanted["label_shape"]
        assert (str(images.dtype), str(labels.dtype)) == (
            wanted["img_dtype"], wanted["label_dtype"])
        check(images, wanted["img"])
        check(labels, wanted["label"])
        # the record is a float32's
        zeros = float((images == 0).double().mean())
        assert zeros == pytest.approx(wanted["img_zero_fraction"], rel=1e-6)
        assert int((labels == -1).sum()) == wanted["label_hist_m1"]
        assert int((labels == 0).sum()) == wanted["label_hist_0"]
        assert int(labels.sum()) == wanted["label_sum"]


def test_sizes():
    for width, height, short, w, h in BATCH["train_sizes_w_h_short_rw_rh_max1000"]:
        assert resized_size(width, height, short, 1000) == (w, h)
    rounded_down = BATCH["truncation_gotcha_short_side_becomes_short_minus_1"]
    for width, height, short, w, h in rounded_down["examples"]:
        assert resized_size(width, height, short, 1000) == (w, h)


@pytest.mark.parametrize("number", range(len(BATCH["val"])))
def test_evaluation_items(records, number):
    wanted = BATCH["val"][number]
    cfg = config(records, {"imgSizes": (300, 375, 450, 525, 600), "imgMaxSize": 1000,
                           "padding_constant": wanted["padding_constant"],
                           "segm_downsampling_rate": 8})
    record = records[wanted["image"]]
    item = eval_item(record, cfg)
    assert sorted(item) == wanted["keys"]
    assert [list(x.shape) for x in item["img_data"]] == wanted["img_data_shapes"]
    assert list(item["seg_label"].shape) == wanted["seg_label_shape"]
    assert item["seg_label"].dtype == torch.int64
    assert (int(item["seg_label"].min()), int(item["seg_label"].max())) == (
        wanted["label_min"], wanted["label_max"])
    assert list(item["img_ori"].shape) == wanted["img_ori_shape"]
    assert str(item["img_ori"].dtype) == wanted["img_ori_dtype"]
    if wanted["img_data0"]:
        check(item["img_data"][0], wanted["img_data0"])
    test_item = eval_item({"fpath_img": record["fpath_img"]}, cfg)
    assert sorted(test_item) == wanted["test_keys"]


def maps(case, k, size):
    height, width = size
    y, x = np.mgrid[:height, :width]
    n = case["num_class"]
    base = x // 5 + 3 * (y // 4) + 7 * k
    shift = np.where((x * y + k) % 7 == 0, (x + y) % 5, 0)
    return (base - 1 + shift) % n, base % (n + 1) - 1


@pytest.mark.parametrize("name", [k for k, v in EVAL.items() if "images" in v])
def test_meter(name):
    case = EVAL[name]
    whole, parts = SegmentationMeter(case["num_class"]), []
    for k, image in enumerate(case["images"]):
        pred, label = maps(case, k, image["size"])
        if name == "n150_absent":
            pred, label = pred % 40, np.where(label >= 0, label % 50, label)
        assert pred[0, :12].tolist() == image["pred_first_row"]
        assert label[0, :12].tolist() == image["label_first_row"]
        part = SegmentationMeter(case["num_class"])
        part.update(torch.from_numpy(pred), torch.from_numpy(label))
        assert part.num_labelled == image["pix"]
        assert int((label < 0).sum()) == image["n_unlabelled"]
        assert part.compute()["pixel_accuracy"] == pytest.approx(image["acc"], rel=1e-12)
        assert (part.intersection.sum(), part.union.sum()) == (
            image["inter_sum"], image["union_sum"])
        parts.append(part)
        whole.update(pred, label)
    merged = SegmentationMeter(case["num_class"])
    for part in parts:
        merged.merge(part)
    for meter in (whole, merged):
        assert meter.intersection.tolist() == case["intersection"]
        assert meter.union.tolist() == case["union"]
        np.testing.assert_allclose(meter.iou, case["iou"], atol=1e-11)  # 12 digits
        scores = meter.compute()
        assert scores["mean_iou"] == pytest.approx(case["mean_iou"], rel=1e-12)
        assert scores["mean_iou_present"] == pytest.approx(
            case["mean_iou_over_present"], rel=1e-12)
        assert scores["pixel_accuracy"] == pytest.approx(case["pixel_accuracy"], rel=1e-12)
        assert int((meter.union == 0).sum()) == case["n_zero_union"]


def test_meter_without_labels():
    wanted = EVAL["all_unlabelled"]
    meter = SegmentationMeter(4)
    meter.update(np.zeros((3, 3), int), np.full((3, 3), -1))
    assert meter.compute()["pixel_accuracy"] == wanted["acc"]
    assert meter.num_labelled == wanted["pix"]
    assert meter.intersection.tolist() == wanted["inter"]
    assert meter.union.tolist() == wanted["union"]


def test_pixel_accuracy_and_loss():
    wanted = EVAL["pixel_acc_torch"]
    scores = image_batch(*wanted["pred"])
    b, y, x = torch.arange(2)[:, None, None], torch.arange(6)[:, None], torch.arange(7)
    labels = (7 * y + 13 * x + 29 * b) % 6 - 1
    ignored = torch.full_like(labels, -1)
    assert float(pixel_accuracy(scores, labels)) == pytest.approx(wanted["acc"], rel=1e-7)
    assert float(pixel_accuracy(scores, ignored)) == wanted["acc_all_ignored"]
    crit = torch.nn.NLLLoss(ignore_index=-1)
    log_probabilities = scores.log_softmax(1)
    # the record's digits are a float32's
    assert float(crit(log_probabilities, labels)) == pytest.approx(
        wanted["nll_ignore_-1"], rel=1e-6)
    assert torch.isnan(crit(log_probabilities, ignored))


def test_colours_and_names():
    assert hashlib.md5(ADE20K_COLORS.tobytes()).hexdigest() == PALETTE["md5"]
    assert ADE20K_COLORS.tolist() == PALETTE["colors"]
    assert list(ADE20K_CLASSES) == PALETTE["names"]
    y, x = np.mgrid[:6, :8]
    picture = color_encode((5 * y + x) % 12 - 1, ADE20K_COLORS)
    assert picture.dtype == np.uint8
    assert picture.tolist() == EVAL["color_encode"]["rgb"]
