"""--epochs, --image-size, --mirror, --workers and --patience: what each makes of a config."""

import importlib
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import settings.shared_flags
from data.imagenet.transforms import transforms_of
from models import queryinst, resnest, segmentation, yolact
from models.queryinst import lr_schedule
from models.resnest import schedule as resnest_schedule
from runtime import cli
from runtime.errors import InputError
from settings.queryinst.pipeline import RandomFlipStep
from settings.yolact_recipes import load_yolact_config

PER_EPOCH = 100


class Told:
    """Stands in for a run: keeps what it is told."""

    def __init__(self):
        self.lines, self.facts = [], {}

    def log(self, line):
        self.lines.append(line)

    def describe(self, **facts):
        self.facts |= facts


LOADER = SimpleNamespace(steps_per_epoch=lambda accumulate: PER_EPOCH // accumulate)


def flags_of(script, *words):
    return cli.read_flags(importlib.import_module(script).flags, script, list(words))


def seg(*words, cfg="ade20k-resnet50dilated-ppm_deepsup"):
    flags = flags_of("train_seg", *words)
    return segmentation.with_flags(segmentation.load_seg_config(cfg), flags), flags.notes


def classifier(*words, cfg="resnest50", options=()):
    flags = flags_of("train_resnest", *words)
    return resnest.with_flags(resnest.load_resnest_config(cfg, options), flags), flags.notes


def yolact_cfg(*words, cfg="yolact_base"):
    flags, told = flags_of("train_yolact", *words), Told()
    net = SimpleNamespace(cfg=yolact.with_flags(load_yolact_config(cfg), flags, told.log))
    after, _ = yolact.with_epochs(flags, told, LOADER, net)
    assert net.cfg is after
    return after, told


def query(*words, cfg="queryinst_r50_fpn_1x_coco"):
    flags, told = flags_of("train_queryinst", cfg, *words), Told()
    loaded = queryinst.read_settings(flags)
    told.lines += flags.notes
    return queryinst.with_epochs(loaded, flags, told, LOADER), told


@pytest.fixture(autouse=True)
def many_cores(monkeypatch):
    monkeypatch.setattr(settings.shared_flags, "cores", lambda: 64)


# --- the length


def test_yolact_epochs_move_all_that_counts_iterations():
    before = load_yolact_config("yolact_base")
    after, told = yolact_cfg("--epochs", "40", "--config", "yolact_base")
    assert (before.max_iter, before.lr_steps) == (800000, (280000, 600000, 700000, 750000))
    assert (after.max_iter, after.lr_steps) == (4000, (1400, 3000, 3500, 3750))
    assert after.lr_warmup_until == before.lr_warmup_until == 500
    assert told.lines == [
        "--epochs: max_iter 800000 becomes 4000, lr_steps [280000, 600000, 700000, 750000] "
        "becomes [1400, 3000, 3500, 3750]."]
    assert told.facts["differs_from_recipe"]["max_iter"] == [4000, 800000]


def test_yolact_warmup_takes_at_most_half_and_an_epoch_counts_updates():
    after, told = yolact_cfg("--epochs", "2", "--accumulate", "2")
    assert (after.max_iter, after.lr_warmup_until) == (100, 50)
    assert "lr_warmup_until 500 becomes 50" in told.lines[0]
    lr_at = yolact.schedule(after)
    assert lr_at(50) == pytest.approx(after.lr * after.gamma)  # the first drop is at 35


def test_yolact_delayed_settings_come_as_late_in_proportion():
    after, _ = yolact_cfg("--epochs", "80", cfg="yolact_base_config.copy({'delayed_settings': "
                          "[(400000, {'conf_alpha': 2})]})")
    assert after.delayed_settings[0][0] == 4000


def test_segmentation_epochs_stretch_the_decay():
    after, notes = seg("--epochs", "3")
    assert after.TRAIN.num_epoch == 3
    assert notes == []


def test_segmentation_epochs_behind_the_start_are_refused():
    loaded = segmentation.load_seg_config("ade20k-hrnetv2", {"TRAIN.start_epoch": "5"})
    with pytest.raises(InputError, match=r"^--epochs 3: start_epoch wants at most num_epoch 3"):
        segmentation.with_flags(loaded, flags_of("train_seg", "--epochs", "3"))


def test_resnest_epochs_stretch_cosine_and_bound_the_warmup():
    before = resnest.load_resnest_config("resnest50")
    assert (before.TRAINING.EPOCHS, before.OPTIMIZER.WARMUP_EPOCHS) == (270, 5)
    after, notes = classifier("--epochs", "20")
    assert (after.TRAINING.EPOCHS, after.OPTIMIZER.WARMUP_EPOCHS, notes) == (20, 5, [])
    assert resnest_schedule(after, 1, 10)(200) == 0.0
    short, notes = classifier("--epochs", "4")
    assert short.OPTIMIZER.WARMUP_EPOCHS == 2
    assert notes == ["--epochs: OPTIMIZER.WARMUP_EPOCHS 5 becomes 2."]


@pytest.mark.parametrize("options, key, value", [
    (["OPTIMIZER.LR_SCHEDULER=multistep", "OPTIMIZER.MILESTONES=[90, 180]"], "MILESTONES",
     (30, 60)),
    (["OPTIMIZER.LR_SCHEDULER=step", "OPTIMIZER.LR_STEP=90"], "LR_STEP", 30),
])
def test_resnest_drops_move_with_the_epochs(options, key, value):
    after, notes = classifier("--epochs", "90", options=options)
    assert getattr(after.OPTIMIZER, key) == value
    assert len(notes) == 1
    assert f"OPTIMIZER.{key} " in notes[0]


def test_queryinst_epochs_move_the_drops():
    after, told = query("--epochs", "24")
    assert after.train_cfg.max_epochs == 24
    warmup, drops = after.param_scheduler
    assert (warmup.end, drops.milestones, drops.by_epoch) == (1000, (16, 22), True)
    assert told.lines == ["--epochs: train_cfg.max_epochs 12 becomes 24, "
                          "param_scheduler.1.end 12 becomes 24, "
                          "param_scheduler.1.milestones [8, 11] becomes [16, 22]."]
    assert told.facts["differs_from_recipe"]["train_cfg.max_epochs"] == [24, 12]


def test_queryinst_drops_inside_an_epoch_are_counted_in_iterations():
    after, _ = query("--epochs", "3")
    warmup, drops = after.param_scheduler
    assert (warmup.end, drops.milestones, drops.by_epoch) == (150, (200, 275), False)
    rate_at = lr_schedule(after, PER_EPOCH)
    rates = [rate_at(1.0, iteration) for iteration in (199, 200, 274, 275)]
    assert rates == pytest.approx([1.0, 0.1, 0.1, 0.01])


def test_queryinst_cosine_ends_where_the_training_ends():
    options = ("param_scheduler=[{type: LinearLR, by_epoch: false, begin: 0, end: 50}, "
               "{type: CosineAnnealingLR, by_epoch: false, begin: 50, end: 1200, T_max: 1150}]")
    after, _ = query("--epochs", "6", "--cfg-options", options)
    warmup, cosine = after.param_scheduler
    assert (warmup.end, cosine.begin, cosine.end, cosine.T_max) == (50, 50, 600, 550)


def test_queryinst_iterations_follow_the_epochs():
    loop = "train_cfg={_delete_: true, type: IterBasedTrainLoop, max_iters: 400}"
    after, _ = query("--epochs", "2", "--cfg-options", loop,
                     "param_scheduler=[{type: MultiStepLR, by_epoch: false, milestones: [300]}]")
    assert (after.train_cfg.max_iters, after.param_scheduler[0].milestones) == (200, (150,))


# --- the size


@pytest.mark.parametrize("size, recipe", [(400, "yolact_im400"), (700, "yolact_im700")])
def test_yolact_size_is_that_of_the_originals_own_recipes(size, recipe):
    after, told = yolact_cfg("--image-size", str(size))
    wanted = load_yolact_config(recipe)
    assert after.max_size == wanted.max_size
    assert after.backbone.pred_scales == wanted.backbone.pred_scales
    assert told.lines[0].startswith(f"--image-size: max_size 550 becomes {size}, backbone.pred_")


def test_segmentation_size_is_the_largest_short_side():
    after, notes = seg("--image-size", "300")
    assert after.DATASET.imgSizes == (150, 188, 225, 262, 300)
    assert after.DATASET.imgMaxSize == 500
    assert notes == ["--image-size: DATASET.imgSizes [300, 375, 450, 525, 600] becomes "
                     "[150, 188, 225, 262, 300], DATASET.imgMaxSize 1000 becomes 500."]


@pytest.mark.parametrize("size, margin", [(112, 16), (224, 32), (320, 32)])
def test_resnest_size_shows_no_less_of_an_image(size, margin):
    after, _ = classifier("--image-size", str(size))
    assert (size, margin) == (after.DATA.CROP_SIZE, after.DATA.CENTER_MARGIN)


def scales(loader):
    return [step.scale for step in loader.dataset.pipeline if step.type == "Resize"]


def test_queryinst_size_keeps_the_recipes_ratio_in_every_pipeline():
    after, told = query("--image-size", "400")
    assert scales(after.train_dataloader) == scales(after.val_dataloader) == [(666, 400)]
    assert told.lines[0] == ("--image-size: train_dataloader.dataset.pipeline's scale [1333, 800] "
                             "becomes [666, 400].")


def test_queryinst_predicts_at_that_size_without_a_validation_in_the_config():
    after, _ = query("--image-size", "400", "--predict", "photo.jpg", "--cfg-options",
                     "val_cfg=None", "val_dataloader=None", "val_evaluator=None")
    assert scales(after.predicted_by) == [(666, 400)]


def test_queryinst_size_goes_into_choices_and_crops():
    after, _ = query("--image-size", "400",
                     cfg="queryinst_r50_fpn_300-proposals_crop-ms-480-800-3x_coco")
    choice = next(step for step in after.train_dataloader.dataset.pipeline
                  if step.type == "RandomChoice")
    resize, (small, crop, _) = choice.lists[0][0], choice.lists[1]
    assert (resize.scales[0], resize.scales[-1]) == ((240, 666), (400, 666))
    assert small.scales == ((200, 666), (250, 666), (300, 666))
    assert crop.crop_size == (192, 300)
    assert scales(after.val_dataloader) == [(666, 400)]


@pytest.mark.parametrize("read, words, line", [
    (yolact_cfg, {}, "--image-size 9: wants at least 32"),
    (yolact_cfg, {"cfg": "yolact_plus_base"}, "--image-size 40: max_size wants at least "),
    (seg, {}, "--image-size 9: wants at least 16"),
    (seg, {"cfg": "shapes"}, "--image-size 3: wants at least 4"),
    (classifier, {}, "--image-size 9: CROP_SIZE wants a number of at least 16"),
    (query, {}, "--image-size 9: wants at least 32"),
])
def test_a_size_below_what_the_network_takes_names_the_smallest(read, words, line):
    size = line.split()[1].rstrip(":")
    with pytest.raises(InputError) as caught:
        read("--image-size", size, **words)
    assert [fault.startswith(line) for fault in caught.value.faults] == [True]


# --- mirroring


@pytest.mark.parametrize("flag, mirrors", [((), True), (("--mirror",), True),
                                           (("--no-mirror",), False)])
def test_mirroring_is_the_recipes_unless_a_flag_says_it(flag, mirrors):
    assert yolact_cfg(*flag)[0].augment_random_mirror is mirrors
    assert seg(*flag)[0].DATASET.random_flip is mirrors
    assert classifier(*flag)[0].DATA.MIRROR is mirrors
    steps = query(*flag)[0].train_dataloader.dataset.pipeline
    assert [step.prob for step in steps if step.type == "RandomFlip"] == [0.5 * mirrors]


@pytest.mark.parametrize("augment", ["original", "standard"])
def test_resnest_mirrors_no_image_without_it(augment):
    image = Image.fromarray(np.random.RandomState(0).randint(0, 256, (40, 40, 3), np.uint8))
    seen = {}
    for flag in ("--mirror", "--no-mirror"):
        cfg, _ = classifier(flag, "--image-size", "32", options=[
            f"DATA.AUGMENT={augment}", "DATA.RAND_AUG=False"])
        transform, _ = transforms_of(cfg.DATA)
        seen[flag] = [transform(image, **generators(i)) for i in range(12)]
    pairs = list(zip(seen["--mirror"], seen["--no-mirror"], strict=True))
    same = sum(torch.equal(a, b) for a, b in pairs)
    turned = sum(torch.allclose(a.flip(2), b, atol=1e-5) for a, b in pairs)
    assert same + turned == 12  # all else is drawn alike
    assert turned >= 3


def generators(i):
    return {"rng": random.Random(i), "np_rng": np.random.RandomState(i),
            "generator": torch.Generator().manual_seed(i)}


def flips(*options, flag):
    steps = query(flag, "--cfg-options", *options)[0].train_dataloader.dataset.pipeline
    return [step.chances for step in steps if isinstance(step, RandomFlipStep)]


def test_queryinst_without_mirror_keeps_other_directions():
    option = ("train_dataloader.dataset.pipeline.3={type: RandomFlip, prob: [0.3, 0.2], "
              "direction: [horizontal, vertical]}")
    assert flips(option, flag="--no-mirror") == [[("horizontal", 0.0), ("vertical", 0.2)]]
    assert flips(option, flag="--mirror") == [[("horizontal", 0.3), ("vertical", 0.2)]]


def test_queryinst_mirror_comes_into_a_pipeline_without_one():
    option = "train_dataloader.dataset.pipeline.3.prob=0.0"
    assert flips(option, flag="--mirror") == [[("horizontal", 0.0)], [("horizontal", 0.5)]]


# --- data workers


def test_configs_ask_for_no_more_workers_than_cores(monkeypatch):
    monkeypatch.setattr(settings.shared_flags, "cores", lambda: 1)
    cfg, notes = seg()
    assert cfg.TRAIN.workers == 1
    assert notes == ["TRAIN.workers asks for 16 data workers; with 1 core here there are 1. "
                     "--workers 16 makes as many all the same."]
    cfg, notes = classifier()
    assert cfg.TRAINING.WORKERS == 1
    assert notes[0].startswith("TRAINING.WORKERS asks for ")
    flags = flags_of("train_queryinst", "queryinst_r50_fpn_1x_coco")
    cfg = queryinst.read_settings(flags)
    assert flags.workers == cfg.val_dataloader.num_workers == 1
    assert [line.split()[0] for line in flags.notes] == [
        "train_dataloader.num_workers", "val_dataloader.num_workers"]
    flags, told = flags_of("train_yolact"), Told()
    yolact.limit_workers(flags, told.log)
    assert flags.num_workers == 1
    assert told.lines[0].startswith("--num_workers asks for 4 data workers; with 1 core")


def test_a_number_of_workers_on_the_command_line_stays(monkeypatch):
    monkeypatch.setattr(settings.shared_flags, "cores", lambda: 1)
    assert seg("--workers", "5")[0].TRAIN.workers == 5
    assert classifier("--workers", "5")[0].TRAINING.WORKERS == 5
    flags = flags_of("train_queryinst", "queryinst_r50_fpn_1x_coco", "--workers", "5")
    queryinst.read_settings(flags)
    assert flags.workers == 5
    flags, told = flags_of("train_yolact", "--num_workers", "4"), Told()  # also the default
    yolact.limit_workers(flags, told.log)
    assert (flags.num_workers, told.lines) == (4, [])


def test_cores_are_those_that_this_process_may_use():
    import os
    import subprocess
    import sys

    code = ("import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
            "from settings.shared_flags import cores; print(cores())")
    if hasattr(os, "sched_setaffinity"):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                              check=True)
        assert done.stdout == "1\n"


# --- patience


NO_TRUTH = "yolact_base_config.copy({'dataset': coco2017_testdev_dataset})"
NEVER = {"VAL.interval": "0"}


@pytest.mark.parametrize("read, more, why", [
    (yolact_cfg, ("--validation_epoch", "0"),
     "--validation_epoch is 0; give the epochs between two"),
    (lambda *words: yolact_cfg(*words, cfg=NO_TRUTH), (),
     "dataset.has_gt is false, the truth is elsewhere"),
    (lambda *words: seg(*words, cfg=segmentation.load_seg_config("shapes", NEVER)), (),
     "VAL.interval is 0; give the epochs between two"),
    (query, ("--cfg-options", "val_cfg=None", "val_dataloader=None", "val_evaluator=None"),
     "val_cfg, val_dataloader and val_evaluator are None"),
])
def test_patience_wants_validations(read, more, why):
    with pytest.raises(InputError) as caught:
        read("--patience", "3", *more)
    assert caught.value.faults == [f"--patience 3 counts validations, and there are none: {why}"]


def test_queryinst_patience_is_an_early_stopping_hook_and_keeps_the_best():
    cfg, told = query("--patience", "3")
    rule = cfg.early_stopping
    assert (rule.monitor, rule.patience) == ("coco/segm_mAP", 3)
    assert 0 < rule.min_delta < 1e-4  # an equal score is no better one
    assert cfg.default_hooks.checkpoint.save_best == "coco/segm_mAP"
    assert told.lines == ["--patience: default_hooks.checkpoint.save_best becomes coco/segm_mAP, "
                          "so that the best weights are kept."]


def test_queryinst_patience_is_over_that_of_the_configs_own_hook():
    hook = "custom_hooks=[{type: EarlyStoppingHook, monitor: coco/bbox_mAP, patience: 9}]"
    rule = query("--patience", "3", "--cfg-options", hook)[0].early_stopping
    assert (rule.monitor, rule.patience, rule.min_delta) == ("coco/bbox_mAP", 3, 0.1)
    best = "default_hooks.checkpoint.save_best=coco/bbox_mAP"
    assert query("--patience", "2", "--cfg-options", best)[0].early_stopping.monitor == (
        "coco/bbox_mAP")
