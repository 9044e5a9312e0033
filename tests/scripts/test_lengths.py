"""Trainings of another length: --epochs, --patience and --max-hours, also over stops."""

import json
import os
import signal
import sys
from pathlib import Path

import pytest
import yaml
from script_run import ScriptRun, fault
from seg_run import TINY

ROOT = Path(__file__).resolve().parents[2]
SECOND = "1e-6"  # hours: over when the first update is made
# fixture, what learns nothing, so that no score becomes better; the metric; updates an epoch; the
# files of the best and of the last weights
SCRIPTS = {
    "yolact": ("train", "--validation_epoch 1 --lr 0 --cfg-options lr_warmup_until=0 "
               "freeze_bn=true", "mask/all", 2,
               ("weights/tiny_best.pth", "weights/tiny_{}_{}.pth")),
    "seg": ("segment", "TRAIN.lr_encoder 0 TRAIN.lr_decoder 0 TRAIN.fix_bn True VAL.interval 1",
            "mean_iou", 4, ("encoder_best.pth", "encoder_epoch_{2}.pth")),
    "resnest": ("classify", "OPTIMIZER.LR 0 TRAINING.EVAL_EVERY 1", "top1", 6,
                ("model_best.pth", "checkpoint_{}.pth", "model_weights.pth")),
    "queryinst": ("query_train", "--cfg-options train_cfg.val_interval=1 "
                  "optim_wrapper.optimizer.lr=0", "coco/segm_mAP", 4,
                  ("best_coco_segm_mAP_epoch_1.pth", "epoch_{2}.pth")),
}
PATIENCE, EPOCHS = 1, 40


@pytest.fixture(params=SCRIPTS)
def case(request):
    """(runs the script with more flags, its metric, updates an epoch, its files)"""
    fixture, words, *rest = SCRIPTS[request.param]
    run = request.getfixturevalue(fixture)

    def begin(flags, **how):
        return run(f"--epochs {EPOCHS} --patience {PATIENCE} {flags} {words}",
                   **({"launcher": [sys.executable]} | how))

    return begin, *rest


def ends_at(evals, metric):
    """The iteration of the first validation that ends the patience."""
    best, waited = -1.0, 0
    for event in evals:
        value = event["metrics"][metric]
        best, waited = (value, 0) if value > best else (best, waited + 1)
        if waited == PATIENCE:
            return event["iteration"]
    return None


def test_the_hours_stop_a_training_and_the_patience_ends_it(case):
    begin, metric, per_epoch, files = case
    first = begin(f"--max-hours {SECOND}")
    assert (first.status, first.err) == (75, [])
    assert f"0 to {EPOCHS * per_epoch}" in first.text  # --epochs
    assert len(first.losses) == 1  # it finishes the present update
    assert "Stopped by --max-hours. The state after 1 update is saved in " in first.text
    assert first.events[-1] == {"event": "stop", "iteration": 1, "reason": "--max-hours"}

    rest = begin("--resume latest")
    assert rest.status == 0, rest.err_text
    last = rest.evals[-1]["iteration"]
    assert last == ends_at(rest.evals, metric) == len(rest.losses) < EPOCHS * per_epoch
    assert f"the training ends after {last} iterations" in rest.text
    epoch = last // per_epoch
    for name in files:
        assert (rest.out / name.format(epoch - 1, last, epoch)).is_file(), name


def test_the_patience_counts_on_after_a_signal(segment, tmp_path):
    words = SCRIPTS["seg"][1]
    flags = f"--epochs {EPOCHS} --patience 3 --save-every 1 {words}"
    first = segment(flags, stop=(signal.SIGTERM, 9), launcher=[sys.executable])
    assert first.status == 75, first.err_text
    done = len(first.losses)
    assert 9 <= done < 16
    assert first.evals  # the patience has begun to end
    rest = segment(f"{flags} --resume latest")
    assert rest.status == 0, rest.err_text
    assert [event["iteration"] for event in rest.evals] == [4, 8, 12, 16]
    assert (rest.out / "classes.txt").is_file()
    last = rest.losses
    again = segment(f"{flags} --resume latest")  # as a queue may do
    assert (again.status, again.losses) == (0, last)


def test_ranks_agree_that_the_hours_are_over(tmp_path, seg_scenes, ranks):
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    out = tmp_path / "out"
    words = ["--cfg", "tiny.yaml", "--device", "cpu", "--max-hours", SECOND, "DIR", out,
             "DATASET.root_dataset", seg_scenes,
             "DATASET.list_train", seg_scenes / "training.odgt"]
    run = ScriptRun("train_seg.py", words, tmp_path, out, launcher=ranks(2))
    assert run.status == 75, run.err_text
    assert run.text.count("Stopped by --max-hours. The state after 1 update is saved in ") == 1
    assert run.text.count("Stopping after this iteration") == 1
    assert (out / "encoder_iter_1.pth").is_file()


@pytest.mark.parametrize("script, words", [
    ("train", "--patience 2"),  # the fixture has --validation_epoch 0
    ("segment", "--patience 2"),  # and this one VAL.interval 0
])
def test_patience_without_validations_is_one_line(request, script, words):
    run = request.getfixturevalue(script)(words)
    assert run.status == 2
    assert len(run.err) == 1
    assert "--patience 2 counts validations, and there are none: " in run.err[0]
    assert not run.out.exists()


@pytest.mark.parametrize("hours", ["0", "-1", "nan"])
def test_hours_that_are_none(segment, hours):
    run = segment(f"--max-hours {hours}")
    assert (run.status, len(run.err)) == (2, 1)
    assert "--max-hours" in run.err[0]


# fixture; what config.yaml has with --epochs 2 --image-size 96 --no-mirror
CONFIGS = {
    "yolact": ("train", {"max_iter": 4, "max_size": 96, "augment_random_mirror": False}),
    "seg": ("segment", {"TRAIN.num_epoch": 2, "DATASET.imgSizes": [96], "DATASET.imgMaxSize": 128,
                        "DATASET.random_flip": False}),
    "resnest": ("classify", {"TRAINING.EPOCHS": 2, "DATA.CROP_SIZE": 96, "DATA.MIRROR": False}),
    "queryinst": ("query_train", {"train_cfg.max_epochs": 2, "train_dataloader.dataset.pipeline.2"
                                  ".scale": [96, 96], "train_dataloader.dataset.pipeline.3.prob":
                                  0.0, "val_dataloader.dataset.pipeline.1.scale": [96, 96]}),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_lengths_sizes_and_mirroring_are_in_force(request, name):
    fixture, wanted = CONFIGS[name]
    run = request.getfixturevalue(fixture)("--epochs 2 --image-size 96 --no-mirror --max-iters 1")
    assert run.status == 0, run.err_text
    assert "--image-size: " in run.text
    config = yaml.safe_load((run.logs / "config.yaml").read_text())
    for key, value in wanted.items():
        found = config
        for part in key.split("."):
            found = found[int(part) if part.isdecimal() else part]
        assert found == value, key
    assert json.loads((run.logs / "env.json").read_text())["differs_from_recipe"]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux sets the cores")
def test_the_default_of_num_workers_is_bounded_too(train):
    run = train("--config nowhere", data=False, launcher=fault("cores", 1))
    assert run.status == 2
    assert "--num_workers asks for 4 data workers; with 1 core here there are 1." in run.text
    own = train("--config nowhere --num_workers 4", data=False, launcher=fault("cores", 1))
    assert "data workers" not in own.text
