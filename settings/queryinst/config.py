"""Schema of a QueryInst config in MMDetection's structure, typed and frozen.

The defaults are those of queryinst_r50_fpn_1x_coco. Where MMDetection repeats a number in several
places, here it stands once: `model.num_classes` drives all heads, `model.neck.out_channels` is the
width of everything behind the backbone, `bbox_head` and `mask_head` describe all stages.
Source: [queryinst.md: Configs].
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, ClassVar, Literal

from runtime.errors import InputError
from settings.foreign import Note
from settings.queryinst import running
from settings.queryinst.data import (
    TRAIN_DATALOADER,
    VAL_DATALOADER,
    DataLoaderConfig,
    scoring_faults,
)
from settings.queryinst.evaluating import EVALUATOR, EvaluatorConfig
from settings.queryinst.hooks import (
    DEFAULT_HOOKS,
    LOG_PROCESSOR,
    DefaultHooksConfig,
    EarlyStoppingHookConfig,
    LoggerHookConfig,
    LogProcessorConfig,
    early_stopping_of,
    needless_hooks,
)
from settings.queryinst.model import ModelConfig
from settings.queryinst.optimizing import (
    AUTO_SCALE_LR,
    OPTIM_WRAPPER,
    PARAM_SCHEDULER,
    AutoScaleLrConfig,
    OptimWrapperConfig,
    SchedulerConfig,
)
from settings.queryinst.running import (
    RANDOMNESS,
    TEST_CFG,
    TRAIN_CFG,
    VAL_CFG,
    ModelWrapperConfig,
    RandomnessConfig,
    TestLoopConfig,
    TrainLoopConfig,
    ValLoopConfig,
    VisualizerConfig,
)
from settings.ranges import FolderName, Section


@dataclass(frozen=True)
class QueryInstConfig(Section):
    """A whole config. Without val_cfg, val_dataloader and val_evaluator there is no validation."""

    FOREIGN: ClassVar = running.FOREIGN
    # what a test's section leaves out is a validation's
    ALIKE: ClassVar = {"test_dataloader": "val_dataloader", "test_evaluator": "val_evaluator"}

    WHOLE: ClassVar = ("optim_wrapper", "default_hooks", "log_processor", "train_cfg",
                       "auto_scale_lr", "randomness", "val_evaluator", "test_evaluator")
    EMPTY: ClassVar = ("param_scheduler",)  # without schedules the rate stays as it is

    model: ModelConfig = field(default_factory=ModelConfig)
    train_dataloader: DataLoaderConfig = TRAIN_DATALOADER
    val_dataloader: DataLoaderConfig | None = VAL_DATALOADER
    val_evaluator: EvaluatorConfig | None = EVALUATOR
    test_dataloader: DataLoaderConfig | None = None  # of --eval-only; None: val_dataloader
    test_evaluator: EvaluatorConfig | None = None
    train_cfg: TrainLoopConfig = TRAIN_CFG
    val_cfg: ValLoopConfig | None = VAL_CFG
    test_cfg: TestLoopConfig | None = TEST_CFG
    optim_wrapper: OptimWrapperConfig = field(default_factory=lambda: OPTIM_WRAPPER)
    param_scheduler: tuple[SchedulerConfig, ...] = PARAM_SCHEDULER
    default_hooks: DefaultHooksConfig = DEFAULT_HOOKS
    custom_hooks: tuple[dict[str, Any], ...] | None = None
    log_processor: LogProcessorConfig = LOG_PROCESSOR
    auto_scale_lr: AutoScaleLrConfig = AUTO_SCALE_LR
    randomness: RandomnessConfig = RANDOMNESS
    visualizer: VisualizerConfig | None = None
    model_wrapper_cfg: ModelWrapperConfig | None = None
    find_unused_parameters: bool = False
    sync_bn: Literal["torch"] | None = None  # norms take the statistics of all processes
    compile: bool = False
    load_from: str | None = None  # weights to start from
    resume: bool = False  # from load_from, else from the work directory's newest
    work_dir: str | None = None  # None: work_dirs/<name>
    experiment_name: str | None = None  # in the log; None: name
    name: FolderName | None = None  # None: the file's, without its ending

    def misfits(self) -> list[str]:
        faults: list[str] = []
        early_stopping_of(self.custom_hooks or (), faults)
        val = {key: vars(self)[key] for key in ("val_cfg", "val_dataloader", "val_evaluator")}
        missing = [key for key, section in val.items() if section is None]
        if 0 < len(missing) < len(val):
            faults.append(f"{missing[0]} is None: for no validation {', '.join(val)} are None, all "
                          "three")
        for key in ("val_dataloader", "test_dataloader"):
            loader = vars(self)[key]
            if loader is not None:
                faults += scoring_faults(key, loader)
        if not self.train_cfg.in_epochs:
            faults += [f"param_scheduler[{i}].by_epoch wants false with IterBasedTrainLoop, whose "
                       "rates move by iteration"
                       for i, each in enumerate(self.param_scheduler) if each.in_epochs]
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
    def notes(self) -> list[Note]:
        """Keys that are accepted and change nothing because of their value."""
        return needless_hooks(self.custom_hooks or ())

    @property
    def for_test(self) -> "QueryInstConfig":
        """The same with the test's data and scores as the validation's.

        Raises InputError when it has neither.
        """
        loader = self.test_dataloader or self.val_dataloader
        evaluator = self.test_evaluator or self.val_evaluator
        if loader is None or evaluator is None:
            raise InputError("--eval-only wants test_dataloader and test_evaluator, or "
                             "val_dataloader and val_evaluator: the config has none")
        return replace(self, val_dataloader=loader, val_evaluator=evaluator, val_cfg=VAL_CFG)

    @property
    def predicted_by(self) -> DataLoaderConfig:
        """Whose pipeline and batch size --predict takes: the test's, the validation's, our own."""
        return self.test_dataloader or self.val_dataloader or VAL_DATALOADER

    @property
    def files(self) -> SimpleNamespace:
        """train_images, train_info, valid_images, valid_info: folders and annotation files; where
        nothing is validated the training's stand for them."""
        learnt = self.train_dataloader.dataset
        scored = self.val_dataloader.dataset if self.val_dataloader else learnt
        return SimpleNamespace(train_images=learnt.images_path, train_info=learnt.info_path,
                               valid_images=scored.images_path, valid_info=scored.info_path)

    @property
    def scored_by(self) -> tuple[DataLoaderConfig, EvaluatorConfig]:
        """Data and scores of a validation; only where there is one."""
        assert self.val_dataloader is not None
        assert self.val_evaluator is not None
        return self.val_dataloader, self.val_evaluator

    def known_metrics(self, names: Iterable[str]) -> list[str]:
        """The scores that a validation gives; names: of the classes."""
        return [] if self.val_evaluator is None else self.val_evaluator.scores_of(names)

    def validations(self, per_epoch: int) -> dict[str, Any]:
        """When they come, as a Timetable wants it; per_epoch: updates in an epoch."""
        rules = self.train_cfg
        return {"validate_unit": per_epoch if rules.in_epochs else 1,
                "validate_every": rules.validate_every if self.val_cfg else 0,
                "validate_from": rules.val_begin, "validate_end": self.val_cfg is not None}

    @property
    def run_name(self) -> str:
        """What the log calls a run."""
        return self.experiment_name or str(self.name)

    @property
    def log_rules(self) -> tuple[LogProcessorConfig, LoggerHookConfig]:
        """What says how the log's lines look."""
        return self.log_processor, self.default_hooks.logger

    @property
    def early_stopping(self) -> EarlyStoppingHookConfig | None:
        """The rule by which the run ends early, if any."""
        return early_stopping_of(self.custom_hooks or (), []) or self.default_hooks.early_stopping

    @property
    def finds_unused(self) -> bool:
        """Whether the processes look for parameters without a gradient."""
        wrapper = self.model_wrapper_cfg
        return self.find_unused_parameters or (wrapper is not None
                                               and wrapper.find_unused_parameters)
