"""What a run leaves behind, how it is launched, evaluated and exported."""

import json

import cv2
import pytest
import torch
import yaml

from data.drawn.scenes import CLASSES
from models import yolact
from models.yolact import build_yolact

FILES = {"cache", "classes.txt", "config.yaml", "confusion_box.png", "confusion_mask.png",
         "curves.png", "env.json", "extremes.png", "log.txt", "metrics.jsonl",
         "precision_recall.png", "predictions.png", "report.html", "train_samples.png"}


def test_a_whole_run_leaves_what_it_should(train):
    # 12 updates are the epochs 0 to 5: validated after 2 and 4, and at the end
    run = train("--max-iters 12 --validation_epoch 2 --save_interval 5 --save-every 4")
    assert run.status == 0, run.err_text
    assert run.err == []
    assert {path.name for path in run.logs.iterdir()} == FILES
    assert [event["iteration"] for event in run.evals] == [6, 10, 12]
    assert all({"mask/all", "mask/50", "box/all", "box/95"} <= set(event["metrics"])
               for event in run.evals)
    assert [name for name in run.names if "state" not in name] == [
        "tiny_1_4.pth", "tiny_2_5.pth", "tiny_3_8.pth", "tiny_4_10.pth", "tiny_5_12.pth",
        "tiny_best.pth"]
    assert "[  5]      10 ||" in run.text or "[  5]      11 ||" in run.text
    assert " || ETA: 0:00:" in run.text
    event = run.train_events[-1]
    assert event["loss"] == pytest.approx(sum(event["losses"].values()))
    assert event["lr"] > 0
    assert event["images_per_s"] > 0

    original_log = [json.loads(line) for line in (run.out / "logs" / "tiny.log").open()]
    assert [line["type"] for line in original_log].count("train") == 12
    assert [line["type"] for line in original_log].count("val") == 3

    # the resolved config can be fed back, and the weights fit the network that it describes
    resolved = build_yolact(str(run.logs / "config.yaml"))
    resolved.load_state_dict(run.load("tiny_5_12.pth"), strict=True)

    # the weights and env.json say what they are for
    said = yolact.said_in(run.load("tiny_best.pth"), yolact.load_yolact_config("yolact_base"))
    assert said.classes == CLASSES
    assert said.pixels.sizes == (64,)
    assert json.loads((run.logs / "env.json").read_text())["network"] == said.plain()

    scored = train("--eval-only --validation_epoch 2")
    assert scored.status == 0, scored.err_text
    assert len(scored.train_events) == 12
    best = max(run.evals, key=lambda event: (event["metrics"]["mask/all"], -event["iteration"]))
    assert scored.evals[-1]["iteration"] == best["iteration"]
    assert scored.evals[-1]["metrics"] == best["metrics"]
    newest = train("--eval-only --output_coco_json --resume latest --score_threshold 0.01")
    assert newest.status == 0, newest.err_text
    assert newest.evals[-1]["iteration"] == 12
    boxes = json.loads((newest.folder / "results" / "bbox_detections.json").read_text())
    assert all(box["score"] > 0.01 for box in boxes)

    exported = train("", "--export", str(run.out / "net.pt2"))
    assert exported.status == 0, exported.err_text
    assert "any batch" in exported.text
    program = torch.export.load(run.out / "net.pt2").module()
    assert program(torch.zeros(1, 3, 64, 64))["conf"].shape[-1] == 7
    exported = train("--export-detections", "--export", str(run.out / "found.pt2"))
    assert exported.status == 0, exported.err_text
    extra = {"facts.json": ""}
    program = torch.export.load(run.out / "found.pt2", extra_files=extra).module()
    assert list(program(torch.zeros(3, 3, 64, 64))) == ["boxes", "scores", "labels", "masks"]
    assert json.loads(extra["facts.json"])["classes"] == list(CLASSES)


def test_dry_run_writes_nothing(train):
    run = train("--dry-run")
    assert run.status == 0, run.err_text
    assert "Dry run done" in run.text
    assert not run.out.exists()


def test_check_data_of_good_data(train, scenes):
    run = train("--check-data")
    assert run.status == 0, run.err_text
    lines = run.text.splitlines()
    assert lines[-1] == f"{scenes.train_info}, {scenes.valid_info}: no fault found."
    assert "16 images, 0 of them without objects" in run.text
    assert run.text.count("priors: ") == 2
    classes = run.text[run.text.index("objects of class"):].splitlines()
    counted = [line.split() for line in classes[1:1 + len(CLASSES)]]
    assert sorted(name for name, *_ in counted) == sorted(CLASSES)
    for column, info in ((1, scenes.train_info), (2, scenes.valid_info)):
        objects = [a for a in json.loads(info.read_text())["annotations"] if not a["iscrowd"]]
        assert sum(int(line[column]) for line in counted) == len(objects)
    assert [path.name for path in run.logs.iterdir()] == ["check.png"]
    assert str(run.logs / "check.png") in lines[-2]
    assert cv2.imread(str(run.logs / "check.png")).shape[1] > 3 * 320


def test_files_are_joined_by_the_names_of_classes(train, scenes, tmp_path):
    """The objects validated on are of the same classes as under the training file's ids."""
    coco = json.loads(scenes.valid_info.read_text())
    ids = {one["id"]: 7 - one["id"] for one in coco["categories"]}
    for one in coco["categories"]:
        one["id"] = ids[one["id"]]
    for one in coco["annotations"]:
        one["category_id"] = ids[one["category_id"]]
    other = tmp_path / "renumbered.json"
    other.write_text(json.dumps(coco))
    plain = train("--max-iters 1 --validation_epoch 1", out="a")
    joined = train("--max-iters 1 --validation_epoch 1", "--cfg-options",
                   f"dataset.valid_info={other}", out="b")
    assert joined.status == 0, joined.err_text
    assert "6 of its 6 categories have other ids" in joined.err_text
    assert len(joined.evals) == 1
    pictures = [(run.logs / "predictions.png").read_bytes() for run in (plain, joined)]
    assert pictures[0] == pictures[1]


def test_batch_size_scales_the_schedule(train):
    run = train("--max-iters 1 --batch_size 16")
    assert "Scaling parameters by 2.00 to account for a batch size of 16." in run.text
    cfg = yaml.safe_load((run.logs / "config.yaml").read_text())
    as_is = train("--max-iters 1 --batch_size 16 --no_autoscale --lr 0.125", out="other")
    unscaled = yaml.safe_load((as_is.logs / "config.yaml").read_text())
    assert cfg["max_iter"] == unscaled["max_iter"] // 2
    assert unscaled["lr"] == 0.125
    assert not cfg["freeze_bn"]
    few = train("--max-iters 1 --batch_size 4", out="few")
    assert yaml.safe_load((few.logs / "config.yaml").read_text())["freeze_bn"]


def test_two_processes_are_one_with_the_global_norm(train, ranks):
    """The same global batches and, with frozen batch norm, the same losses but for rounding."""
    flags = "--max-iters 4 --loss_norm global --cfg-options freeze_bn=True"
    alone = train(flags)
    both = train(flags, launcher=ranks(2), out="both")
    assert both.status == 0, both.err_text
    assert list(both.losses) == list(alone.losses) == [0, 1, 2, 3]
    for iteration, losses in alone.losses.items():
        for name, value in losses.items():
            # float32 sums in another order, over four updates
            assert both.losses[iteration][name] == pytest.approx(value, rel=2e-4), (iteration, name)
    own = train("--max-iters 4 --cfg-options freeze_bn=True", launcher=ranks(2), out="own")
    assert own.losses != both.losses


def test_bf16_compile_free_paths_and_channels_last_train(train):
    plain = train("--max-iters 3")
    run = train("--max-iters 3 --amp bf16 --channels-last", out="bf16")
    assert run.status == 0, run.err_text
    # bf16 has 8 bits: the first loss agrees to about a percent
    assert run.train_events[0]["loss"] == pytest.approx(plain.train_events[0]["loss"], rel=0.05)
    assert run.train_events[0]["loss"] != plain.train_events[0]["loss"]


def test_workers_do_not_change_the_batches(train):
    assert train("--max-iters 4").losses == train("--max-iters 4 --num_workers 3", out="b").losses


def test_delayed_settings_take_effect(train):
    plain = train("--max-iters 4")
    setting = "delayed_settings=[(2, {'bbox_alpha': 15.0})]"
    changed = train("--max-iters 4", "--cfg-options", setting, out="b")
    assert changed.status == 0, changed.err_text
    assert changed.losses[1] == plain.losses[1]
    assert changed.losses[2]["B"] == pytest.approx(10 * plain.losses[2]["B"], rel=1e-5)


def test_short_epochs_are_validated_by_updates(train, scenes, tmp_path):
    """2 updates an epoch: 50 epochs between, counted from the first, where no flag says how many"""
    run = train("--config tiny.yaml --num_workers 0 --log_every 200 --max-iters 104 --save_folder "
                "out/weights --log_folder out/logs --cfg-options",
                f"dataset.train_info={scenes.train_info}",
                f"dataset.train_images={scenes.train_images}",
                f"dataset.valid_info={scenes.valid_info}",
                f"dataset.valid_images={scenes.valid_images}", data=False)
    assert run.status == 0, run.err_text
    assert run.text.count("Epochs have 2 updates: validates every 50 epochs, 100 updates") == 1
    assert [event["iteration"] for event in run.evals] == [102, 104]
