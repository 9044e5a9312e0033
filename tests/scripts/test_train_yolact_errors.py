"""Bad input: one line that names it, exit status 2, nothing started."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from script_run import fault

ROOT = Path(__file__).resolve().parents[2]


def one_line(run, *parts, status=2):
    assert run.status == status, run.err_text
    assert len(run.err) == 1, run.err_text
    assert run.err[0].startswith("train_yolact: ")
    for part in parts:
        assert str(part) in run.err[0]


@pytest.fixture
def broken(tmp_path, scenes):
    """broken(change) copies the set, lets `change(coco, folder)` damage it, and gives its flags."""
    def make(change):
        folder = tmp_path / "own"
        shutil.copytree(scenes.train_info.parents[1], folder)
        info = folder / "annotations" / "instances_train.json"
        coco = json.loads(info.read_text())
        change(coco, folder)
        info.write_text(json.dumps(coco))
        return ["--cfg-options", f"dataset.train_info={info}",
                f"dataset.train_images={folder / 'images'}"]

    return make


def test_help_is_answered_before_torch_is_imported():
    command = [sys.executable, "-X", "importtime", ROOT / "train_yolact.py", "--help"]
    answer = subprocess.run(command,
                            capture_output=True, text=True, check=True)
    assert "--batch_size" in answer.stdout
    assert " torch" not in answer.stderr
    assert " numpy" not in answer.stderr


@pytest.mark.parametrize("words, parts", [
    (["--batchsize", "4"], ["--batchsize", "Did you mean --batch_size?"]),
    (["--batch_size", "four"], ["--batch_size"]),
    (["--config", "yolact_bse"], ["yolact_bse", "Did you mean yolact_base?"]),
    (["--config", "nowhere.yaml"], ["nowhere.yaml"]),
    (["--dataset", "coco2017_datset"], ["coco2017_datset", "coco2017_dataset"]),
    (["--cfg-options", "max_sise=64"], ["max_sise", "Did you mean max_size?"]),
    (["--cfg-options", "max_size=big"], ["max_size"]),
    (["--batch_alloc", "5,4"], ["--batch_alloc 5,4"]),
    (["--batch_size", "32"], ["batch size 32", "16"]),
    (["--resume", "interrupt"], ["--resume interrupt"]),
    (["--resume", "not_there.pth"], ["not_there.pth"]),
    (["--eval-only"], ["no checkpoint of tiny"]),
    (["--device", "cuda:7"], ["cuda:7"]),
    (["--pretrained", "tiny.yaml"], ["tiny.yaml"]),
    (["--cfg-options", "backbone.path=not_there.pth"], ["not_there.pth"]),
    (["--cfg-options", "use_focal_loss=True"], ["use_focal_loss"]),
    (["--cfg-options", "num_classes=3"], ["num_classes"]),
])
def test_one_line_and_nothing_made(train, words, parts):
    run = train("", *words)
    one_line(run, *parts)
    assert not run.out.exists()


def test_debug_shows_the_traceback(train):
    run = train("--resume not_there.pth --debug")
    assert run.status == 2
    assert "Traceback" in run.err_text


def test_missing_image_folder(train, tmp_path):
    run = train("", "--cfg-options", "dataset.train_images=no/such/folder")
    one_line(run, "no/such/folder")
    assert not run.out.exists()


def test_missing_photo(train, broken):
    def remove(coco, folder):
        (folder / "images" / coco["images"][0]["file_name"]).unlink()

    one_line(train("", *broken(remove)), "instances_train.json")


def test_broken_polygon(train, broken):
    def damage(coco, folder):
        polygons = (a for a in coco["annotations"] if isinstance(a["segmentation"], list))
        next(polygons)["segmentation"][0].append(1.0)

    one_line(train("", *broken(damage)), "instances_train.json", "it needs an even number")


def test_every_fault_of_a_file_is_reported(train, broken):
    def damage(coco, folder):
        coco["annotations"][0]["image_id"] = 987654
        coco["annotations"][1]["category_id"] = 55
        coco["annotations"][2]["bbox"][2] = -4

    run = train("", *broken(damage))
    assert run.status == 2
    for what in ("987654", "55", "-4"):
        assert any(what in line for line in run.err), run.err_text


def test_truncated_photo(train, broken):
    photos = []

    def cut(coco, folder):
        photos.extend(folder / "images" / image["file_name"] for image in coco["images"])
        for photo in photos:
            photo.write_bytes(photo.read_bytes()[:-200])

    words = broken(cut)
    for workers in (0, 2):
        run = train(f"--max-iters 2 --num_workers {workers}", *words)
        one_line(run)
        assert any(str(photo) in run.err[0] for photo in photos)
    run = train("--check-data", *words)
    assert run.status == 2
    assert len(run.err) == len(photos)


def test_bad_images_can_be_skipped(train, broken):
    def cut(coco, folder):
        photo = folder / "images" / coco["images"][0]["file_name"]
        photo.write_bytes(photo.read_bytes()[:-200])

    run = train("--max-iters 2 --bad-images skip", *broken(cut))
    assert run.status == 0, run.err_text
    assert any(event["event"] == "skip" for event in run.events)


def test_weights_of_another_class_count(train, broken):
    assert train("--max-iters 1").status == 0

    def one_class(coco, folder):
        coco["categories"] = [{"id": 0, "name": "thing"}]  # ids from 0, one class
        for annotation in coco["annotations"]:
            annotation["category_id"] = 0

    words = broken(one_class)
    weights = "out/weights/tiny_0_1.pth"
    run = train(f"--max-iters 1 --resume {weights}", *words, out="other")
    one_line(run, weights, "7 classes", "2", "--pretrained")
    assert not run.out.exists()
    run = train(f"--max-iters 1 --pretrained {weights}", *words, out="other")
    assert run.status == 0, run.err_text
    assert "of another shape in the file" in run.text
    assert len(run.load("tiny_0_1.pth")["prediction_layers.0.conf_layer.bias"]) == 3 * 2


def test_a_loss_that_is_not_finite_stops_before_the_update(train):
    run = train("--max-iters 8 --lr 1e20 --cfg-options lr_warmup_until=0")
    assert run.status == 1
    assert len(run.err) == 1
    assert "is not finite at iteration" in run.err[0]
    assert "images" in run.err[0]
    run = train("--max-iters 8 --lr 1e20 --nan skip --cfg-options lr_warmup_until=0", out="skip")
    assert run.status == 0, run.err_text
    assert any(event["event"] == "skip" for event in run.events)


def test_a_full_disk_keeps_the_last_good_state(train):
    wide = "--cfg-options backbone.args.width=32"  # 9 MB of weights, more than any picture
    first = train(f"--max-iters 2 {wide}")
    assert first.status == 0, first.err_text
    size = (first.weights / "tiny_0_2.pth").stat().st_size
    run = train(f"--max-iters 4 --resume latest {wide}", launcher=fault("filesize", size // 2))
    one_line(run, "tiny_1_4", status=3)
    assert run.names == ["tiny_0_2.pth", "tiny_0_2.state.pth"]
    rest = train(f"--max-iters 4 --resume latest {wide}")
    assert rest.status == 0, rest.err_text


@pytest.mark.fault
def test_killed_at_once_by_a_second_signal(train, tmp_path):
    run = train("--max-iters 100000 --num_workers 2", stop=(signal.SIGKILL, 2))
    assert run.status == -signal.SIGKILL
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = process.read_bytes().decode(errors="replace")
        except OSError:
            continue
        assert str(tmp_path) not in words or int(process.parent.name) == os.getpid()
