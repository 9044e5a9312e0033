"""Bad input to train_seg: one line that names file, key or flag, exit status 2, nothing made."""

import shutil

import numpy as np
import pytest
import yaml
from PIL import Image
from script_run import fault
from seg_run import TINY

import train_seg
from runtime import cli
from runtime.errors import InputError


@pytest.fixture
def root(tmp_path, seg_scenes):
    """A copy of the scenes that may be damaged."""
    return shutil.copytree(seg_scenes, tmp_path / "set")


@pytest.fixture
def faults(tmp_path, root, monkeypatch):
    """faults("--flag", ...) are the lines that end the script; it made no run folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(TINY))

    def lines(*words):
        pairs = ["DIR", "out", "DATASET.root_dataset", str(root), "DATASET.list_train",
                 str(root / "training.odgt"), "DATASET.list_val", str(root / "validation.odgt")]
        flags = cli.read_flags(train_seg.flags, "train_seg",
                               ["--cfg", "tiny.yaml", "--max-iters", "2", *pairs, *words])
        with pytest.raises(InputError) as caught:
            train_seg.main(flags, None)
        assert not (tmp_path / "out").exists()
        return caught.value.faults

    return lines


@pytest.mark.parametrize("words, parts", [
    (["TRAIN.lr_encodr", "0.1"], ["TRAIN.lr_encodr", "Did you mean TRAIN.lr_encoder?"]),
    (["TRAIN.lr_encoder"], ["TRAIN.lr_encoder has no value"]),
    (["TRAIN.lr_encoder", "--seed", "4"], ["TRAIN.lr_encoder has no value"]),
    (["--cfg-options", "TRAIN.fix_bn=3"], ["TRAIN.fix_bn", "true or false"]),
    (["DATASET.imgSizes", "-3"], ["imgSizes"]),
    (["--gpus", "0,x"], ['Can not recognize device: "x"']),
    (["--gpus", "7"], ["--gpus 7", "0 GPUs"]),
    (["--device", "cuda:7"], ["cuda:7"]),
    (["DATASET.list_train", "nowhere.odgt"], ["DATASET.list_train", "nowhere.odgt"]),
    (["--resume", "interrupt"], ["--resume interrupt"]),
    (["--resume", "not_there/encoder_epoch_1.pth"], ["not_there/encoder_epoch_1.pth"]),
    (["TRAIN.start_epoch", "2"], ["out/encoder_epoch_2.pth"]),
    (["--eval-only"], ["out holds no checkpoint"]),
    (["--eval-only", "VAL.checkpoint", "epoch_9.pth"], ["out/encoder_epoch_9.pth"]),
    (["--predict", "no_photos"], ["--predict no_photos"]),
    (["--pretrained", "tiny.yaml"], ["tiny.yaml"]),
    (["MODEL.weights_decoder", "nowhere.pth"], ["nowhere.pth"]),
    (["--amp", "fp16"], ["--amp fp16"]),
    (["--export", "net.xyz"], ["--export net.xyz"]),
    (["--compile", "TRAIN.bn_average", "corrected"], ["TRAIN.bn_average"]),
    (["MODEL.arch_decoder", "ppm", "TRAIN.batch_size_per_gpu", "1"], ["TRAIN.batch_size_per_gpu"]),
    (["TRAIN.num_epoch", "10.0"], ["TRAIN.num_epoch wants an integer"]),
])
def test_one_line_that_names_it(faults, words, parts):
    found = faults(*words)
    # a missing pair of weights files is two lines, one for each
    assert len(found) == 1 or all("epoch_" in line for line in found), found
    for part in parts:
        assert part in found[0]


def test_missing_imagenet_weights_name_the_way_out(faults, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody answers there
    (line,) = faults("MODEL.weights_encoder", "")
    for part in ("pretrained/mobilenet_v2.pth.tar", "sceneparsing.csail.mit.edu",
                 "MODEL.weights_encoder none"):
        assert part in line


def label_of(root, i=5):
    return root / "annotations" / "training" / f"ADE_train_{i:08d}.png"


@pytest.mark.parametrize("spoil, words", [
    (lambda path, pixels: Image.fromarray(pixels + 7).save(path), "above DATASET.num_class 7"),
    (lambda path, pixels: path.unlink(), "no such label file"),
    (lambda path, pixels: Image.fromarray(pixels[:-1]).save(path), "must have the same size"),
    (lambda path, pixels: Image.fromarray(pixels).convert("RGB").save(path), "a RGB PNG"),
    (lambda path, pixels: path.write_bytes(path.read_bytes()[:50]), "not a readable label"),
])
def test_bad_labels_are_found_before_anything_starts(faults, root, spoil, words):
    path = label_of(root)
    spoil(path, np.asarray(Image.open(path)))
    (line,) = faults()
    assert str(path) in line
    assert words in line


def test_faults_of_several_files_come_together(faults, root):
    for i in (2, 3):
        Image.fromarray(np.full((64, 64), 200, np.uint8)).save(label_of(root, i))
    found = faults()
    assert len(found) == 2
    assert len(faults("--check-data")) == 2


def test_as_a_user_sees_it(segment, root):
    label_of(root).unlink()
    run = segment("--max-iters 2", root=root)
    assert run.status == 2
    assert len(run.err) == 1
    assert run.err[0].startswith("train_seg: ")
    assert str(label_of(root)) in run.err[0]
    assert not run.out.exists()
    misspelt = segment("--resme latest")
    assert misspelt.status == 2
    assert "--resme. Did you mean --resume?" in misspelt.err_text


def test_a_damaged_photo_stops_or_is_skipped(segment, root):
    for photo in (root / "images").rglob("ADE_*_00000003.jpg"):
        photo.write_bytes(photo.read_bytes()[:-200])
    run = segment("--max-iters 12 --workers 2", root=root)
    assert run.status == 2
    assert len(run.err) == 1, run.err_text
    assert "ADE_train_00000003.jpg" in run.err[0]
    run = segment("--max-iters 12 VAL.interval 3 --bad-images skip", root=root, out="skips")
    assert run.status == 0, run.err_text
    assert any("ADE_train_00000003.jpg" in event["reason"] for event in run.events
               if event["event"] == "skip")
    assert "ADE_val_00000003.jpg" in run.err_text


def test_a_batch_without_a_labelled_pixel_has_loss_0(segment, root):
    for label in (root / "annotations" / "training").iterdir():
        Image.fromarray(np.zeros_like(np.asarray(Image.open(label)))).save(label)
    run = segment("--max-iters 2", root=root)
    assert run.status == 0, run.err_text
    assert [event["loss"] for event in run.train_events] == [0.0, 0.0]


def test_a_loss_that_is_not_finite_stops_before_the_update(segment):
    run = segment("TRAIN.lr_encoder 1e18 TRAIN.lr_decoder 1e18 --max-iters 4")
    assert run.status == 1
    assert len(run.err) == 1, run.err_text
    for part in ("is not finite at iteration", "rank 0", ".jpg", "is saved in", "encoder_iter_"):
        assert part in run.err[0]


@pytest.mark.fault
def test_a_full_disk_keeps_the_last_good_state(segment):
    first = segment("--max-iters 4")
    assert first.status == 0, first.err_text
    size = (first.out / "encoder_epoch_1.pth").stat().st_size
    run = segment("--max-iters 8 --resume latest", launcher=fault("filesize", size // 2))
    assert run.status == 3
    assert len(run.err) == 1, run.err_text
    assert "epoch_2" in run.err[0]
    assert run.names == first.names
