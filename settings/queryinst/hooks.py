"""Schema of what stands in a QueryInst config's hooks: logs, checkpoints, early ends.

A class's own defaults are MMEngine's, for a section that leaves a key out; those of
queryinst_r50_fpn_1x_coco are DEFAULT_HOOKS and LOG_PROCESSOR. Each hook's work is done by the
script's loop; no class of a config is ever built.
Source: [queryinst.md: Checkpoints], [queryinst.md: Run folder and log].
"""

from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass
from typing import Annotated, Any, ClassVar, Literal

from runtime.errors import did_you_mean
from settings.foreign import ForeignKeys, Note
from settings.nodes import from_plain
from settings.ranges import NOT_EMPTY, Count, Distinct, Rule, Section, Whole
from settings.schema import Builder

_OFF_OR_COUNT = Rule("-1 or a number above 0", lambda number: number == -1 or number >= 1)
_TEMPLATE = Rule("a file's name with one {} for the number, such as epoch_{}.pth",
                 lambda text: text.count("{}") == 1 and text.endswith(".pth")
                 and not set(text.replace("{}", "")) & set("{}/\\\0"))
_PRIORITY = "what is done after an update has a fixed order"
_LOCAL = "files go to this machine's disk"


def _is_local(backend: dict[str, str] | None) -> bool:
    return not backend or backend.get("backend", "local") == "local"


@dataclass(frozen=True)
class CheckpointHookConfig(Section):
    """When checkpoints are written, which stay and what they hold."""

    FOREIGN: ClassVar = ForeignKeys(ignored={"priority": _PRIORITY})

    type: Literal["CheckpointHook"] = "CheckpointHook"
    interval: Annotated[int, _OFF_OR_COUNT] = -1  # epochs, or iterations; -1: none but the last
    by_epoch: bool = True
    save_begin: Whole = 0  # epoch or iteration from which the intervals count
    max_keep_ckpts: Annotated[int, _OFF_OR_COUNT] = -1  # of the regular ones; -1: all
    out_dir: str | None = None  # None: the work directory
    filename_tmpl: Annotated[str, _TEMPLATE] | None = None  # None: epoch_{}.pth or iter_{}.pth
    save_last: bool = True
    save_best: str | tuple[str, ...] | None = None  # metrics, coco/segm_mAP; auto: the first one
    # None: as the metric's name says; several: one for each of save_best
    rule: Literal["greater", "less"] | tuple[Literal["greater", "less"], ...] | None = None
    greater_keys: tuple[str, ...] | None = None  # words in a metric's name of which more is better
    less_keys: tuple[str, ...] | None = None
    # what the checkpoints hold beside the weights; one that a stop leaves holds all
    save_optimizer: bool = True
    save_param_scheduler: bool = True
    # of the last and the best, in copies beside them when training is over
    published_keys: Annotated[tuple[str, ...] | str, NOT_EMPTY, Distinct()] | None = None
    backend_args: dict[str, str] | None = None
    file_client_args: dict[str, str] | None = None

    def misfits(self) -> list[str]:
        faults = [f"{key} wants a local backend, got {vars(self)[key]['backend']}: other ones are "
                  "not supported here" for key in ("backend_args", "file_client_args")
                  if not _is_local(vars(self)[key])]
        if isinstance(self.rule, tuple) and len(self.rule) != len(self.watched):
            faults.append(f"rule wants one for each of save_best, got {len(self.rule)} for "
                          f"{len(self.watched)}")
        return faults

    @property
    def watched(self) -> tuple[str, ...]:
        """The metrics of save_best."""
        return (self.save_best,) if isinstance(self.save_best, str) else self.save_best or ()

    @property
    def rules(self) -> dict[str, str]:
        """{metric of save_best: greater or less}, where `rule` says so."""
        if self.rule is None:
            return {}
        each = (self.rule,) * len(self.watched) if isinstance(self.rule, str) else self.rule
        return dict(zip(self.watched, each, strict=True))

    @property
    def published(self) -> tuple[str, ...]:
        """The keys of the published copies; () for no copies."""
        keys = self.published_keys
        return (keys,) if isinstance(keys, str) else keys or ()


@dataclass(frozen=True)
class LoggerHookConfig(Section):
    """interval: iterations between two lines."""

    FOREIGN: ClassVar = ForeignKeys(ignored={
        "priority": _PRIORITY, "out_dir": _LOCAL + ", the log's to the work directory",
        "out_suffix": _LOCAL, "keep_local": _LOCAL, "backend_args": _LOCAL,
        "file_client_args": _LOCAL,
        "log_metric_by_epoch": "a validation's scalars are counted by epoch, and metrics.jsonl has "
                               "its iteration"})

    type: Literal["LoggerHook"] = "LoggerHook"
    interval: Count = 10
    ignore_last: bool = True  # no line at an epoch's end when the interval does not ask for it
    interval_exp_name: Whole = 1000  # iterations between two lines that name the run; 0: none


@dataclass(frozen=True)
class EarlyStoppingHookConfig(Section):
    """The run ends when `monitor` has not become better for `patience` validations.

    min_delta: what counts as better is better by more than that
    stopping_threshold: a value that is good enough to end; check_finite: one that is not finite
    """

    FOREIGN: ClassVar = ForeignKeys(ignored={"priority": _PRIORITY})

    monitor: str
    type: Literal["EarlyStoppingHook"] = "EarlyStoppingHook"
    rule: Literal["greater", "less"] | None = None
    min_delta: float = 0.1
    strict: bool = False
    check_finite: bool = True
    patience: Count = 5
    stopping_threshold: float | None = None


@dataclass(frozen=True)
class DefaultHooksConfig(Section):
    """Section default_hooks."""

    FOREIGN: ClassVar = ForeignKeys(
        same={"param_scheduler": {"type": "ParamSchedulerHook"}},
        ignored={
            "timer": "times are always taken", "runtime_info": "the log has them always",
            "sampler_seed": "each epoch has an order of its own, from the seed",
            "visualization": "a validation's pictures go to predictions.png"})

    logger: LoggerHookConfig = LoggerHookConfig()
    checkpoint: CheckpointHookConfig = CheckpointHookConfig(interval=1)
    early_stopping: EarlyStoppingHookConfig | None = None


@dataclass(frozen=True)
class LogProcessorConfig(Section):
    """window_size: iterations behind the means of a line; by_epoch: lines count within epochs."""

    FOREIGN: ClassVar = ForeignKeys(
        same={"log_with_hierarchy": False, "mean_pattern": r".*(loss|time|data_time|grad_norm).*"},
        refused={"custom_cfg": "a line has the means over window_size"})

    type: Literal["LogProcessor"] = "LogProcessor"
    window_size: Count = 10
    by_epoch: bool = True
    num_digits: Count = 4  # behind the point


DEFAULT_HOOKS = DefaultHooksConfig(logger=LoggerHookConfig(interval=50))
LOG_PROCESSOR = LogProcessorConfig(window_size=50)

# custom_hooks, by type: why one changes nothing here
_NEEDLESS_HOOKS = {
    "NumClassCheckHook": "the heads have as many classes as the data",
    "CheckInvalidLossHook": "a loss that is not finite ends the run in any case",
    "EmptyCacheHook": "torch's memory is left to torch",
    "SyncBuffersHook": "a validation takes rank 0's statistics on all ranks",
    "IterTimerHook": "times are always taken",
    "RuntimeInfoHook": "the log has them always",
    "ParamSchedulerHook": "param_scheduler alone says what the rates are",
    "DistSamplerSeedHook": "each epoch has an order of its own, from the seed",
}


def needless_hooks(hooks: Iterable[Mapping[str, Any]]) -> list[Note]:
    """A note for each of a config's custom_hooks that changes nothing."""
    return [Note(f"custom_hooks[{i}] ({hook['type']})", _NEEDLESS_HOOKS[hook["type"]])
            for i, hook in enumerate(hooks) if hook.get("type") in _NEEDLESS_HOOKS]


def early_stopping_of(
    hooks: Iterable[Mapping[str, Any]], faults: list[str]
) -> EarlyStoppingHookConfig | None:
    """The EarlyStoppingHook among a config's custom_hooks; a fault for each hook of no known kind.

    faults: lines that begin with the key are appended
    """
    found = None
    for i, hook in enumerate(hooks):
        key, kind = f"custom_hooks[{i}]", str(hook.get("type"))
        if kind == "EarlyStoppingHook":
            inner: list[str] = []
            builder = Builder(EarlyStoppingHookConfig, inner)
            built = builder.build(EarlyStoppingHookConfig, from_plain(hook, key), key, MISSING)
            faults += inner
            found = found if inner else built
        elif kind in ("EMAHook", "ExpMomentumEMAHook"):
            momentum = hook.get("momentum", 0.0002)
            decay = f"{1 - momentum:g}" if isinstance(momentum, float) else "DECAY"
            faults.append(f"{key} {kind} is not run here: leave it out and give --ema {decay}, "
                          "which averages the weights alike")
        elif kind not in _NEEDLESS_HOOKS:
            known = ("EarlyStoppingHook", *_NEEDLESS_HOOKS)
            faults.append(f"{key} {kind} is not supported here: a config's code is never run"
                          f".{did_you_mean(kind, known)}")
    return found
