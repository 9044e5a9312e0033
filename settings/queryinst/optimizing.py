"""Schema of what a QueryInst config says about updates: optimizer, clipping, rates.

A class's own defaults are MMEngine's, for a section that leaves a key out; those of
queryinst_r50_fpn_1x_coco are OPTIM_WRAPPER and PARAM_SCHEDULER.
Source: [queryinst.md: Optimizer], [queryinst.md: Learning rate].
"""

from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal

from settings.foreign import ForeignKeys
from settings.nodes import Node
from settings.ranges import (
    ASCENDING,
    Count,
    NotNegative,
    Positive,
    Range,
    Section,
    Whole,
)

_Beta = Annotated[float, Range(at_least=0, below=1)]
# MMEngine's defaults of what a schedule's type has
_MMENGINES = {"start_factor": 1 / 3, "end_factor": 1.0, "factor": 1 / 3, "gamma": 0.1,
              "eta_min": 0.0, "power": 1.0}
_Share = Annotated[float, Range(above=0, at_most=1)]
_ANY_LOOP = "how torch loops over the parameters is chosen here, and the updates are the same"
_NONE_SUCH = "the network has no such layer"

# of a torch optimizer: type -> its own keys
_OPTIMIZERS = {
    "AdamW": ("betas", "eps", "amsgrad"),
    "SGD": ("momentum", "dampening", "nesterov"),
}
# of a schedule: type -> (keys it needs, keys it may have)
_SCHEDULES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "LinearLR": (("end",), ("start_factor", "end_factor")),
    "ConstantLR": ((), ("factor",)),
    "MultiStepLR": (("milestones",), ("gamma",)),
    "StepLR": (("step_size",), ("gamma",)),
    "ExponentialLR": (("gamma",), ()),
    "CosineAnnealingLR": ((), ("T_max", "eta_min", "eta_min_ratio")),
    "PolyLR": (("end",), ("power", "eta_min")),
}
# What our config.yaml files said in schedules of other types, before those had keys of their own.
_FORMERLY = {"start_factor": "0.001", "milestones": [], "gamma": "0.1"}
_COMMON = ("type", "by_epoch", "begin", "end", "convert_to_iter_based")


def _of_type(section: Any, allowed: tuple[str, ...]) -> list[str]:
    """A fault for each key that is given and that the section's type does not have."""
    return [f"{key} is no key of {section.type}" for key, value in vars(section).items()
            if value is not None and key not in allowed]


@dataclass(frozen=True)
class OptimizerConfig(Section):
    """lr is for auto_scale_lr.base_batch_size images an update. None: torch's default."""

    FOREIGN: ClassVar = ForeignKeys(
        same={"maximize": False, "capturable": False, "differentiable": False},
        ignored={"foreach": _ANY_LOOP, "fused": _ANY_LOOP})

    type: Literal["AdamW", "SGD"] = "AdamW"
    lr: NotNegative = 1e-3
    weight_decay: NotNegative | None = None
    betas: tuple[_Beta, _Beta] | None = None  # AdamW
    eps: Positive | None = None
    amsgrad: bool | None = None
    momentum: NotNegative | None = None  # SGD
    dampening: float | None = None
    nesterov: bool | None = None

    def misfits(self) -> list[str]:
        faults = _of_type(self, ("type", "lr", "weight_decay", *_OPTIMIZERS[self.type]))
        if self.nesterov and (not self.momentum or self.dampening):
            faults.append("nesterov wants a momentum above 0 and no dampening")
        return faults

    @property
    def decay(self) -> float:
        """weight_decay, or torch's default for the type."""
        if self.weight_decay is not None:
            return self.weight_decay
        return 0.01 if self.type == "AdamW" else 0.0

    @property
    def options(self) -> dict[str, Any]:
        """The type's own keys that are given."""
        return {key: value for key in _OPTIMIZERS[self.type]
                if (value := vars(self)[key]) is not None}


@dataclass(frozen=True)
class ParamMultipliers(Section):
    """Factors for the parameters whose name contains the key."""

    lr_mult: NotNegative = 1.0
    decay_mult: NotNegative = 1.0


@dataclass(frozen=True)
class ParamwiseConfig(Section):
    """Factors of rate and decay by what a parameter is; None: as if it were not there.

    custom_keys:     of several keys in a parameter's name the longest counts, then the first in the
                     alphabet; none of the other rules applies to that parameter
    norm_decay_mult: weights and biases of norm layers
    bias_decay_mult: else, what is called `bias`
    flat_decay_mult: else, what has one dimension
    bias_lr_mult:    what is called `bias`, outside of norm layers
    """

    FOREIGN: ClassVar = ForeignKeys(ignored={
        "dwconv_decay_mult": _NONE_SUCH, "dcn_offset_lr_mult": _NONE_SUCH,
        "bypass_duplicate": "no parameter belongs to two layers"})

    custom_keys: dict[str, ParamMultipliers] = field(default_factory=dict)
    bias_lr_mult: NotNegative | None = None
    bias_decay_mult: NotNegative | None = None
    norm_decay_mult: NotNegative | None = None
    flat_decay_mult: NotNegative | None = None


@dataclass(frozen=True)
class ClipGradConfig(Section):
    """max_norm: the largest norm of all gradients together; norm_type: p of the norm, or inf."""

    FOREIGN: ClassVar = ForeignKeys(
        same={"type": "norm"},
        ignored={"error_if_nonfinite": "a loss or gradient that is not finite ends the run, "
                                       "--nan skip leaves its update out",
                 "foreach": _ANY_LOOP})

    max_norm: Positive
    norm_type: Literal["inf"] | float = 2.0

    def misfits(self) -> list[str]:
        return [] if float(self.norm_type) > 0 else [
            f"norm_type wants a number above 0 or inf, got {self.norm_type:g}"]


@dataclass(frozen=True)
class LossScaleConfig(Section):
    """How the factor of the loss in float16 begins and moves; torch's GradScaler has these keys."""

    FOREIGN: ClassVar = ForeignKeys(same={"enabled": True})

    init_scale: Positive = 65536.0
    growth_factor: Annotated[float, Range(above=1)] = 2.0
    backoff_factor: Annotated[float, Range(above=0, below=1)] = 0.5
    growth_interval: Count = 2000


@dataclass(frozen=True)
class OptimWrapperConfig(Section):
    """How an update is made. AmpOptimWrapper computes in mixed precision, of `dtype`.

    loss_scale: of float16; a number stays what it is, "dynamic" moves from 65536 on
    """

    FOREIGN: ClassVar = ForeignKeys(
        same={"constructor": "DefaultOptimWrapperConstructor", "use_fsdp": False})

    type: Literal["OptimWrapper", "AmpOptimWrapper"] = "OptimWrapper"
    dtype: Literal["float16", "bfloat16"] | None = None  # None: float16
    loss_scale: Literal["dynamic"] | float | LossScaleConfig = "dynamic"
    optimizer: OptimizerConfig = OptimizerConfig()
    paramwise_cfg: ParamwiseConfig | None = None
    clip_grad: ClipGradConfig | None = None
    accumulative_counts: Count = 1  # batches an update

    def misfits(self) -> list[str]:
        scale = self.loss_scale
        if isinstance(scale, float) and not scale > 0:
            return [f"loss_scale wants dynamic, a number above 0 or a mapping, got {scale:g}"]
        return []

    @property
    def amp(self) -> str:
        """What it means for --amp: off, fp16 or bf16."""
        if self.type == "OptimWrapper":
            return "off"
        return "bf16" if self.dtype == "bfloat16" else "fp16"

    @property
    def norm_p(self) -> float:
        """p of the norm of all gradients."""
        return 2.0 if self.clip_grad is None else float(self.clip_grad.norm_type)

    @property
    def scaler_options(self) -> dict[str, Any]:
        """Of torch's GradScaler; {"fixed": number} for a scale that never moves."""
        scale = self.loss_scale
        if isinstance(scale, LossScaleConfig):
            return dict(vars(scale))
        return {} if isinstance(scale, str) else {"fixed": scale}


@dataclass(frozen=True)
class SchedulerConfig(Section):
    """One factor of the learning rate; all of them are multiplied.

    It acts from `begin` on, in epochs or iterations, and stays as it is from `end` on. t counts
    from `begin`, n is end - begin.

    LinearLR:          from start_factor to end_factor, which t = n - 1 has first
    ConstantLR:        `factor`, until t = n - 1
    MultiStepLR:       one more `gamma` at each of `milestones`, which t reaches
    StepLR:            one more `gamma` every step_size
    ExponentialLR:     one more `gamma` with each t
    CosineAnnealingLR: half a cosine down to eta_min, a rate, at t = T_max, or to eta_min_ratio
    PolyLR:            (1 - t / (n - 1)) ^ power, down to eta_min

    What is None is as `number` has it; T_max: end - begin.
    by_epoch: None: false for LinearLR, true for the others
    convert_to_iter_based: the numbers are epochs, the rate moves with each iteration
    """

    FOREIGN: ClassVar = ForeignKeys(
        same={"param_name": "lr", "last_step": -1},
        ignored={"verbose": "the log has the rates"})

    type: Literal["LinearLR", "ConstantLR", "MultiStepLR", "StepLR", "ExponentialLR",
                  "CosineAnnealingLR", "PolyLR"]
    start_factor: _Share | None = None
    end_factor: Annotated[float, Range(at_least=0, at_most=1)] | None = None
    factor: _Share | None = None
    by_epoch: bool | None = True
    begin: Whole = 0
    end: int | None = None
    convert_to_iter_based: bool = False
    milestones: Annotated[tuple[Count, ...], ASCENDING] | None = None
    step_size: Count | None = None
    gamma: Positive | None = None
    T_max: Count | None = None
    eta_min: NotNegative | None = None
    eta_min_ratio: Annotated[float, Range(at_least=0, at_most=1)] | None = None
    power: Positive | None = None

    @classmethod
    def prepared(cls, node: Node, path: str, base: Any, faults: list[str]) -> Node:
        kind = node.value.get("type")
        own = [key for keys in _SCHEDULES.get(kind.value if kind else "", ()) for key in keys]
        kept = {key: child for key, child in node.value.items()
                if key in own or child.value != _FORMERLY.get(key)}
        return replace(node, value=kept)

    def misfits(self) -> list[str]:
        needed, allowed = _SCHEDULES[self.type]
        faults = _of_type(self, (*_COMMON, *needed, *allowed))
        faults += [f"{key} is missing, {self.type} needs it" for key in needed
                   if vars(self)[key] is None]
        if self.end is not None and self.end <= self.begin:
            faults.append(f"end wants a number above begin {self.begin}, got {self.end}")
        if self.type == "CosineAnnealingLR":
            if self.T_max is None and self.end is None:
                faults.append("T_max is missing, CosineAnnealingLR needs it or end")
            if self.eta_min is not None and self.eta_min_ratio is not None:
                faults.append("eta_min and eta_min_ratio are both given: leave one out")
        if self.convert_to_iter_based and not self.in_epochs:
            faults.append("convert_to_iter_based wants by_epoch true")
        return faults

    def number(self, key: str) -> float:
        """start_factor, end_factor, factor, gamma, eta_min or power, as MMEngine fills it in."""
        given = vars(self)[key]
        return _MMENGINES[key] if given is None else given

    @property
    def in_epochs(self) -> bool:
        """Whether its numbers are epochs."""
        return self.type != "LinearLR" if self.by_epoch is None else self.by_epoch


@dataclass(frozen=True)
class AutoScaleLrConfig(Section):
    """enable: the rate is multiplied by the images a batch over all processes / base."""

    enable: bool = False
    base_batch_size: Count = 16


AUTO_SCALE_LR = AutoScaleLrConfig()
OPTIM_WRAPPER = OptimWrapperConfig(
    optimizer=OptimizerConfig("AdamW", 1e-4, 1e-4),
    paramwise_cfg=ParamwiseConfig({"backbone": ParamMultipliers(lr_mult=0.1)}),
    clip_grad=ClipGradConfig(0.1),
)
PARAM_SCHEDULER = (
    SchedulerConfig("LinearLR", start_factor=0.001, by_epoch=False, end=1000),
    SchedulerConfig("MultiStepLR", milestones=(8, 11), gamma=0.1),
)
