"""What a run leaves behind, its log line, how it is launched, evaluated and exported."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from models.facts import Facts
from models.queryinst import build_queryinst, load_weights

FILES = {"cache", "classes.txt", "config.yaml", "confusion_box.png", "confusion_mask.png",
         "curves.png", "env.json", "extremes.png", "log.txt", "metrics.jsonl",
         "precision_recall.png", "predictions.png", "report.html", "train_samples.png",
         "last_checkpoint"}
NUMBER = r"-?(\d+\.\d{4}|nan)"
TERMS = "".join(rf"  s{i}\.{name}: {NUMBER}" for i in range(2) for name in
                ("loss_cls", "pos_acc", "loss_bbox", "loss_iou", "loss_mask"))
# [queryinst.md: Run folder and log]
TRAIN_LINE = re.compile(
    r"\d\d/\d\d \d\d:\d\d:\d\d - mmengine - INFO - Epoch\(train\)  ?\[(\d+)\]\[(\d)/(\d)\]  "
    r"base_lr: (\d\.\d{4}e-\d\d) lr: (\d\.\d{4}e-\d\d)  eta: \d+:\d\d:\d\d  time: \d+\.\d{4}  "
    rf"data_time: \d+\.\d{{4}}  grad_norm: {NUMBER}  loss: {NUMBER}" + TERMS)


def test_a_whole_run_leaves_what_it_should(query_train):
    run = query_train("--cfg-options train_cfg.val_interval=1 train_cfg.val_begin=2 "
                      "default_hooks.checkpoint.save_best=coco/segm_mAP "
                      "default_hooks.checkpoint.max_keep_ckpts=1 "
                      "optim_wrapper.paramwise_cfg.custom_keys.backbone.lr_mult=0.1")
    assert run.status == 0, run.err_text
    assert run.err == []
    own = [path for path in run.out.iterdir() if path.is_dir() and path.name != "cache"]
    assert len(own) == 1
    stamp = own[0].name
    assert re.fullmatch(r"\d{8}_\d{6}", stamp)
    best = {name for name in run.names if name.startswith("best_coco_segm_mAP_epoch_")}
    assert len(best) == 1
    assert {path.name for path in run.out.iterdir()} == FILES | {stamp, "epoch_3.pth"} | best
    assert {str(path.relative_to(own[0])) for path in own[0].rglob("*") if path.is_file()} == {
        f"{stamp}.log", "vis_data/config.yaml", "vis_data/scalars.json", f"vis_data/{stamp}.json"}
    assert (own[0] / f"{stamp}.log").read_text() == (run.out / "log.txt").read_text()

    # the console's lines and MMDetection's scalars agree with the metrics
    lines = [found for line in run.text.splitlines() if (found := TRAIN_LINE.fullmatch(line))]
    assert [tuple(map(int, line.groups()[:3])) for line in lines] == [
        (epoch, i, 4) for epoch in (1, 2, 3) for i in (1, 2, 3, 4)]
    assert f"Exp name: tiny_{stamp}" in run.text
    scalars = [json.loads(line) for line in (own[0] / "vis_data" / "scalars.json").open()]
    trained = [line for line in scalars if "loss" in line]
    assert [line["step"] for line in trained] == [line["iter"] for line in trained] == [
        event["iteration"] + 1 for event in run.train_events]
    assert trained[0]["loss"] == pytest.approx(run.train_events[0]["loss"])
    # means over the last 50 updates
    mean = sum(event["loss"] for event in run.train_events) / 12
    assert trained[-1]["loss"] == pytest.approx(mean)
    assert trained[-1]["base_lr"] == pytest.approx(1e-4)  # after the step at epoch 2
    assert trained[-1]["lr"] == pytest.approx(1e-5)  # the backbone's
    assert trained[0]["base_lr"] == pytest.approx(1e-4)  # the ramp's beginning
    validated = [line for line in scalars if "coco/segm_mAP" in line]
    assert [line["step"] for line in validated] == [2, 3]
    assert [event["iteration"] for event in run.evals] == [8, 12]
    keys = [f"coco/{kind}_mAP{end}" for kind in ("bbox", "segm")
            for end in ("", "_50", "_75", "_s", "_m", "_l")]
    assert sorted(run.evals[0]["metrics"]) == sorted(keys)
    assert re.search(r"Epoch\(val\) \[3\]\[2/2\]    coco/bbox_mAP: \d\.\d{4}  coco/", run.text)

    event = run.train_events[-1]
    assert event["loss"] == pytest.approx(sum(event["losses"].values()))
    assert len(event["losses"]) == 8  # two stages of four losses; no accuracy
    assert event["grad_norm"] > 0

    # the resolved config can be fed back, and the weights fit the network that it describes
    content = run.load("epoch_3.pth")
    assert (content["meta"]["epoch"], content["meta"]["iter"]) == (3, 12)
    assert len(content["meta"]["dataset_meta"]["classes"]) == 6
    resolved = build_queryinst(str(run.out / "config.yaml"))
    load_weights(resolved, content["state_dict"])
    trained = [p for p in resolved.parameters() if p.requires_grad]
    assert len(content["optimizer"]["param_groups"]) == len(trained)

    scored = query_train("--eval-only")
    assert scored.status == 0, scored.err_text
    at = {event["iteration"]: event["metrics"] for event in run.evals}
    assert scored.evals[-1]["metrics"] == at[scored.evals[-1]["iteration"]]
    assert f"best_coco_segm_mAP_epoch_{scored.evals[-1]['iteration'] // 4}.pth" in best
    assert len(scored.train_events) == 12


@pytest.mark.slow
def test_export(query_train):
    run = query_train("--max-iters 1")
    exported = query_train("--resume", "--export", str(run.out / "net.pt2"))
    assert exported.status == 0, exported.err_text
    trained = Facts.of(json.loads((run.out / "env.json").read_text())["network"])
    height, width = (-(-side // trained.pixels.multiple) * trained.pixels.multiple
                     for side in (trained.pixels.sizes[0], trained.pixels.longest))
    extra = {"facts.json": ""}
    program = torch.export.load(run.out / "net.pt2", extra_files=extra).module()
    assert len(program(torch.zeros(1, 3, height, width))["stages"]) == 2
    assert Facts.of(json.loads(extra["facts.json"])) == trained.of_one_size(height, width)


@pytest.mark.slow
def test_dry_run_writes_nothing(query_train):
    run = query_train("--dry-run")
    assert run.status == 0, run.err_text
    assert "Dry run done" in run.text
    assert not run.out.exists()


def test_check_data_shows_what_is_there(query_train):
    run = query_train("--check-data")
    assert run.status == 0, run.err_text
    assert run.text.splitlines()[-1].endswith("no fault found.")
    assert "16 images, 0 of them without objects" in run.text
    assert "objects of class" in run.text
    assert [path.name for path in run.out.iterdir()] == ["check.png"]


def test_rates_scale_and_gradients_accumulate(query_train):
    run = query_train("--auto-scale-lr --max-iters 2 --accumulate 2 --clip-grad 5 --amp bf16 "
                      "--channels-last --ema 0.5 --save-every 1 --workers 2")
    assert run.status == 0, run.err_text
    assert "scaled to 0.0005" in run.text  # batches of 4, the rate is for 8
    rates = [line.split("base_lr: ")[1].split("  ")[0] for line in run.text.splitlines()
             if "base_lr: " in line]
    # parity: base_lr is logged unscaled [queryinst.md: Learning rate]
    assert rates[0] == "1.0000e-04 lr: 5.0000e-05"
    assert run.names == ["epoch_1.pth", "iter_1.pth"]  # an epoch is two updates of two batches
    assert run.load("epoch_1.pth")["training"]["ema"]["n_averaged"] == 2


def test_a_python_config_is_our_recipe_of_that_name(query_train, tmp_path):
    run = query_train("--check-data --cfg-options train_dataloader.dataset.data_root=nowhere",
                      config="configs/queryinst/queryinst_r50_fpn_1x_coco.py")
    assert run.status == 2
    assert "is our recipe queryinst_r50_fpn_1x_coco" in run.text
    assert any("nowhere/annotations/instances_train2017.json" in line for line in run.err)


@pytest.mark.slow
def test_two_processes_are_one_with_twice_the_batch(query_train):
    """The same first batch, shared out, gives the same loss but for rounding."""
    still = "--max-iters 1 --cfg-options model.backbone.norm_eval=True"
    both = query_train(f"{still} train_dataloader.batch_size=8", processes=2, out="both")
    assert both.status == 0, both.err_text
    alone = query_train(f"{still} train_dataloader.batch_size=16")
    assert alone.status == 0, alone.err_text
    for name in ("s0.loss_cls", "s0.loss_bbox", "s0.loss_iou"):  # the masks' norm is the batch's
        assert both.losses[0][name] == pytest.approx(alone.losses[0][name], rel=1e-4)


@pytest.mark.slow
def test_work_dir_and_pipeline_steps_from_the_config(query_train, tmp_path):
    query_train("--check-data")  # writes tiny.yaml
    own = {"_base_": "tiny.yaml", "work_dir": str(tmp_path / "mine")}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(own))
    run = query_train("own.yaml --max-iters 1 --cfg-options "
                      "train_dataloader.dataset.pipeline.2.scale=(48,48)", config=None, out="mine")
    assert run.status == 0, run.err_text
    assert run.names == ["iter_1.pth"]
    resolved = yaml.safe_load((run.out / "config.yaml").read_text())
    assert resolved["train_dataloader"]["dataset"]["pipeline"][2]["scale"] == [48, 48]


def test_an_unreadable_validation_image_is_left_out_of_the_score_and_counted(
        query_train, scenes, tmp_path):
    pictures = tmp_path / "pictures"
    shutil.copytree(scenes.valid_images, pictures)
    first = json.loads(Path(scenes.valid_info).read_text())["images"][0]["file_name"]
    (pictures / first).write_bytes(b"no picture")
    run = query_train("--max-iters 1 --bad-images skip --cfg-options",
                      f"val_dataloader.dataset.data_prefix.img={pictures}")
    assert run.status == 0, run.err_text
    assert f"left out: {pictures / first}" in run.err_text
    assert "Unreadable images left out of validations: 1" in run.text
    assert (run.out / "predictions.png").is_file()  # of the images that could be read


def test_short_epochs_are_validated_and_saved_together(query_train):
    """4 updates an epoch, 160 in all: a tenth of these, 4 epochs, lie between two validations."""
    config = query_train.config
    cfg = yaml.safe_load(config.read_text())
    cfg["train_cfg"] = {"max_epochs": 40}
    config.write_text(yaml.safe_dump(cfg))
    run = query_train("--max-iters 20 --log-every 100")
    assert run.status == 0, run.err_text
    assert run.text.count("Epochs have 4 updates: validates and saves every 4 epochs") == 1
    assert [event["iteration"] for event in run.evals] == [16, 20]
    # what has a line of the log, each epoch's end, is in the curves
    steps = [event["iteration"] for event in run.train_events]
    assert steps == [0, 3, 7, 11, 15, 19]
    assert run.names == ["epoch_4.pth", "epoch_5.pth"]  # the last by the session's end
