"""What a YOLACT config may not say: ranges, unsupported keys, parts that do not fit together."""

import re
from dataclasses import MISSING, fields, replace
from typing import get_type_hints

from runtime.errors import InputError, did_you_mean
from settings.nodes import from_plain
from settings.schema import Builder

# Ideas that no shipped config uses and that are not built here [yolact.md: Config keys].
UNSUPPORTED = (
    "preserve_aspect_ratio",
    "use_class_existence_loss",
    "mask_proto_loss",
    "mask_proto_coeff_diversity_loss",
    "use_focal_loss",
    "use_sigmoid_focal_loss",
    "use_objectness_score",
    "use_class_balanced_conf",
    "ohem_use_most_confident",
    "use_change_matching",
    "use_prediction_matching",
    "use_yolo_regressors",
    "mask_proto_bias",
    "mask_proto_mask_activation",
    "mask_proto_crop",
    "mask_proto_binarize_downsampled_gt",
    "mask_proto_normalize_mask_loss_by_sqrt_area",
    "mask_proto_reweight_mask_loss",
    "mask_proto_use_grid",
    "mask_proto_coeff_gate",
    "mask_proto_prototypes_as_features",
    "mask_proto_prototypes_as_features_no_grad",
    "mask_proto_remove_empty_masks",
    "mask_proto_double_loss",
    "mask_proto_split_prototypes_by_head",
    "mask_proto_crop_with_pred_box",
    "use_gt_bboxes",
    "eval_mask_branch",
    "train_masks",
    "train_boxes",
    "use_prediction_module",
    "use_mask_scoring",
    "use_instance_coeff",
    "maskious_to_train",
    "augment_random_flip",
    "augment_random_rot90",
)

_FRACTIONS = (
    "positive_iou_threshold",
    "negative_iou_threshold",
    "crowd_iou_threshold",
    "nms_conf_thresh",
    "nms_thresh",
    "momentum",
)
_AT_LEAST_ONE = (
    "max_iter",
    "max_size",
    "nms_top_k",
    "max_num_detections",
    "masks_to_train",
    "mask_size",
    "num_instance_coeffs",
)
_NOT_NEGATIVE = (
    "lr",
    "decay",
    "gamma",
    "lr_warmup_init",
    "lr_warmup_until",
    "conf_alpha",
    "bbox_alpha",
    "mask_alpha",
    "semantic_segmentation_alpha",
    "maskiou_alpha",
    "ohem_negpos_ratio",
    "mask_proto_crop_expand",
    "discard_box_width",
    "discard_box_height",
)
# Options of a layer in the nets' grammar: (types, least value)
_CONV_OPTIONS = {"padding": (int, 0), "stride": (int, 1), "dilation": (int, 1), "groups": (int, 1),
                 "bias": (bool, 0)}
_TRANSPOSED_OPTIONS = _CONV_OPTIONS | {"output_padding": (int, 0)}
_ENLARGEMENT_OPTIONS = {"align_corners": (bool, 0)}
_NAME = re.compile(r"[^/\\\0]+")  # of the run folder and of its files


def config_faults(cfg):
    """One line for each fault of a YolactConfig."""
    faults = _range_faults(cfg) + _unsupported_faults(cfg)
    net_faults = _options_faults("head_layer_params", cfg.head_layer_params, _CONV_OPTIONS
                                 | {"kernel_size": (int, 1)})
    for key in ("mask_proto_net", "maskiou_net", "extra_head_net"):
        net_faults += _net_faults(key, vars(cfg)[key] or ())
    faults += net_faults
    if cfg.backbone is not None and not net_faults:
        faults += _layout_faults(cfg)
    return faults or _delayed_faults(cfg)


def priors_per_cell(cfg):
    """Number of priors at a cell of each level, finest level first."""
    backbone = cfg.backbone
    return tuple(
        len(scales) * sum(len(ratios) for ratios in lists)
        for scales, lists in zip(backbone.pred_scales, backbone.pred_aspect_ratios, strict=True)
    )


def _unsupported_faults(cfg):
    values, default = vars(cfg), {f.name: f.default for f in fields(cfg)}
    return [
        f"key {key} is not supported here: it must stay {default[key]}"
        for key in UNSUPPORTED
        if values[key] != default[key]
    ]


def _range_faults(cfg):
    values = vars(cfg)
    faults = [
        f"{key} {values[key]}: wants a number from 0 to 1"
        for key in _FRACTIONS
        if not 0 <= values[key] <= 1
    ]
    faults += [f"{k} {values[k]}: must be at least 1" for k in _AT_LEAST_ONE if values[k] < 1]
    faults += [f"{k} {values[k]}: must not be negative" for k in _NOT_NEGATIVE if values[k] < 0]
    if cfg.name is not None and (not _NAME.fullmatch(cfg.name) or cfg.name in (".", "..")):
        faults.append(f"name {cfg.name!r}: files are named so; wants a name without slashes")
    if min(cfg.extra_layers) < 0:
        faults.append(f"extra_layers {list(cfg.extra_layers)}: wants numbers from 0")
    if cfg.num_classes < 2:
        faults.append(f"num_classes {cfg.num_classes}: wants 2 or more, background included")
    if cfg.negative_iou_threshold > cfg.positive_iou_threshold:
        faults.append("negative_iou_threshold is above positive_iou_threshold")
    if list(cfg.lr_steps) != sorted(cfg.lr_steps):
        faults.append(f"lr_steps {list(cfg.lr_steps)}: must ascend")
    elif cfg.lr_steps and cfg.lr_steps[0] < 0:
        faults.append(f"lr_steps {list(cfg.lr_steps)}: wants iterations from 0")
    return faults


def _delayed_faults(cfg):
    """Faults of what is changed later: it must fit, as it would from the beginning."""
    hints = get_type_hints(type(cfg))
    known = [f.name for f in fields(cfg) if f.name != "delayed_settings"]
    faults = []
    for setting in cfg.delayed_settings:
        if not _is_list(setting, 2) or type(setting[0]) is not int or not isinstance(
                setting[1], dict):
            faults.append(f"delayed_settings: wants (iteration, {{key: value}}), got {setting}")
            continue
        where = f"delayed_settings at {setting[0]}"
        changes, before = {}, len(faults)
        if setting[0] < 0:
            faults.append(f"{where}: wants an iteration from 0")
        for key, value in setting[1].items():
            if key not in known:
                faults.append(f"{where}: unknown key {key}.{did_you_mean(str(key), known)}")
            else:
                builder = Builder(type(cfg), faults)
                changes[key] = builder.build(hints[key], from_plain(value, where), key, MISSING)
        if len(faults) == before:
            try:
                replace(cfg, delayed_settings=(), **changes)
            except InputError as error:
                faults += [f"{where}: {fault}" for fault in error.faults]
    return faults


def _is_list(value, length):
    return isinstance(value, (tuple, list)) and len(value) == length


def _net_faults(key, layers):
    """Faults of a net's grammar: (channels, kernel, kwargs), or ("cat", nets, kwargs)."""
    if not isinstance(layers, (tuple, list)):
        return [f"{key}: wants a list of layers, got {layers}"]
    faults = []
    for layer in layers:
        if not _is_list(layer, 3) or not isinstance(layer[2], dict):
            faults.append(f"{key}: wants items (channels, kernel, {{...}}), got {layer}")
        elif layer[0] == "cat":
            nets = layer[1] if isinstance(layer[1], (tuple, list)) else ()
            if not nets or layer[2]:
                faults.append(f"{key}: {layer} wants a list of nets and no options")
            faults += [fault for net in nets for fault in _net_faults(key, net)]
        else:
            faults += _layer_faults(key, *layer)
    return faults


def _layer_faults(key, channels, kernel, options):
    layer = (channels, kernel, options)
    if type(kernel) is not int or kernel == 0:
        return [f"{key}: {layer} wants a kernel size"]
    if channels is None and kernel < 0:
        return _options_faults(f"{key}: {layer}:", options, _ENLARGEMENT_OPTIONS)
    if type(channels) is not int or channels < 1:
        return [f"{key}: {layer} wants a number of channels"]
    known = _CONV_OPTIONS if kernel > 0 else _TRANSPOSED_OPTIONS
    return _options_faults(f"{key}: {layer}:", options, known)


def _options_faults(where, options, known):
    faults = []
    for key, value in options.items():
        if key not in known:
            faults.append(f"{where} has no option {key}.{did_you_mean(str(key), known)} "
                          f"Known: {', '.join(known)}")
            continue
        kind, least = known[key]
        if type(value) is not kind or value < least:
            wanted = "true or false" if kind is bool else f"an integer from {least}"
            faults.append(f"{where} {key} {value} wants {wanted}")
    return faults


def _layout_faults(cfg):
    """What a config needs before a network can be built from it."""
    faults = []
    if cfg.fpn is None:
        faults.append("fpn is none: networks without a feature pyramid are not supported here")
    if cfg.mask_type == "direct":
        faults.append("mask_type direct is not supported here: set it to lincomb")
    if cfg.mask_type == "lincomb" and cfg.mask_proto_src is None:
        faults.append("mask_proto_src is none: prototypes of the bare image are not supported here")
    if cfg.mask_type == "lincomb" and not cfg.mask_proto_net:
        faults.append("mask_proto_net is empty: wants the layers that make the prototypes")
    elif cfg.mask_type == "lincomb" and cfg.mask_dim not in (None, cfg.mask_proto_net[-1][0]):
        faults.append(
            f"mask_dim {cfg.mask_dim} is not what mask_proto_net ends with: leave it none"
        )
    if cfg.use_maskiou and not cfg.maskiou_net:
        faults.append("use_maskiou is on, but maskiou_net is empty")
    if faults:
        return faults
    backbone = cfg.backbone
    levels = len(backbone.selected_layers) + cfg.fpn.num_downsample
    for key in ("pred_scales", "pred_aspect_ratios"):
        given = len(vars(backbone)[key])
        if given != levels:
            faults.append(
                f"backbone.{key} has {given} levels, but selected_layers and fpn.num_downsample "
                f"make {levels}"
            )
    if not faults and cfg.share_prediction_module and len(set(priors_per_cell(cfg))) > 1:
        faults.append("share_prediction_module wants as many priors per cell on every level")
    if not 0 <= cfg.mask_proto_src < levels:
        faults.append(f"mask_proto_src {cfg.mask_proto_src}: there are {levels} levels, from 0")
    return faults
