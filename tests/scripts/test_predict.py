"""--predict in each script: the same results as its evaluation, from files and names alone."""

import contextlib
import csv
import importlib
import io
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import TINY, TINY_CLASSIFIER
from PIL import Image
from pycocotools import mask as rle_codec
from query_runs import TINY as TINY_QUERY
from seg_run import TINY as TINY_SEG

from data.drawn.shapes import write_class_folders
from runtime import cli
from runtime.predicting.videos import VideoFile, VideoFrames

ALL = "nms_conf_thresh=0.0"  # of an untrained network no score is high
UNNAMED = "dataset.class_names=[]"


class Run:
    """A finished run of a script in this process: status, text, err (lines)."""

    def __init__(self, script, folder, *words):
        module = importlib.import_module(script)
        out, err, before = io.StringIO(), io.StringIO(), Path.cwd()
        os.chdir(folder)
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                flags = cli.read_flags(module.flags, script, [str(word) for word in words])
                cli.run(module.main, script, flags, None)
        except SystemExit as end:
            self.status = end.code
        finally:
            os.chdir(before)
        self.text, self.err = out.getvalue(), err.getvalue().splitlines()
        self.lines = self.text.splitlines()


def well(run):
    assert run.status == 0, "\n".join(run.err)
    return run


def read(path):
    return json.loads(Path(path).read_text())


def by_image(results):
    """{image id: detections in order}"""
    found = {}
    for one in results:
        found.setdefault(one["image_id"], []).append(one)
    return found


def assert_same_instances(found, wanted):
    """Equal but for rounding; boxes to 0.1, as evaluation files are rounded to that."""
    assert found.keys() == wanted.keys()
    for image_id, detections in wanted.items():
        assert len(found[image_id]) == len(detections) > 0
        for one, other in zip(found[image_id], detections, strict=True):
            assert one["category_id"] == other["category_id"]
            assert one["score"] == pytest.approx(other["score"], abs=1e-5)
            if "bbox" in other:
                assert one["bbox"] == pytest.approx(other["bbox"], abs=0.11)
            if "segmentation" in other:
                masks = [rle_codec.decode(each["segmentation"]) for each in (one, other)]
                assert (masks[0] != masks[1]).mean() < 0.01


def write_clip(path, images, rate=12.5):
    video = VideoFile(Path(path), rate)
    for image in images:
        video.write(np.array(Image.open(image).resize((64, 48))))
    video.close()


# --- train_yolact


@pytest.fixture(scope="module")
def yolact(tmp_path_factory, scenes):
    """Folder with tiny.yaml, which names no data, and weights/ of a network hardly trained."""
    folder = tmp_path_factory.mktemp("yolact")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    data = [f"dataset.{part}_{kind}={getattr(scenes, f'{part}_{kind}')}"
            for part in ("train", "valid") for kind in ("info", "images")]
    words = ["--config", "tiny.yaml", "--num_workers", "0", "--batch_size", "4"]
    well(Run("train_yolact", folder, *words, "--max-iters", "1", "--validation_epoch", "0",
             "--cfg-options", *data))
    photos = folder / "photos"
    photos.mkdir()
    index = read(scenes.valid_info)
    for image in index["images"]:
        target = photos / f"{image['id']}{Path(image['file_name']).suffix}"
        shutil.copy(Path(scenes.valid_images) / image["file_name"], target)
    well(Run("train_yolact", folder, *words, "--eval-only", "--output_coco_json",
             "--cfg-options", ALL, *data))
    return folder


def predict_yolact(folder, *words, options=(ALL, UNNAMED)):
    return Run("train_yolact", folder, "--config", "tiny.yaml", "--num_workers", "0",
               *words, "--cfg-options", *options)


def test_yolact_predicts_what_it_evaluates(yolact):
    run = well(predict_yolact(yolact, "--predict", "photos"))
    out = yolact / "logs" / "tiny" / "predictions"
    found = by_image(read(out / "predictions.json"))
    assert_same_instances(found, by_image(read(yolact / "results" / "bbox_detections.json")))
    assert_same_instances(found, by_image(read(yolact / "results" / "mask_detections.json")))
    # the names come from the checkpoint: the config here has none, and no annotation file is read
    names = [each["name"] for each in read(out / "images.json")["categories"]]
    assert names == ["ellipse", "rectangle", "triangle", "star", "ring", "bow"]
    assert {one["category_name"] for one in read(out / "predictions.json")} <= set(names)
    photos = sorted(path.stem for path in (yolact / "photos").iterdir())
    assert sorted(path.name for path in out.glob("*.png")) == [f"{stem}.png" for stem in photos]
    assert "Pictures, predictions.json, images.json are in logs/tiny/predictions." in run.lines
    assert run.lines[-1].startswith("6 images in ")
    assert "images/s" in run.lines[-1]


def test_yolact_one_by_one(yolact, monkeypatch):
    well(predict_yolact(yolact, "--predict", "photos", "--predict-to", "together"))
    monkeypatch.setattr(importlib.import_module("train_yolact"), "EVAL_BATCH", 1)
    well(predict_yolact(yolact, "--predict", "photos", "--predict-to", "alone"))
    alone, together = (by_image(read(yolact / name / "predictions.json"))
                       for name in ("alone", "together"))
    assert_same_instances(alone, together)


def test_yolact_limits(yolact):
    well(predict_yolact(yolact, "--predict", "photos", "--predict-to", "all"))
    scores = sorted(one["score"] for one in read(yolact / "all" / "predictions.json"))
    limit = scores[len(scores) // 2]
    well(predict_yolact(yolact, "--predict", "photos/*", "--predict-to", "some", "--top-k", "2",
                        "--score_threshold", limit))
    some = by_image(read(yolact / "some" / "predictions.json"))
    whole = by_image(read(yolact / "all" / "predictions.json"))
    for image_id, detections in whole.items():
        kept = [one["score"] for one in detections if one["score"] > limit]
        assert [one["score"] for one in some.get(image_id, [])] == kept[: 2]


def test_yolact_from_any_weights(yolact, tmp_path):
    """Bare weights: classes are numbers, unless the config names as many."""
    weights = torch.load(next((yolact / "weights").glob("tiny_*1.pth")), weights_only=True)
    torch.save({"model": weights}, tmp_path / "bare.pth")
    name = next((yolact / "photos").iterdir())
    well(predict_yolact(yolact, "--predict", name, "--pretrained", tmp_path / "bare.pth",
                        "--predict-to", tmp_path / "out"))
    names = {one["category_name"] for one in read(tmp_path / "out" / "predictions.json")}
    assert names
    assert all(each.startswith("class ") for each in names)


def test_yolact_video_and_benchmark(yolact, tmp_path):
    write_clip(tmp_path / "clip.mp4", sorted((yolact / "photos").iterdir())[:3])
    well(predict_yolact(yolact, "--predict", tmp_path / "clip.mp4", "--predict-to", tmp_path / "o"))
    written = VideoFrames(tmp_path / "o" / "clip.mp4")
    assert written.rate == 12.5
    assert [frame.shape for frame in written] == [(48, 64, 3)] * 3
    assert by_image(read(tmp_path / "o" / "predictions.json")).keys() == {0, 1, 2}
    run = well(predict_yolact(yolact, "--predict", "photos", "--benchmark", "--predict-to",
                              tmp_path / "none"))
    assert "Benchmark over 6 images, one at a time, nothing drawn or written:" in run.lines
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("words, text", [
    (["--predict", "nowhere"], "--predict nowhere: no such image, video or folder"),
    (["--predict", "photos", "--eval-only"], "--predict and --eval-only are two different jobs"),
    (["--benchmark"], "--benchmark only goes with --predict PATH"),
    (["--predict", "photos", "--save_folder", "empty"], "holds no checkpoint of tiny"),
    (["--predict", "photos", "--resume", "no.pth"], "no.pth"),
    (["--predict", "tiny.yaml"], "tiny.yaml: damaged or not an image"),
])
def test_yolact_faults(yolact, words, text):
    run = predict_yolact(yolact, *words)
    assert run.status == 2
    assert len(run.err) == 1
    assert text in run.err[0]


# --- train_resnest


@pytest.fixture(scope="module")
def resnest(tmp_path_factory):
    """(folder with tiny.yaml and output/, the validation images, which lie elsewhere)"""
    folder, root = tmp_path_factory.mktemp("resnest"), tmp_path_factory.mktemp("flowers")
    write_class_folders(root, 2, 1, 40, seed=3)
    (folder / "tiny.yaml").write_text(yaml.safe_dump(TINY_CLASSIFIER))
    well(Run("train_resnest", folder, "--config-file", "tiny.yaml", "--device", "cpu",
             "--max-iters", "1", "DATA.ROOT", root))
    return folder, root / "val"


def predict_resnest(folder, *words):
    return Run("train_resnest", folder, "--config-file", "tiny.yaml", "--device", "cpu",
               "DATA.ROOT", "nowhere", *words)


def table_of(path):
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))


def test_resnest_predicts_what_it_evaluates(resnest):
    folder, photos = resnest
    run = well(predict_resnest(folder, "--predict", photos, "--top-k", "3"))
    rows = table_of(folder / "output" / "predictions" / "predictions.csv")
    files = sorted(str(path) for path in photos.rglob("*.jpg"))
    assert [row["file"] for row in rows] == [name for name in files for _ in range(3)]
    assert [row["rank"] for row in rows] == ["1", "2", "3"] * len(files)
    assert {row["name"] for row in rows} <= {path.name for path in photos.iterdir()}  # no data here
    right = [row["name"] == Path(row["file"]).parent.name for row in rows if row["rank"] == "1"]
    scores = json.loads((folder / "output" / "metrics.json").read_text())
    assert 100 * np.mean(right) == pytest.approx(scores["top1"], abs=1e-4)
    top3 = [float(row["probability"]) for row in rows[:3]]
    assert top3 == sorted(top3, reverse=True)
    assert 0 < sum(top3) <= 1
    assert len(list((folder / "output" / "predictions").glob("*.png"))) == len(files)
    assert any(line.endswith("predictions.csv are in output/predictions.") for line in run.lines)


def test_resnest_one_by_one_and_limits(resnest, tmp_path):
    folder, photos = resnest
    for name, words in (("together", []), ("alone", ["TRAINING.TEST_BATCH_SIZE", "1"])):
        well(predict_resnest(folder, *words, "--predict", photos, "--predict-to", tmp_path / name))
    together, alone = (table_of(tmp_path / name / "predictions.csv")
                       for name in ("together", "alone"))
    assert len(together) == 5 * len({row["file"] for row in together})
    for one, other in zip(together, alone, strict=True):
        assert one["name"] == other["name"]
        assert float(one["probability"]) == pytest.approx(float(other["probability"]), abs=2e-5)
    well(predict_resnest(folder, "--predict", photos, "--predict-to", tmp_path / "sure",
                         "--score-threshold", "0.99"))
    sure = table_of(tmp_path / "sure" / "predictions.csv")
    assert [row["rank"] for row in sure] == ["1"] * len({row["file"] for row in together})


def test_resnest_names_and_video(resnest, tmp_path):
    """Weights that say no names: the data's folders, and numbers where those are not as many."""
    folder, photos = resnest
    weights = torch.load(folder / "output" / "model_weights.pth", weights_only=True)
    torch.save(dict(weights), tmp_path / "bare.pth")
    write_clip(tmp_path / "clip.mp4", sorted(photos.rglob("*.jpg"))[:3])
    words = ["--predict", tmp_path / "clip.mp4", "--pretrained", tmp_path / "bare.pth",
             "--predict-to", tmp_path / "o"]
    well(predict_resnest(folder, *words))
    rows = table_of(tmp_path / "o" / "predictions.csv")
    assert [row["image_id"] for row in rows] == [str(i) for i in range(3) for _ in range(5)]
    assert all(row["name"] == f"class {row['class']}" for row in rows)
    assert [frame.shape for frame in VideoFrames(tmp_path / "o" / "clip.mp4")] == [(48, 64, 3)] * 3
    well(predict_resnest(folder, *words, "DATA.ROOT", photos.parent))
    names = sorted(path.name for path in photos.iterdir())
    assert all(row["name"] == names[int(row["class"])]
               for row in table_of(tmp_path / "o" / "predictions.csv"))


# --- train_seg


@pytest.fixture(scope="module")
def seg(tmp_path_factory, seg_scenes):
    """(folder with tiny.yaml and ckpt/, which is evaluated; the validation images)"""
    folder = tmp_path_factory.mktemp("seg")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(TINY_SEG))
    data = ["DATASET.root_dataset", seg_scenes, "DATASET.list_train", seg_scenes / "training.odgt",
            "DATASET.list_val", seg_scenes / "validation.odgt"]
    words = ["--cfg", "tiny.yaml", "DIR", "ckpt"]
    well(Run("train_seg", folder, *words, *data, "--max-iters", "1"))
    well(Run("train_seg", folder, *words, *data, "--eval-only", "VAL.visualize", "True"))
    return folder, seg_scenes / "images" / "validation"


def predict_seg(folder, *words):
    return Run("train_seg", folder, "--cfg", "tiny.yaml", "DIR", "ckpt",
               "DATASET.root_dataset", "nowhere", "DATASET.list_train", "no.odgt", *words)


def test_seg_predicts_what_it_evaluates(seg):
    folder, photos = seg
    run = well(predict_seg(folder, "--predict", photos))
    out = folder / "ckpt" / "predictions"
    names = sorted(path.stem for path in photos.iterdir())
    assert sorted(path.stem for path in out.glob("ADE*.png")) == names
    classes = table_of(out / "classes.csv")
    assert [row["value"] for row in classes] == [str(i + 1) for i in range(len(classes))]
    assert not any(row["name"].startswith("class ") for row in classes)
    pixels = 0
    for name in names:
        drawn = np.array(Image.open(out / f"{name}.png"))
        evaluated = np.array(Image.open(folder / "ckpt" / "result" / f"{name}.png"))
        width = drawn.shape[1] // 2
        assert np.array_equal(drawn[:, width:], evaluated[:, 2 * width :])  # [image|label|this]
        labels = Image.open(out / "label_maps" / f"{name}.png")
        assert labels.mode == "P"
        assert np.array_equal(np.array(labels.convert("RGB")), drawn[:, width:])
        values, counts = np.unique(np.array(labels), return_counts=True)
        assert values.min() >= 1
        pixels += counts.sum()
        for value in values:
            colour = [int(classes[value - 1][key]) for key in ("red", "green", "blue")]
            assert (drawn[:, width:] == colour).all(-1).any()
    assert sum(int(row["pixels"]) for row in classes) == pixels
    assert Image.open(out / "legend.png").width >= 300
    assert run.lines[-1] == "Inference done!"
    assert "Pictures, label_maps/, classes.csv, legend.png are in ckpt/predictions." in run.lines


def test_seg_from_any_weights_and_video(seg, tmp_path):
    folder, photos = seg
    write_clip(tmp_path / "clip.mp4", sorted(photos.iterdir())[:3])
    both = {net: torch.load(next((folder / "ckpt").glob(f"{net}_*1.pth")), weights_only=True)
            for net in ("encoder", "decoder")}
    torch.save({"state_dict": {f"{net}.{key}": value for net, state in both.items()
                               for key, value in state.items()}}, tmp_path / "both.pth")
    well(predict_seg(folder, "--predict", tmp_path / "clip.mp4", "TEST.result", tmp_path / "o",
                     "--pretrained", tmp_path / "both.pth", "DATASET.num_class", "3"))
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == [
        "classes.csv", "clip.mp4", "legend.png"]
    assert [frame.shape for frame in VideoFrames(tmp_path / "o" / "clip.mp4")] == [(48, 64, 3)] * 3
    assert len(table_of(tmp_path / "o" / "classes.csv")) == 7  # the weights', not the config's
    torch.save(both["encoder"], tmp_path / "half.pth")
    run = predict_seg(folder, "--predict", photos, "--pretrained", tmp_path / "half.pth")
    assert run.status == 2
    assert "half.pth: only weights of the encoder" in run.err[0]


def test_seg_label_maps_are_no_input(seg):
    folder, photos = seg
    well(predict_seg(folder, "--imgs", photos, "--predict-to", "found"))
    run = predict_seg(folder, "--predict", "found/label_maps", "--predict-to", "found")
    assert run.status == 2
    assert "outputs go there" in run.err[0]


# --- train_queryinst


@pytest.fixture(scope="module")
def query(tmp_path_factory, scenes):
    """Folder with tiny.yaml, which names no data, out/ and evaluated.json, of photos/."""
    folder = tmp_path_factory.mktemp("query")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(TINY_QUERY))
    shutil.copytree(scenes.valid_images, folder / "photos",
                    ignore=lambda _, names: [name for name in names if "val" not in name])
    data = [f"{loader}.dataset.{key}={value}"
            for loader, info in (("train_dataloader", scenes.train_info),
                                 ("val_dataloader", scenes.valid_info))
            for key, value in (("data_root", scenes.train_info.parents[1]), ("ann_file", info))]
    words = ["tiny.yaml", "--work-dir", "out", "--device", "cpu", "--workers", "0"]
    module, written = importlib.import_module("train_queryinst"), folder / "evaluated.json"

    class Kept(module.CocoEvaluator):
        """Writes what it has before it scores."""

        def mmdetection_scores(self, *arguments, **others):
            self.write_detections(written, folder / "evaluated_masks.json")
            return super().mmdetection_scores(*arguments, **others)

    original, module.CocoEvaluator = module.CocoEvaluator, Kept
    try:
        well(Run("train_queryinst", folder, *words, "--max-iters", "1", "--cfg-options", *data))
    finally:
        module.CocoEvaluator = original
    return folder


def predict_query(folder, *words):
    return Run("train_queryinst", folder, "tiny.yaml", "--work-dir", "out", "--device", "cpu",
               *words)


def test_queryinst_predicts_what_it_evaluates(query, scenes):
    run = well(predict_query(query, "--predict", "photos"))
    out = query / "out" / "predictions"
    ids = {image["file_name"]: image["id"] for image in read(scenes.valid_info)["images"]}
    found = {}
    for one in read(out / "predictions.json"):
        found.setdefault(ids[Path(one["file_name"]).name], []).append(one)
    assert_same_instances(found, by_image(read(query / "evaluated.json")))
    assert_same_instances(found, by_image(read(query / "evaluated_masks.json")))
    names = [each["name"] for each in read(out / "images.json")["categories"]]
    assert names == [each["name"] for each in read(scenes.valid_info)["categories"]]
    assert {path.stem for path in out.glob("*.png")} == {Path(name).stem for name in ids}
    assert "Pictures, predictions.json, images.json are in out/predictions." in run.lines


def test_queryinst_one_by_one_and_limits(query, tmp_path):
    photos = sorted((query / "photos").iterdir())
    (tmp_path / "mixed").mkdir()
    for i, path in enumerate(photos):  # of three padded sizes
        image = Image.open(path)
        image.crop((0, 0, image.width - 20 * (i % 3), image.height)).save(
            tmp_path / "mixed" / f"{i}.png")
    for size in (1, 4):
        well(predict_query(query, "--predict", tmp_path / "mixed", "--predict-to",
                           tmp_path / str(size), "--top-k", "3",
                           "--cfg-options", f"val_dataloader.batch_size={size}"))
    alone, together = (by_image(read(tmp_path / size / "predictions.json")) for size in "14")
    assert {len(detections) for detections in together.values()} == {3}
    assert_same_instances(alone, together)
    limit = min(one["score"] for one in together[0]) + 1e-6
    well(predict_query(query, "--predict", tmp_path / "mixed" / "0.png", "--predict-to",
                       tmp_path / "some", "--top-k", "3", "--score-threshold", limit))
    assert len(read(tmp_path / "some" / "predictions.json")) < 3


def test_queryinst_weights_of_others_and_video(query, tmp_path):
    write_clip(tmp_path / "clip.mp4", sorted((query / "photos").iterdir())[:3])
    file = next((query / "out").glob("*_1.pth"))
    state = torch.load(file, weights_only=True)["state_dict"]
    torch.save({"state_dict": dict(state), "meta": {"CLASSES": list("abcdef")}},
               tmp_path / "theirs.pth")
    well(predict_query(query, "--predict", tmp_path / "clip.mp4", "--predict-to", tmp_path / "o",
                       "--pretrained", tmp_path / "theirs.pth"))
    results = read(tmp_path / "o" / "predictions.json")
    assert {one["category_name"] for one in results} <= set("abcdef")
    assert {one["image_id"] for one in results} == {0, 1, 2}
    assert [frame.shape for frame in VideoFrames(tmp_path / "o" / "clip.mp4")] == [(48, 64, 3)] * 3
    run = predict_query(query, "--predict", "photos", "--work-dir", "empty")
    assert run.status == 2
    assert "holds no checkpoint" in run.err[0]


# --- all


@pytest.mark.parametrize("family", ["yolact", "resnest", "seg", "query"])
def test_strips_end_nothing_and_another_size_is_told(family, request, tmp_path):
    made = request.getfixturevalue(family)
    folder = made if isinstance(made, Path) else made[0]
    predict = {"yolact": predict_yolact, "resnest": predict_resnest, "seg": predict_seg,
               "query": predict_query}[family]
    (tmp_path / "odd").mkdir()
    for name, size in (("wide", (3000, 3)), ("tall", (2, 3000)), ("usual", (60, 40))):
        Image.new("RGB", size, "red").save(tmp_path / "odd" / f"{name}.png")
    words = ("--predict", tmp_path / "odd", "--predict-to", tmp_path / "out")
    run = well(predict(folder, *words))
    assert {"wide", "tall", "usual"} <= {path.stem for path in (tmp_path / "out").glob("*.png")}
    assert [line for line in run.err if "trained on images of" in line] == []
    run = well(predict(folder, *words, "--image-size", "72"))
    assert len([line for line in run.err if "the checkpoint was trained on images of" in line]) == 1


@pytest.mark.parametrize("family", ["yolact", "resnest", "seg", "query"])
def test_weights_named_by_pretrained_are_those_that_are_exported(family, request, tmp_path):
    made = request.getfixturevalue(family)
    folder = made if isinstance(made, Path) else made[0]
    script, words = {
        "yolact": ("train_yolact", ["--config", "tiny.yaml"]),
        "resnest": ("train_resnest", ["--config-file", "tiny.yaml"]),
        "seg": ("train_seg", ["--cfg", "tiny.yaml"]),
        "query": ("train_queryinst", ["tiny.yaml"])}[family]
    run = Run(script, folder, *words, "--pretrained", "gone.pth", "--export", tmp_path / "a.pth")
    assert run.status == 2
    assert "gone.pth" in run.err[0]
