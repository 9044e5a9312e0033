"""What a run leaves behind, how it is launched, evaluated and exported."""

import json
import re
import shutil
import socket
import threading

import pytest
import torch
import yaml

from models import resnest
from models.resnest import build_resnest, param_groups

FILES = {"config.yaml", "confusion.png", "curves.png", "env.json", "log.txt", "metrics.json",
         "metrics.jsonl", "mistakes.png", "report.html", "train_samples.png", "checkpoint_0.pth",
         "checkpoint_1.pth", "checkpoint_final.pth", "model_best.pth", "model_weights.pth"}
CLOCK = r"\[\d\d/\d\d \d\d:\d\d:\d\d\] "
ORIGINAL_KEYS = {"epoch", "state_dict", "optimizer", "best_pred", "acclist_train", "acclist_val"}


def same_weights(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_a_whole_run_leaves_what_it_should(classify):
    run = classify()
    assert run.status == 0, run.err_text
    assert run.err == []
    assert {path.name for path in run.out.iterdir()} == FILES
    # 21 images in batches of 4: the last of each epoch has one image and is filled up to two
    assert list(run.losses) == list(range(12))
    assert [event["epoch"] for event in run.train_events] == [0] * 6 + [1] * 6
    assert [event["iteration"] for event in run.evals] == [6, 12]
    lines = (run.out / "log.txt").read_text().splitlines()
    assert all(re.match(CLOCK, line) for line in lines)
    assert run.text.splitlines() == lines
    batches = [line for line in lines if "Batch: " in line and "Loss" in line]
    assert all(re.fullmatch(CLOCK + r"Batch: \d+\| Loss: \d+\.\d{3} \| Top1: \d+\.\d{3}", line)
               for line in batches)
    assert [line.split("Batch: ")[1][0] for line in batches] == list("012345" * 2)
    validations = [line for line in lines if "Validation" in line]
    assert all(re.fullmatch(CLOCK + r"Validation: Top1: \d+\.\d{3} \| Top5: 100\.000", line)
               for line in validations)
    assert any("Epoch: 1, Time cost: " in line for line in lines)
    assert any("Learning rate 0.01 x 1 processes = 0.01" in line for line in lines)
    # the running mean of the log line is that of the epoch's updates
    mean = sum(run.losses[i]["cross_entropy"] for i in range(6, 10)) / 4
    assert f"Batch: 3| Loss: {mean:.3f}" in batches[9]

    # the original's checkpoint: plain numbers, names without "module."
    last = run.load("checkpoint_1.pth")
    assert last.keys() >= ORIGINAL_KEYS
    assert last["epoch"] == 1
    assert len(last["acclist_train"]) == len(last["acclist_val"]) == 2
    assert last["acclist_val"] == [event["metrics"]["top1"] for event in run.evals]
    assert last["best_pred"] == max(last["acclist_val"])
    net = build_resnest("resnest14_small", 3)
    net.load_state_dict(last["state_dict"], strict=True)
    torch.optim.SGD(param_groups(net, 1e-4), lr=1).load_state_dict(last["optimizer"])
    assert same_weights(run.load("model_weights.pth"), last["state_dict"])
    assert json.loads((run.out / "metrics.json").read_text()) == run.evals[-1]["metrics"]
    best = max(run.evals, key=lambda event: (event["metrics"]["top1"], -event["iteration"]))
    assert run.load("model_best.pth")["iteration"] == best["iteration"]
    # cos from LR to 0 over 12 updates
    assert run.train_events[0]["lr"] == 0.01
    assert run.train_events[6]["lr"] == pytest.approx(0.005)

    resolved = yaml.safe_load((run.out / "config.yaml").read_text())
    assert resolved["TRAINING"]["EPOCHS"] == 2
    again = classify("--eval-only --config-file out/config.yaml")
    assert again.status == 0, again.err_text
    assert again.evals[-1] == best | {"epoch": None}
    assert json.loads((run.out / "metrics.json").read_text()) == best["metrics"]
    assert len(again.losses) == 12

    prefix = classify("--export out/exported")  # the original's prefix; needs no data
    assert prefix.status == 0, prefix.err_text
    assert same_weights(run.load("exported.pth"), run.load("model_best.pth")["state_dict"])
    assert "read back, it differs by 0.0e+00" in prefix.text

    # the files and env.json say what they are for
    said = resnest.said_in(last, resnest.load_resnest_config())
    assert said.names() == ("ellipse", "rectangle", "triangle")
    assert said.pixels.sizes == (32,)
    assert json.loads((run.out / "env.json").read_text())["network"] == said.plain()
    for name in ("model_best.pth", "model_weights.pth"):
        assert resnest.said_in(run.load(name), resnest.load_resnest_config()) == said


def test_classes_of_other_names(classify, class_folders, tmp_path):
    """As many, but not the same: training does not go on, an evaluation says so."""
    run = classify("TRAINING.EPOCHS 1")
    assert run.status == 0, run.err_text
    root = tmp_path / "renamed"
    shutil.copytree(class_folders, root)
    for part in ("train", "val"):
        (root / part / "rectangle").rename(root / part / "slab")
    on = classify("--resume latest", root=root)
    assert on.status == 2
    [line] = on.err
    assert "was rectangle, is now slab" in line
    scored = classify("--eval-only", root=root)
    assert scored.status == 0
    assert "class 1 was rectangle, is now slab" in scored.text + scored.err_text


def test_two_processes_validate_as_one(classify, ranks):
    """Nine images on two processes: each counts once, and every number is the same."""
    run = classify("TRAINING.EPOCHS 1")
    assert run.status == 0, run.err_text
    scores = []
    for launcher in (None, ranks(2)):
        again = classify("--eval-only --resume out/checkpoint_0.pth", launcher=launcher)
        assert again.status == 0, again.err_text
        scores.append(again.evals[-1]["metrics"])
    assert scores[0] == scores[1] == run.evals[-1]["metrics"]
    assert scores[0]["top1"] * 9 / 100 == pytest.approx(round(scores[0]["top1"] * 9 / 100))


def test_two_nodes_as_the_original_starts_them(classify):
    """--world-size counts nodes; rates and batches are per process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    runs = {}

    def node(rank):
        runs[rank] = classify(f"--world-size 2 --rank {rank} --dist-url {url} TRAINING.EPOCHS 1")

    nodes = [threading.Thread(target=node, args=(rank,)) for rank in range(2)]
    for thread in nodes:
        thread.start()
    for thread in nodes:
        thread.join()
    assert [runs[rank].status for rank in range(2)] == [0, 0], runs[0].err_text + runs[1].err_text
    assert "Learning rate 0.01 x 2 processes = 0.02. Batch 4 x 2 processes" in runs[0].text
    assert runs[1].text == ""
    assert list(runs[0].losses) == [0, 1, 2]  # 8, 8 and 5 images, the 5 filled up to 6
    assert runs[0].train_events[0]["lr"] == 0.02
    first = classify("TRAINING.EPOCHS 1", "TRAINING.BATCH_SIZE", "8", out="alone")
    # the same global batches; at equal weights only the batch norms tell the processes apart
    assert runs[0].losses[0]["cross_entropy"] == pytest.approx(
        first.losses[0]["cross_entropy"], rel=0.3)
    assert runs[0].load("checkpoint_0.pth")["world_size"] == 2


def test_dry_run_writes_nothing_and_check_data_a_picture(classify):
    run = classify("--dry-run")
    assert run.status == 0, run.err_text
    assert "Dry run done" in run.text
    assert not run.out.exists()
    run = classify("--check-data")
    assert run.status == 0, run.err_text
    assert "images of each class" in run.text
    assert run.text.splitlines()[-1].endswith("no fault found.")
    assert [path.name for path in run.out.iterdir()] == ["check.png"]


def test_accumulated_mixed_clipped_and_averaged(classify):
    """The options of ours together; losses with mixed images have no Top-1."""
    run = classify("--accumulate 2 --clip-grad 1 --ema 0.9 --save-every 2 --no-channels-last "
                   "--cfg-options DATA.MIXUP=0.2 DATA.CUTMIX=1.0 DATA.LABEL_SMOOTHING=0.1 "
                   "DATA.AUGMENT=standard DATA.RANDOM_ERASING=0.5 DATA.RAND_AUG=True "
                   "MODEL.FINAL_DROP=0.2 TRAINING.LAST_GAMMA=True OPTIMIZER.DISABLE_BN_WD=True "
                   "OPTIMIZER.LR_SCHEDULER=step OPTIMIZER.LR_STEP=1 OPTIMIZER.GAMMA=0.5 --seed 4")
    assert run.status == 0, run.err_text
    assert list(run.losses) == list(range(6))  # 2 + 2 + 2 batches an epoch, the last with 1 image
    assert all(event["grad_norm"] > 0 and "top1" not in event for event in run.train_events)
    assert [event["lr"] for event in run.train_events] == [0.01] * 3 + [0.005] * 3
    assert re.search(CLOCK + r"Batch: 2\| Loss: \d\.\d{3}\n", run.text)
    saved = run.load("checkpoint_1.pth")
    assert saved["acclist_train"] == [0.0, 0.0]
    assert {"checkpoint_iter_2.pth", "checkpoint_iter_4.pth"} <= set(run.names)
    assert [len(group["params"]) for group in saved["optimizer"]["param_groups"]] == [49, 34]
    average = {key.removeprefix("module."): value for key, value in saved["ema"].items()
               if key != "n_averaged"}
    assert same_weights(run.load("model_weights.pth"), average)
    assert not same_weights(average, saved["state_dict"])
    assert yaml.safe_load((run.out / "config.yaml").read_text())["SEED"] == 4


def test_pretrained_weights_of_other_classes_are_reported(classify, tmp_path):
    torch.save(build_resnest("resnest14_small", 10).state_dict(), tmp_path / "ten.pth")
    run = classify("--max-iters 1 --pretrained ten.pth")
    assert run.status == 0, run.err_text
    assert "ten.pth: 150 entries loaded; the file has 10 classes, so fc.weight, fc.bias" in run.text
    torch.save(build_resnest("resnest14_small", 2).state_dict(), tmp_path / "two.pth")
    refused = classify("--eval-only --pretrained two.pth")
    assert refused.status == 2
    assert "2 classes, the data have 3" in refused.err[0]


def test_a_checkpoint_of_more_outputs_than_classes_keeps_them(classify, tmp_path):
    """As the original's 1000 do: it evaluates, resumes, and goes on with what it saved itself."""
    net = build_resnest("resnest14_small", 10)
    optimizer = torch.optim.SGD(param_groups(net, 1e-4, False), lr=0.01, momentum=0.9)
    torch.save({"epoch": 0, "state_dict": net.state_dict(), "optimizer": optimizer.state_dict(),
                "best_pred": 0.0, "acclist_train": [0], "acclist_val": [0]}, tmp_path / "ten.pth")
    run = classify("--eval-only --resume ten.pth", out="evaluated")
    assert run.status == 0, run.err_text
    assert "ten.pth has 10 outputs, which stay; the data's 3 classes are taken for its first" \
        in run.text
    run = classify("--resume ten.pth --max-iters 7")
    assert run.status == 0, run.err_text
    saved = run.load("checkpoint_iter_7.pth")
    assert saved["state_dict"]["fc.weight"].shape[0] == 10
    assert saved["identity"]["num_classes"] == 10
    run = classify("--resume latest --max-iters 8")  # the file now has names for its outputs
    assert run.status == 0, run.err_text
    assert "the data's 3 classes are joined by name" in run.text
    assert list(run.losses) == [6, 7]


def test_validation_every_n_epochs(classify):
    run = classify("TRAINING.EPOCHS 4 TRAINING.EVAL_EVERY 2 --log-every 100")
    assert run.status == 0, run.err_text
    assert [event["iteration"] for event in run.evals] == [6, 18, 24]  # epochs 0, 2 and the last
    assert [event["iteration"] for event in run.train_events] == [0, 6, 12, 18]
    assert set(run.names) == {"checkpoint_0.pth", "checkpoint_1.pth", "checkpoint_2.pth",
                              "checkpoint_3.pth", "checkpoint_final.pth", "model_best.pth",
                              "model_weights.pth"}


def test_short_epochs_are_validated_and_saved_together(classify):
    """6 updates an epoch, 240 in all: a tenth of these, 4 epochs, lie between two validations."""
    run = classify("TRAINING.EPOCHS 40 --max-iters 57 --log-every 100")
    assert run.status == 0, run.err_text
    assert run.text.count("Epochs have 6 updates: validates and saves every 4 epochs") == 1
    assert [event["iteration"] for event in run.evals] == [6, 30, 54, 57]
    assert set(run.names) == {"checkpoint_0.pth", "checkpoint_4.pth", "checkpoint_8.pth",
                              "checkpoint_iter_57.pth", "checkpoint_final.pth", "model_best.pth",
                              "model_weights.pth"}
    run = classify("TRAINING.EPOCHS 40 --max-iters 80 --log-every 100 --resume latest")
    assert [event["iteration"] for event in run.evals] == [6, 30, 54, 57, 78, 80]
    assert {f"checkpoint_{epoch}.pth" for epoch in (0, 4, 8, 12)} < set(run.names)
