"""Schema of a YOLACT config: every key of the original [yolact.md: Config keys], typed and frozen.

The defaults are the original's root config. Names, YAML files and expressions are resolved in
`settings.yolact_recipes`.
"""

from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Annotated, Any, Literal

from runtime.errors import InputError, did_you_mean
from settings.nodes import from_plain
from settings.ranges import (
    ASCENDING,
    NOT_EMPTY,
    Count,
    Distinct,
    FolderName,
    Fraction,
    NotNegative,
    OneOf,
    Positive,
    Range,
    Rule,
    Section,
    Whole,
    hints_of,
)
from settings.schema import Builder
from settings.yolact_layers import HeadOptions, Layers, is_list_of, side_after

MOST_ADDED = 8  # stages or levels; each halves the maps, and 2^8 times smaller is one cell
LARGEST_SEARCHED = 4096  # px; a size that fits is named up to it

Activation = Literal["tanh", "sigmoid", "softmax", "relu", "none"]
# Of switches for ideas that no shipped config uses and that are not built here
# [yolact.md: Config keys].
Off = Annotated[bool, OneOf((False,))]
On = Annotated[bool, OneOf((True,))]

_Numbers = Annotated[tuple[Positive, ...], NOT_EMPTY]
_STAGES = Rule("stage numbers from 0, ascending", lambda stages: bool(stages) and stages[0] >= 0
               and list(stages) == sorted(set(stages)))


@dataclass(frozen=True)
class DatasetConfig(Section):
    """Where images and COCO annotations lie, and what the classes are."""

    name: str = "Base Dataset"
    train_images: str = ""
    train_info: str = ""
    valid_images: str = ""
    valid_info: str = ""
    has_gt: bool = True  # False: a list of images without annotations, such as test-dev
    include_empty: bool = False  # ours: images without objects are trained on, as negatives
    # without background; one text is one class
    class_names: Annotated[tuple[str, ...] | str, Distinct()] = ()
    label_map: dict[int, Count] | None = None  # category id -> 1..n; None: the ids are 1..n

    def __post_init__(self) -> None:
        if isinstance(self.class_names, str):
            object.__setattr__(self, "class_names", (self.class_names,))
        super().__post_init__()


@dataclass(frozen=True)
class TransformConfig(Section):
    """How pixels are scaled before the backbone [yolact.md: Augmentation]."""

    channel_order: Literal["RGB", "BGR"] = "RGB"
    normalize: bool = False  # (pixel - mean) / std
    subtract_means: bool = False  # pixel - mean
    to_float: bool = False  # pixel / 255


@dataclass(frozen=True)
class BackboneArgs(Section):
    """Shape of a backbone; which keys count depends on its `type`."""

    layers: tuple[Count, ...] = ()  # resnet, darknet: blocks per stage
    block: Literal["bottleneck", "basic"] = "bottleneck"  # resnet
    norm: Literal["batch", "group"] = "batch"  # resnet
    width: Count = 64  # resnet: channels of the stem and of the first stage's inner convs
    dcn_layers: tuple[Whole, ...] = ()  # resnet: stage s deforms its last dcn_layers[s] blocks
    dcn_interval: Count = 1  # ... of these every n-th

    def misfits(self) -> list[str]:
        faults = []
        if self.norm == "group" and self.width % 32:
            faults.append(f"width wants a multiple of 32 with norm group, got {self.width}")
        if len(self.dcn_layers) > len(self.layers):
            faults.append(f"dcn_layers wants at most the {len(self.layers)} stages of layers, got "
                          f"{list(self.dcn_layers)}")
        if any(self.dcn_layers) and self.block == "basic":
            faults.append(f"dcn_layers wants block bottleneck, got {list(self.dcn_layers)}: basic "
                          "blocks cannot be deformable")
        return faults


@dataclass(frozen=True)
class BackboneConfig(Section):
    """The backbone and, as the original has it, the priors on its feature maps."""

    name: str
    type: Literal["resnet", "darknet", "vgg"]
    args: BackboneArgs
    # stages that feed the FPN, finest first
    selected_layers: Annotated[tuple[int, ...], _STAGES]
    pred_scales: tuple[_Numbers, ...]  # per level
    # per level, lists of ratios
    pred_aspect_ratios: tuple[Annotated[tuple[_Numbers, ...], NOT_EMPTY], ...]
    path: str | None = None  # pretrained file in the weights folder; None: random weights
    transform: TransformConfig = TransformConfig(normalize=True)
    use_pixel_scales: bool = False  # scales are pixels of max_size instead of feature map cells
    preapply_sqrt: bool = True  # the aspect ratios are square roots already
    use_square_anchors: bool = False

    def misfits(self) -> list[str]:
        if self.type != "vgg" and not self.args.layers:
            return ["args.layers wants the number of blocks of each stage, got []"]
        # stages beyond the backbone's own are added; a slip of the pen would add a thousand
        own = len(self.args.layers) if self.type != "vgg" else 5
        if self.selected_layers[-1] <= own + MOST_ADDED:
            return []
        return [f"selected_layers wants stages up to {own + MOST_ADDED}, got "
                f"{list(self.selected_layers)}: this backbone has {own} stages, and at most "
                f"{MOST_ADDED} are added"]


@dataclass(frozen=True)
class FpnConfig(Section):
    """Feature pyramid; `FpnConfig()` is the original's fpn_base."""

    num_features: Count = 256
    interpolation_mode: Literal["bilinear", "nearest"] = "bilinear"
    # levels added below the deepest
    num_downsample: Annotated[int, Range(at_least=0, at_most=MOST_ADDED)] = 1
    use_conv_downsample: bool = False  # stride-2 conv instead of taking every other cell
    pad: bool = True
    relu_downsample_layers: bool = False
    relu_pred_layers: bool = True


@dataclass(frozen=True)
class YolactConfig(Section):
    """The 104 keys. Those with `Off`, `On` or `OneOf` of one choice may only have their default."""

    # training
    dataset: DatasetConfig = DatasetConfig()
    num_classes: Annotated[int, Range(at_least=2, why="background counts, too")] = 81
    max_iter: Count = 400000
    lr: NotNegative = 1e-3
    momentum: Fraction = 0.9
    decay: NotNegative = 5e-4
    gamma: NotNegative = 0.1
    lr_steps: Annotated[tuple[Whole, ...], ASCENDING] = (280000, 360000, 400000)
    lr_warmup_init: NotNegative = 1e-4
    lr_warmup_until: Whole = 500
    delayed_settings: tuple[Any, ...] = ()  # (iteration, {key: value}) pairs
    freeze_bn: bool = False
    name: FolderName | None = None  # None: the name this config was asked for by
    max_size: Count = 300
    preserve_aspect_ratio: Off = False
    no_jit: bool = False  # no effect, as in the original
    # weights of the losses
    conf_alpha: NotNegative = 1.0
    bbox_alpha: NotNegative = 1.5
    mask_alpha: NotNegative = 0.4 / 256 * 140 * 140
    semantic_segmentation_alpha: NotNegative = 1.0
    class_existence_alpha: float = 1.0
    mask_scoring_alpha: float = 1.0
    maskiou_alpha: NotNegative = 1.0
    mask_proto_coeff_diversity_alpha: float = 1.0
    mask_proto_double_loss_alpha: float = 1.0
    # which losses
    train_masks: On = True
    train_boxes: On = True
    use_semantic_segmentation_loss: bool = False
    use_class_existence_loss: Off = False
    use_maskiou: bool = False
    mask_proto_loss: Annotated[Literal["l1", "disj"] | None, OneOf((None,))] = None
    mask_proto_coeff_diversity_loss: Off = False
    use_focal_loss: Off = False
    focal_loss_alpha: float = 0.25
    focal_loss_gamma: float = 2.0
    focal_loss_init_pi: float = 0.01
    use_sigmoid_focal_loss: Off = False
    use_objectness_score: Off = False
    use_class_balanced_conf: Off = False
    ohem_negpos_ratio: Whole = 3
    ohem_use_most_confident: Off = False
    # matching
    positive_iou_threshold: Fraction = 0.5
    negative_iou_threshold: Fraction = 0.5
    crowd_iou_threshold: Fraction = 1.0  # 1: crowds are not handled
    use_change_matching: Off = False
    use_prediction_matching: Off = False
    use_yolo_regressors: Off = False
    # masks
    mask_type: Literal["direct", "lincomb", 0, 1] = "direct"  # 0 and 1 are the original's numbers
    mask_size: Count = 16  # of direct masks only
    masks_to_train: Count = 100  # per image at most
    mask_proto_src: int | None = None  # FPN level that feeds the prototypes
    # (channels, kernel, kwargs)
    mask_proto_net: Annotated[tuple[Any, ...], Layers()] = ((256, 3, {}), (256, 3, {}))
    mask_proto_bias: Off = False
    mask_proto_prototype_activation: Activation = "relu"
    mask_proto_mask_activation: Annotated[Activation, OneOf(("sigmoid",))] = "sigmoid"
    mask_proto_coeff_activation: Activation = "tanh"
    mask_proto_crop: On = True
    mask_proto_crop_expand: NotNegative = 0.0  # no effect, as in the original
    mask_proto_binarize_downsampled_gt: On = True
    mask_proto_normalize_mask_loss_by_sqrt_area: Off = False
    mask_proto_reweight_mask_loss: Off = False
    mask_proto_reweight_coeff: float = 1.0
    mask_proto_grid_file: str = "data/grid.npy"
    mask_proto_use_grid: Off = False
    mask_proto_coeff_gate: Off = False
    mask_proto_prototypes_as_features: Off = False
    mask_proto_prototypes_as_features_no_grad: Off = False
    mask_proto_remove_empty_masks: Off = False
    mask_proto_normalize_emulate_roi_pooling: bool = False
    mask_proto_double_loss: Off = False
    mask_proto_split_prototypes_by_head: Off = False
    mask_proto_crop_with_pred_box: Off = False
    use_gt_bboxes: Off = False
    mask_dim: int | None = None  # None: the channels that mask_proto_net ends with
    eval_mask_branch: On = True
    # mask IoU
    maskiou_net: Annotated[tuple[Any, ...], Layers()] = ()
    discard_mask_area: float = -1.0  # pixels of the prototype map
    rescore_mask: bool = False
    rescore_bbox: bool = False
    maskious_to_train: Annotated[int, OneOf((-1,))] = -1  # no cap
    # net
    backbone: BackboneConfig | None = None
    fpn: FpnConfig | None = None
    share_prediction_module: bool = False
    extra_head_net: Annotated[tuple[Any, ...], Layers()] | None = None
    head_layer_params: Annotated[dict[str, int], HeadOptions()] = field(
        default_factory=lambda: {"kernel_size": 3, "padding": 1}
    )
    # conv-relu pairs before box, conf, mask layer
    extra_layers: tuple[Whole, Whole, Whole] = (0, 0, 0)
    use_prediction_module: Off = False
    use_mask_scoring: Off = False
    use_instance_coeff: Off = False
    num_instance_coeffs: Count = 64
    # augmentation
    augment_photometric_distort: bool = True
    augment_expand: bool = True
    augment_random_sample_crop: bool = True
    augment_random_mirror: bool = True
    augment_random_flip: Off = False
    augment_random_rot90: Off = False
    discard_box_width: NotNegative = 4 / 550
    discard_box_height: NotNegative = 4 / 550
    # detection
    nms_top_k: Count = 200
    nms_conf_thresh: Fraction = 0.05
    nms_thresh: Fraction = 0.5
    max_num_detections: Count = 100
    force_cpu_nms: bool = True  # no effect, as in the original
    use_coeff_nms: bool = False  # no effect, as in the original

    def __post_init__(self) -> None:
        if self.mask_type in (0, 1):
            object.__setattr__(self, "mask_type", ("direct", "lincomb")[self.mask_type])
        super().__post_init__()

    def misfits(self) -> list[str]:
        faults = []
        if self.negative_iou_threshold > self.positive_iou_threshold:
            faults.append("negative_iou_threshold wants at most positive_iou_threshold "
                          f"{self.positive_iou_threshold}, got {self.negative_iou_threshold}")
        if self.backbone is not None:
            faults += _layout_misfits(self)
        return faults or _delayed_misfits(self)


def priors_per_cell(cfg: YolactConfig) -> tuple[int, ...]:
    """Number of priors at a cell of each level, finest level first; cfg has a backbone."""
    backbone = cfg.backbone
    assert backbone is not None
    return tuple(
        len(scales) * sum(len(ratios) for ratios in lists)
        for scales, lists in zip(backbone.pred_scales, backbone.pred_aspect_ratios, strict=True)
    )


def _delayed_misfits(cfg: YolactConfig) -> list[str]:
    """Faults of what is changed later: it must fit, as it would from the beginning."""
    hints = hints_of(type(cfg))
    known = [f.name for f in fields(cfg) if f.name != "delayed_settings"]
    faults: list[str] = []
    for setting in cfg.delayed_settings:
        if not is_list_of(2, setting) or type(setting[0]) is not int or not isinstance(
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


def _layout_misfits(cfg: YolactConfig) -> list[str]:
    """What a config with a backbone needs before a network can be built from it."""
    return _mask_misfits(cfg) or _level_misfits(cfg) or _size_misfits(cfg)


def _mask_misfits(cfg: YolactConfig) -> list[str]:
    faults = []
    if cfg.fpn is None:
        faults.append("fpn wants a section, got none: networks without a feature pyramid are not "
                      "supported here")
    if cfg.mask_type == "direct":
        faults.append("mask_type wants lincomb, got direct: it is not supported here")
    elif cfg.mask_proto_src is None:
        faults.append("mask_proto_src wants a level, got none: prototypes of the bare image are "
                      "not supported here")
    if cfg.mask_type == "lincomb" and not cfg.mask_proto_net:
        faults.append("mask_proto_net wants the layers that make the prototypes, got []")
    elif cfg.mask_type == "lincomb" and cfg.mask_dim not in (None, cfg.mask_proto_net[-1][0]):
        faults.append(f"mask_dim wants none or {cfg.mask_proto_net[-1][0]}, what mask_proto_net "
                      f"ends with, got {cfg.mask_dim}")
    if cfg.use_maskiou and not cfg.maskiou_net:
        faults.append("maskiou_net wants layers with use_maskiou, got []")
    return faults


def _level_misfits(cfg: YolactConfig) -> list[str]:
    backbone, fpn, source = cfg.backbone, cfg.fpn, cfg.mask_proto_src
    assert backbone is not None
    assert fpn is not None
    assert source is not None  # _mask_misfits says so otherwise
    levels = len(backbone.selected_layers) + fpn.num_downsample
    faults = [
        f"backbone.{key} wants {levels} levels, as selected_layers and fpn.num_downsample make, "
        f"got {len(given)}"
        for key, given in (("pred_scales", backbone.pred_scales),
                           ("pred_aspect_ratios", backbone.pred_aspect_ratios))
        if len(given) != levels
    ]
    if not faults and cfg.share_prediction_module and len(set(priors_per_cell(cfg))) > 1:
        faults.append("share_prediction_module wants as many priors per cell on every level, got "
                      f"{', '.join(map(str, priors_per_cell(cfg)))}")
    if not 0 <= source < levels:
        faults.append(f"mask_proto_src wants a level from 0 to {levels - 1}, got {source}")
    return faults


def _size_misfits(cfg: YolactConfig) -> list[str]:
    """Images so small that a net without padding has nothing left of their prototypes."""
    if _has_room(cfg, cfg.max_size):
        return []
    enough = next((size for size in range(cfg.max_size, LARGEST_SEARCHED) if _has_room(cfg, size)),
                  None)
    wanted = f"at least {enough}" if enough else "larger images"
    return [f"max_size wants {wanted} for mask_proto_net and maskiou_net, got {cfg.max_size}"]


def _has_room(cfg: YolactConfig, size: int) -> bool:
    """Whether the prototypes of images of `size` pixels are large enough for the mask IoU net."""
    backbone, fpn = cfg.backbone, cfg.fpn
    assert backbone is not None
    assert fpn is not None
    assert cfg.mask_proto_src is not None
    if backbone.type == "vgg":
        return True  # its strides follow no rule; no config of it has nets without padding
    selected = backbone.selected_layers
    added = max(cfg.mask_proto_src - len(selected) + 1, 0)  # levels that the pyramid makes
    stage = selected[min(cfg.mask_proto_src, len(selected) - 1)]
    halvings = stage + (2 if backbone.type == "resnet" else 1) + added
    side = -(-size // 2**halvings)  # each of them rounds up
    proto = side_after(cfg.mask_proto_net, side)
    return proto > 0 and (not cfg.use_maskiou or side_after(cfg.maskiou_net, proto) > 0)
