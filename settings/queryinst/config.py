"""Schema of a QueryInst config in MMDetection's structure, typed and frozen.

The defaults are those of queryinst_r50_fpn_1x_coco. Where MMDetection repeats a number in several
places, here it stands once: `model.num_classes` drives all heads, `model.neck.out_channels` is the
width of everything behind the backbone, `bbox_head` and `mask_head` describe all stages.
Source: [queryinst.md: Configs].
"""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from settings.queryinst.data import (
    TRAIN_DATALOADER,
    VAL_DATALOADER,
    DataLoaderConfig,
    EvaluatorConfig,
)
from settings.queryinst.model import ModelConfig
from settings.ranges import (
    ASCENDING,
    Count,
    FolderName,
    NotNegative,
    OneOf,
    Positive,
    Range,
    Rule,
    Section,
    Seed,
)

_Beta = Annotated[float, Range(at_least=0, below=1)]
_OFF_OR_COUNT = Rule("-1 or a number above 0", lambda number: number == -1 or number >= 1)


@dataclass(frozen=True)
class OptimizerConfig(Section):
    """lr is for auto_scale_lr.base_batch_size images an update."""

    type: Literal["AdamW"] = "AdamW"
    lr: NotNegative = 1e-4
    weight_decay: NotNegative = 1e-4
    betas: tuple[_Beta, _Beta] = (0.9, 0.999)


@dataclass(frozen=True)
class ParamMultipliers(Section):
    """Factors for the parameters whose name contains the key."""

    lr_mult: NotNegative = 1.0
    decay_mult: NotNegative = 1.0


@dataclass(frozen=True)
class ParamwiseConfig(Section):
    """Of several keys in a parameter's name the longest counts, then the first in the alphabet."""

    custom_keys: dict[str, ParamMultipliers] = field(
        default_factory=lambda: {"backbone": ParamMultipliers(lr_mult=0.1)}
    )


@dataclass(frozen=True)
class ClipGradConfig(Section):
    """max_norm: the largest L2 norm of all gradients together."""

    max_norm: Positive = 0.1
    norm_type: Literal[2] = 2


@dataclass(frozen=True)
class OptimWrapperConfig(Section):
    """How an update is made. AmpOptimWrapper computes in mixed precision, of `dtype`."""

    type: Literal["OptimWrapper", "AmpOptimWrapper"] = "OptimWrapper"
    dtype: Literal["float16", "bfloat16"] | None = None  # None: float16
    optimizer: OptimizerConfig = OptimizerConfig()
    paramwise_cfg: ParamwiseConfig = field(default_factory=ParamwiseConfig)
    clip_grad: ClipGradConfig | None = ClipGradConfig()
    accumulative_counts: Count = 1  # batches an update

    @property
    def amp(self) -> str:
        """What it means for --amp: off, fp16 or bf16."""
        if self.type == "OptimWrapper":
            return "off"
        return "bf16" if self.dtype == "bfloat16" else "fp16"


@dataclass(frozen=True)
class SchedulerConfig(Section):
    """One factor of the learning rate; all of them are multiplied.

    LinearLR:    by iteration, from start_factor at `begin` = 0 to 1 at iteration end - 1
    MultiStepLR: by epoch, one more `gamma` from each of `milestones` on
    """

    type: Literal["LinearLR", "MultiStepLR"]
    start_factor: Annotated[float, Range(above=0, at_most=1)] = 0.001
    by_epoch: bool | None = None  # LinearLR: only false, MultiStepLR: only true
    begin: Annotated[int, OneOf((0,))] = 0
    end: int | None = None
    milestones: Annotated[tuple[Count, ...], ASCENDING] = ()
    gamma: Positive = 0.1

    def misfits(self) -> list[str]:
        epochs = self.type == "MultiStepLR"
        faults = []
        if self.by_epoch not in (None, epochs):
            faults.append(f"by_epoch wants {str(epochs).lower()} for {self.type}, got "
                          f"{str(self.by_epoch).lower()}")
        if not epochs and (self.end or 0) < 1:
            faults.append(f"end wants a number of iterations for LinearLR, got {self.end}")
        return faults


@dataclass(frozen=True)
class TrainLoopConfig(Section):
    """Section train_cfg."""

    type: Literal["EpochBasedTrainLoop"] = "EpochBasedTrainLoop"
    max_epochs: Count = 12
    val_interval: Count = 1  # epochs between validations; the last epoch has one always
    val_begin: Count = 1  # first epoch, from 1, that may have one


@dataclass(frozen=True)
class CheckpointHookConfig(Section):
    """When checkpoints are written and which stay."""

    type: Literal["CheckpointHook"] = "CheckpointHook"
    interval: Annotated[int, _OFF_OR_COUNT] = 1  # epochs, or iterations; -1: none but the last
    by_epoch: bool = True
    max_keep_ckpts: Annotated[int, _OFF_OR_COUNT] = -1  # of the regular ones; -1: all
    out_dir: str | None = None  # None: the work directory
    save_last: bool = True
    save_best: str | tuple[str, ...] | None = None  # metrics, coco/segm_mAP; auto: the first one
    rule: Literal["greater", "less"] | None = None  # None: as the metric's name says


@dataclass(frozen=True)
class LoggerHookConfig(Section):
    """interval: iterations between two lines."""

    type: Literal["LoggerHook"] = "LoggerHook"
    interval: Count = 50


@dataclass(frozen=True)
class DefaultHooksConfig(Section):
    """Section default_hooks."""

    logger: LoggerHookConfig = LoggerHookConfig()
    checkpoint: CheckpointHookConfig = CheckpointHookConfig()


@dataclass(frozen=True)
class LogProcessorConfig(Section):
    """window_size: iterations behind the means of a line."""

    window_size: Count = 50


@dataclass(frozen=True)
class AutoScaleLrConfig(Section):
    """enable: the rate is multiplied by the images a batch over all processes / base."""

    enable: bool = False
    base_batch_size: Count = 16


@dataclass(frozen=True)
class RandomnessConfig(Section):
    """seed: of everything drawn in a run; None: the script's --seed."""

    seed: Seed | None = None


@dataclass(frozen=True)
class QueryInstConfig(Section):
    """A whole config."""

    model: ModelConfig = field(default_factory=ModelConfig)
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
    name: FolderName | None = None  # None: the file's, without its ending

    def misfits(self) -> list[str]:
        types = [scheduler.type for scheduler in self.param_scheduler]
        faults = []
        if len(set(types)) < len(types):
            faults.append(f"param_scheduler wants each type once, got {', '.join(types)}")
        drawn = [step.type for step in self.val_dataloader.dataset.transforms
                 if step.type != "Resize"]
        if drawn:
            faults.append("val_dataloader.dataset.pipeline may resize, but it draws by "
                          f"{', '.join(drawn)}: leave that to the training's")
        return faults

    @property
    def for_flags(self) -> dict[str, Any]:
        """{flag of train_queryinst: what it is where the command line leaves it open}."""
        wrapper, clip = self.optim_wrapper, self.optim_wrapper.clip_grad
        return {"seed": self.randomness.seed or 0, "workers": self.train_dataloader.num_workers,
                "accumulate": wrapper.accumulative_counts, "amp": wrapper.amp,
                "clip_grad": None if clip is None else clip.max_norm,
                "log_every": self.default_hooks.logger.interval, "pretrained": self.load_from}

    @property
    def warmup(self) -> tuple[int, float]:
        """(iteration that has the full rate first, factor of iteration 0); (0, 1.0) without."""
        for scheduler in self.param_scheduler:
            if scheduler.type == "LinearLR":
                # the ramp's last iteration is end - 1, and it has the full rate
                return (scheduler.end or 1) - 1, scheduler.start_factor
        return 0, 1.0

    @property
    def steps(self) -> tuple[tuple[int, ...], float]:
        """(epochs from which on the rate is multiplied once more, the factor)."""
        for scheduler in self.param_scheduler:
            if scheduler.type == "MultiStepLR":
                return scheduler.milestones, scheduler.gamma
        return (), 1.0
