"""YOLACT configs: the schema, every recipe, names, expressions, faults."""

from dataclasses import fields, replace

import pytest

from models.yolact import load_dataset_config, load_yolact_config
from runtime.errors import InputError
from settings.loading import save_config, to_dict
from settings.yolact import YolactConfig, priors_per_cell

# name -> keys that differ from the parent [yolact.md: Configs]; None: the parent is the root.
RECIPES = {
    "yolact_im400": ("yolact_base", {
        "max_size": 400, "scales": ((17,), (34,), (69,), (139,), (279,))}),
    "yolact_im700": ("yolact_base", {
        "max_size": 700, "masks_to_train": 300, "scales": ((30,), (61,), (122,), (244,), (488,))}),
    "yolact_darknet53": ("yolact_base", {
        "type": "darknet", "layers": (1, 2, 8, 8, 4), "selected": (2, 3, 4)}),
    "yolact_resnet50": ("yolact_base", {"layers": (3, 4, 6, 3)}),
    "yolact_resnet50_pascal": ("yolact_resnet50", {
        "dataset": "Pascal SBD 2012", "num_classes": 21, "max_iter": 120000,
        "lr_steps": (60000, 100000), "scales": ((32,), (64,), (128,), (256,), (512,)),
        "square": False}),
    "yolact_plus_base": ("yolact_base", {
        "dcn": (0, 4, 23, 3), "interval": 3, "square": False, "use_maskiou": True,
        "maskiou_alpha": 25.0, "rescore_mask": True, "discard_mask_area": 25.0,
        "maskiou_net": tuple((c, 3, {"stride": 2}) for c in (8, 16, 32, 64, 128)),
        "scales": tuple(tuple(s * 2 ** (i / 3) for i in range(3)) for s in (24, 48, 96, 192, 384)),
    }),
    "yolact_plus_resnet50": ("yolact_plus_base", {
        "layers": (3, 4, 6, 3), "dcn": (0, 4, 6, 3), "interval": 1}),
}

# Keys for ideas that are not built here: they have one value only.
UNSUPPORTED = (
    "preserve_aspect_ratio", "use_class_existence_loss", "mask_proto_loss",
    "mask_proto_coeff_diversity_loss", "use_focal_loss", "use_sigmoid_focal_loss",
    "use_objectness_score", "use_class_balanced_conf", "ohem_use_most_confident",
    "use_change_matching", "use_prediction_matching", "use_yolo_regressors", "mask_proto_bias",
    "mask_proto_mask_activation", "mask_proto_crop", "mask_proto_binarize_downsampled_gt",
    "mask_proto_normalize_mask_loss_by_sqrt_area", "mask_proto_reweight_mask_loss",
    "mask_proto_use_grid", "mask_proto_coeff_gate", "mask_proto_prototypes_as_features",
    "mask_proto_prototypes_as_features_no_grad", "mask_proto_remove_empty_masks",
    "mask_proto_double_loss", "mask_proto_split_prototypes_by_head",
    "mask_proto_crop_with_pred_box", "use_gt_bboxes", "eval_mask_branch", "train_masks",
    "train_boxes", "use_prediction_module", "use_mask_scoring", "use_instance_coeff",
    "maskious_to_train", "augment_random_flip", "augment_random_rot90",
)


def flat(cfg):
    """The keys that recipes differ in, backbone and dataset keys under short names."""
    values = {k: v for k, v in vars(cfg).items() if k not in ("backbone", "dataset", "name")}
    backbone = cfg.backbone
    return values | {
        "dataset": cfg.dataset.name, "type": backbone.type, "layers": backbone.args.layers,
        "dcn": backbone.args.dcn_layers, "interval": backbone.args.dcn_interval,
        "selected": backbone.selected_layers, "scales": backbone.pred_scales,
        "square": backbone.use_square_anchors,
    }


def faults_of(call, *args, **kwargs):
    with pytest.raises(InputError) as caught:
        call(*args, **kwargs)
    return caught.value.faults


def test_the_root_has_104_keys_with_the_originals_defaults():
    cfg = load_yolact_config("coco_base_config")
    assert len(fields(YolactConfig)) == 104
    assert (cfg.name, cfg.dataset.name, cfg.mask_type) == ("base_config", "COCO 2014", "direct")
    assert cfg.backbone is None
    assert cfg.fpn is None
    assert cfg.mask_alpha == pytest.approx(30.625)
    assert (cfg.max_iter, cfg.lr_steps) == (400000, (280000, 360000, 400000))
    assert cfg.discard_box_width == 4 / 550


def test_yolact_base_is_as_published():
    cfg = load_yolact_config("yolact_base")
    assert (cfg.name, cfg.dataset.name, cfg.num_classes) == ("yolact_base", "COCO 2017", 81)
    assert (cfg.max_size, cfg.max_iter) == (550, 800000)
    assert cfg.lr_steps == (280000, 600000, 700000, 750000)
    assert (cfg.mask_type, cfg.mask_alpha, cfg.mask_proto_src) == ("lincomb", 6.125, 0)
    pad = {"padding": 1}
    assert cfg.mask_proto_net == (*[(256, 3, pad)] * 3, (None, -2, {}), (256, 3, pad), (32, 1, {}))
    assert cfg.extra_head_net == ((256, 3, pad),)
    assert (cfg.positive_iou_threshold, cfg.negative_iou_threshold) == (0.5, 0.4)
    assert cfg.crowd_iou_threshold == 0.7
    assert cfg.fpn.use_conv_downsample
    assert cfg.fpn.num_downsample == 2
    assert cfg.backbone.path == "resnet101_reducedfc.pth"
    assert cfg.backbone.pred_scales == ((24,), (48,), (96,), (192,), (384,))
    assert cfg.backbone.pred_aspect_ratios == (((1.0, 0.5, 2.0),),) * 5
    assert priors_per_cell(cfg) == (3,) * 5


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_differs_from_its_parent_by_exactly_the_specs_keys(name):
    parent, changes = RECIPES[name]
    cfg = load_yolact_config(f"{name}_config")
    assert cfg.name == name
    assert flat(cfg) == flat(load_yolact_config(parent)) | changes


@pytest.mark.parametrize("name", ["yolact_shapes", "yolact_small"])
def test_our_own_recipes_need_no_pretrained_file(name):
    cfg = load_yolact_config(name)
    assert cfg.name == name
    assert cfg.backbone.path is None


def test_coco_ids_run_upwards_over_the_unused_ones():
    for name in ("coco2014_dataset", "coco2017_dataset", "coco2017_testdev_dataset"):
        dataset = load_dataset_config(name)
        unused = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
        assert list(dataset.label_map) == [i for i in range(1, 91) if i not in unused]
        assert list(dataset.label_map.values()) == list(range(1, 81))
        assert (dataset.class_names[0], dataset.class_names[-1]) == ("person", "toothbrush")
    assert not dataset.has_gt
    assert dataset.valid_info.endswith("image_info_test-dev2017.json")


def test_dataset_expression_and_template():
    dataset = load_dataset_config("dataset_base.copy({'name': 'mine', 'class_names': 'dog'})")
    assert (dataset.name, dataset.class_names) == ("mine", ("dog",))
    assert len(load_dataset_config("pascal_sbd_dataset").class_names) == 20
    assert "Did you mean coco2017_dataset?" in faults_of(load_dataset_config, "coco2017")[0]
    assert "not a data set" in faults_of(load_dataset_config, "resnet50_backbone")[0]


def test_copies_chain_and_keep_the_name_of_the_first():
    cfg = load_yolact_config(
        "yolact_base_config.copy({'max_size': 400}).copy({'lr': 1e-4, 'max_size': 300})"
    )
    assert (cfg.name, cfg.max_size, cfg.lr) == ("yolact_base", 300, 1e-4)
    pascal = load_yolact_config("yolact_resnet50_pascal_config.replace({'lr': 1e-4})")
    assert pascal.name == "yolact_resnet50_pascal"


def test_an_expression_may_name_the_originals_objects():
    cfg = load_yolact_config(
        "yolact_base.copy({'backbone': darknet53_backbone.copy({'path': 'mine.pth'}),"
        " 'dataset': pascal_sbd_dataset, 'num_classes': 21, 'mask_type': mask_type.lincomb,"
        " 'mask_proto_prototype_activation': activation_func.sigmoid})"
    )
    assert (cfg.backbone.type, cfg.backbone.path) == ("darknet", "mine.pth")
    assert cfg.backbone.transform.to_float
    assert not cfg.backbone.transform.normalize
    assert cfg.dataset.label_map is None
    assert cfg.mask_proto_prototype_activation == "sigmoid"


def test_a_section_given_in_part_keeps_its_other_keys():
    base = load_yolact_config("yolact_base")
    cfg = load_yolact_config("yolact_base.copy({'backbone': {'path': 'mine.pth'}})")
    assert cfg.backbone == replace(base.backbone, path="mine.pth")
    assert load_yolact_config(base, backbone={"path": "mine.pth"}) == cfg
    assert load_yolact_config("yolact_base", options=["backbone.path=mine.pth"]) == cfg


def test_a_label_map_is_replaced_as_a_whole():
    own = {"class_names": ("a", "b"), "label_map": {3: 1, 7: 2}}
    for cfg in (
        load_yolact_config("yolact_base", num_classes=3, dataset=own),
        load_yolact_config(f"yolact_base.copy({{'num_classes': 3, 'dataset': {own}}})"),
        load_yolact_config(load_yolact_config("yolact_base"), num_classes=3, dataset=own),
    ):
        assert cfg.dataset.label_map == {3: 1, 7: 2}
        coco = load_yolact_config(cfg, options=["dataset=coco2017_dataset", "num_classes=81"])
        assert coco.dataset == load_dataset_config("coco2017_dataset")
        assert cfg.dataset.train_info.endswith("instances_train2017.json")


@pytest.mark.parametrize("text", [
    "yolact_base.copy(__import__('os').system('touch stolen'))",
    "yolact_base.copy({'max_size': open('stolen', 'w')})",
    "yolact_base.copy({'max_size': [1 for _ in ()]})",
    "yolact_base.__class__.copy({})",
    "yolact_base.copy(**{})",
    "yolact_base.print()",
    "(lambda: yolact_base)()",
    "yolact_base; yolact_base",
    "", "3", "'yolact_base'",
])
def test_expressions_are_read_never_run(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len(faults_of(load_yolact_config, text)) == 1
    assert not list(tmp_path.iterdir())


def test_misspelt_names_and_keys_get_a_hint():
    assert faults_of(load_yolact_config, "yolact_bse_config") == [
        "no config named yolact_bse_config. Did you mean yolact_base?"
    ]
    assert faults_of(load_yolact_config, "yolact_base.copy({'maxsize': 400})") == [
        "maxsize=400: unknown key maxsize. Did you mean max_size?"
    ]
    fault = faults_of(load_yolact_config, "yolact_base", options=["backbone.pth=x"])[0]
    assert fault.startswith("--cfg-options backbone.pth=x: unknown key backbone.pth.")
    assert "resnet50_backbone?" in faults_of(
        load_yolact_config, "yolact_base", options=["backbone=resnet50_backbon"])[0]


def test_options_come_last_and_read_numbers():
    cfg = load_yolact_config("yolact_base", max_size=400, options=["max_size=300", "lr=1e-4"])
    assert (cfg.max_size, cfg.lr, cfg.name) == (300, 1e-4, "yolact_base")
    base = load_yolact_config("yolact_base")
    assert replace(cfg, max_size=550, lr=base.lr) == base  # nothing else has moved


def test_yaml_file_takes_its_own_name_and_named_sections(tmp_path):
    path = tmp_path / "mine.yaml"
    base = load_yolact_config("yolact_base")
    recipes = "configs/yolact/yolact_base.yaml"
    root = __file__.rsplit("/tests/", 1)[0]
    path.write_text(
        f"_base_: {root}/{recipes}\ndataset: pascal_sbd_dataset\nnum_classes: 21\n"
        "backbone: resnet50_backbone\nfpn: {num_features: 128}\n"
    )
    cfg = load_yolact_config(path)
    assert (cfg.name, cfg.dataset.name) == ("mine", "Pascal SBD 2012")
    assert cfg.backbone.name == "ResNet50"
    assert cfg.fpn == replace(base.fpn, num_features=128)
    path.write_text("backbone: resnet50_bakcbone\n")
    assert faults_of(load_yolact_config, path) == [
        f"{path}:1: no backbone named resnet50_bakcbone. Did you mean resnet50_backbone?"
    ]


def test_missing_yaml_file(tmp_path):
    assert "no such config file" in faults_of(load_yolact_config, tmp_path / "none.yaml")[0]


@pytest.mark.parametrize("name", ["coco_base", "yolact_plus_resnet50", "yolact_shapes"])
def test_saved_config_reads_back_equal(name, tmp_path):
    cfg = load_yolact_config(name)
    save_config(cfg, tmp_path / "config.yaml")
    assert load_yolact_config(tmp_path / "config.yaml") == cfg


def test_unsupported_keys_are_named():
    base = load_yolact_config("yolact_base")
    for key in UNSUPPORTED:
        default = vars(YolactConfig())[key]
        other = {bool: not default, str: "none", type(None): "l1", int: 5}[type(default)]
        faults = faults_of(replace, base, **{key: other})
        assert any(fault.startswith(f"{key} wants ") and "not supported here" in fault
                   for fault in faults)


def test_direct_masks_are_refused_with_a_backbone_only():
    faults = faults_of(load_yolact_config, "yolact_base", mask_type=0)
    assert any("mask_type wants lincomb, got direct" in fault for fault in faults)
    assert load_yolact_config("coco_base", mask_type=0).mask_type == "direct"


def test_class_count_must_be_the_data_sets():
    fault = faults_of(load_yolact_config, "yolact_base.copy({'dataset': pascal_sbd_dataset})")[0]
    assert "num_classes is 81" in fault
    assert "set num_classes to 21" in fault
    one = load_yolact_config("yolact_base", num_classes=2,
                             dataset={"class_names": "dog", "label_map": None})
    assert one.dataset.class_names == ("dog",)


def test_all_faults_of_a_config_are_told_at_once():
    faults = faults_of(load_yolact_config, "yolact_base", max_size=0, nms_thresh=1.5,
                       use_focal_loss=True, lr_steps=(5, 3))
    assert len(faults) == 4
    for words in ("max_size wants", "nms_thresh wants", "use_focal_loss wants", "lr_steps wants"):
        assert any(words in fault for fault in faults)


@pytest.mark.parametrize("changes, words", [
    ({"backbone": {"selected_layers": (3, 2, 1)}}, "selected_layers"),
    ({"backbone": {"selected_layers": (2, 3)}}, "pred_scales wants 4 levels"),
    ({"backbone": {"pred_scales": ((1,), (1, 2), (1,), (1,), (1,))}}, "as many priors per cell"),
    ({"fpn": None}, "fpn wants a section, got none"),
    ({"mask_proto_src": 5}, "mask_proto_src wants a level from 0 to 4, got 5"),
    ({"mask_dim": 8}, "mask_dim wants none or 32, what mask_proto_net ends with, got 8"),
    ({"mask_proto_net": ((256, 3),)}, "mask_proto_net"),
    ({"extra_head_net": ((256, 0, {}),)}, "kernel size"),
    ({"mask_proto_net": ((None, 3, {}),)}, "number of channels"),
    ({"use_maskiou": True}, "maskiou_net wants layers with use_maskiou, got []"),
    ({"delayed_settings": ((10, {"max_sizee": 1}),)}, "Did you mean max_size?"),
    ({"delayed_settings": ({"max_size": 1},)}, "wants (iteration"),
    ({"dataset": {"class_names": ("a", "a")}, "num_classes": 3}, "a twice"),
    ({"backbone": {"args": {"layers": ()}}}, "number of blocks"),
    ({"backbone": {"args": {"layers": (1, 1, 1, 1), "block": "basic", "dcn_layers": (0, 1)}}},
     "deformable"),
])
def test_impossible_combinations(changes, words):
    assert any(words in fault for fault in faults_of(load_yolact_config, "yolact_base", **changes))


def test_delayed_settings_come_back_as_pairs():
    cfg = load_yolact_config("yolact_base", options=["delayed_settings=[[1000, {lr: 1e-5}]]"])
    assert cfg.delayed_settings == ((1000, {"lr": 1e-5}),)
    assert to_dict(cfg)["delayed_settings"] == [[1000, {"lr": 1e-5}]]


@pytest.mark.parametrize("name", ["yolact_plus_resnet50", "yolact_plus_base"])
def test_images_too_small_for_the_mask_iou_net(name):
    faults = faults_of(load_yolact_config, name, max_size=138)
    assert faults == ["max_size=138: max_size wants at least 249 for mask_proto_net and "
                      "maskiou_net, got 138"]
    assert load_yolact_config(name, max_size=249).max_size == 249
