"""--predict in each script: the same results as its evaluation, from files and names alone."""

import contextlib
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
from conftest import TINY
from PIL import Image
from pycocotools import mask as rle_codec

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
