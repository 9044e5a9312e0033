"""What a config may not say: one line each, which names the key, its value and what is wanted."""

import pytest

from models.queryinst import load_queryinst_config
from models.yolact import load_yolact_config
from runtime.errors import InputError
from settings.resnest import load_resnest_config
from settings.segmentation import load_seg_config

LOADERS = {
    "yolact": lambda options: load_yolact_config("yolact_base", options=options),
    "seg": lambda options: load_seg_config("shapes", options),
    "resnest": lambda options: load_resnest_config("shapes", options),
    "queryinst": lambda options: load_queryinst_config("queryinst_shapes", options=options),
}
TOO_LARGE = 2**63

CASES = [
    # numbers that no training computes with
    ("yolact", "lr=inf", "lr wants a number, got inf"),
    ("yolact", "lr=nan", "lr wants a number, got nan"),
    ("yolact", "lr=1e999", "lr wants a number, got 1e999"),
    ("yolact", f"max_iter={TOO_LARGE}", "max_iter wants an integer that 64 bits hold"),
    ("seg", "TRAIN.lr_encoder=.inf", "TRAIN.lr_encoder wants a number, got .inf"),
    ("seg", "TRAIN.weight_decay=-.inf", "TRAIN.weight_decay wants a number, got -.inf"),
    ("resnest", "OPTIMIZER.LR=inf", "OPTIMIZER.LR wants a number, got inf"),
    ("queryinst", "optim_wrapper.optimizer.lr=inf", "lr wants a number, got inf"),
    # train_yolact
    ("yolact", "lr=-1", "lr -1.0: must not be negative"),
    ("yolact", "decay=-1", "decay -1.0: must not be negative"),
    ("yolact", "gamma=-1", "gamma -1.0: must not be negative"),
    ("yolact", "lr_warmup_init=-1", "lr_warmup_init -1.0: must not be negative"),
    ("yolact", "lr_warmup_until=-1", "lr_warmup_until -1: must not be negative"),
    ("yolact", "conf_alpha=-1", "conf_alpha -1.0: must not be negative"),
    ("yolact", "ohem_negpos_ratio=-1", "ohem_negpos_ratio -1: must not be negative"),
    ("yolact", "lr_steps=[-5,3]", "lr_steps [-5, 3]: wants iterations from 0"),
    ("yolact", "max_iter=0", "max_iter 0: must be at least 1"),
    ("yolact", "mask_proto_src=-1", "mask_proto_src -1: there are 5 levels, from 0"),
    ("yolact", "extra_layers=[-1,0,0]", "extra_layers [-1, 0, 0]: wants numbers from 0"),
    ("yolact", "mask_proto_net=[]", "mask_proto_net is empty"),
    ("yolact", "mask_proto_net=[[cat,3,{}]]", "wants a list of nets and no options"),
    ("yolact", "mask_proto_net=[[8,3,{paddin: 1}]]", "has no option paddin. Did you mean padding?"),
    ("yolact", "mask_proto_net=[[8,3,{padding: x}]]", "padding x wants an integer from 0"),
    ("yolact", "mask_proto_net=[[0,3,{}]]", "wants a number of channels"),
    ("yolact", "head_layer_params={kernel_size: 0}",
     "head_layer_params kernel_size 0 wants an integer from 1"),
    ("yolact", "name=a/b", "name 'a/b': files are named so; wants a name without slashes"),
    ("yolact", "name=..", "name '..': files are named so"),
    ("yolact", "fpn.num_features=0", "fpn.num_features 0: must be at least 1"),
    ("yolact", "fpn.num_downsample=-1", "fpn.num_downsample -1: wants a number from 0 to 8"),
    ("yolact", "backbone.selected_layers=[1,2,1000]",
     "backbone.selected_layers [1, 2, 1000]: this backbone has 4 stages"),
    ("yolact", "backbone.pred_scales=[[],[1],[1],[1],[1]]",
     "backbone.pred_scales []: wants numbers"),
    ("yolact", "backbone.pred_aspect_ratios=[[[0]],[[1]],[[1]],[[1]],[[1]]]",
     "backbone.pred_aspect_ratios [[0.0]]: wants numbers above 0"),
    ("yolact", "backbone.args.dcn_layers=[-1]", "backbone.args.dcn_layers [-1]: wants numbers"),
    ("yolact", "dataset.label_map={1: 0}", "dataset.label_map wants numbers from 1"),
    ("yolact", "delayed_settings=[[5,{lr: x}]]",
     "delayed_settings at 5: lr wants a number, got 'x'"),
    ("yolact", "delayed_settings=[[5,{lr: -1}]]",
     "delayed_settings at 5: lr -1.0: must not be negative"),
    ("yolact", "delayed_settings=[[-5,{lr: 1}]]", "delayed_settings at -5: wants an iteration"),
    ("yolact", "delayed_settings=[[5,{delayed_settings: []}]]", "unknown key delayed_settings"),
    # train_seg
    ("seg", "TRAIN.batch_size_per_gpu=-2", "batch_size_per_gpu must be above 0, got -2"),
    ("seg", "TRAIN.num_epoch=0", "num_epoch must be above 0, got 0"),
    ("seg", "TRAIN.beta1=1", "beta1 must be below 1, got 1.0"),
    ("seg", "TRAIN.seed=4294967296", "seed must be below 2^32, got 4294967296"),
    ("seg", "DATASET.imgSizes=[]", "imgSizes must be short sides above 0, got []"),
    ("seg", "DIR=", "DIR is empty"),
    # train_resnest
    ("resnest", "TRAINING.EPOCHS=0", "TRAINING.EPOCHS is 0, wanted 1 or more"),
    ("resnest", "OPTIMIZER.MILESTONES=[5,3]",
     "OPTIMIZER.MILESTONES is (5, 3), wanted epochs from 0"),
    ("resnest", "OPTIMIZER.MILESTONES=[-5]", "OPTIMIZER.MILESTONES is (-5,), wanted epochs from 0"),
    ("resnest", "OPTIMIZER.LR_STEP=-1", "OPTIMIZER.LR_STEP is -1, wanted 1 or more"),
    ("resnest", "DATA.MIN_CROP_AREA=0", "DATA.MIN_CROP_AREA is 0.0, wanted in (0, 1]"),
    # train_queryinst
    ("queryinst", "train_cfg.max_epochs=0", "max_epochs must be at least 1, got 0"),
    ("queryinst", "train_cfg.val_begin=0", "val_begin must be at least 1, got 0"),
    ("queryinst", "optim_wrapper.optimizer.lr=-1", "lr must not be negative, got -1.0"),
    ("queryinst", "model.roi_head.bbox_head.dynamic_channels=0",
     "dynamic_channels must be at least 1, got 0"),
    ("queryinst", "param_scheduler.1.milestones=[-3,2]",
     "milestones must ascend, from 1, got (-3, 2)"),
    ("queryinst", "name=a/b", "name wants to be the name of a folder, without slashes, got a/b"),
    ("queryinst", "optim_wrapper.paramwise_cfg.custom_keys={backbone: {lr_mult: -1}}",
     "lr_mult must not be negative, got -1.0"),
    ("queryinst", "train_dataloader.dataset.filter_cfg.min_size=-1",
     "min_size -1 must not be negative"),
    ("queryinst", "val_dataloader.dataset.pipeline.1={_delete_: true, type: RandomFlip, prob: 0.5}",
     "val_dataloader.dataset.pipeline may resize, but it draws by RandomFlip"),
]


@pytest.mark.parametrize("family, option, words", CASES)
def test_one_line_names_key_value_and_what_is_wanted(family, option, words):
    with pytest.raises(InputError) as caught:
        LOADERS[family]([option])
    assert len(caught.value.faults) == 1
    assert words in caught.value.faults[0]


@pytest.mark.parametrize("family, option", [
    ("yolact", "delayed_settings=[[5, {lr: 1e-5, bbox_alpha: 15}]]"),
    ("yolact", "mask_proto_net=[[8, 3, {padding: 1}], [8, -2, {stride: 2}], [8, 1, {}]]"),
    ("yolact", "lr_steps=[]"), ("yolact", "name=my run 2"), ("seg", "TRAIN.lr_encoder=0"),
    ("resnest", "OPTIMIZER.MILESTONES=[30,60]"), ("queryinst", "param_scheduler.1.milestones=[]"),
])
def test_what_is_allowed_stays_so(family, option):
    assert LOADERS[family]([option]) is not None


def test_a_fault_is_placed_where_its_key_stands(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("_base_: base.yaml\nTRAIN:\n  num_epoch: 2\n  beta1: 1.5\n")
    (tmp_path / "base.yaml").write_text("DATASET: {num_class: 3}\n")
    with pytest.raises(InputError) as caught:
        load_seg_config(path)
    assert caught.value.faults == [f"{path}:4: TRAIN: beta1 must be below 1, got 1.5"]


@pytest.mark.parametrize("option, hint", [
    ("TRAIN.epochs=3", "Did you mean TRAIN.num_epoch?"),
    ("epochs=3", "Did you mean TRAIN.num_epoch?"),
    ("lr=3", "Did you mean TRAIN.lr_encoder?"),
    ("train.num_epoch=3", "Did you mean TRAIN?"),
    ("TRAIN.num_class=3", "Did you mean DATASET.num_class?"),
    ("TRAIN.num_clas=3", "Did you mean DATASET.num_class?"),
    ("TRAIN.frobnicate=3", "unknown key TRAIN.frobnicate."),
    ("MODEL.arch_encoder=resnt50", "Did you mean resnet50?"),
    ("TRAIN.bn_average=plian", "Did you mean plain?"),
])
def test_hints_about_keys_and_values(option, hint):
    with pytest.raises(InputError) as caught:
        load_seg_config("shapes", [option])
    assert hint in caught.value.faults[0]
    assert ("Did you mean" in hint) == ("Did you mean" in caught.value.faults[0])


@pytest.mark.parametrize("load, name, near", [
    (load_yolact_config, "yolact_bse", "yolact_base"),
    (load_yolact_config, "yolact_resnet5O_config", "yolact_resnet50"),
    (load_queryinst_config, "queryinst_shape", "queryinst_shapes"),
    (load_seg_config, "ade20k-resnet50-uppernet", "ade20k-resnet50-upernet"),
    (load_resnest_config, "resnest5", "resnest50.yaml"),
])
def test_misspelt_recipes(load, name, near):
    with pytest.raises(InputError, match=f"Did you mean {near}?"):
        load(name)


@pytest.mark.parametrize("load", [load_yolact_config, load_seg_config, load_resnest_config,
                                  load_queryinst_config])
@pytest.mark.parametrize(
    "name", ["x" * 5000, "x" * 5000 + ".yaml", "x\0y.yaml", "x" * 300 + "/y.py"])
def test_names_that_no_file_can_have(load, name):
    with pytest.raises(InputError) as caught:
        load(name)
    assert len(caught.value.faults) == 1


@pytest.mark.parametrize("expression", [
    "yolact_base_config.copy({[]: 1})",
    "yolact_base_config.copy({'max_iter': 0x" + "f" * 9000 + "})",
    "yolact_base" + ".copy({})" * 3000,
    "-" * 50_000 + "1",
    "yolact_base.copy({'a': " + "not " * 3000 + "x})",
    "yolact_base.copy({'x': " + "[" * 150 + "]" * 150 + "})",
])
def test_hostile_expressions(expression):
    with pytest.raises(InputError) as caught:
        load_yolact_config(expression)
    assert len(caught.value.faults) == 1
