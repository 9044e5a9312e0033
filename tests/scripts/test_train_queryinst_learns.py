"""The script learns: drawn scenes to a score, photos to half the loss of every stage."""

import json

import pytest
from script_run import ScriptRun

MEAN_OF = 10  # updates at either end


def stage_losses(events):
    """{stage: mean total loss of these events}"""
    stages = sorted({name.partition(".")[0] for name in events[0]["losses"]})
    return {stage: sum(value for event in events for name, value in event["losses"].items()
                       if name.startswith(f"{stage}.")) / len(events) for stage in stages}


@pytest.mark.slow
def test_the_embedded_sample_reaches_its_score(tmp_path):
    """Mask AP50 of at least 0.30 on scenes that were not trained on."""
    run = ScriptRun("train_queryinst.py", ["queryinst_shapes", "--work-dir", tmp_path / "run"],
                    tmp_path, tmp_path / "run", timeout=7200)
    assert run.status == 0, run.err_text
    assert (tmp_path / "run" / "curves.png").exists()
    assert run.evals[-1]["metrics"]["coco/segm_mAP_50"] >= 0.30, run.evals[-1]


@pytest.mark.slow
def test_eight_photos_halve_the_loss_of_every_stage(datasets, tmp_path):
    photos = datasets("coco_small").resolve()
    coco = json.loads((photos / "annotations" / "instances_train.json").read_text())
    coco["images"] = coco["images"][:8]
    kept = {image["id"] for image in coco["images"]}
    coco["annotations"] = [a for a in coco["annotations"] if a["image_id"] in kept]
    info = tmp_path / "photos.json"
    info.write_text(json.dumps(coco))
    options = [f"{loader}.dataset.{key}={value}" for loader in
               ("train_dataloader", "val_dataloader")
               for key, value in (("ann_file", info), ("data_prefix.img", photos / "images"))]
    run = ScriptRun("train_queryinst.py", [
        "queryinst_shapes", "--work-dir", tmp_path / "run", "--max-iters", "300", "--log-every",
        "1", "--cfg-options", *options, "train_dataloader.batch_size=4",
        "train_dataloader.dataset.pipeline.2.scale=(192,192)",
        "val_dataloader.dataset.pipeline.1.scale=(192,192)", "model.rpn_head.num_proposals=40",
        # two updates an epoch
        "train_cfg.max_epochs=1000", "train_cfg.val_interval=1000",
        "param_scheduler.1.milestones=(900,)", "default_hooks.checkpoint.interval=1000",
        "default_hooks.logger.interval=50"], tmp_path, tmp_path / "run", timeout=7200)
    assert run.status == 0, run.err_text
    assert len(run.train_events) == 300
    first, last = map(stage_losses, (run.train_events[:MEAN_OF], run.train_events[-MEAN_OF:]))
    print(f"losses of the stages: {first} -> {last}")
    assert all(last[stage] <= first[stage] / 2 for stage in first), (first, last)
