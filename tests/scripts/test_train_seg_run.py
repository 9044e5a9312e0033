"""What a run of train_seg leaves behind, how it is launched, evaluated and applied."""

import inspect
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import train_seg
from data.segmentation.ade20k import ADE20K_COLORS
from models.facts import facts_in
from models.segmentation import build_decoder, build_encoder, load_seg_config

ROOT = Path(__file__).resolve().parents[2]
EPOCH_LINE = re.compile(
    r"Epoch: \[(\d+)\]\[(\d+)/4\], Time: \d+\.\d\d, Data: \d+\.\d\d, lr_encoder: 0\.\d{6}, "
    r"lr_decoder: 0\.\d{6}, Accuracy: +?\d+\.\d\d, Loss: \d+\.\d{6}")
# Changed on purpose only: names and defaults are what command lines out there rely on.
FLAGS = {
    "opts": None, "cfg": "config/ade20k-resnet50dilated-ppm_deepsup.yaml", "gpus": "0-3",
    "predict_to": None, "benchmark": False,
    "predict": None, "resume": None, "device": None, "amp": "off", "compile": False,
    "channels_last": False, "tf32": None,
    "batch_size": None, "accumulate": 1, "clip_grad": None, "ema": None, "seed": None,
    "workers": None, "epochs": None, "image_size": None, "mirror": None, "patience": None,
    "max_hours": None, "max_iters": None, "log_every": None, "save_every": None,
    "force_resume": False, "pretrained": None, "eval_only": False, "export": None,
    "export_format": None, "dry_run": False, "check_data": False, "bad_images": "stop",
    "nan": "stop", "cfg_options": None, "tensorboard": False, "wandb": False, "dist_timeout": 600,
    "debug": False,
}


def ended_well(run):
    assert run.status == 0, run.err_text
    assert run.err == [], run.err_text
    return run


def test_flags_are_frozen():
    parameters = inspect.signature(train_seg.flags).parameters
    assert {name: each.default for name, each in parameters.items()} == FLAGS


def test_help_is_answered_before_torch_is_imported():
    answer = subprocess.run([sys.executable, "-X", "importtime", ROOT / "train_seg.py", "--help"],
                            capture_output=True, text=True, check=True)
    for words in ("--cfg", "--gpus", "KEY VALUE", "--resume"):
        assert words in answer.stdout
    assert " torch" not in answer.stderr
    assert " numpy" not in answer.stderr


@pytest.fixture(scope="module")
def whole(tmp_path_factory, seg_scenes):
    """A run of 10 updates, two and a half epochs, validated after each."""
    from seg_run import SegRun

    words = ["--max-iters", "10", "VAL.interval", "1", "TRAIN.lr_decoder", "0.01"]
    return ended_well(SegRun(tmp_path_factory.mktemp("whole"), seg_scenes, words))


def test_a_whole_run_leaves_what_it_should(whole):
    assert {path.name for path in whole.out.iterdir()} == {
        *whole.names, "classes.txt", "config.yaml", "curves.png", "env.json", "log.txt",
        "metrics.jsonl", "predictions.png", "train_samples.png",
        "confusion.png", "extremes.png", "report.html"}
    parts = ["encoder_{}.pth", "encoder_{}.state.pth", "decoder_{}.pth"]
    wanted = [part.format(x) for part in parts for x in ("best", "epoch_1", "epoch_2", "iter_10")]
    assert whole.names == sorted([*wanted, "history_epoch_1.pth", "history_epoch_2.pth"])

    assert [event["iteration"] for event in whole.evals] == [4, 8, 10]
    assert all(0 <= event["metrics"][name] <= 1 for event in whole.evals
               for name in ("mean_iou", "pixel_accuracy"))
    event = whole.train_events[5]
    assert event["iteration"] == 5
    assert event["epoch"] == 1
    assert event["loss"] == pytest.approx(event["losses"]["main"] + event["losses"]["deepsup"])
    assert event["lr"] == pytest.approx(0.02 * (1 - 5 / 12) ** 0.9)
    assert event["lr_decoder"] == pytest.approx(0.01 * (1 - 5 / 12) ** 0.9)


def test_the_page_tells_of_the_run(whole):
    page = (whole.out / "report.html").read_text()
    facts = json.loads((whole.out / "env.json").read_text())
    (session,) = facts["sessions"]
    assert (session["status"], session["start"]) == ("done", 0)
    assert session["seconds"] > 0
    assert facts["differs_from_recipe"]["TRAIN.lr_decoder"][0] == 0.01
    assert facts["data"]["train"]["images"] > 0
    best = max(event["metrics"]["mean_iou"] for event in whole.evals)
    assert f"{best:.4g}" in page
    for text in ("finished", "encoder_best.pth", "encoder_iter_10.pth", "TRAIN.lr_decoder",
                 ">--resume</span> <span>latest</span>", ">--predict</span> <span>photos/</span>",
                 "confusion.png", "data:image/"):
        assert text in page, text
    assert str(whole.out / "report.html") == whole.text.rstrip().splitlines()[-1]


def test_the_originals_lines(whole):
    lines = whole.text.splitlines()
    found = [match.groups() for match in map(EPOCH_LINE.fullmatch, lines) if match]
    assert found == [(str(i // 4 + 1), str(i % 4)) for i in range(10)]
    for line in ("# samples: 12", "1 Epoch = 4 iters", "Saving checkpoints...", "[Eval Summary]:",
                 "Training Done!"):
        assert line in lines
    # means since the epoch's start
    second = [float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("Epoch: [2]")]
    losses = [whole.train_events[i]["loss"] for i in range(4, 8)]
    assert second == pytest.approx([np.mean(losses[:i]) for i in range(1, 5)], abs=1e-6)


def test_the_files_are_the_originals(whole):
    cfg = load_seg_config(whole.out / "config.yaml")  # which can be fed back
    assert cfg.TRAIN.lr_decoder == 0.01
    encoder = build_encoder(cfg.MODEL.arch_encoder, cfg.MODEL.fc_dim,
                            whole.out / "encoder_epoch_2.pth")
    build_decoder(cfg.MODEL.arch_decoder, cfg.MODEL.fc_dim, 7, whole.out / "decoder_epoch_2.pth")
    saved = whole.load("encoder_epoch_2.pth")
    assert len(saved) == 459  # the original's entries [segmentation.md: Encoders]
    for key in ("features.0.1._tmp_running_mean", "features.0.1._running_iter"):
        assert key in saved
    assert torch.equal(encoder.state_dict()["features.0.1.running_var"],
                       saved["features.0.1.running_var"])
    said = facts_in(whole.load("decoder_epoch_2.pth"), "segmentation")
    assert said.num_classes == 7
    assert said.pixels.sizes == cfg.DATASET.imgSizes
    assert json.loads((whole.out / "env.json").read_text())["network"] == said.plain()
    history = whole.load("history_epoch_2.pth")["train"]
    assert history["epoch"] == [0.0, 0.5, 1.0, 1.5]  # TRAIN.disp_iter is 2
    assert history["loss"] == [whole.train_events[i]["loss"] for i in (0, 2, 4, 6)]
    assert history["acc"] == [whole.train_events[i]["accuracy"] for i in (0, 2, 4, 6)]


def test_evaluation_with_one_and_with_two_processes(whole, segment, ranks):
    best = max(whole.evals, key=lambda event: (event["metrics"]["mean_iou"], -event["iteration"]))
    words = ["DIR", str(whole.out), "VAL.visualize", "True"]
    alone = ended_well(segment("--eval-only", *words))
    both = segment("--eval-only", *words, launcher=ranks(2))
    assert both.status == 0, both.err_text
    for run in (alone, both):
        text = run.text
        assert re.findall(r"^class \[(\d)\], IoU: 0\.\d{4}$", text, re.M) == list("0123456")
        assert "[Eval Summary]:\nMean IoU: " in text
        assert "Evaluation Done!" in text
    summary = f"Mean IoU: {best['metrics']['mean_iou']:.4f}, Accuracy: " \
              f"{100 * best['metrics']['pixel_accuracy']:.2f}%"
    assert re.search(rf"^{summary}, Inference Time: \d\.\d{{4}}s$", alone.text, re.M)
    assert summary + "\n" in both.text
    one, two = [json.loads(line) for line in
                (whole.out / "metrics.jsonl").read_text().splitlines()][-2:]
    assert one["metrics"] == two["metrics"] == best["metrics"]
    assert one["iteration"] == best["iteration"]

    pictures = sorted(path.name for path in (whole.out / "result").iterdir())
    assert pictures == [f"ADE_val_{i:08d}.png" for i in range(1, 6)]
    picture = np.asarray(Image.open(whole.out / "result" / pictures[0]))
    label = np.asarray(Image.open(segment.root / "annotations/validation/ADE_val_00000001.png"))
    h, w = label.shape
    assert picture.shape == (h, 3 * w, 3)
    colours = np.concatenate([np.zeros((1, 3), np.uint8), ADE20K_COLORS])
    assert np.array_equal(picture[:, w:2 * w], colours[label])


def test_several_scales_and_a_named_checkpoint(whole, segment):
    run = ended_well(segment("--eval-only VAL.checkpoint epoch_1.pth", "DATASET.imgSizes",
                             "(32, 48)", "DIR", str(whole.out)))
    assert "epoch_1.pth, iteration 4." in run.text
    assert not run.out.exists()


def test_prediction_of_a_folder(whole, segment, tmp_path):
    folder = tmp_path / "photos" / "deeper"
    folder.mkdir(parents=True)
    source = segment.root / "images" / "validation"
    pixels = np.asarray(Image.open(source / "ADE_val_00000001.jpg"))
    Image.fromarray(pixels).save(folder / "a.jpg")
    Image.fromarray(pixels[:, :40]).save(tmp_path / "photos" / "b.png")
    run = ended_well(segment("--predict", "photos", "TEST.result", "found", "DIR", str(whole.out)))
    assert sorted(path.name for path in (tmp_path / "found").iterdir()) == [
        "a.png", "b.png", "classes.csv", "label_maps", "legend.png"]
    shown = np.asarray(Image.open(tmp_path / "found" / "b.png"))
    assert shown.shape == (pixels.shape[0], 80, 3)
    assert np.array_equal(shown[:, :40], pixels[:, :40])
    lines = run.text.splitlines()
    assert "Predictions in [photos/b.png]:" in lines
    assert lines[-1] == "Inference done!"
    shares = [float(x) for x in re.findall(r"^  [a-z]+: (\d+\.\d\d)%$", run.text, re.M)]
    assert sum(shares) == pytest.approx(200, abs=1)
    again = segment("--predict", "photos/b.png", "TEST.result", "photos", "DIR", str(whole.out))
    assert again.status == 2
    assert "would replace the image photos/b.png" in again.err[0]


def test_export(whole, segment, tmp_path):
    run = ended_well(segment("--export", "net", "--export-format", "pt2", "DIR", str(whole.out)))
    assert "Exported to net.pt2" in run.text
    program = torch.export.load(tmp_path / "net.pt2").module()
    scores = program(torch.zeros(1, 3, 48, 48))
    assert scores.shape == (1, 7, 48, 48)
    assert torch.allclose(scores.sum(1), torch.ones(1, 48, 48), atol=1e-5)


def test_weights_without_a_state_and_of_other_classes(whole, segment, tmp_path):
    """The original's own files: a continuation by TRAIN.start_epoch, and fine-tuning."""
    out = tmp_path / "out"
    out.mkdir()
    for net in ("encoder", "decoder"):
        content = (whole.out / f"{net}_epoch_1.pth").read_bytes()
        (out / f"{net}_epoch_1.pth").write_bytes(content)
    run = segment("--max-iters 6 TRAIN.start_epoch 1")
    assert run.status == 0
    assert "momentum starts at zero" in run.err_text
    assert list(run.losses) == [4, 5]
    assert run.train_events[0]["lr"] == pytest.approx(0.02 * (1 - 4 / 12) ** 0.9)

    words = ["DATASET.num_class", "9", "DATASET.class_names", "()"]
    run = segment("--max-iters 1 --pretrained", str(whole.out / "encoder_best.pth"), *words,
                  out="other")
    assert run.status == 0, run.err_text
    assert "of another shape in the file" in run.text
    assert len(run.load("decoder_iter_1.pth")["conv_last.bias"]) == 9


def test_folders_without_a_list(segment, tmp_path):
    root = tmp_path / "set"
    shutil.copytree(segment.root, root)
    for name in ("training.odgt", "validation.odgt"):
        (root / name).unlink()
    before = sorted(path for path in root.rglob("*"))
    run = ended_well(segment("--max-iters 2 VAL.interval 1", root=root))
    assert sorted(path for path in root.rglob("*")) == before
    assert len(list(run.out.glob("list_*.odgt"))) == 2
    listed = segment("--max-iters 2", out="listed")
    assert run.losses == listed.losses


def test_dry_run_writes_nothing_and_check_data_a_picture(segment):
    dry = ended_well(segment("--dry-run"))
    assert "Dry run done" in dry.text
    assert not dry.out.exists()
    checked = segment("--check-data")  # five validation scenes do not hold every class
    assert checked.status == 0, checked.err_text
    assert "in none of 5 labels" in checked.err_text
    assert "training.odgt: 12 images with labels" in checked.text
    assert checked.text.splitlines()[-1].endswith("validation.odgt: no fault found.")
    assert [path.name for path in checked.out.iterdir()] == ["check.png"]


def test_doubts_are_warned_of_as_training_starts(segment, tmp_path):
    root = tmp_path / "set"
    shutil.copytree(segment.root, root)
    for label in (root / "annotations").rglob("*.png"):  # background 0, the rest 1
        values = np.asarray(Image.open(label))
        Image.fromarray((values > 1).astype(np.uint8)).save(label)
    lines = (root / "validation.odgt").read_text().splitlines()
    bare = [{k: v for k, v in json.loads(line).items() if k.startswith("fpath")} for line in lines]
    (root / "validation.odgt").write_text(
        "\r\n".join(map(json.dumps, bare)), encoding="utf-16")
    run = segment("--max-iters 1 VAL.interval 1 DATASET.num_class 2 DATASET.class_names ()",
                  root=root)
    assert run.status == 0, run.err_text
    (line,) = [line for line in run.err if "count from 1" in line]
    assert "label 2 of 2 is in none of 12 labels" in line


def test_two_processes_compute_what_one_does(segment, ranks):
    flags = "--max-iters 4 TRAIN.fix_bn True"
    both = segment(flags, launcher=ranks(2), out="both")
    assert both.status == 0, both.err_text
    # with frozen batch norm, two ranks are one process that accumulates two batches
    alone = ended_well(segment(f"{flags} --accumulate 2", out="alone"))
    assert list(both.losses) == [0, 1, 2, 3]
    for iteration, losses in alone.losses.items():
        for name, value in losses.items():
            # float32 sums in another order, over four updates
            assert both.losses[iteration][name] == pytest.approx(value, rel=2e-4)


@pytest.mark.slow
def test_two_processes_share_their_batch_statistics(segment, ranks):
    common = segment("--max-iters 3", launcher=ranks(2), out="common")
    own = segment("--max-iters 3 TRAIN.sync_bn False", launcher=ranks(2), out="own")
    assert common.status == own.status == 0, common.err_text + own.err_text
    assert common.losses != own.losses


def test_paths_of_the_loop(segment):
    plain = ended_well(segment("--max-iters 2"))
    other = ended_well(segment("--max-iters 2 --channels-last --workers 2", out="other"))
    # float32 in another order; what an update makes of the difference is anyone's guess
    assert other.losses[0] == pytest.approx(plain.losses[0], rel=1e-4)
    assert list(other.losses) == [0, 1]
    frozen = ended_well(segment("--max-iters 2 TRAIN.fix_bn True", out="frozen"))
    means = frozen.load("encoder_iter_2.pth")["features.0.1.running_mean"]
    assert torch.equal(means, torch.zeros(32))
