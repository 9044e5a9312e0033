"""Real photos: 16 of them are learnt by heart from random weights; the whole set trains."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from pycocotools import mask as coco_mask

from common.optim.precision import cpu_has_bf16

ROOT = Path(__file__).resolve().parents[2]
LARGE_PX = 32 * 32


def run_script(folder, *words, timeout=None):
    command = [sys.executable, ROOT / "train_yolact.py", "--save_folder", "weights",
               "--log_folder", "logs", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=timeout)


def first_photos(source, count):
    """The COCO dict of the first `count` photos."""
    coco = json.loads(source.read_text())
    coco["images"] = coco["images"][:count]
    kept = {image["id"] for image in coco["images"]}
    coco["annotations"] = [a for a in coco["annotations"] if a["image_id"] in kept]
    return coco


def small_objects_do_not_count(coco):
    """The same with objects up to 32 x 32 px as crowd regions: found or not, they do not count."""
    sizes = {image["id"]: (image["height"], image["width"]) for image in coco["images"]}

    def changed(annotation):
        if annotation["area"] > LARGE_PX or annotation["iscrowd"]:
            return annotation
        codes = coco_mask.merge(
            coco_mask.frPyObjects(annotation["segmentation"], *sizes[annotation["image_id"]]))
        codes["counts"] = codes["counts"].decode()
        return annotation | {"iscrowd": 1, "segmentation": codes}

    return coco | {"annotations": [changed(annotation) for annotation in coco["annotations"]]}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools'
def test_sixteen_photos_are_learnt_by_heart(datasets, tmp_path):
    photos = datasets("coco_small").resolve()
    coco = first_photos(photos / "annotations" / "instances_train.json", 16)
    (tmp_path / "train.json").write_text(json.dumps(coco))
    (tmp_path / "large.json").write_text(json.dumps(small_objects_do_not_count(coco)))
    images = photos / "images"
    run = run_script(
        tmp_path, "--config", "yolact_small", "--num_workers", "1", "--validation_epoch", "100",
        "--clip-grad", "10",  # so short a warm-up would diverge without it
        "--amp", "bf16" if cpu_has_bf16() else "off",  # less than half the time
        "--cfg-options", "dataset.train_info=train.json", f"dataset.train_images={images}",
        "dataset.valid_info=large.json", f"dataset.valid_images={images}",
        "max_iter=400", "lr=0.004", "lr_steps=[280,360]", "lr_warmup_until=50",
        # by heart: each photo always looks the same
        "augment_photometric_distort=False", "augment_expand=False",
        "augment_random_sample_crop=False", "augment_random_mirror=False")
    assert run.returncode == 0, run.stderr
    lines = (tmp_path / "logs" / "yolact_small" / "metrics.jsonl").read_text().splitlines()
    scores = [event["metrics"] for event in map(json.loads, lines) if event["event"] == "eval"]
    assert scores[-1]["mask/50"] >= 80, scores[-1]


def test_crowds_and_eighty_classes_train_without_a_warning(datasets, tmp_path):
    photos = datasets("coco_small").resolve()
    infos, images = photos / "annotations", photos / "images"
    run = run_script(
        tmp_path, "--config", "yolact_small", "--max-iters", "3", "--num_workers", "1",
        "--validation_size", "16", "--log_every", "1", "--cfg-options",
        f"dataset.train_info={infos / 'instances_train.json'}", f"dataset.train_images={images}",
        f"dataset.valid_info={infos / 'instances_val.json'}", f"dataset.valid_images={images}")
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    assert "warn" not in run.stdout.lower()
    assert "[  0]       2 ||" in run.stdout
