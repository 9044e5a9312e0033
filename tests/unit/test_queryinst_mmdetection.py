"""A config as MMDetection's own dict, and back."""

from dataclasses import replace

import pytest

from models.queryinst import load_queryinst_config
from settings.loading import load_config
from settings.queryinst.config import QueryInstConfig
from settings.queryinst.mmdetection import to_mmdetection
from settings.queryinst.recipes import RECIPES

SECTIONS = "model", "train_dataloader", "val_dataloader"
ONE_X = "queryinst_r50_fpn_1x_coco"
ODD = ["model.roi_head.bbox_head.0.num_heads=4", "model.roi_head.mask_head.2.dynamic_channels=16",
       "model.roi_head.bbox_head.1.loss_cls.gamma=1.5", "model.train_cfg.rcnn.3.pos_weight=2",
       "model.train_cfg.rcnn.0.assigner.match_costs.1.weight=3", "model.backbone.style=caffe",
       "model.backbone.with_cp=True", "model.data_preprocessor.bgr_to_rgb=False",
       "model.backbone.norm_cfg.requires_grad=False", "model.neck.out_channels=64",
       "model.roi_head.stage_loss_weights=[1,2,1,1,1,1]", "model.num_classes=3",
       "train_dataloader.batch_sampler=None", "train_dataloader.drop_last=True",
       "train_dataloader.dataset.indices=[1,5]", "train_dataloader.dataset.times=2",
       "train_dataloader.dataset.metainfo.classes=[cat,dog,cow]",
       "train_dataloader.dataset.pipeline.3.direction=[horizontal,vertical]",
       "train_dataloader.dataset.pipeline.2.keep_ratio=False"]


def plain(value):
    """Whether a config of MMDetection can hold the value: no object of ours in it."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and plain(item) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return all(map(plain, value))
    return value is None or type(value) in (str, int, float, bool)


def back(sections):
    return load_config(QueryInstConfig, None, sections)


@pytest.mark.parametrize("name, options", [
    *((path.stem, []) for path in sorted(RECIPES.glob("*.yaml"))), (ONE_X, ODD)])
def test_reading_it_back_gives_the_same_config(name, options):
    cfg = load_queryinst_config(name, options=options)
    sections = to_mmdetection(cfg)
    assert plain(sections)
    again = back(sections)
    for section in SECTIONS:
        assert vars(again)[section] == vars(cfg)[section]
    assert sections["test_dataloader"] == sections["val_dataloader"]
    # paths that were left open are named there
    assert again.val_evaluator.ann_file == cfg.val_dataloader.dataset.info_path
    named = replace(cfg, val_evaluator=again.val_evaluator, work_dir=again.work_dir,
                    test_dataloader=again.test_dataloader, test_evaluator=again.test_evaluator,
                    custom_hooks=again.custom_hooks, visualizer=again.visualizer, name=None)
    assert again == named


def test_each_stage_has_every_number_that_mmdetection_wants():
    model = to_mmdetection(load_queryinst_config(ONE_X, options=ODD))["model"]
    heads = model["roi_head"]["bbox_head"], model["roi_head"]["mask_head"]
    assert [len(stages) for stages in heads] == [6, 6]
    assert {head["num_classes"] for stages in heads for head in stages} == {3}
    assert {head["in_channels"] for stages in heads for head in stages} == {64}
    assert [head["dynamic_conv_cfg"]["feat_channels"] for head in heads[1]] == [
        64, 64, 16, 64, 64, 64]
    assert [head["num_heads"] for head in heads[0]] == [4, 8, 8, 8, 8, 8]
    assert model["neck"]["in_channels"] == [256, 512, 1024, 2048]
    assert "num_classes" not in model
    assert heads[1][0]["loss_mask"] == {
        "type": "DiceLoss", "use_sigmoid": True, "activate": False, "eps": 1e-5,
        "loss_weight": 8.0}


def test_class_names_go_into_every_data_set():
    sections = to_mmdetection(load_queryinst_config(ONE_X), ("cat", "dog"))
    for key in ("train_dataloader", "val_dataloader", "test_dataloader"):
        assert sections[key]["dataset"]["metainfo"] == {"classes": ("cat", "dog")}
    assert "metainfo" not in to_mmdetection(load_queryinst_config(ONE_X))[
        "train_dataloader"]["dataset"]


def test_pipelines_say_what_mmdetection_would_take_otherwise():
    cfg = load_queryinst_config(ONE_X)
    train, test = (to_mmdetection(cfg)[key]["dataset"]["pipeline"]
                   for key in ("train_dataloader", "test_dataloader"))
    assert {"type": "LoadAnnotations", "with_bbox": True, "with_mask": True} in train
    assert {"type": "Resize", "scale": (1333, 800), "keep_ratio": True} in test
    # without a mirror there is none to name
    assert test[-1]["meta_keys"] == ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")


def test_without_validation_there_is_none_there():
    parts = "val_cfg=None", "val_dataloader=None", "val_evaluator=None"
    sections = to_mmdetection(load_queryinst_config(ONE_X, options=parts))
    assert [sections[part.partition("=")[0]] for part in parts] == [None] * 3
    assert (sections["test_dataloader"], sections["test_evaluator"]) == (None, None)


def test_a_test_of_its_own():
    cfg = load_queryinst_config(ONE_X, options=["test_dataloader.batch_size=7"])
    sections = to_mmdetection(cfg)
    assert sections["test_dataloader"]["batch_size"] == 7
    assert sections["val_dataloader"]["batch_size"] == 1
    assert sections["test_evaluator"] == sections["val_evaluator"]
