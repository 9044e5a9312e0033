"""QueryInst configs: recipes, MMDetection's spellings and keys, faults."""

from dataclasses import replace

import pytest

from models.queryinst import QueryInstConfig, load_queryinst_config
from runtime.errors import InputError
from settings.loading import load_config, save_config

ONE_X = "queryinst_r50_fpn_1x_coco"
CROP = "queryinst_r50_fpn_300-proposals_crop-ms-480-800-3x_coco"
# name: depth, proposals, epochs, milestones, last iteration of the warm-up [queryinst.md: Configs]
TABLE = {
    ONE_X: (50, 100, 12, (8, 11), 999),
    "queryinst_r50_fpn_ms-480-800-3x_coco": (50, 100, 36, (27, 33), 499),
    CROP: (50, 300, 36, (27, 33), 499),
    "queryinst_r101_fpn_ms-480-800-3x_coco": (101, 100, 36, (27, 33), 499),
    "queryinst_r101_fpn_300-proposals_crop-ms-480-800-3x_coco": (101, 300, 36, (27, 33), 499),
}


@pytest.mark.parametrize("name", TABLE)
def test_recipes(name):
    cfg = load_queryinst_config(name)
    model = cfg.model
    row = (model.backbone.depth, model.rpn_head.num_proposals, cfg.train_cfg.max_epochs,
           cfg.param_scheduler[1].milestones, cfg.param_scheduler[0].end - 1)
    assert row == TABLE[name]
    assert cfg.name == name
    assert model.test_cfg.rcnn.max_per_img == model.rpn_head.num_proposals
    assert model.backbone.init_cfg.checkpoint == f"torchvision://resnet{model.backbone.depth}"
    assert cfg.param_scheduler[0].start_factor == 0.001
    assert cfg.param_scheduler[1].gamma == 0.1


@pytest.mark.parametrize("name", ["queryinst_shapes", "queryinst_small"])
def test_cpu_recipes_keep_the_newest_two_checkpoints(name):
    assert load_queryinst_config(name).default_hooks.checkpoint.max_keep_ckpts == 2


def test_the_defaults_are_the_1x_recipe():
    assert replace(load_queryinst_config(ONE_X), name=None) == replace(
        QueryInstConfig(), param_scheduler=load_queryinst_config(ONE_X).param_scheduler)
    schedulers = QueryInstConfig().param_scheduler
    assert [s.type for s in schedulers] == ["LinearLR", "MultiStepLR"]
    recipe = load_queryinst_config(ONE_X).param_scheduler
    assert schedulers == (recipe[0], replace(recipe[1], end=None))  # 12 epochs, all of the run


def test_training_pipelines():
    types = {name: [step.type for step in
                    load_queryinst_config(name).train_dataloader.dataset.transforms]
             for name in TABLE}
    assert types[ONE_X] == ["Resize", "RandomFlip"]
    assert types["queryinst_r101_fpn_ms-480-800-3x_coco"] == ["RandomChoiceResize", "RandomFlip"]
    assert types[CROP] == ["RandomFlip", "RandomChoice"]
    _, choice = load_queryinst_config(CROP).train_dataloader.dataset.transforms
    plain, cropped = choice.transforms
    assert [step.type for step in plain] == ["RandomChoiceResize"]
    assert [step.type for step in cropped] == [
        "RandomChoiceResize", "RandomCrop", "RandomChoiceResize"]
    assert plain[0] == cropped[2]
    assert [short for short, _ in plain[0].scales] == list(range(480, 801, 32))
    assert cropped[1].crop_size == (384, 600)


@pytest.mark.parametrize("given, name", [
    ("queryinst_r50_fpn_mstrain_480-800_3x_coco", "queryinst_r50_fpn_ms-480-800-3x_coco"),
    ("queryinst_r101_fpn_mstrain_480-800_3x_coco", "queryinst_r101_fpn_ms-480-800-3x_coco"),
    ("queryinst_r50_fpn_300_proposals_crop_mstrain_480-800_3x_coco", CROP),
    ("configs/queryinst/queryinst_r50_fpn_1x_coco.py", ONE_X),
])
def test_other_spellings(given, name):
    assert load_queryinst_config(given) == load_queryinst_config(name)


@pytest.mark.parametrize("name", ["queryinst_shapes", "queryinst_small"])
def test_own_recipes(name):
    cfg = load_queryinst_config(name)
    assert cfg.model.backbone.init_cfg is None
    assert not cfg.model.backbone.norm_eval
    assert cfg.model.backbone.frozen_stages == -1


def test_options_as_mmdetection_users_write_them():
    cfg = load_queryinst_config(ONE_X, options=[
        "train_dataloader.batch_size=4",
        "train_dataloader.dataset.data_root=my/",
        "train_dataloader.dataset.ann_file=a.json",
        "train_dataloader.dataset.data_prefix.img=photos/",
        "train_dataloader.dataset.metainfo.classes=cat,dog",
        "train_dataloader.dataset.pipeline.2.scale=(600,400)",
        "val_dataloader.dataset.ann_file=/elsewhere/v.json",
        "val_evaluator.metric=segm",
        "train_cfg.max_epochs=3",
        "param_scheduler.1.milestones=[2]",
        "default_hooks.checkpoint.interval=100",
        "default_hooks.checkpoint.by_epoch=False",
        "default_hooks.checkpoint.max_keep_ckpts=2",
        "default_hooks.checkpoint.out_dir=/out",
        "default_hooks.checkpoint.save_best=coco/segm_mAP",
        "default_hooks.logger.interval=10",
        "optim_wrapper.optimizer.lr=2e-4",
        "optim_wrapper.clip_grad.max_norm=0.5",
        "auto_scale_lr.enable=True",
        "load_from=w.pth",
        "work_dir=runs/a",
        "model.rpn_head.num_proposals=7",
        "model.backbone.init_cfg=None",
    ])
    data = cfg.train_dataloader.dataset
    assert (cfg.train_dataloader.batch_size, cfg.train_cfg.max_epochs) == (4, 3)
    assert (data.info_path, data.images_path) == ("my/a.json", "my/photos")
    assert data.metainfo.classes == ("cat", "dog")
    assert data.transforms[0].scale == (600, 400)
    assert cfg.val_dataloader.dataset.info_path == "/elsewhere/v.json"
    assert cfg.val_evaluator.metric == ("segm",)
    assert (cfg.param_scheduler[1].milestones, cfg.param_scheduler[1].gamma) == ((2,), 0.1)
    checkpoint = cfg.default_hooks.checkpoint
    assert (checkpoint.interval, checkpoint.by_epoch, checkpoint.max_keep_ckpts) == (100, False, 2)
    assert (checkpoint.out_dir, checkpoint.save_best) == ("/out", "coco/segm_mAP")
    assert cfg.default_hooks.logger.interval == 10
    assert cfg.optim_wrapper.optimizer.lr == 2e-4
    assert cfg.optim_wrapper.clip_grad.max_norm == 0.5
    assert cfg.optim_wrapper.paramwise_cfg.custom_keys["backbone"].lr_mult == 0.1
    assert cfg.auto_scale_lr.enable
    assert (cfg.load_from, cfg.work_dir) == ("w.pth", "runs/a")
    assert cfg.model.rpn_head.num_proposals == 7
    assert cfg.model.backbone.init_cfg is None


def test_overrides_and_options_over_a_loaded_config():
    cfg = load_queryinst_config("queryinst_shapes", model={"rpn_head": {"num_proposals": 9}})
    again = load_queryinst_config(cfg, options=["model.num_classes=3"])
    assert again.model.rpn_head.num_proposals == 9
    assert again.model.num_classes == 3
    assert again.model.neck == cfg.model.neck
    assert again.name == "queryinst_shapes"


@pytest.mark.parametrize("name", [CROP, "queryinst_shapes"])
def test_the_resolved_config_reads_back(name, tmp_path):
    cfg = load_queryinst_config(name)
    save_config(cfg, tmp_path / "config.yaml")
    assert load_queryinst_config(tmp_path / "config.yaml") == cfg
    assert load_config(QueryInstConfig, tmp_path / "config.yaml") == cfg


@pytest.mark.parametrize("option, message", [
    ("optim_wrapper.optimizer.lrr=1", "Did you mean optim_wrapper.optimizer.lr?"),
    ("train_dataloader.batch_size=0", "batch_size wants a number of at least 1, got 0"),
    ("model.neck.out_channels=100", "multiple of"),
    ("model.roi_head.stage_loss_weights=[1,1]", "wants 6 numbers"),
    ("train_dataloader.dataset.pipeline.2.keep_ratio=7", "keep_ratio wants true or false, got 7"),
    ("train_dataloader.dataset.pipeline.2.type=RandomFlip", "pipeline[2].prob is missing"),
    ("train_dataloader.dataset.pipeline=[{type: PackDetInputs}]", "once each"),
    ("param_scheduler.0.end=None", "end is missing, LinearLR needs it"),
    ("model.test_cfg.rcnn.mask_thr_binary=1.5", "wants a number above 0 and below 1, got 1.5"),
    ("default_hooks.checkpoint.interval=0", "interval wants -1 or a number above 0"),
])
def test_faults(option, message):
    with pytest.raises(InputError) as caught:
        load_queryinst_config(ONE_X, options=[option])
    assert any(message in fault for fault in caught.value.faults)
    assert all(option.partition(".")[0] in fault for fault in caught.value.faults)


def test_unknown_names(tmp_path):
    with pytest.raises(InputError, match="Did you mean queryinst_r50_fpn_1x_coco"):
        load_queryinst_config("queryinst_r50_fpn_1x_cocco")
    missing = tmp_path / "queryinst_r50_fpn_1x_cocco.py"
    with pytest.raises(InputError, match="no such file, and none of our recipes"):
        load_queryinst_config(str(missing))


def test_a_dump_with_the_keys_of_every_kind_of_step_and_schedule(tmp_path):
    """As config.yaml files of former versions are."""
    step = "with_bbox: null, with_mask: null, scale: null, prob: null, transforms: null"
    path = tmp_path / "config.yaml"
    path.write_text(f"""
train_dataloader:
  dataset:
    pipeline:
    - {{type: LoadImageFromFile, {step}}}
    - {{type: LoadAnnotations, with_bbox: true, with_mask: true, scale: null, crop_size: null}}
    - {{type: Resize, with_bbox: null, scale: [1333, 800], keep_ratio: true, crop_type: null}}
    - {{type: RandomFlip, with_mask: null, scales: null, prob: 0.5}}
    - {{type: PackDetInputs, {step}}}
param_scheduler:
- {{type: LinearLR, start_factor: 0.001, by_epoch: false, begin: 0, end: 1000, milestones: [],
   gamma: 0.1}}
- {{type: MultiStepLR, start_factor: 0.001, by_epoch: null, begin: 0, end: null,
   milestones: [8, 11], gamma: 0.1}}
""")
    cfg, recipe = load_queryinst_config(path), load_queryinst_config("queryinst_r50_fpn_1x_coco")
    assert cfg.train_dataloader.dataset.pipeline == recipe.train_dataloader.dataset.pipeline
    warmup, steps = cfg.param_scheduler
    assert warmup == recipe.param_scheduler[0]
    assert (steps.milestones, steps.gamma, steps.in_epochs) == ((8, 11), 0.1, True)


@pytest.mark.parametrize("text, words", [
    ("train_dataloader: {dataset: {pipeline: [{type: PackDetInputs, scale: [3, 4]}]}}", "scale"),
    ("param_scheduler: [{type: LinearLR, end: 9, gamma: 0.2}]", "gamma is no key of LinearLR"),
])
def test_keys_of_another_kind_that_say_something_are_faults(tmp_path, text, words):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=words):
        load_queryinst_config(path)
