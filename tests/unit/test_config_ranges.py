"""What a config may not say: one line each, which names the key, its value and what is wanted."""

import dataclasses
import typing

import pytest
import yaml
from script_flags import SCHEMAS

from models.queryinst import load_queryinst_config
from models.yolact import load_yolact_config
from runtime.errors import InputError
from settings.loading import load_config
from settings.ranges import Count, Range, Section
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
    ("yolact", "lr=-1", "lr wants a number of at least 0, got -1"),
    ("yolact", "decay=-1", "decay wants a number of at least 0, got -1"),
    ("yolact", "gamma=-1", "gamma wants a number of at least 0, got -1"),
    ("yolact", "lr_warmup_init=-1", "lr_warmup_init wants a number of at least 0, got -1"),
    ("yolact", "lr_warmup_until=-1", "lr_warmup_until wants a number of at least 0, got -1"),
    ("yolact", "conf_alpha=-1", "conf_alpha wants a number of at least 0, got -1"),
    ("yolact", "ohem_negpos_ratio=-1", "ohem_negpos_ratio wants a number of at least 0, got -1"),
    ("yolact", "lr_steps=[-5,3]", "lr_steps[0] wants a number of at least 0, got -5"),
    ("yolact", "max_iter=0", "max_iter wants a number of at least 1, got 0"),
    ("yolact", "mask_proto_src=-1", "mask_proto_src wants a level from 0 to 4, got -1"),
    ("yolact", "extra_layers=[-1,0,0]", "extra_layers[0] wants a number of at least 0, got -1"),
    ("yolact", "mask_proto_net=[]",
     "mask_proto_net wants the layers that make the prototypes, got []"),
    ("yolact", "mask_proto_net=[[cat,3,{}]]", "wants a list of nets and no options"),
    ("yolact", "mask_proto_net=[[8,3,{paddin: 1}]]", "has no option paddin. Did you mean padding?"),
    ("yolact", "mask_proto_net=[[8,3,{padding: x}]]", "padding wants an integer from 0, got x"),
    ("yolact", "mask_proto_net=[[0,3,{}]]", "wants a number of channels"),
    ("yolact", "head_layer_params={kernel_size: 0}",
     "head_layer_params kernel_size wants an integer from 1, got 0"),
    ("yolact", "name=a/b", "name wants the name of a folder, without slashes, got a/b"),
    ("yolact", "name=..", "name wants the name of a folder, without slashes, got .."),
    ("yolact", "fpn.num_features=0", "fpn.num_features wants a number of at least 1, got 0"),
    ("yolact", "fpn.num_downsample=-1", "fpn.num_downsample wants a number from 0 to 8, got -1"),
    ("yolact", "backbone.selected_layers=[1,2,1000]",
     "stages up to 12, got [1, 2, 1000]: this backbone has 4 stages"),
    ("yolact", "backbone.pred_scales=[[],[1],[1],[1],[1]]",
     "backbone.pred_scales[0] wants at least one, got []"),
    ("yolact", "backbone.pred_aspect_ratios=[[[0]],[[1]],[[1]],[[1]],[[1]]]",
     "backbone.pred_aspect_ratios[0][0][0] wants a number above 0, got 0"),
    ("yolact", "backbone.args.dcn_layers=[-1]",
     "backbone.args.dcn_layers[0] wants a number of at least 0, got -1"),
    ("yolact", "dataset.label_map={1: 0}",
     "dataset.label_map.1 wants a number of at least 1, got 0"),
    ("yolact", "delayed_settings=[[5,{lr: x}]]",
     "delayed_settings at 5: lr wants a number, got 'x'"),
    ("yolact", "delayed_settings=[[5,{lr: -1}]]",
     "delayed_settings at 5: lr wants a number of at least 0, got -1"),
    ("yolact", "delayed_settings=[[-5,{lr: 1}]]", "delayed_settings at -5: wants an iteration"),
    ("yolact", "delayed_settings=[[5,{delayed_settings: []}]]", "unknown key delayed_settings"),
    # train_seg
    ("seg", "TRAIN.batch_size_per_gpu=-2", "wants a number of at least 1, got -2"),
    ("seg", "TRAIN.num_epoch=0", "num_epoch wants a number of at least 1, got 0"),
    ("seg", "TRAIN.beta1=1", "beta1 wants a number of at least 0 and below 1, got 1"),
    ("seg", "TRAIN.seed=4294967296", "seed wants a number from 0 to 4294967295, got"),
    ("seg", "DATASET.imgSizes=[]", "imgSizes wants short sides above 0, got []"),
    ("seg", "DIR=", "DIR wants the folder that the run writes to, got ''"),
    # train_resnest
    ("resnest", "TRAINING.EPOCHS=0", "TRAINING.EPOCHS wants a number of at least 1, got 0"),
    ("resnest", "OPTIMIZER.MILESTONES=[5,3]",
     "OPTIMIZER.MILESTONES wants an ascending order, got [5, 3]"),
    ("resnest", "OPTIMIZER.MILESTONES=[-5]",
     "OPTIMIZER.MILESTONES[0] wants a number of at least 0, got -5"),
    ("resnest", "OPTIMIZER.LR_STEP=-1", "OPTIMIZER.LR_STEP wants a number of at least 0, got -1"),
    ("resnest", "DATA.MIN_CROP_AREA=0",
     "DATA.MIN_CROP_AREA wants a number above 0 and of at most 1, got 0"),
    # train_queryinst
    ("queryinst", "train_cfg.max_epochs=0", "max_epochs wants a number of at least 1, got 0"),
    ("queryinst", "train_cfg.val_begin=0", "val_begin wants a number of at least 1, got 0"),
    ("queryinst", "optim_wrapper.optimizer.lr=-1", "lr wants a number of at least 0, got -1"),
    ("queryinst", "model.roi_head.bbox_head.dynamic_channels=0",
     "dynamic_channels wants a number of at least 1, got 0"),
    ("queryinst", "param_scheduler.1.milestones=[-3,2]",
     "milestones[0] wants a number of at least 1, got -3"),
    ("queryinst", "name=a/b", "name wants the name of a folder, without slashes, got a/b"),
    ("queryinst", "optim_wrapper.paramwise_cfg.custom_keys={backbone: {lr_mult: -1}}",
     "lr_mult wants a number of at least 0, got -1"),
    ("queryinst", "train_dataloader.dataset.filter_cfg.min_size=-1",
     "min_size wants a number of at least 0, got -1"),
    ("queryinst", "val_dataloader.dataset.pipeline.1={_delete_: true, type: RandomFlip, prob: 0.5}",
     "val_dataloader.dataset.pipeline may resize, but it draws by RandomFlip"),
]



def each(keys, *values):
    """One refused value after the other: KEY=VALUE for each key and each value."""
    return [f"{key}={value}" for key in keys.split() for value in values]


# Every value that a schema refuses, at each of its limits. `a=1; b=2`: together only.
REFUSED = {
    "yolact": [
        *each("positive_iou_threshold negative_iou_threshold crowd_iou_threshold nms_conf_thresh "
              "nms_thresh momentum", -0.1, 1.1),
        *each("max_iter max_size nms_top_k max_num_detections masks_to_train mask_size "
              "num_instance_coeffs", 0),
        *each("lr decay gamma lr_warmup_init lr_warmup_until conf_alpha bbox_alpha mask_alpha "
              "semantic_segmentation_alpha maskiou_alpha ohem_negpos_ratio mask_proto_crop_expand "
              "discard_box_width discard_box_height", -1),
        *each("train_masks train_boxes mask_proto_crop mask_proto_binarize_downsampled_gt "
              "eval_mask_branch", "false"),
        *each("preserve_aspect_ratio use_class_existence_loss mask_proto_coeff_diversity_loss "
              "use_focal_loss use_sigmoid_focal_loss use_objectness_score use_class_balanced_conf "
              "ohem_use_most_confident use_change_matching use_prediction_matching "
              "use_yolo_regressors mask_proto_bias mask_proto_normalize_mask_loss_by_sqrt_area "
              "mask_proto_reweight_mask_loss mask_proto_use_grid mask_proto_coeff_gate "
              "mask_proto_prototypes_as_features mask_proto_prototypes_as_features_no_grad "
              "mask_proto_remove_empty_masks mask_proto_double_loss "
              "mask_proto_split_prototypes_by_head mask_proto_crop_with_pred_box use_gt_bboxes "
              "use_prediction_module use_mask_scoring use_instance_coeff augment_random_flip "
              "augment_random_rot90", "true"),
        "mask_proto_loss=l1", "mask_proto_mask_activation=tanh", "maskious_to_train=5",
        *each("name", "a/b", "..", ".", "''"), "extra_layers=[0, -1, 0]", "num_classes=1",
        "positive_iou_threshold=0.3; negative_iou_threshold=0.4", "lr_steps=[5, 3]",
        "lr_steps=[-5, 3]", "head_layer_params={stride: 0}", "head_layer_params={stridee: 1}",
        *each("mask_proto_net maskiou_net extra_head_net", "[[8, 3]]", "[[8, 0, {}]]",
              "[[0, 3, {}]]", "[[null, 3, {}]]", "[[null, -2, {stride: 1}]]", "[[cat, [], {}]]",
              "[[cat, [[[8, 0, {}]]], {}]]", "[[8, 3, {output_padding: 1}]]",
              "[[8, 3, {bias: 1}]]", "[[8, -2, {output_padding: -1}]]"),
        "mask_proto_net=[]", "mask_dim=8", "use_maskiou=true", "mask_type=direct", "fpn=null",
        *each("mask_proto_src", "null", -1, 5),
        "dataset.class_names=[a, a]; num_classes=3", "dataset.label_map={1: 0}",
        *each("backbone.args.layers", "[3, 4, 0, 3]", "[]"), *each("backbone.args.width", 0),
        "backbone.args.dcn_interval=0", "backbone.args.dcn_layers=[-1]",
        "backbone.args.norm=group; backbone.args.width=48",
        "backbone.args.dcn_layers=[0, 1, 1, 1, 1]",
        "backbone.args.block=basic; backbone.args.dcn_layers=[0, 1]",
        *each("backbone.selected_layers", "[]", "[3, 2, 1]", "[1, 1, 2]", "[-1, 1, 2]",
              "[1, 2, 13]", "[1, 2]"),
        *each("backbone.pred_scales", "[[], [1], [1], [1], [1]]", "[[0], [1], [1], [1], [1]]",
              "[[1]]"),
        "share_prediction_module=true; backbone.pred_scales=[[1], [1, 2], [1], [1], [1]]",
        *each("backbone.pred_aspect_ratios", "[[], [[1]], [[1]], [[1]], [[1]]]",
              "[[[]], [[1]], [[1]], [[1]], [[1]]]", "[[[-1]], [[1]], [[1]], [[1]], [[1]]]",
              "[[[1]]]"),
        "fpn.num_features=0", *each("fpn.num_downsample", -1, 9),
        *each("delayed_settings", "[5]", "[[5, {lrr: 1}]]", "[[5, {lr: -1}]]", "[[-5, {lr: 1}]]",
              "[[5, {mask_proto_src: 9}]]", "[[5, {use_focal_loss: true}]]"),
    ],
    "seg": [
        *each("DATASET.num_class", 0, 256), *each("DATASET.imgSizes", "[]", "[0, 5]", 0),
        *each("DATASET.imgMaxSize DATASET.padding_constant DATASET.segm_downsampling_rate", 0),
        "DATASET.padding_constant=9", "DATASET.segm_downsampling_rate=16",
        "DATASET.class_names=[a, b]", *each("MODEL.bn_momentum", 0, 1.1, -1),
        "MODEL.arch_encoder=vgg", "MODEL.arch_decoder=c2", "MODEL.fc_dim=7",
        "MODEL.arch_decoder=upernet; DATASET.segm_downsampling_rate=4",
        "MODEL.arch_encoder=hrnetv2; MODEL.fc_dim=720; MODEL.arch_decoder=c1_deepsup; "
        "DATASET.segm_downsampling_rate=4",
        *each("TRAIN.batch_size_per_gpu TRAIN.num_epoch TRAIN.epoch_iters TRAIN.disp_iter", 0),
        *each("TRAIN.start_epoch TRAIN.workers TRAIN.seed TRAIN.lr_encoder TRAIN.lr_decoder "
              "TRAIN.lr_pow TRAIN.beta1 TRAIN.weight_decay TRAIN.deep_sup_scale", -1),
        f"TRAIN.seed={2**32}", "TRAIN.beta1=1", "TRAIN.optim=Adam", "TRAIN.start_epoch=10000",
        *each("VAL.batch_size TEST.batch_size", 0), "VAL.interval=-1", "DIR=",
    ],
    "resnest": [
        "DATA.DATASET=CIFAR", "DATA.CROP_SIZE=15",
        *each("DATA.LABEL_SMOOTHING DATA.RANDOM_ERASING", -0.1, 1.1),
        *each("DATA.CENTER_MARGIN DATA.MIXUP DATA.CUTMIX", -1),
        *each("DATA.MIN_CROP_AREA", 0, 1.1), "DATA.RANDOM_ERASING=0.5; DATA.AUGMENT=original",
        "MODEL.NAME=vgg", *each("MODEL.FINAL_DROP", -0.1, 1, "true"),
        "TRAINING.BATCH_SIZE=1", *each("TRAINING.TEST_BATCH_SIZE TRAINING.EPOCHS", 0),
        *each("TRAINING.START_EPOCHS", -1, 1000), "TRAINING.EVAL_EVERY=0",
        *each("TRAINING.WORKERS TRAINING.THREADS", -1),
        *each("OPTIMIZER.LR OPTIMIZER.WEIGHT_DECAY OPTIMIZER.WARMUP_EPOCHS OPTIMIZER.GAMMA "
              "OPTIMIZER.LR_STEP", -1),
        *each("OPTIMIZER.MOMENTUM", -0.1, 1), "OPTIMIZER.LR_SCHEDULER=step",
        "OPTIMIZER.LR_SCHEDULER=step; OPTIMIZER.LR_STEP=0", "OPTIMIZER.LR_SCHEDULER=multistep",
        "OPTIMIZER.LR_SCHEDULER=multistep; OPTIMIZER.MILESTONES=[]",
        *each("OPTIMIZER.MILESTONES", "[5, 3]", "[-1]"), "OPTIMIZER.WARMUP_EPOCHS=1000",
        *each("SEED", -1, 2**32),
    ],
    "queryinst": [
        "model.data_preprocessor.std=[1, 0, 1]", "model.data_preprocessor.pad_size_divisor=0",
        *each("model.backbone.base_channels model.neck.out_channels model.rpn_head.num_proposals "
              "model.roi_head.num_stages model.roi_head.bbox_head.num_heads "
              "model.roi_head.bbox_head.feedforward_channels "
              "model.roi_head.bbox_head.dynamic_channels model.test_cfg.rcnn.max_per_img "
              "model.num_classes", 0),
        *each("model.backbone.frozen_stages", -2, 5),
        *each("model.roi_head.bbox_head.num_cls_fcs model.roi_head.bbox_head.num_reg_fcs "
              "model.roi_head.mask_head.num_convs model.roi_head.mask_head.loss_mask.loss_weight "
              "model.roi_head.bbox_head.loss_cls.loss_weight "
              "model.roi_head.bbox_head.loss_bbox.loss_weight "
              "model.roi_head.bbox_head.loss_iou.loss_weight", -1),
        *each("model.roi_head.stage_loss_weights", "[]", "[1]", "[-1, 1, 1, 1, 1, 1]"),
        *each("model.test_cfg.rcnn.mask_thr_binary", 0, 1), "model.neck.out_channels=37",
        *each("optim_wrapper.optimizer.lr optim_wrapper.optimizer.weight_decay", -1),
        *each("optim_wrapper.optimizer.betas", "[-0.1, 0.9]", "[0.9, 1.0]"),
        *each("optim_wrapper.paramwise_cfg.custom_keys.backbone.lr_mult "
              "optim_wrapper.paramwise_cfg.custom_keys.backbone.decay_mult", -1),
        "optim_wrapper.clip_grad.max_norm=0", "optim_wrapper.accumulative_counts=0",
        *each("param_scheduler.0.start_factor", 0, 1.1), "param_scheduler.0.begin=-1",
        *each("param_scheduler.0.end", "null", 0),
        *each("param_scheduler.1.milestones", "[5, 3]", "[0, 3]"), "param_scheduler.1.gamma=0",
        *each("train_cfg.max_epochs train_cfg.val_interval train_cfg.val_begin "
              "default_hooks.logger.interval log_processor.window_size "
              "auto_scale_lr.base_batch_size", 0),
        *each("default_hooks.checkpoint.interval default_hooks.checkpoint.max_keep_ckpts", 0, -2),
        *each("randomness.seed", -1, 2**32), *each("name", "a/b", "..", ".", "''"),
        "param_scheduler.1.type=LinearLR; param_scheduler.1.end=5",
        "val_dataloader.dataset.pipeline.1={_delete_: true, type: RandomFlip, prob: 0.5}",
        *each("train_dataloader.batch_size val_dataloader.batch_size", 0),
        *each("train_dataloader.num_workers train_dataloader.dataset.filter_cfg.min_size", -1),
        "train_dataloader.dataset.metainfo.classes=[a, a]",
        "train_dataloader.dataset.pipeline=[{type: LoadImageFromFile}, {type: PackDetInputs}]",
        *each("val_evaluator.metric", "[]", "[bbox, bbox]"),
        *each("train_dataloader.dataset.pipeline.2", *(f"{{_delete_: true, {step}}}" for step in (
            "type: Resize", "type: Resize, scale: [0, 5]", "type: RandomFlip, prob: 1.1",
            "type: RandomFlip, prob: -0.1", "type: RandomFlip, prob: 0.5, keep_ratio: true",
            "type: Resize, scale: [5, 5], keep_ratio: 2", "type: RandomChoiceResize",
            "type: RandomChoiceResize, scales: []", "type: RandomChoiceResize, scales: [[5, 0]]",
            "type: RandomChoice, transforms: []",
            "type: RandomChoice, transforms: [[{type: PackDetInputs}]]",
            "type: RandomCrop, crop_size: [0, 3], allow_negative_crop: true",
            "type: RandomCrop, crop_size: [5, 3], crop_type: absolute_range, "
            "allow_negative_crop: true",
            "type: RandomCrop, crop_size: [3, 5], allow_negative_crop: false",
            "type: LoadAnnotations, with_bbox: false", "type: LoadAnnotations, with_mask: false",
        ))),
    ],
}
ALL_REFUSED = [(family, line) for family, lines in REFUSED.items() for line in lines]


@pytest.mark.parametrize("family, line", ALL_REFUSED)
def test_refused(family, line):
    options = line.split("; ")
    with pytest.raises(InputError) as caught:
        LOADERS[family](options)
    keys = [part for option in options for part in option.partition("=")[0].split(".")]
    for fault in caught.value.faults:
        for option in options:
            fault = fault.replace(f"--cfg-options {option}: ", "")
        assert any(key in fault for key in keys), fault


def changed(section, parts, value):
    """`section` with the value of one dotted key replaced, as the scripts do it."""
    if not parts:
        return value
    if isinstance(section, tuple):
        i = int(parts[0])
        return (*section[:i], changed(section[i], parts[1:], value), *section[i + 1:])
    if isinstance(section, dict):
        return {**section, parts[0]: changed(section[parts[0]], parts[1:], value)}
    child = changed(getattr(section, parts[0]), parts[1:], value)
    return dataclasses.replace(section, **{parts[0]: child})


def as_tuples(value):
    if isinstance(value, dict):
        return {key: as_tuples(item) for key, item in value.items()}
    return tuple(map(as_tuples, value)) if isinstance(value, list) else value


@pytest.mark.parametrize("family, line", [
    (family, line) for family, line in ALL_REFUSED if "; " not in line and "_delete_" not in line
    and "pipeline=" not in line])
def test_refused_in_python_too(family, line):
    key, _, text = line.partition("=")
    value = as_tuples(yaml.safe_load(text or "''"))
    config = LOADERS[family]([])
    with pytest.raises(InputError) as caught:
        changed(config, key.split("."), value)
    fault = caught.value.faults[0]
    assert any(part in fault for part in key.split("."))


def test_marks_stand_where_they_are_asked():
    """Inside a union of several types a mark would count for files only."""
    def unions(hint):
        args = typing.get_args(hint)
        members = [arg for arg in args if arg is not type(None)]
        if typing.get_origin(hint) in (typing.Union, type(int | str)) and len(members) > 1:
            yield hint
        for arg in args:
            yield from unions(arg)

    def schemas(schema):
        yield schema
        for hint in typing.get_type_hints(schema).values():
            for part in (hint, *typing.get_args(hint)):
                if dataclasses.is_dataclass(part) and part is not schema:
                    yield from schemas(part)

    for top in SCHEMAS.values():
        for schema in schemas(top):
            assert issubclass(schema, Section)
            for hint in typing.get_type_hints(schema, include_extras=True).values():
                assert not any("Range(" in repr(u) or "Rule(" in repr(u) for u in unions(hint))


def test_every_range_of_a_file_is_told_in_one_go(tmp_path):
    @dataclasses.dataclass(frozen=True)
    class Part(Section):
        sizes: tuple[Count, ...] = (1,)
        rate: typing.Annotated[float, Range(above=0, below=1)] | None = None

    @dataclasses.dataclass(frozen=True)
    class Whole(Section):
        part: Part = Part()
        labels: dict[int, Count] = dataclasses.field(default_factory=dict)
        count: Count = 1

        def misfits(self):
            return ["count wants no part, got 9"] if self.count == 9 else []

    path = tmp_path / "a.yaml"
    path.write_text("part:\n  sizes:\n  - 1\n  - 0\n  rate: 1\nlabels: {7: 0}\ncount: -1\n")
    with pytest.raises(InputError) as caught:
        load_config(Whole, path)
    assert caught.value.faults == [
        f"{path}:4: part.sizes[1] wants a number of at least 1, got 0",
        f"{path}:5: part.rate wants a number above 0 and below 1, got 1",
        f"{path}:6: labels.7 wants a number of at least 1, got 0",
        f"{path}:7: count wants a number of at least 1, got -1",
    ]
    with pytest.raises(InputError, match=r"^sizes\[1\] wants a number of at least 1, got 0$"):
        Part((1, 0))
    with pytest.raises(InputError, match=r"^rate wants a number above 0 and below 1, got nan$"):
        Part(rate=float("nan"))
    with pytest.raises(InputError, match=r"^count wants no part, got 9$"):
        Whole(count=9)
    with pytest.raises(InputError) as caught:
        load_config(Whole, None, ["count=9"])
    assert caught.value.faults == ["--cfg-options count=9: count wants no part, got 9"]


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
    assert caught.value.faults == [f"{path}:4: TRAIN.beta1 wants a number of at least 0 and "
                                   "below 1, got 1.5"]


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
