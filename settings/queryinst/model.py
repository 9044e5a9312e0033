"""Schema of a QueryInst config's section `model`: what `build_queryinst` looks at.

Keys are MMDetection's; the defaults are those of queryinst_r50_fpn_1x_coco.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from settings.ranges import Count, NotNegative, Positive, Range, Section, Whole

DEPTHS = {  # of a ResNet: (block, blocks per stage); 10 is ours
    10: ("basic", (1, 1, 1, 1)),
    18: ("basic", (2, 2, 2, 2)),
    34: ("basic", (3, 4, 6, 3)),
    50: ("bottleneck", (3, 4, 6, 3)),
    101: ("bottleneck", (3, 4, 23, 3)),
}


@dataclass(frozen=True)
class PreprocessorConfig(Section):
    """Pixels to network input; BGR files become RGB."""

    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)  # RGB, 0..255
    std: tuple[Positive, Positive, Positive] = (58.395, 57.12, 57.375)
    pad_size_divisor: Count = 32  # batches are padded to multiples of it, px


@dataclass(frozen=True)
class PretrainedConfig(Section):
    """checkpoint: `torchvision://resnet50`, a file in the weights folder, or a path."""

    type: Literal["Pretrained"] = "Pretrained"
    checkpoint: str = "torchvision://resnet50"


@dataclass(frozen=True)
class BackboneConfig(Section):
    """A ResNet with outputs at strides 4, 8, 16, 32."""

    depth: Literal[10, 18, 34, 50, 101] = 50
    base_channels: Count = 64  # of the stem
    # -1: none, 0: the stem, n: the stem and the first n stages
    frozen_stages: Annotated[int, Range(at_least=-1, at_most=4)] = 1
    norm_eval: bool = True  # every batch norm stays in evaluation mode
    init_cfg: PretrainedConfig | None = PretrainedConfig()  # None: random weights


@dataclass(frozen=True)
class NeckConfig(Section):
    """Feature pyramid of four levels."""

    out_channels: Count = 256  # also of the proposal features and of all heads


@dataclass(frozen=True)
class RpnHeadConfig(Section):
    """The learnt proposals."""

    num_proposals: Count = 100


@dataclass(frozen=True)
class LossConfig(Section):
    """loss_weight: factor of the term. The matching costs keep their own: 2, 5 and 2."""

    loss_weight: NotNegative = 1.0


@dataclass(frozen=True)
class BboxHeadConfig(Section):
    """The dynamic head of a stage: attention, dynamic conv, classes and boxes."""

    num_heads: Count = 8  # of the attention
    num_cls_fcs: Whole = 1
    num_reg_fcs: Whole = 3
    feedforward_channels: Count = 2048
    dynamic_channels: Count = 64  # inner width of both dynamic convs
    loss_cls: LossConfig = LossConfig(2.0)
    loss_bbox: LossConfig = LossConfig(5.0)
    loss_iou: LossConfig = LossConfig(2.0)


@dataclass(frozen=True)
class MaskHeadConfig(Section):
    """The dynamic mask head of a stage."""

    num_convs: Whole = 4
    loss_mask: LossConfig = LossConfig(8.0)


@dataclass(frozen=True)
class RoiHeadConfig(Section):
    """num_stages heads one behind the other; none shares weights with another."""

    num_stages: Count = 6
    stage_loss_weights: tuple[NotNegative, ...] | None = None  # None: 1 for each
    bbox_head: BboxHeadConfig = BboxHeadConfig()
    mask_head: MaskHeadConfig = MaskHeadConfig()

    def misfits(self) -> list[str]:
        weights = self.stage_loss_weights
        if weights is None or len(weights) == self.num_stages:
            return []
        return [f"stage_loss_weights wants {self.num_stages} numbers, one a stage, got "
                f"{list(weights)}"]


@dataclass(frozen=True)
class RcnnTestConfig(Section):
    """What a prediction keeps."""

    max_per_img: Count = 100
    mask_thr_binary: Annotated[float, Range(above=0, below=1)] = 0.5


@dataclass(frozen=True)
class ModelTestConfig(Section):
    """Section model.test_cfg."""

    rcnn: RcnnTestConfig = RcnnTestConfig()


@dataclass(frozen=True)
class ModelConfig(Section):
    """Everything that `build_queryinst` looks at."""

    type: Literal["QueryInst"] = "QueryInst"
    num_classes: Count = 80
    data_preprocessor: PreprocessorConfig = PreprocessorConfig()
    backbone: BackboneConfig = BackboneConfig()
    neck: NeckConfig = NeckConfig()
    rpn_head: RpnHeadConfig = RpnHeadConfig()
    roi_head: RoiHeadConfig = RoiHeadConfig()
    test_cfg: ModelTestConfig = ModelTestConfig()

    def misfits(self) -> list[str]:
        channels, heads = self.neck.out_channels, self.roi_head.bbox_head.num_heads
        if channels % heads == 0:
            return []
        return [f"neck.out_channels wants a multiple of roi_head.bbox_head.num_heads {heads}, got "
                f"{channels}"]
