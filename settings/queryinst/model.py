"""Schema of a QueryInst config's section `model`: what `build_queryinst` looks at.

Keys are MMDetection's; the defaults are those of queryinst_r50_fpn_1x_coco.
"""

from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

from settings.foreign import ForeignKeys
from settings.nodes import Node
from settings.queryinst.heads import (
    ModelTrainConfig,
    RcnnTrainConfig,
    RoiHeadConfig,
    as_one,
    count_fault,
    of_stages,
)
from settings.queryinst.repeated import in_our_words
from settings.ranges import Count, Positive, Range, Section

DEPTHS = {  # of a ResNet: (block, blocks per stage); 10 is ours
    10: ("basic", (1, 1, 1, 1)),
    18: ("basic", (2, 2, 2, 2)),
    34: ("basic", (3, 4, 6, 3)),
    50: ("bottleneck", (3, 4, 6, 3)),
    101: ("bottleneck", (3, 4, 23, 3)),
    152: ("bottleneck", (3, 8, 36, 3)),
}


@dataclass(frozen=True)
class PreprocessorConfig(Section):
    """Pixels to network input."""

    FOREIGN = ForeignKeys(
        same={"type": "DetDataPreprocessor", "rgb_to_bgr": False, "pad_mask": True,
              "mask_pad_value": 0, "pad_seg": False, "batch_augments": None},
        ignored={"seg_pad_value": "there are no semantic maps to pad",
                 "boxtype2tensor": "boxes are tensors from the start",
                 "non_blocking": "batches are copied without waiting wherever that is possible"},
    )

    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)  # as the channels come, 0..255
    std: tuple[Positive, Positive, Positive] = (58.395, 57.12, 57.375)
    bgr_to_rgb: bool = True  # the channels come as RGB; false: as the files are read, BGR
    pad_size_divisor: Count = 32  # batches are padded to multiples of it, px
    pad_value: float = 0.0  # of padding, behind mean and std


@dataclass(frozen=True)
class PretrainedConfig(Section):
    """checkpoint: `torchvision://resnet50`, a file in the weights folder, or a path."""

    FOREIGN = ForeignKeys(
        ignored={"prefix": "a whole detector's file is read for its backbone without being told",
                 "map_location": "a file is read to the processor first, always"},
    )

    type: Literal["Pretrained"] = "Pretrained"
    checkpoint: str = "torchvision://resnet50"


@dataclass(frozen=True)
class NormConfig(Section):
    """The backbone's batch norms. requires_grad: whether scale and shift are trained."""

    FOREIGN = ForeignKeys(same={"type": "BN", "eps": 1e-5, "momentum": 0.1})

    requires_grad: bool = True


@dataclass(frozen=True)
class BackboneConfig(Section):
    """A ResNet with outputs at strides 4, 8, 16, 32."""

    FOREIGN = ForeignKeys(
        same={"type": "ResNet", "in_channels": 3, "stem_channels": None, "num_stages": 4,
              "strides": (1, 2, 2, 2), "dilations": (1, 1, 1, 1), "out_indices": (0, 1, 2, 3),
              "deep_stem": False, "avg_down": False, "conv_cfg": None, "dcn": None,
              "stage_with_dcn": (False, False, False, False), "plugins": None},
        refused={"pretrained": "init_cfg names the file: {type: Pretrained, checkpoint: FILE}"},
    )

    depth: Literal[10, 18, 34, 50, 101, 152] = 50
    base_channels: Count = 64  # of the stem
    # -1: none, 0: the stem, n: the stem and the first n stages
    frozen_stages: Annotated[int, Range(at_least=-1, at_most=4)] = 1
    norm_cfg: NormConfig = NormConfig()
    norm_eval: bool = True  # every batch norm stays in evaluation mode
    # where a bottleneck has its stride: in its 3x3 conv, or in its first 1x1 conv
    style: Literal["pytorch", "caffe"] = "pytorch"
    with_cp: bool = False  # keep less for the backward pass and compute blocks again
    # random weights: each block starts as its shortcut
    zero_init_residual: bool = False
    init_cfg: PretrainedConfig | None = PretrainedConfig()  # None: random weights

    @property
    def channels(self) -> tuple[int, ...]:
        """Of the four outputs."""
        expansion = 4 if DEPTHS[self.depth][0] == "bottleneck" else 1
        return tuple(self.base_channels * 2**i * expansion for i in range(4))


@dataclass(frozen=True)
class NeckConfig(Section):
    """Feature pyramid of four levels."""

    FOREIGN = ForeignKeys(
        same={"type": "FPN", "num_outs": 4, "start_level": 0, "end_level": -1, "conv_cfg": None,
              "norm_cfg": None, "act_cfg": None, "upsample_cfg": {"mode": "nearest"},
              "init_cfg": {"type": "Xavier", "layer": "Conv2d", "distribution": "uniform"}},
        ignored={**dict.fromkeys(("add_extra_convs", "relu_before_extra_convs"),
                                 "with four levels out of four stages there is none to add"),
                 "no_norm_on_lateral": "the pyramid has no norms"},
    )

    out_channels: Count = 256  # also of the proposal features and of all heads


@dataclass(frozen=True)
class RpnHeadConfig(Section):
    """The learnt proposals."""

    FOREIGN = ForeignKeys(same={"type": "EmbeddingRPNHead", "init_cfg": None})

    num_proposals: Count = 100


_NO_NMS = "a prediction has no threshold and no NMS, only max_per_img"


@dataclass(frozen=True)
class RcnnTestConfig(Section):
    """What a prediction keeps."""

    FOREIGN = ForeignKeys(ignored={"score_thr": _NO_NMS, "nms": _NO_NMS})

    max_per_img: Count = 100
    mask_thr_binary: Annotated[float, Range(above=0, below=1)] = 0.5


@dataclass(frozen=True)
class ModelTestConfig(Section):
    """Section model.test_cfg."""

    FOREIGN = ForeignKeys(same={"rpn": None})

    rcnn: RcnnTestConfig = RcnnTestConfig()


@dataclass(frozen=True)
class ModelConfig(Section):
    """Everything that `build_queryinst` looks at."""

    FOREIGN = ForeignKeys(same={"init_cfg": None})

    type: Literal["QueryInst"] = "QueryInst"
    num_classes: Count = 80
    data_preprocessor: PreprocessorConfig = PreprocessorConfig()
    backbone: BackboneConfig = BackboneConfig()
    neck: NeckConfig = NeckConfig()
    rpn_head: RpnHeadConfig = RpnHeadConfig()
    roi_head: RoiHeadConfig = field(default_factory=RoiHeadConfig)
    train_cfg: ModelTrainConfig = field(default_factory=ModelTrainConfig)
    test_cfg: ModelTestConfig = ModelTestConfig()

    def __post_init__(self) -> None:
        rcnn = as_one(self.train_cfg.rcnn, self.roi_head.num_stages)
        object.__setattr__(self, "train_cfg", replace(self.train_cfg, rcnn=rcnn))
        super().__post_init__()

    @classmethod
    def prepared(cls, node: Node, path: str, base: Any, faults: list[str]) -> Node:
        return in_our_words(node, path, base or cls(), faults)

    def misfits(self) -> list[str]:
        channels = self.neck.out_channels
        faults = count_fault("train_cfg.rcnn", self.train_cfg.rcnn, self.roi_head.num_stages)
        for head in dict.fromkeys(self.roi_head.bbox_heads):
            if channels % head.num_heads:
                faults.append(f"neck.out_channels wants a multiple of roi_head.bbox_head.num_heads "
                              f"{head.num_heads}, got {channels}")
        return faults

    @property
    def rcnns(self) -> tuple[RcnnTrainConfig, ...]:
        """train_cfg.rcnn of each stage."""
        return of_stages(self.train_cfg.rcnn, self.roi_head.num_stages)

    @property
    def stage_loss_weights(self) -> tuple[float, ...]:
        """Of each stage."""
        return self.roi_head.stage_loss_weights or (1.0,) * self.roi_head.num_stages
