"""Bad input: one line that names it, exit status 2, nothing started; and what old files give."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from query_runs import ROOT
from script_run import fault

SCRIPT = ROOT / "train_queryinst.py"
# every long flag; adding one is a decision
FLAGS = """--accumulate --amp --auto-scale-lr --bad-images --batch-size --benchmark --cfg-options
--channels-last --check-data --clip-grad --compile --debug --device --dist-timeout --dry-run --ema
--epochs --eval-only --export --export-detections --export-format --force-resume --help --image-size
--install-completion --launcher --local_rank --log-every --max-hours --max-iters --mirror --nan
--no-channels-last --no-mirror --no-tf32 --patience --predict --predict-to --pretrained --resume
--save-every --score-threshold --seed --tensorboard --tf32 --top-k --version --wandb --work-dir
--workers"""


def one_line(run, *parts, status=2):
    assert run.status == status, run.err_text
    assert len(run.err) == 1, run.err_text
    assert run.err[0].startswith("train_queryinst: ")
    for part in parts:
        assert str(part) in run.err[0]


def test_help_is_answered_before_torch_is_imported():
    command = [sys.executable, "-X", "importtime", SCRIPT, "--help"]
    answer = subprocess.run(command, capture_output=True, text=True, check=True,
                            env={"COLUMNS": "200", "TERM": "dumb", "PATH": ""})
    words = {word.strip(",:") for word in answer.stdout.replace("/", " ").split()}
    assert {word for word in words if word.startswith("--")} == set(FLAGS.split())
    assert " torch" not in answer.stderr
    assert " numpy" not in answer.stderr


@pytest.mark.parametrize("words, parts", [
    (["--workdir", "x"], ["--workdir", "Did you mean --work-dir?"]),
    (["--launcher", "mip"], ["--launcher", "Did you mean mpi?"]),
    (["--launcher", "pytorch"], ["--launcher pytorch", "dist_train.sh"]),
    (["--cfg-options", "default_hooks.checkpoint.intervall=5"],
     ["intervall", "Did you mean default_hooks.checkpoint.interval?"]),
    (["--cfg-options", "default_hooks.checkpoint.save_best=coco/segm_map"],
     ["no coco/segm_map", "Did you mean coco/segm_mAP?"]),
    pytest.param(["--resume", "interrupt"], ["--resume interrupt"], marks=pytest.mark.slow),
    (["--resume", "iter_1000.pth"], ["iter_1000.pth", "does not exist"]),
    pytest.param(["--pretrained", "tiny.yaml"], ["tiny.yaml"], marks=pytest.mark.slow),
    (["--eval-only"], ["no checkpoint"]),
    pytest.param(["--device", "cuda:7"], ["cuda:7"], marks=pytest.mark.slow),
    (["--amp"], ["--amp fp16"]),
    (["--cfg-options", "train_dataloader.dataset.ann_file=no.json"],
     ["no.json", "train_dataloader.dataset.ann_file"]),
])
def test_one_line_and_nothing_made(query_train, words, parts):
    run = query_train("", *words)
    one_line(run, *parts)
    assert not run.out.exists()


def test_an_unknown_config(query_train):
    one_line(query_train("--check-data", config="queryinst_r50_fpn_1x_coc"),
             "Did you mean queryinst_r50_fpn_1x_coco?")


@pytest.mark.slow
def test_another_batch_size_is_refused_unless_forced(query_train):
    assert query_train("--max-iters 2").status == 0
    words = "--max-iters 3 --resume --cfg-options train_dataloader.batch_size=2"
    one_line(query_train(words), "batch_size was 4, is now 2")
    forced = query_train(f"{words} --force-resume")
    assert forced.status == 0, forced.err_text
    assert list(forced.losses) == [0, 1, 2]


@pytest.mark.slow
def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(query_train):
    whole = query_train("--max-iters 6 --save-every 2")
    assert whole.status == 0, whole.err_text
    losses = whole.losses
    path = whole.out / "iter_6.pth"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    rest = query_train("--max-iters 6 --save-every 2 --resume")
    assert rest.status == 0, rest.err_text
    assert "iter_6.pth" in rest.err_text
    assert rest.losses == losses


@pytest.mark.slow
def test_nothing_to_resume_starts_from_the_beginning(query_train):
    run = query_train("--max-iters 1 --resume")
    assert run.status == 0, run.err_text
    assert "Nothing to resume" in run.text
    assert list(run.losses) == [0]


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_before_the_update(query_train):
    run = query_train("--max-iters 8 --cfg-options optim_wrapper.optimizer.lr=1e30 "
                      "optim_wrapper.clip_grad=None")
    assert run.status == 1
    assert len(run.err) == 1
    assert "is not finite at iteration" in run.err[0]
    assert "images" in run.err[0]


@pytest.mark.slow
def test_a_full_disk_keeps_the_last_good_state(query_train):
    wide = "model.roi_head.bbox_head.feedforward_channels=8192"  # weights larger than any picture
    first = query_train(f"--max-iters 1 --cfg-options {wide}")
    assert first.status == 0, first.err_text
    size = (first.out / "iter_1.pth").stat().st_size
    run = query_train(f"--max-iters 2 --resume --cfg-options {wide}",
                      launcher=fault("filesize", size // 2))
    one_line(run, "iter_2.pth", status=3)
    assert run.names == ["iter_1.pth"]
    assert (run.out / "last_checkpoint").read_text() == "iter_1.pth"


@pytest.mark.slow
def test_weights_of_another_class_count(query_train, tmp_path, scenes):
    assert query_train("--max-iters 1").status == 0
    folder = tmp_path / "own"
    shutil.copytree(scenes.train_info.parents[1], folder)
    info = folder / "annotations" / "instances_train.json"
    coco = json.loads(info.read_text())
    coco["categories"] = [{"id": 3, "name": "thing"}]
    for annotation in coco["annotations"]:
        annotation["category_id"] = 3
    info.write_text(json.dumps(coco))
    words = ["--max-iters", "1", "--cfg-options"]
    words += [f"{loader}.dataset.{key}={value}" for loader in
              ("train_dataloader", "val_dataloader")
              for key, value in (("data_root", folder), ("ann_file", info))]
    weights = str(tmp_path / "out" / "iter_1.pth")
    run = query_train("--resume", weights, *words, out="other")
    assert run.status == 2, run.err_text
    warning, refusal = run.err
    assert "what is trained on should not be validated on" in warning
    assert "made for 6 classes, config tiny has 1" in refusal
    run = query_train("--pretrained", weights, *words, out="other")
    assert run.status == 0, run.err_text
    assert "of another shape in the file" in run.text
    head = run.load("iter_1.pth")["state_dict"]["roi_head.bbox_head.0.fc_cls.bias"]
    assert len(head) == 1


def test_a_checkpoint_of_mmdetection_gives_weights_optimizer_and_iteration(query_train, tmp_path):
    whole = query_train("--max-iters 4", out="whole")
    assert whole.status == 0, whole.err_text
    assert query_train("--max-iters 2").status == 0
    content = torch.load(tmp_path / "out" / "iter_2.pth", weights_only=True)
    del content["training"]
    content["message_hub"] = {"log_scalars": {"train/loss": _HistoryBuffer()}}
    torch.save(content, tmp_path / "original.pth")
    rest = query_train("--max-iters 4 --resume", str(tmp_path / "original.pth"), out="rest")
    assert rest.status == 0, rest.err_text
    assert "not of this script" in rest.err_text
    assert rest.losses == {i: whole.losses[i] for i in (2, 3)}


class _HistoryBuffer:
    pass


_HistoryBuffer.__module__, _HistoryBuffer.__qualname__ = "mmengine.logging", "HistoryBuffer"


@pytest.fixture(autouse=True)
def _mmengine(monkeypatch):
    """The module in which pickle looks the class up when the test writes its file."""
    import types

    module = types.ModuleType("mmengine.logging")
    module.HistoryBuffer = _HistoryBuffer
    monkeypatch.setitem(sys.modules, "mmengine", types.ModuleType("mmengine"))
    monkeypatch.setitem(sys.modules, "mmengine.logging", module)
