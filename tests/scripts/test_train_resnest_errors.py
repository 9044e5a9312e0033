"""Bad input: one line that names it, exit status 2, nothing started."""

import inspect
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from script_run import fault

import train_resnest

ROOT = Path(__file__).resolve().parents[2]
FLAGS = [
    "config_file", "outdir", "resume", "world_size", "rank", "dist_url", "dist_backend",
    "pairs",
    "device", "amp", "compile", "channels_last", "tf32", "batch_size", "accumulate", "clip_grad",
    "ema", "seed",
    "workers", "epochs", "image_size", "mirror", "patience", "max_hours", "max_iters", "log_every",
    "save_every", "force_resume", "pretrained",
    "eval_only", "export", "export_format", "predict", "predict_to", "score_threshold", "top_k",
    "benchmark", "dry_run", "check_data", "bad_images", "nan", "cfg_options",
    "tensorboard", "wandb", "dist_timeout", "debug",
]


def one_line(run, *parts, status=2):
    assert run.status == status, run.err_text
    assert len(run.err) == 1, run.err_text
    assert run.err[0].startswith("train_resnest: ")
    for part in parts:
        assert str(part) in run.err[0]


@pytest.fixture
def broken(tmp_path, class_folders):
    """A copy of the class folders, and the words that name it."""
    folder = tmp_path / "own"
    shutil.copytree(class_folders, folder)
    return folder


def test_the_list_of_flags_is_frozen():
    """A new flag fails here until it is added on purpose, to the README as well."""
    assert list(inspect.signature(train_resnest.flags).parameters) == FLAGS


def test_the_originals_defaults():
    defaults = {name: parameter.default
                for name, parameter in inspect.signature(train_resnest.flags).parameters.items()}
    originals = {
        "config_file": None, "outdir": "output", "resume": None, "world_size": 1, "rank": 0,
        "dist_url": "tcp://localhost:23456", "dist_backend": "nccl", "eval_only": False,
        "export": None}
    assert {name: defaults[name] for name in originals} == originals


def test_help_is_answered_before_torch_is_imported():
    command = [sys.executable, "-X", "importtime", ROOT / "train_resnest.py", "--help"]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "--dist-url" in answer.stdout
    assert " torch" not in answer.stderr
    assert " numpy" not in answer.stderr


@pytest.mark.parametrize("words, parts", [
    (["--config_fil", "x"], ["--config_fil", "Did you mean --config-file?"]),
    (["--config-file", "nowhere.yaml"], ["nowhere.yaml"]),
    (["MODEL.NAME", "resnest5"], ["MODEL.NAME", "resnest5", "Did you mean resnest50?"]),
    (["--cfg-options", "OPTIMIZER.LR_SCHEDULER=cosin"], ["LR_SCHEDULER", "Did you mean cosine?"]),
    (["TRAINING.EPOCH", "3"], ["TRAINING.EPOCH", "Did you mean TRAINING.EPOCHS?"]),
    (["--world-size", "2", "--rank", "2"], ["--rank 2"]),
    (["--dist-url", "tcp://host", "--world-size", "2"], ["--dist-url tcp://host"]),
    (["--resume", "interrupt"], ["--resume interrupt"]),
    (["--resume", "not_there.pth"], ["not_there.pth"]),
    (["--eval-only"], ["no checkpoint"]),
    (["--export", "model.onnxx/x.pth", "--resume", "none.pth"], ["model.onnxx"]),
    (["--device", "cuda:7"], ["cuda:7"]),
    (["--pretrained", "tiny.yaml"], ["tiny.yaml"]),
])
def test_one_line_and_nothing_made(classify, words, parts):
    run = classify("", *words)
    one_line(run, *parts)
    assert not run.out.exists()


def test_faults_of_the_folders(classify, broken):
    """A missing train/, an empty class, a class in val that train lacks: all at once, one each."""
    (broken / "val" / "stranger").mkdir()
    shutil.copy(next((broken / "val").glob("*/*.jpg")), broken / "val" / "stranger")
    empty = next((broken / "train").iterdir())
    for image in empty.iterdir():
        image.unlink()
    run = classify("--cfg-options", f"DATA.ROOT={broken}", root=None)
    assert run.status == 2
    assert len(run.err) == 2, run.err_text
    assert f"{empty}: no images in it" in run.err_text
    assert "stranger is not among the classes trained on" in run.err_text
    shutil.rmtree(broken / "train")
    one_line(classify(f"DATA.ROOT {broken}", root=None), broken / "train", "no such folder")
    assert not run.out.exists()


def test_corrupt_photos(classify, broken):
    photo = next((broken / "train").glob("*/*.jpg"))
    photo.write_bytes(photo.read_bytes()[:-200])
    data = f"DATA.ROOT {broken}"
    one_line(classify(f"--config-file tiny.yaml {data}", root=None), photo)
    one_line(classify(f"--config-file tiny.yaml --check-data --workers 2 {data}", root=None), photo)
    run = classify(f"--config-file tiny.yaml --bad-images skip --workers 2 --outdir skip {data} "
                   "TRAINING.EPOCHS 1", root=None)
    assert run.status == 0, run.err_text
    assert f"skipped: {photo}" in run.err_text


def test_a_loss_that_is_not_finite_stops_before_the_update(classify):
    run = classify("OPTIMIZER.LR 1e20")
    assert run.status == 1
    assert len(run.err) == 1
    assert "loss cross_entropy is not finite at iteration" in run.err[0]
    assert ".jpg" in run.err[0]
    run = classify("--nan skip OPTIMIZER.LR 1e20", out="skip")
    assert run.status == 0, run.err_text
    assert any(event["event"] == "skip" for event in run.events)


def test_a_full_disk_keeps_the_last_good_state(classify):
    assert classify("TRAINING.EPOCHS 1").status == 0
    # a checkpoint has 4.5 MB, more than any picture
    run = classify("--resume latest", launcher=fault("filesize", 3_000_000))
    one_line(run, "checkpoint_1.pth", status=3)
    assert "checkpoint_0.pth" in run.names
    assert "checkpoint_1.pth" not in run.names
    rest = classify("--resume latest")
    assert rest.status == 0, rest.err_text
