"""Schema of a QueryInst config in MMDetection's structure, typed and frozen.

The defaults are those of queryinst_r50_fpn_1x_coco. Where MMDetection repeats a number in several
places, here it stands once: `model.num_classes` drives all heads, `model.neck.out_channels` is the
width of everything behind the backbone, `bbox_head` and `mask_head` describe all stages.
Source: [queryinst.md: Configs].
"""

import re
from dataclasses import dataclass, field, is_dataclass
from typing import Any, Literal

from settings.queryinst_data import (
    TRAIN_DATALOADER,
    VAL_DATALOADER,
    DataLoaderConfig,
    EvaluatorConfig,
)

DEPTHS = {  # of a ResNet: (block, blocks per stage); 10 is ours
    10: ("basic", (1, 1, 1, 1)),
    18: ("basic", (2, 2, 2, 2)),
    34: ("basic", (3, 4, 6, 3)),
    50: ("bottleneck", (3, 4, 6, 3)),
    101: ("bottleneck", (3, 4, 23, 3)),
}
_NAME = re.compile(r"[^/\\\0]+")  # of the run folder


def _require(section: Any, **conditions: tuple[bool, str]) -> None:
    """Raise ValueError naming each key of `section` whose condition does not hold."""
    faults = [
        f"{key} {wanted}{'' if is_dataclass(value) else f', got {value}'}"
        for key, (holds, wanted) in conditions.items()
        if not holds
        for value in (getattr(section, key),)
    ]
    if faults:
        raise ValueError("; ".join(faults))


# --- model


@dataclass(frozen=True)
class PreprocessorConfig:
    """Pixels to network input; BGR files become RGB."""

    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)  # RGB, 0..255
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)
    pad_size_divisor: int = 32  # batches are padded to multiples of it, px

    def __post_init__(self):
        _require(
            self,
            std=(min(self.std) > 0, "must be above 0"),
            pad_size_divisor=(self.pad_size_divisor >= 1, "must be at least 1"),
        )


@dataclass(frozen=True)
class PretrainedConfig:
    """checkpoint: `torchvision://resnet50`, a file in the weights folder, or a path."""

    type: Literal["Pretrained"] = "Pretrained"
    checkpoint: str = "torchvision://resnet50"


@dataclass(frozen=True)
class BackboneConfig:
    """A ResNet with outputs at strides 4, 8, 16, 32."""

    depth: Literal[10, 18, 34, 50, 101] = 50
    base_channels: int = 64  # of the stem
    frozen_stages: int = 1  # -1: none, 0: the stem, n: the stem and the first n stages
    norm_eval: bool = True  # every batch norm stays in evaluation mode
    init_cfg: PretrainedConfig | None = PretrainedConfig()  # None: random weights

    def __post_init__(self):
        _require(
            self,
            base_channels=(self.base_channels >= 1, "must be at least 1"),
            frozen_stages=(-1 <= self.frozen_stages <= 4, "wants a number from -1 to 4"),
        )


@dataclass(frozen=True)
class NeckConfig:
    """Feature pyramid of four levels."""

    out_channels: int = 256  # also of the proposal features and of all heads

    def __post_init__(self):
        _require(self, out_channels=(self.out_channels >= 1, "must be at least 1"))


@dataclass(frozen=True)
class RpnHeadConfig:
    """The learnt proposals."""

    num_proposals: int = 100

    def __post_init__(self):
        _require(self, num_proposals=(self.num_proposals >= 1, "must be at least 1"))


@dataclass(frozen=True)
class LossConfig:
    """loss_weight: factor of the term. The matching costs keep their own: 2, 5 and 2."""

    loss_weight: float = 1.0

    def __post_init__(self):
        _require(self, loss_weight=(self.loss_weight >= 0, "must not be negative"))


@dataclass(frozen=True)
class BboxHeadConfig:
    """The dynamic head of a stage: attention, dynamic conv, classes and boxes."""

    num_heads: int = 8  # of the attention
    num_cls_fcs: int = 1
    num_reg_fcs: int = 3
    feedforward_channels: int = 2048
    dynamic_channels: int = 64  # inner width of both dynamic convs
    loss_cls: LossConfig = LossConfig(2.0)
    loss_bbox: LossConfig = LossConfig(5.0)
    loss_iou: LossConfig = LossConfig(2.0)

    def __post_init__(self):
        _require(
            self,
            num_heads=(self.num_heads >= 1, "must be at least 1"),
            feedforward_channels=(self.feedforward_channels >= 1, "must be at least 1"),
            dynamic_channels=(self.dynamic_channels >= 1, "must be at least 1"),
            num_cls_fcs=(self.num_cls_fcs >= 0, "must not be negative"),
            num_reg_fcs=(self.num_reg_fcs >= 0, "must not be negative"),
        )


@dataclass(frozen=True)
class MaskHeadConfig:
    """The dynamic mask head of a stage."""

    num_convs: int = 4
    loss_mask: LossConfig = LossConfig(8.0)

    def __post_init__(self):
        _require(self, num_convs=(self.num_convs >= 0, "must not be negative"))


@dataclass(frozen=True)
class RoiHeadConfig:
    """num_stages heads one behind the other; none shares weights with another."""

    num_stages: int = 6
    stage_loss_weights: tuple[float, ...] | None = None  # None: 1 for each
    bbox_head: BboxHeadConfig = BboxHeadConfig()
    mask_head: MaskHeadConfig = MaskHeadConfig()

    def __post_init__(self):
        weights = self.stage_loss_weights
        fits = weights is None or len(weights) == self.num_stages
        _require(
            self,
            num_stages=(self.num_stages >= 1, "must be at least 1"),
            stage_loss_weights=(fits and min(weights or (0,)) >= 0,
                                f"wants {self.num_stages} numbers from 0, one a stage"),
        )


@dataclass(frozen=True)
class RcnnTestConfig:
    """What a prediction keeps."""

    max_per_img: int = 100
    mask_thr_binary: float = 0.5

    def __post_init__(self):
        _require(
            self,
            max_per_img=(self.max_per_img >= 1, "must be at least 1"),
            mask_thr_binary=(0 < self.mask_thr_binary < 1, "wants a number between 0 and 1"),
        )


@dataclass(frozen=True)
class ModelTestConfig:
    """Section model.test_cfg."""

    rcnn: RcnnTestConfig = RcnnTestConfig()


@dataclass(frozen=True)
class ModelConfig:
    """Everything that `build_queryinst` looks at."""

    type: Literal["QueryInst"] = "QueryInst"
    num_classes: int = 80
    data_preprocessor: PreprocessorConfig = PreprocessorConfig()
    backbone: BackboneConfig = BackboneConfig()
    neck: NeckConfig = NeckConfig()
    rpn_head: RpnHeadConfig = RpnHeadConfig()
    roi_head: RoiHeadConfig = RoiHeadConfig()
    test_cfg: ModelTestConfig = ModelTestConfig()

    def __post_init__(self):
        channels, heads = self.neck.out_channels, self.roi_head.bbox_head.num_heads
        _require(
            self,
            num_classes=(self.num_classes >= 1, "must be at least 1"),
            neck=(channels % heads == 0, f"out_channels {channels} must be a multiple of "
                                         f"roi_head.bbox_head.num_heads {heads}"),
        )


# --- training


@dataclass(frozen=True)
class OptimizerConfig:
    """lr is for auto_scale_lr.base_batch_size images an update."""

    type: Literal["AdamW"] = "AdamW"
    lr: float = 1e-4
    weight_decay: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.999)

    def __post_init__(self):
        _require(
            self,
            lr=(self.lr >= 0, "must not be negative"),
            weight_decay=(self.weight_decay >= 0, "must not be negative"),
            betas=(all(0 <= beta < 1 for beta in self.betas), "want to be in [0, 1)"),
        )


@dataclass(frozen=True)
class ParamMultipliers:
    """Factors for the parameters whose name contains the key."""

    lr_mult: float = 1.0
    decay_mult: float = 1.0

    def __post_init__(self):
        _require(
            self,
            lr_mult=(self.lr_mult >= 0, "must not be negative"),
            decay_mult=(self.decay_mult >= 0, "must not be negative"),
        )


@dataclass(frozen=True)
class ParamwiseConfig:
    """Of several keys in a parameter's name the longest counts, then the first in the alphabet."""

    custom_keys: dict[str, ParamMultipliers] = field(
        default_factory=lambda: {"backbone": ParamMultipliers(lr_mult=0.1)}
    )


@dataclass(frozen=True)
class ClipGradConfig:
    """max_norm: the largest L2 norm of all gradients together."""

    max_norm: float = 0.1
    norm_type: Literal[2] = 2

    def __post_init__(self):
        _require(self, max_norm=(self.max_norm > 0, "must be above 0"))


@dataclass(frozen=True)
class OptimWrapperConfig:
    """How an update is made. AmpOptimWrapper computes in mixed precision, of `dtype`."""

    type: Literal["OptimWrapper", "AmpOptimWrapper"] = "OptimWrapper"
    dtype: Literal["float16", "bfloat16"] | None = None  # None: float16
    optimizer: OptimizerConfig = OptimizerConfig()
    paramwise_cfg: ParamwiseConfig = field(default_factory=ParamwiseConfig)
    clip_grad: ClipGradConfig | None = ClipGradConfig()
    accumulative_counts: int = 1  # batches an update

    def __post_init__(self):
        _require(self, accumulative_counts=(self.accumulative_counts >= 1, "must be at least 1"))

    @property
    def amp(self) -> str:
        """What it means for --amp: off, fp16 or bf16."""
        if self.type == "OptimWrapper":
            return "off"
        return "bf16" if self.dtype == "bfloat16" else "fp16"


@dataclass(frozen=True)
class SchedulerConfig:
    """One factor of the learning rate; all of them are multiplied.

    LinearLR:    by iteration, from start_factor at `begin` = 0 to 1 at iteration end - 1
    MultiStepLR: by epoch, one more `gamma` from each of `milestones` on
    """

    type: Literal["LinearLR", "MultiStepLR"]
    start_factor: float = 0.001
    by_epoch: bool | None = None  # LinearLR: only false, MultiStepLR: only true
    begin: int = 0
    end: int | None = None
    milestones: tuple[int, ...] = ()
    gamma: float = 0.1

    def __post_init__(self):
        epochs = self.type == "MultiStepLR"
        _require(
            self,
            by_epoch=(self.by_epoch in (None, epochs), f"must be {str(epochs).lower()} here"),
            begin=(self.begin == 0, "must be 0 here"),
            start_factor=(0 < self.start_factor <= 1, "wants a number above 0, at most 1"),
            gamma=(self.gamma > 0, "must be above 0"),
            end=(epochs or (self.end or 0) >= 1, "of LinearLR wants a number of iterations"),
            milestones=(list(self.milestones) == sorted(self.milestones)
                        and min(self.milestones, default=1) >= 1, "must ascend, from 1"),
        )


@dataclass(frozen=True)
class TrainLoopConfig:
    """Section train_cfg."""

    type: Literal["EpochBasedTrainLoop"] = "EpochBasedTrainLoop"
    max_epochs: int = 12
    val_interval: int = 1  # epochs between validations; the last epoch has one always
    val_begin: int = 1  # first epoch, from 1, that may have one

    def __post_init__(self):
        _require(
            self,
            max_epochs=(self.max_epochs >= 1, "must be at least 1"),
            val_interval=(self.val_interval >= 1, "must be at least 1"),
            val_begin=(self.val_begin >= 1, "must be at least 1"),
        )


@dataclass(frozen=True)
class CheckpointHookConfig:
    """When checkpoints are written and which stay."""

    type: Literal["CheckpointHook"] = "CheckpointHook"
    interval: int = 1  # epochs, or iterations; -1: none but the last
    by_epoch: bool = True
    max_keep_ckpts: int = -1  # of the regular ones; -1: all
    out_dir: str | None = None  # None: the work directory
    save_last: bool = True
    save_best: str | tuple[str, ...] | None = None  # metrics, coco/segm_mAP; auto: the first one
    rule: Literal["greater", "less"] | None = None  # None: as the metric's name says

    def __post_init__(self):
        _require(
            self,
            interval=(self.interval == -1 or self.interval >= 1, "wants -1 or a number above 0"),
            max_keep_ckpts=(self.max_keep_ckpts == -1 or self.max_keep_ckpts >= 1,
                            "wants -1 or a number above 0"),
        )


@dataclass(frozen=True)
class LoggerHookConfig:
    """interval: iterations between two lines."""

    type: Literal["LoggerHook"] = "LoggerHook"
    interval: int = 50

    def __post_init__(self):
        _require(self, interval=(self.interval >= 1, "must be at least 1"))


@dataclass(frozen=True)
class DefaultHooksConfig:
    """Section default_hooks."""

    logger: LoggerHookConfig = LoggerHookConfig()
    checkpoint: CheckpointHookConfig = CheckpointHookConfig()


@dataclass(frozen=True)
class LogProcessorConfig:
    """window_size: iterations behind the means of a line."""

    window_size: int = 50

    def __post_init__(self):
        _require(self, window_size=(self.window_size >= 1, "must be at least 1"))


@dataclass(frozen=True)
class AutoScaleLrConfig:
    """enable: the rate is multiplied by the images a batch over all processes / base."""

    enable: bool = False
    base_batch_size: int = 16

    def __post_init__(self):
        _require(self, base_batch_size=(self.base_batch_size >= 1, "must be at least 1"))


@dataclass(frozen=True)
class RandomnessConfig:
    """seed: of everything drawn in a run; None: the script's --seed."""

    seed: int | None = None

    def __post_init__(self):
        _require(self, seed=(self.seed is None or 0 <= self.seed < 2**32, "wants 0 to 2^32 - 1"))


@dataclass(frozen=True)
class QueryInstConfig:
    """A whole config."""

    model: ModelConfig = ModelConfig()
    train_dataloader: DataLoaderConfig = TRAIN_DATALOADER
    val_dataloader: DataLoaderConfig = VAL_DATALOADER
    val_evaluator: EvaluatorConfig = field(default_factory=EvaluatorConfig)
    train_cfg: TrainLoopConfig = TrainLoopConfig()
    optim_wrapper: OptimWrapperConfig = field(default_factory=OptimWrapperConfig)
    param_scheduler: tuple[SchedulerConfig, ...] = (
        SchedulerConfig("LinearLR", end=1000),
        SchedulerConfig("MultiStepLR", milestones=(8, 11)),
    )
    default_hooks: DefaultHooksConfig = DefaultHooksConfig()
    log_processor: LogProcessorConfig = LogProcessorConfig()
    auto_scale_lr: AutoScaleLrConfig = AutoScaleLrConfig()
    randomness: RandomnessConfig = RandomnessConfig()
    load_from: str | None = None  # weights to start from
    resume: bool = False  # from load_from, else from the work directory's newest
    work_dir: str | None = None  # None: work_dirs/<name>
    name: str | None = None  # None: the file's, without its ending

    def __post_init__(self):
        twice = [s.type for s in self.param_scheduler]
        named = self.name is None or (_NAME.fullmatch(self.name) and self.name not in (".", ".."))
        _require(
            self,
            name=(bool(named), "wants to be the name of a folder, without slashes"),
        )
        if len(set(twice)) < len(twice):
            raise ValueError("param_scheduler has a type twice")
        drawn = [step.type for step in self.val_dataloader.dataset.transforms
                 if step.type != "Resize"]
        if drawn:
            raise ValueError("val_dataloader.dataset.pipeline may resize, but it draws by "
                             f"{', '.join(drawn)}: leave that to the training's")

    @property
    def warmup(self) -> tuple[int, float]:
        """(iteration that has the full rate first, factor of iteration 0); (0, 1.0) without."""
        for scheduler in self.param_scheduler:
            if scheduler.type == "LinearLR":
                # the ramp's last iteration is end - 1, and it has the full rate
                return max(scheduler.end - 1, 0), scheduler.start_factor
        return 0, 1.0

    @property
    def steps(self) -> tuple[tuple[int, ...], float]:
        """(epochs from which on the rate is multiplied once more, the factor)."""
        for scheduler in self.param_scheduler:
            if scheduler.type == "MultiStepLR":
                return scheduler.milestones, scheduler.gamma
        return (), 1.0
