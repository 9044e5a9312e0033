"""MMDetection's keys that change what a run does, in short runs of train_queryinst.py."""

import json
import re

import pytest
from query_runs import same_state

NO_MOMENTS = "has no optimizer state: the moments start at zero"


def options(*given):
    return ["--cfg-options", *given]


ITERATIONS = options(
    "train_cfg={_delete_: true, type: IterBasedTrainLoop, max_iters: 6, val_interval: 4}",
    "param_scheduler={type: PolyLR, end: 7, by_epoch: false}",
    "optim_wrapper.optimizer={_delete_: true, type: SGD, lr: 0.001, momentum: 0.9}",
    "optim_wrapper.clip_grad.norm_type=inf", "optim_wrapper.paramwise_cfg.norm_decay_mult=0.0",
    "default_hooks.checkpoint={type: CheckpointHook, by_epoch: false, interval: 4, save_begin: 1, "
    "filename_tmpl: 'my_{}.pth', published_keys: [meta, state_dict], save_optimizer: false, "
    "save_best: coco/segm_mAP}",
    "log_processor.by_epoch=False", "log_processor.num_digits=2", "val_evaluator.classwise=True",
    "experiment_name=mine", "randomness.deterministic=True", "env_cfg.cudnn_benchmark=True")


def test_a_run_in_iterations_by_its_keys(query_train):
    run = query_train("", *ITERATIONS)
    assert run.status == 0, run.err_text
    assert run.err == []
    assert "env_cfg changes nothing here: " in run.text
    # PolyLR reaches 0 with t = 6
    rates = [event["lr"] for event in run.train_events]
    assert rates == pytest.approx([0.001 * (1 - i / 6) for i in range(6)])
    assert re.findall(r"INFO - (Iter\(train\) \[\d/6\]  base_lr: \d\.\d\de-\d\d lr)", run.text)[0] \
        == "Iter(train) [1/6]  base_lr: 1.00e-03 lr"
    assert re.search(r"Iter\(val\) \[2/2\]    coco/ellipse_precision: ", run.text)
    assert "| category " in run.text
    assert "Exp name: mine_" in run.text

    assert [event["iteration"] for event in run.evals] == [4, 6]
    assert "coco/ellipse_precision" in run.evals[0]["metrics"]
    (best,) = (name for name in run.names if re.fullmatch(r"best_coco_segm_mAP_my_[46].pth", name))
    copies = [name for name in run.names if re.search(r"-[0-9a-f]{8}\.pth$", name)]
    assert {*run.names} == {"my_1.pth", "my_5.pth", "my_6.pth", best, *copies}
    assert sorted(name.rpartition("-")[0] + ".pth" for name in copies) == sorted([best, "my_6.pth"])
    last, copy = run.load("my_6.pth"), run.load(next(n for n in copies if n.startswith("my_6")))
    assert "optimizer" not in last
    assert set(copy) == {"meta", "state_dict"}
    assert same_state(copy["state_dict"], last["state_dict"])

    (run.out / "last_checkpoint").unlink()  # the names alone tell which is the newest
    more = query_train("--resume", *ITERATIONS, "train_cfg.max_iters=7",
                       "default_hooks.checkpoint.published_keys=None")
    assert more.status == 0, more.err_text
    assert len(more.err) == 1
    assert more.err[0].endswith(f"my_6.pth {NO_MOMENTS}")
    assert len(more.train_events) == 7
    assert "my_7.pth" in more.names


def test_a_test_has_data_and_scores_of_its_own(query_train, scenes, tmp_path):
    train = query_train("--max-iters 1", *options(
        "val_cfg=None", "val_dataloader=None", "val_evaluator=None"))
    assert train.status == 0, train.err_text
    assert train.evals == []
    assert not (train.out / "predictions.png").exists()
    test = query_train("--eval-only", *options(
        f"test_dataloader.dataset.ann_file={scenes.train_info}", "test_evaluator.format_only=True",
        f"test_evaluator.outfile_prefix={tmp_path}/found/a"))
    assert test.status == 0, test.err_text
    assert test.evals[-1]["metrics"] == {}
    images = {image["id"] for image in json.loads(scenes.train_info.read_text())["images"]}
    for kind in ("bbox", "segm"):
        found = json.loads((tmp_path / "found" / f"a.{kind}.json").read_text())
        assert {each["image_id"] for each in found} == images


def test_early_stopping(query_train):
    words = options("train_cfg.val_interval=1", "default_hooks.checkpoint.interval=-1",
                    "custom_hooks=[{type: EarlyStoppingHook, monitor: coco/segm_mAP, patience: 1, "
                    "min_delta: 1.0}]")
    run = query_train("", *words)
    assert run.status == 0, run.err_text
    assert [event["iteration"] for event in run.evals] == [4, 8]
    assert len(run.train_events) == 8
    assert "the training ends after 8 iterations" in run.text
    assert run.names == ["epoch_2.pth"]
    again = query_train("--resume", *words)
    assert again.status == 0, again.err_text
    assert len(again.train_events) == 8
    assert "the training ends after 8 iterations" in again.text
    assert again.names == ["epoch_2.pth"]
