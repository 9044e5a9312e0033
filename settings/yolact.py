"""Schema of a YOLACT config: every key of the original [yolact.md: Config keys], typed and frozen.

The defaults are the original's root config. Names, YAML files and expressions are resolved in
`settings.yolact_recipes`.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from runtime.errors import InputError
from settings.loading import to_dict
from settings.yolact_checks import config_faults

MOST_ADDED = 8  # stages or levels; each halves the maps, and 2^8 times smaller is one cell

Activation = Literal["tanh", "sigmoid", "softmax", "relu", "none"]


@dataclass(frozen=True)
class DatasetConfig:
    """Where images and COCO annotations lie, and what the classes are."""

    name: str = "Base Dataset"
    train_images: str = ""
    train_info: str = ""
    valid_images: str = ""
    valid_info: str = ""
    has_gt: bool = True  # False: a list of images without annotations, such as test-dev
    include_empty: bool = False  # ours: images without objects are trained on, as negatives
    class_names: tuple[str, ...] | str = ()  # without background; one text is one class
    label_map: dict[int, int] | None = None  # category id -> 1..n; None: the ids are 1..n

    def __post_init__(self):
        if isinstance(self.class_names, str):
            object.__setattr__(self, "class_names", (self.class_names,))
        if len(set(self.class_names)) < len(self.class_names):
            twice = next(n for n in self.class_names if self.class_names.count(n) > 1)
            raise InputError(f"dataset.class_names has {twice} twice")
        if min((self.label_map or {0: 1}).values(), default=1) < 1:
            raise InputError("dataset.label_map wants numbers from 1 for the category ids, got "
                             f"{self.label_map}")


@dataclass(frozen=True)
class TransformConfig:
    """How pixels are scaled before the backbone [yolact.md: Augmentation]."""

    channel_order: Literal["RGB", "BGR"] = "RGB"
    normalize: bool = False  # (pixel - mean) / std
    subtract_means: bool = False  # pixel - mean
    to_float: bool = False  # pixel / 255


@dataclass(frozen=True)
class BackboneArgs:
    """Shape of a backbone; which keys count depends on its `type`."""

    layers: tuple[int, ...] = ()  # resnet, darknet: blocks per stage
    block: Literal["bottleneck", "basic"] = "bottleneck"  # resnet
    norm: Literal["batch", "group"] = "batch"  # resnet
    width: int = 64  # resnet: channels of the stem and of the first stage's inner convs
    dcn_layers: tuple[int, ...] = ()  # resnet: stage s deforms its last dcn_layers[s] blocks
    dcn_interval: int = 1  # ... of these every n-th

    def __post_init__(self):
        if min((*self.layers, self.width, self.dcn_interval)) < 1:
            raise InputError("backbone.args: layers, width and dcn_interval must be at least 1")
        if min((0, *self.dcn_layers)) < 0:
            raise InputError(f"backbone.args.dcn_layers {list(self.dcn_layers)}: wants numbers "
                             "from 0")
        if self.norm == "group" and self.width % 32:
            raise InputError(f"backbone.args.width {self.width}: norm group wants a multiple of 32")
        if len(self.dcn_layers) > len(self.layers):
            raise InputError("backbone.args.dcn_layers has more stages than layers")
        if any(self.dcn_layers) and self.block == "basic":
            raise InputError("backbone.args.dcn_layers: basic blocks cannot be deformable")


@dataclass(frozen=True)
class BackboneConfig:
    """The backbone and, as the original has it, the priors on its feature maps."""

    name: str
    type: Literal["resnet", "darknet", "vgg"]
    args: BackboneArgs
    selected_layers: tuple[int, ...]  # stages that feed the FPN, finest first
    pred_scales: tuple[tuple[float, ...], ...]  # per level
    pred_aspect_ratios: tuple[tuple[tuple[float, ...], ...], ...]  # per level, lists of ratios
    path: str | None = None  # pretrained file in the weights folder; None: random weights
    transform: TransformConfig = TransformConfig(normalize=True)
    use_pixel_scales: bool = False  # scales are pixels of max_size instead of feature map cells
    preapply_sqrt: bool = True  # the aspect ratios are square roots already
    use_square_anchors: bool = False

    def __post_init__(self):
        layers = self.selected_layers
        if not layers or list(layers) != sorted(set(layers)) or layers[0] < 0:
            raise InputError(
                f"backbone.selected_layers {list(layers)}: wants stage numbers from 0, ascending"
            )
        if self.type != "vgg" and not self.args.layers:
            raise InputError("backbone.args.layers: wants the number of blocks of each stage")
        # stages beyond the backbone's own are added; a slip of the pen would add a thousand
        own = len(self.args.layers) if self.type != "vgg" else 5
        if layers[-1] > own + MOST_ADDED:
            raise InputError(f"backbone.selected_layers {list(layers)}: this backbone has {own} "
                             f"stages, and at most {MOST_ADDED} are added")
        for key in ("pred_scales", "pred_aspect_ratios"):
            for level in vars(self)[key]:
                lists = level if key == "pred_aspect_ratios" else (level,)
                if not lists or any(not numbers or min(numbers) <= 0 for numbers in lists):
                    raise InputError(f"backbone.{key} {to_dict(level)}: wants numbers above 0 on "
                                     "every level")


@dataclass(frozen=True)
class FpnConfig:
    """Feature pyramid; `FpnConfig()` is the original's fpn_base."""

    num_features: int = 256
    interpolation_mode: Literal["bilinear", "nearest"] = "bilinear"
    num_downsample: int = 1  # levels added below the deepest
    use_conv_downsample: bool = False  # stride-2 conv instead of taking every other cell
    pad: bool = True
    relu_downsample_layers: bool = False
    relu_pred_layers: bool = True

    def __post_init__(self):
        if self.num_features < 1:
            raise InputError(f"fpn.num_features {self.num_features}: must be at least 1")
        if not 0 <= self.num_downsample <= MOST_ADDED:
            raise InputError(f"fpn.num_downsample {self.num_downsample}: wants a number from 0 to "
                             f"{MOST_ADDED}")


@dataclass(frozen=True)
class YolactConfig:
    """The 104 keys. Those in `yolact_checks.UNSUPPORTED` may only have their default."""

    # training
    dataset: DatasetConfig = DatasetConfig()
    num_classes: int = 81  # background included
    max_iter: int = 400000
    lr: float = 1e-3
    momentum: float = 0.9
    decay: float = 5e-4
    gamma: float = 0.1
    lr_steps: tuple[int, ...] = (280000, 360000, 400000)
    lr_warmup_init: float = 1e-4
    lr_warmup_until: int = 500
    delayed_settings: tuple[Any, ...] = ()  # (iteration, {key: value}) pairs
    freeze_bn: bool = False
    name: str | None = None  # None: the name this config was asked for by
    max_size: int = 300
    preserve_aspect_ratio: bool = False
    no_jit: bool = False  # no effect, as in the original
    # weights of the losses
    conf_alpha: float = 1.0
    bbox_alpha: float = 1.5
    mask_alpha: float = 0.4 / 256 * 140 * 140
    semantic_segmentation_alpha: float = 1.0
    class_existence_alpha: float = 1.0
    mask_scoring_alpha: float = 1.0
    maskiou_alpha: float = 1.0
    mask_proto_coeff_diversity_alpha: float = 1.0
    mask_proto_double_loss_alpha: float = 1.0
    # which losses
    train_masks: bool = True
    train_boxes: bool = True
    use_semantic_segmentation_loss: bool = False
    use_class_existence_loss: bool = False
    use_maskiou: bool = False
    mask_proto_loss: Literal["l1", "disj"] | None = None
    mask_proto_coeff_diversity_loss: bool = False
    use_focal_loss: bool = False
    focal_loss_alpha: float = 0.25
    focal_loss_gamma: float = 2.0
    focal_loss_init_pi: float = 0.01
    use_sigmoid_focal_loss: bool = False
    use_objectness_score: bool = False
    use_class_balanced_conf: bool = False
    ohem_negpos_ratio: int = 3
    ohem_use_most_confident: bool = False
    # matching
    positive_iou_threshold: float = 0.5
    negative_iou_threshold: float = 0.5
    crowd_iou_threshold: float = 1.0  # 1: crowds are not handled
    use_change_matching: bool = False
    use_prediction_matching: bool = False
    use_yolo_regressors: bool = False
    # masks
    mask_type: Literal["direct", "lincomb", 0, 1] = "direct"  # 0 and 1 are the original's numbers
    mask_size: int = 16  # of direct masks only
    masks_to_train: int = 100  # per image at most
    mask_proto_src: int | None = None  # FPN level that feeds the prototypes
    mask_proto_net: tuple[Any, ...] = ((256, 3, {}), (256, 3, {}))  # (channels, kernel, kwargs)
    mask_proto_bias: bool = False
    mask_proto_prototype_activation: Activation = "relu"
    mask_proto_mask_activation: Activation = "sigmoid"
    mask_proto_coeff_activation: Activation = "tanh"
    mask_proto_crop: bool = True
    mask_proto_crop_expand: float = 0.0  # no effect, as in the original
    mask_proto_binarize_downsampled_gt: bool = True
    mask_proto_normalize_mask_loss_by_sqrt_area: bool = False
    mask_proto_reweight_mask_loss: bool = False
    mask_proto_reweight_coeff: float = 1.0
    mask_proto_grid_file: str = "data/grid.npy"
    mask_proto_use_grid: bool = False
    mask_proto_coeff_gate: bool = False
    mask_proto_prototypes_as_features: bool = False
    mask_proto_prototypes_as_features_no_grad: bool = False
    mask_proto_remove_empty_masks: bool = False
    mask_proto_normalize_emulate_roi_pooling: bool = False
    mask_proto_double_loss: bool = False
    mask_proto_split_prototypes_by_head: bool = False
    mask_proto_crop_with_pred_box: bool = False
    use_gt_bboxes: bool = False
    mask_dim: int | None = None  # None: the channels that mask_proto_net ends with
    eval_mask_branch: bool = True
    # mask IoU
    maskiou_net: tuple[Any, ...] = ()
    discard_mask_area: float = -1.0  # pixels of the prototype map
    rescore_mask: bool = False
    rescore_bbox: bool = False
    maskious_to_train: int = -1  # -1: no cap
    # net
    backbone: BackboneConfig | None = None
    fpn: FpnConfig | None = None
    share_prediction_module: bool = False
    extra_head_net: tuple[Any, ...] | None = None
    head_layer_params: dict[str, int] = field(
        default_factory=lambda: {"kernel_size": 3, "padding": 1}
    )
    extra_layers: tuple[int, int, int] = (0, 0, 0)  # conv-relu pairs before box, conf, mask layer
    use_prediction_module: bool = False
    use_mask_scoring: bool = False
    use_instance_coeff: bool = False
    num_instance_coeffs: int = 64
    # augmentation
    augment_photometric_distort: bool = True
    augment_expand: bool = True
    augment_random_sample_crop: bool = True
    augment_random_mirror: bool = True
    augment_random_flip: bool = False
    augment_random_rot90: bool = False
    discard_box_width: float = 4 / 550
    discard_box_height: float = 4 / 550
    # detection
    nms_top_k: int = 200
    nms_conf_thresh: float = 0.05
    nms_thresh: float = 0.5
    max_num_detections: int = 100
    force_cpu_nms: bool = True  # no effect, as in the original
    use_coeff_nms: bool = False  # no effect, as in the original

    def __post_init__(self):
        if self.mask_type in (0, 1):
            object.__setattr__(self, "mask_type", ("direct", "lincomb")[self.mask_type])
        faults = config_faults(self)
        if faults:
            raise InputError(faults)
