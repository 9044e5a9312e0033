"""Schema of a QueryInst config's `model.roi_head` and `model.train_cfg`: heads, losses, matching.

Keys are MMDetection's; the defaults are those of queryinst_r50_fpn_1x_coco. What MMDetection has in
a list of one mapping a stage may be one mapping here, for all stages [queryinst.md: Configs].
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, TypeVar

from settings.foreign import ForeignKeys
from settings.ranges import NOT_EMPTY, Count, Fraction, NotNegative, Positive, Section, Whole

Stage = TypeVar("Stage")

_RELU = {"type": "ReLU", "inplace": True}


def of_stages(section: tuple[Stage, ...] | Stage, num_stages: int) -> tuple[Stage, ...]:
    """The section of each stage, where one may stand for all."""
    return section if isinstance(section, tuple) else (section,) * num_stages


def as_one(section: tuple[Stage, ...] | Stage, num_stages: int) -> tuple[Stage, ...] | Stage:
    """One section for all stages where they are alike."""
    alike = isinstance(section, tuple) and len(section) == num_stages and len(set(section)) == 1
    return section[0] if isinstance(section, tuple) and alike else section


def count_fault(key: str, sections: Any, num_stages: int) -> list[str]:
    """A fault when there are several sections, but not one a stage."""
    if not isinstance(sections, tuple) or len(sections) == num_stages:
        return []
    return [f"{key} wants one mapping, or {num_stages}, one a stage, got {len(sections)}"]


def _loss_keys(kind: str, **others: Any) -> ForeignKeys:
    return ForeignKeys(same={"type": kind, "reduction": "mean", **others})


@dataclass(frozen=True)
class FocalLossConfig(Section):
    """Of the classes, arXiv:1708.02002."""

    FOREIGN = _loss_keys("FocalLoss", use_sigmoid=True, activated=False)

    gamma: NotNegative = 2.0  # how fast sure entries lose weight
    alpha: Fraction = 0.25  # weight of the right classes; 1 - alpha is that of the others
    loss_weight: NotNegative = 1.0


@dataclass(frozen=True)
class L1LossConfig(Section):
    """Of boxes over the size of the image."""

    FOREIGN = _loss_keys("L1Loss")

    loss_weight: NotNegative = 1.0


@dataclass(frozen=True)
class GIoULossConfig(Section):
    """Of boxes, arXiv:1902.09630."""

    FOREIGN = _loss_keys("GIoULoss", eps=1e-6)

    loss_weight: NotNegative = 1.0


@dataclass(frozen=True)
class DiceLossConfig(Section):
    """Of masks, arXiv:1606.04797. eps: added to each of the two sums of squares."""

    FOREIGN = _loss_keys("DiceLoss", use_sigmoid=True, activate=False, naive_dice=False)

    eps: Positive = 1e-3
    loss_weight: NotNegative = 1.0


def _dynamic_conv(cells: int, projects: bool) -> Mapping[str, Any]:
    """What is fixed in a section dynamic_conv_cfg; its channels are read by `repeated`."""
    return {"type": "DynamicConv", "input_feat_shape": cells, "with_proj": projects,
            "act_cfg": _RELU, "norm_cfg": {"type": "LN"}, "init_cfg": None}


@dataclass(frozen=True)
class BboxHeadConfig(Section):
    """The dynamic head of a stage: attention, dynamic conv, classes and boxes."""

    FOREIGN = ForeignKeys(
        same={
            "type": "DIIHead", "num_ffn_fcs": 2, "dropout": 0.0, "ffn_act_cfg": _RELU,
            "dynamic_conv_cfg": _dynamic_conv(7, True), "init_cfg": None,
            "with_avg_pool": False, "with_cls": True, "with_reg": True, "roi_feat_size": 7,
            "bbox_coder": {
                "type": "DeltaXYWHBBoxCoder", "clip_border": False, "add_ctr_clamp": False,
                "target_means": (0.0, 0.0, 0.0, 0.0), "target_stds": (0.5, 0.5, 1.0, 1.0),
                "ctr_clamp": 32, "use_box_type": False},
            "predict_box_type": "hbox", "reg_class_agnostic": True, "reg_decoded_bbox": True,
            "reg_predictor_cfg": {"type": "Linear"}, "cls_predictor_cfg": {"type": "Linear"},
        },
        refused={"hidden_channels": "the heads are as wide as the pyramid, neck.out_channels"},
    )

    num_heads: Count = 8  # of the attention
    num_cls_fcs: Whole = 1
    num_reg_fcs: Whole = 3
    feedforward_channels: Count = 2048
    dynamic_channels: Count = 64  # inner width of the dynamic convs: dynamic_conv_cfg.feat_channels
    loss_cls: FocalLossConfig = FocalLossConfig(loss_weight=2.0)
    loss_bbox: L1LossConfig = L1LossConfig(5.0)
    loss_iou: GIoULossConfig = GIoULossConfig(2.0)


@dataclass(frozen=True)
class MaskHeadConfig(Section):
    """The dynamic mask head of a stage."""

    FOREIGN = ForeignKeys(
        same={
            "type": "DynamicMaskHead", "roi_feat_size": 14, "conv_kernel_size": 3,
            "class_agnostic": False, "upsample_cfg": {"type": "deconv", "scale_factor": 2},
            "conv_cfg": None, "norm_cfg": {"type": "BN", "requires_grad": True},
            "dynamic_conv_cfg": _dynamic_conv(14, False), "predictor_cfg": {"type": "Conv"},
            "init_cfg": None,
        },
    )

    num_convs: Whole = 4
    dynamic_channels: Count | None = None  # None: the bbox head's of the stage
    loss_mask: DiceLossConfig = DiceLossConfig(eps=1e-5, loss_weight=8.0)


def _without_repeat(mask: MaskHeadConfig, bbox: BboxHeadConfig) -> MaskHeadConfig:
    """The mask head, saying no width that is the bbox head's."""
    is_same = mask.dynamic_channels == bbox.dynamic_channels
    return replace(mask, dynamic_channels=None) if is_same else mask


_ROI_EXTRACTOR = {"type": "SingleRoIExtractor", "featmap_strides": (4, 8, 16, 32),
                  "finest_scale": 56, "init_cfg": None}
_ROI_ALIGN = {"type": "RoIAlign", "sampling_ratio": 2, "aligned": True, "pool_mode": "avg"}


@dataclass(frozen=True)
class RoiHeadConfig(Section):
    """num_stages heads one behind the other; none shares weights with another."""

    FOREIGN = ForeignKeys(
        same={
            "type": "SparseRoIHead", "shared_head": None, "init_cfg": None,
            "bbox_roi_extractor":
                {**_ROI_EXTRACTOR, "roi_layer": {**_ROI_ALIGN, "output_size": 7}},
            "mask_roi_extractor":
                {**_ROI_EXTRACTOR, "roi_layer": {**_ROI_ALIGN, "output_size": 14}},
        },
    )

    num_stages: Count = 6
    stage_loss_weights: tuple[NotNegative, ...] | None = None  # None: 1 for each
    bbox_head: tuple[BboxHeadConfig, ...] | BboxHeadConfig = BboxHeadConfig()
    mask_head: tuple[MaskHeadConfig, ...] | MaskHeadConfig = MaskHeadConfig()

    def __post_init__(self) -> None:
        if self.stage_loss_weights == (1.0,) * self.num_stages:
            object.__setattr__(self, "stage_loss_weights", None)
        masks = of_stages(self.mask_head, self.num_stages)
        if len(masks) == len(self.bbox_heads):  # else `misfits` has a line
            masks = tuple(map(_without_repeat, masks, self.bbox_heads))
            object.__setattr__(self, "mask_head", masks)
        for key in ("bbox_head", "mask_head"):
            object.__setattr__(self, key, as_one(vars(self)[key], self.num_stages))
        super().__post_init__()

    def misfits(self) -> list[str]:
        faults = [fault for key in ("bbox_head", "mask_head")
                  for fault in count_fault(key, vars(self)[key], self.num_stages)]
        weights = self.stage_loss_weights
        if weights is not None and len(weights) != self.num_stages:
            faults.append(f"stage_loss_weights wants {self.num_stages} numbers, one a stage, got "
                          f"{list(weights)}")
        return faults

    @property
    def bbox_heads(self) -> tuple[BboxHeadConfig, ...]:
        """Of each stage."""
        return of_stages(self.bbox_head, self.num_stages)

    @property
    def mask_heads(self) -> tuple[MaskHeadConfig, ...]:
        """Of each stage."""
        return of_stages(self.mask_head, self.num_stages)


@dataclass(frozen=True)
class FocalCostConfig(Section):
    """Cost of a class: the focal loss if it is right, less that if it is wrong."""

    FOREIGN = ForeignKeys(same={"eps": 1e-12, "binary_input": False})

    type: Literal["FocalLossCost"] = "FocalLossCost"
    weight: NotNegative = 1.0
    alpha: Fraction = 0.25
    gamma: NotNegative = 2.0


@dataclass(frozen=True)
class L1CostConfig(Section):
    """Cost of a box: the distance of its corners over the size of the image."""

    FOREIGN = ForeignKeys(same={"box_format": "xyxy"})

    type: Literal["BBoxL1Cost"] = "BBoxL1Cost"
    weight: NotNegative = 1.0


@dataclass(frozen=True)
class IoUCostConfig(Section):
    """Cost of a box: less its generalised overlap."""

    FOREIGN = ForeignKeys(same={"iou_mode": "giou"})

    type: Literal["IoUCost"] = "IoUCost"
    weight: NotNegative = 1.0


Cost = FocalCostConfig | L1CostConfig | IoUCostConfig


@dataclass(frozen=True)
class AssignerConfig(Section):
    """What it costs to give an object to a proposal: the sum of match_costs."""

    FOREIGN = ForeignKeys(same={"type": "HungarianAssigner"})

    match_costs: Annotated[tuple[Cost, ...], NOT_EMPTY] = (
        FocalCostConfig(weight=2.0), L1CostConfig(weight=5.0), IoUCostConfig(weight=2.0))

    def misfits(self) -> list[str]:
        types = [cost.type for cost in self.match_costs]
        if len(set(types)) == len(types):
            return []
        return [f"match_costs wants each type once, got {', '.join(types)}"]


@dataclass(frozen=True)
class RcnnTrainConfig(Section):
    """How the proposals of a stage get their objects."""

    FOREIGN = ForeignKeys(
        same={"sampler": {"type": "PseudoSampler"}, "mask_size": 28},
        ignored={"debug": "nothing reads it in MMDetection either"},
    )

    assigner: AssignerConfig = AssignerConfig()
    pos_weight: float = 1.0  # of matched proposals in loss_cls; 0 or less: 1


@dataclass(frozen=True)
class ModelTrainConfig(Section):
    """Section model.train_cfg."""

    FOREIGN = ForeignKeys(same={"rpn": None})

    rcnn: tuple[RcnnTrainConfig, ...] | RcnnTrainConfig = RcnnTrainConfig()
