"""Command lines of the originals' evaluation programs: what they become, and what is refused."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from runtime.cli import paired
from runtime.errors import InputError
from runtime.options.usage import parse
from runtime.other_tools import MANY, translated
from runtime.other_tools.command_lines import tools_of
from runtime.other_tools.tool import Part, split
from settings.resnest import load_resnest_config

ROOT = Path(__file__).resolve().parents[2]
YOLACT = "weights/yolact_base_54_800000.pth"


def read(script, line):
    """The flags that the script gets for a command line."""
    return parse(__import__(script).flags, script, shlex.split(line))


def fault_of(script, line):
    with pytest.raises(InputError) as caught:
        read(script, line)
    assert len(caught.value.faults) == 1
    return caught.value.faults[0]


def test_yolact_evaluates_all_images_of_its_weights():
    flags = read("train_yolact", f"--trained_model={YOLACT}")
    assert (flags.eval_only, flags.resume, flags.config) == (True, YOLACT, None)
    assert flags.validation_size >= 100_000  # train.py's limit of 5,000 is not eval.py's
    assert not flags.output_coco_json


@pytest.mark.parametrize("count, images", [("1000", 1000), ("-1", 1_000_000), ("0", 1_000_000)])
def test_yolact_max_images(count, images):
    for line in (f"--trained_model {YOLACT} --max_images {count}",
                 f"--max-images={count} --trained-model={YOLACT}"):
        assert read("train_yolact", line).validation_size == images


def test_yolact_keeps_the_words_that_are_ours_as_well():
    flags = read("train_yolact", f"--trained_model={YOLACT} --config=yolact_im700_config "
                 "--output_coco_json --bbox_det_file=a.json --mask_det_file b.json "
                 "--fast_nms=false --cross_class_nms true --score_threshold=0.15 --cuda=False "
                 "--dataset=coco2017_testdev_dataset --seed 3")
    assert (flags.config, flags.bbox_det_file, flags.mask_det_file, flags.output_coco_json) == (
        "yolact_im700_config", "a.json", "b.json", True)
    assert (flags.fast_nms, flags.cross_class_nms, flags.score_threshold, flags.cuda) == (
        False, True, 0.15, False)
    assert (flags.dataset, flags.seed) == ("coco2017_testdev_dataset", 3)


@pytest.mark.parametrize("word", ["--shuffle", "--no_sort", "--no_bar", "--top_k=15",
                                  "--ap_data_file results/ap.pkl", "--display_masks=True"])
def test_yolact_words_that_change_no_score_are_dropped(word):
    assert read("train_yolact", f"--trained_model={YOLACT} {word}") == \
        read("train_yolact", f"--trained_model={YOLACT}")


@pytest.mark.parametrize("word", [
    "--display", "--no_crop",
    "--detect", "--output_web_json", "--display_lincomb=True", "--mask_proto_debug",
    "--display_bboxes=False", "--resume"])
def test_yolact_words_that_are_refused_come_with_the_command_in_full(word):
    fault = fault_of("train_yolact", f"--trained_model={YOLACT} {word} --score_threshold 0.15")
    assert fault.startswith(f"{word.split('=')[0].split()[0]}: ")
    ours = fault.partition("In full: python train_yolact.py ")[2]
    assert ours.startswith(f"--eval-only --resume {YOLACT} --score_threshold 0.15")
    flags = read("train_yolact", ours)  # it can be pasted
    assert (flags.eval_only, flags.resume, flags.score_threshold) == (True, YOLACT, 0.15)


@pytest.mark.parametrize("word, predict, to", [
    ("--image=my_image.png", "my_image.png", None), ("--images in:out", "in", "out"),
    ("--video=my_video.mp4 --video_multiframe=4", "my_video.mp4", None)])
def test_yolact_draws_what_it_finds(word, predict, to):
    flags = read("train_yolact",
                 f"--trained_model={YOLACT} --score_threshold=0.15 --top_k=15 {word}")
    assert (flags.predict, flags.resume) == (predict, YOLACT)
    assert flags.predict_to == (to and Path(to))
    assert (flags.score_threshold, flags.top_k, flags.eval_only) == (0.15, 15, False)
    assert read("train_yolact", f"--trained_model={YOLACT} {word}").top_k == 5  # eval.py's default


@pytest.mark.parametrize("word, why, ours", [
    ("--image=a.png:b.png", "--image: what is drawn keeps", "--predict a.png --predict-to b"),
    ("--video a.mp4:b.mp4", "--video: what is drawn keeps", "--predict a.mp4 --predict-to b"),
    ("--video=0", "--video: no script reads a camera", "--predict FILE.mp4"),
    ("--benchmark --max_images=9", "--benchmark: times are taken",
     "--predict data/coco/images --benchmark")])
def test_yolact_pictures_that_are_called_otherwise_here(word, why, ours):
    fault = fault_of("train_yolact", f"--trained_model={YOLACT} {word}")
    assert fault.startswith(why)
    assert fault.endswith(f"In full: python train_yolact.py --resume {YOLACT} --top_k 5 {ours}")
    assert read("train_yolact", fault.partition("train_yolact.py ")[2]).predict


def test_resnest_verify():
    flags = read("train_resnest", "--model resnest50 --crop-size 224 --data-dir im --batch-size 64 "
                 "--workers 3 --no-cuda --base-size 256")
    assert (flags.eval_only, flags.pretrained, flags.resume) == (True, "resnest50", None)
    assert (flags.workers, flags.device) == (3, "cpu")
    pairs = dict(zip(flags.pairs[::2], flags.pairs[1::2], strict=True))
    assert pairs == {"MODEL.NAME": "resnest50", "DATA.CROP_SIZE": "224", "DATA.ROOT": "im",
                     "TRAINING.TEST_BATCH_SIZE": "64", "DATA.INTERPOLATION": "bicubic"}
    flags = read("train_resnest", "--model resnest101 --verify w.pth")
    assert (flags.resume, flags.pretrained) == ("w.pth", None)


def test_resnest_model_alone_is_a_word_of_training():
    assert "in this script it is MODEL.NAME" in fault_of("train_resnest", "--model resnest50")


def test_csail_programs_are_told_by_their_names():
    for program in ("eval.py", "eval_multipro.py", "./eval.py"):
        flags = read("train_seg", f"{program} --cfg config/a.yaml --gpu 1 VAL.visualize True")
        assert (flags.eval_only, flags.gpus, flags.cfg) == (True, "1", "config/a.yaml")
        assert flags.opts == ["VAL.visualize", "True"]
    flags = read("train_seg", "test.py --imgs photo.jpg --gpu 0 --cfg a.yaml TEST.result out")
    assert (flags.predict, flags.eval_only, flags.opts) == ("photo.jpg", False,
                                                            ["TEST.result", "out"])
    assert not read("train_seg", "train.py --gpus 0-3 --cfg a.yaml").eval_only


def test_mmdetection_test_takes_config_and_checkpoint():
    for program in ("", "tools/test.py ", "./tools/test.py ", "mmdetection/tools/test.py "):
        flags = read("train_queryinst", f"{program}queryinst_shapes w.pth --work-dir out "
                     "--eval bbox segm --cfg-options randomness.seed=1 model.as_two_stage=0 "
                     "--launcher none --fuse-conv-bn")
        assert (flags.config, flags.resume, flags.eval_only, flags.work_dir) == (
            "queryinst_shapes", "w.pth", True, "out")
        assert flags.cfg_options == ["randomness.seed=1", "model.as_two_stage=0",
                                     "test_evaluator.metric=[bbox,segm]"]
    assert not read("train_queryinst", "tools/train.py queryinst_shapes").eval_only


@pytest.mark.parametrize("word", ["--show", "--show-dir out", "--tta",
                                  "--show --wait-time 2"])
def test_mmdetection_words_that_are_refused(word):
    fault = fault_of("train_queryinst", f"queryinst_shapes w.pth {word}")
    assert fault.startswith(f"{word.split()[0]}: ")
    assert fault.endswith("In full: python train_queryinst.py queryinst_shapes --eval-only "
                          "--resume w.pth")


def test_mmdetection_writes_predictions_as_json():
    flags = read("train_queryinst", "queryinst_shapes w.pth --out out/r.json --eval segm")
    assert flags.cfg_options == ["test_evaluator.metric=[segm]",
                                 "test_evaluator.outfile_prefix=out/r"]
    fault = fault_of("train_queryinst", "queryinst_shapes w.pth --out r.pkl")
    assert fault.startswith("--out: no pickle is written")
    assert fault.endswith("--resume w.pth --cfg-options test_evaluator.outfile_prefix=r")


def test_resnest_training_of_pytorch_encoding():
    flags = read("train_resnest", "train_dist.py --dataset imagenet --model resnest50 --epochs 270 "
                 "--lr-scheduler cos --lr 0.025 --batch-size 64 --no-bn-wd --last-gamma --rand-aug "
                 "--label-smoothing 0.1 --mixup 0.2 --warmup-epochs 5 --world-size 4 --rank 0")
    cfg = train_resnest_settings(flags)
    assert (cfg.MODEL.NAME, cfg.TRAINING.EPOCHS, cfg.OPTIMIZER.LR) == ("resnest50", 270, 0.025)
    assert cfg.OPTIMIZER.DISABLE_BN_WD
    assert cfg.TRAINING.LAST_GAMMA
    assert cfg.DATA.RAND_AUG
    assert (cfg.DATA.LABEL_SMOOTHING, cfg.DATA.MIXUP, cfg.OPTIMIZER.WARMUP_EPOCHS) == (0.1, 0.2, 5)
    assert (flags.world_size, flags.rank) == (4, 0)


def test_resnest_finds_the_originals_own_config():
    cfg = load_resnest_config("configs/Base-ResNet50.yaml")
    assert (cfg.MODEL.NAME, cfg.OPTIMIZER.LR, cfg.TRAINING.BATCH_SIZE) == ("resnet50", 0.0125, 32)


def train_resnest_settings(flags):
    return load_resnest_config(None, paired(flags.pairs))


def test_our_own_command_lines_stay_as_they_are():
    for script, line in (
            ("train_yolact", "--config yolact_shapes --max-iters 3"),
            ("train_yolact", "--eval-only --resume w.pth"),
            ("train_resnest", "--eval-only MODEL.NAME resnest50"),
            ("train_queryinst", "queryinst_shapes --cfg-options load_from=w.pth --resume w.pth"),
            ("train_queryinst", "queryinst_shapes --pretrained w.pth --work-dir w.pth"),
            ("train_seg", "--cfg a.yaml DIR eval.py")):
        arity = {"--resume": 1, "--work-dir": 1, "--pretrained": 1, "--cfg-options": MANY}
        assert translated(script, line.split(), arity) is None


def test_a_line_is_split_at_its_flags():
    words = shlex.split("x --a -1 --b p q --c y --d=1 --a --b")
    assert split(words, {"--a": 1, "--b": MANY, "--c": 0}) == [
        Part("", ("x",)), Part("--a", ("-1",)), Part("--b", ("p", "q")), Part("--c"),
        Part("", ("y",)), Part("--d", ("1",), is_joined=True), Part("--a", ("--b",))]


@pytest.mark.parametrize("script", ["train_yolact", "train_seg", "train_resnest",
                                    "train_queryinst"])
def test_each_script_has_its_own_tools(script):
    assert {tool.script for tool in tools_of(script)} == {script}


def test_the_script_says_how_it_was_read_once_and_goes_on(tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "train_yolact.py", "--trained_model=not_there.pth", "--no_bar"],
        cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout.splitlines()[0] == (
        "Read as: python train_yolact.py --eval-only --resume not_there.pth --validation_size "
        "1000000; --no_bar changes nothing here: the bar is shown on a terminal only")
    assert done.stdout.count("Read as") == 1
    assert done.stderr == "train_yolact: not_there.pth: does not exist\n"


def test_a_programs_own_help_is_ours(capsys):
    with pytest.raises(typer.Exit):
        read("train_yolact", "eval.py --help")
    assert "--batch_size" in capsys.readouterr().out
