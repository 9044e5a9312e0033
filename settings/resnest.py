"""Schema of a ResNeSt config: the original's keys with its defaults, then ours, typed and frozen.

Source: [resnest.md: Config keys].
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, Literal

from settings.changes import about_config, is_own
from settings.loading import load_config
from settings.nodes import is_file
from settings.ranges import (
    ASCENDING,
    Count,
    Fraction,
    NotNegative,
    OneOf,
    Range,
    Section,
    Seed,
    Whole,
)
from settings.shared_flags import longest_warmup, named_in_faults, say_changes, usable_workers

PROJECT = Path(__file__).resolve().parents[1]
MODEL_NAMES = (  # what `models.resnest` can build
    "resnet50",
    "resnet101",
    "resnet152",
    "resnest50",
    "resnest101",
    "resnest200",
    "resnest269",
    "resnest50_fast_1s1x64d",
    "resnest50_fast_2s1x64d",
    "resnest50_fast_4s1x64d",
    "resnest50_fast_1s2x40d",
    "resnest50_fast_2s2x40d",
    "resnest50_fast_4s2x40d",
    "resnest50_fast_1s4x24d",
    "resnest14",
    "resnest14_small",
)


@dataclass(frozen=True)
class DataConfig(Section):
    """Section DATA."""

    DATASET: Annotated[str, OneOf(("ImageNet",))] = "ImageNet"  # class folders
    ROOT: str = "~/.encoding/data/ILSVRC2012"  # holds train/ and val/
    # parity: accepted, and used by no transform [resnest.md: Config keys]
    BASE_SIZE: int | None = None
    CROP_SIZE: Annotated[int, Range(at_least=16)] = 224  # side of the network's input, px
    LABEL_SMOOTHING: Fraction = 0.0
    MIXUP: NotNegative = 0.0  # alpha of mixup's Beta; 0: off. Mixed precision is --amp
    RAND_AUG: bool = False  # RandAugment(2, 12) before the other transforms
    # ours
    AUGMENT: Literal["original", "standard"] = "original"  # standard: torchvision's usual pipeline
    CENTER_MARGIN: Whole = 32  # validation sees CROP / (CROP + margin) of the shorter side
    # of the random crop, as a fraction of the image; torchvision's is 0.08
    MIN_CROP_AREA: Annotated[float, Range(above=0, at_most=1)] = 0.1
    MIRROR: bool = True  # training images are mirrored left to right, every other time
    CUTMIX: NotNegative = 0.0  # alpha; with MIXUP as well, each batch gets one of the two
    RANDOM_ERASING: Fraction = 0.0  # probability; with AUGMENT standard
    # parity: of validation; bicubic is verify.py's [resnest.md: Validation transform]
    INTERPOLATION: Literal["bilinear", "bicubic"] = "bilinear"

    @property
    def mixes(self) -> bool:
        """Whether training images and labels are mixed."""
        return self.MIXUP > 0 or self.CUTMIX > 0

    def misfits(self) -> list[str]:
        if self.RANDOM_ERASING == 0 or self.AUGMENT == "standard":
            return []
        return [f"RANDOM_ERASING wants AUGMENT standard, got {self.RANDOM_ERASING} with "
                f"{self.AUGMENT}"]


@dataclass(frozen=True)
class ModelConfig(Section):
    """Section MODEL."""

    NAME: Annotated[str, OneOf(MODEL_NAMES)] = "resnet50"
    # Dropout before the classifier.
    # differs: the original's default, False, lets no number through [resnest.md: Config keys]
    # Way back: False, which still means 0.
    FINAL_DROP: Annotated[float | bool, Range(at_least=0, below=1)] = 0.0
    # ours
    STEM_STRIDE: Literal[4, 2, 1] = 4  # smaller for small images

    def __post_init__(self) -> None:
        object.__setattr__(self, "FINAL_DROP", float(self.FINAL_DROP))
        super().__post_init__()


@dataclass(frozen=True)
class TrainingConfig(Section):
    """Section TRAINING. Batch sizes are per process."""

    BATCH_SIZE: Annotated[
        int, Range(at_least=2, why="the norms inside split attention see one value per image")
    ] = 64
    TEST_BATCH_SIZE: Count = 256
    LAST_GAMMA: bool = False  # each block's last norm scale starts at 0
    EPOCHS: Count = 120
    START_EPOCHS: Whole = 0
    WORKERS: Whole = 4
    # ours
    # differs: epochs between validations [resnest.md: Checkpoints]. Way back: 10.
    EVAL_EVERY: Count = 1
    THREADS: Whole = 0  # at most so many threads compute on a CPU; 0: torch's own number

    def misfits(self) -> list[str]:
        if self.START_EPOCHS < self.EPOCHS:
            return []
        return [f"START_EPOCHS wants less than EPOCHS {self.EPOCHS}, got {self.START_EPOCHS}"]


@dataclass(frozen=True)
class OptimizerConfig(Section):
    """Section OPTIMIZER. LR is per process: the effective rate is LR times their number."""

    LR: NotNegative = 0.025
    LR_SCHEDULER: Literal["cos", "cosine", "poly", "step", "multistep", "linear"] = "cos"
    MOMENTUM: Annotated[float, Range(at_least=0, below=1)] = 0.9
    WEIGHT_DECAY: NotNegative = 1e-4
    DISABLE_BN_WD: bool = False
    WARMUP_EPOCHS: Whole = 0
    # ours
    LR_STEP: Whole | None = None  # epochs between two drops of "step"
    # epochs of the drops of "multistep"
    MILESTONES: Annotated[tuple[Whole, ...], ASCENDING] | None = None
    GAMMA: NotNegative = 0.1  # factor of a drop

    def misfits(self) -> list[str]:
        faults = []
        if self.LR_SCHEDULER == "step" and not self.LR_STEP:
            faults.append("LR_STEP wants the epochs between two drops of LR_SCHEDULER step, got "
                          f"{self.LR_STEP}")
        if self.LR_SCHEDULER == "multistep" and not self.MILESTONES:
            faults.append("MILESTONES wants the epochs of the drops of LR_SCHEDULER multistep, "
                          f"such as [30, 60], got {self.MILESTONES}")
        return faults


@dataclass(frozen=True)
class ResNeStConfig(Section):
    """A whole config file."""

    SEED: Seed = 1
    DATA: DataConfig = DataConfig()
    MODEL: ModelConfig = ModelConfig()
    TRAINING: TrainingConfig = TrainingConfig()
    OPTIMIZER: OptimizerConfig = OptimizerConfig()

    def misfits(self) -> list[str]:
        warmup, epochs = self.OPTIMIZER.WARMUP_EPOCHS, self.TRAINING.EPOCHS
        if warmup <= epochs:
            return []
        return [f"OPTIMIZER.WARMUP_EPOCHS wants at most TRAINING.EPOCHS {epochs}, got {warmup}"]


def load_resnest_config(
    cfg: ResNeStConfig | str | Path | None = None,
    overrides: Mapping[str, Any] | Iterable[str | tuple[str, Any]] = (),
) -> ResNeStConfig:
    """The frozen config.

    cfg: a YAML path, also one below the project's folder; the name of a file in configs/resnest/; a
         loaded config; None for the defaults
    overrides: {"TRAINING.EPOCHS": 3} or texts "TRAINING.EPOCHS=3"; not for a loaded config
    Raises InputError with every fault.
    """
    if isinstance(cfg, ResNeStConfig):
        if overrides:
            raise ValueError("overrides apply to a name or a file, not to a loaded config")
        return cfg
    return load_config(ResNeStConfig, cfg if cfg is None else _config_file(cfg), overrides)


def sets_own(key: str, cfg: str | Path | None, options: Iterable[str]) -> bool:
    """Whether a dotted key is the user's own: in the texts KEY=VALUE, or in a file of theirs."""
    return is_own(key, None if cfg is None else _config_file(cfg), options)


def _config_file(named: str | Path) -> Path:
    """Where it lies: as given, below the project's folder, or among its recipes by name."""
    recipes = PROJECT / "configs" / "resnest"
    places = [Path(named), PROJECT / named, recipes / f"{named}.yaml", recipes / named]
    if Path(named).parent.name == "configs":  # where the original has its files, Base-ResNet50.yaml
        name = Path(named).name
        places += [recipes / name, recipes / name.lower().replace("-", "_")]
    found = next((place for place in places if is_file(place)), None)
    return found or (Path(named) if Path(named).suffix else recipes / f"{named}.yaml")


def with_flags(cfg: ResNeStConfig, flags: SimpleNamespace) -> ResNeStConfig:
    """The config with --seed, --workers, --epochs, --image-size and --mirror.

    What they change beyond their own key goes to `flags.notes`, a line each.
    Raises InputError for a size that the networks cannot take, naming the smallest one.
    """
    flags.notes = []
    training, data = cfg.TRAINING, cfg.DATA
    # differs: no more workers than cores; the batches do not depend on their number
    # [resnest.md: Config keys]. Way back: --workers 4.
    workers = usable_workers(training.WORKERS, flags.workers, "TRAINING.WORKERS",
                             flags.notes.append)
    cfg = replace(cfg, SEED=cfg.SEED if flags.seed is None else flags.seed,
                  TRAINING=replace(training, WORKERS=workers))
    if flags.mirror is not None:
        cfg = replace(cfg, DATA=replace(data, MIRROR=flags.mirror))
    if flags.epochs is not None:
        cfg = _of_length(cfg, flags.epochs, flags.notes)
    if flags.image_size is not None:
        cfg = _of_size(cfg, flags.image_size, flags.notes)
    return cfg


def _of_length(cfg: ResNeStConfig, epochs: int, notes: list[str]) -> ResNeStConfig:
    """With so many epochs; drops of the rate move with them, the other schedules are stated over
    the whole."""
    before = cfg.OPTIMIZER
    factor = epochs / cfg.TRAINING.EPOCHS
    after = replace(
        before, WARMUP_EPOCHS=longest_warmup(before.WARMUP_EPOCHS, epochs),
        LR_STEP=before.LR_STEP and max(1, round(before.LR_STEP * factor)),
        MILESTONES=before.MILESTONES and tuple(round(each * factor) for each in before.MILESTONES))
    with named_in_faults(f"--epochs {epochs}"):
        cfg = replace(cfg, TRAINING=replace(cfg.TRAINING, EPOCHS=epochs), OPTIMIZER=after)
    keys = {"step": ["LR_STEP"], "multistep": ["MILESTONES"]}.get(before.LR_SCHEDULER, [])
    say_changes(notes.append, "--epochs", {
        f"OPTIMIZER.{key}": (getattr(before, key), getattr(after, key))
        for key in ("WARMUP_EPOCHS", *keys)})
    return cfg


def _of_size(cfg: ResNeStConfig, size: int, notes: list[str]) -> ResNeStConfig:
    """With this side of the crops; of smaller ones the margin of the centre crop is in proportion,
    so that validation sees no less of an image, of larger ones it stays, as in the original."""
    before = cfg.DATA
    factor = size / before.CROP_SIZE
    with named_in_faults(f"--image-size {size}"):
        after = replace(
            before, CROP_SIZE=size, CENTER_MARGIN=round(before.CENTER_MARGIN * min(1.0, factor)),
            BASE_SIZE=before.BASE_SIZE and round(before.BASE_SIZE * factor))
    say_changes(notes.append, "--image-size", {
        f"DATA.{key}": (getattr(before, key), getattr(after, key))
        for key in ("CROP_SIZE", "CENTER_MARGIN", "BASE_SIZE")})
    return replace(cfg, DATA=after)


def about(name: str | None, cfg: ResNeStConfig) -> dict[str, Any]:
    """Facts for `Run.describe` of a config in force: what it has other than the recipe `name`."""
    return about_config(name, cfg, load_resnest_config)
