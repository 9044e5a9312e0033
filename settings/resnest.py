"""Schema of a ResNeSt config: the original's keys with its defaults, then ours, typed and frozen.

Source: [resnest.md: Config keys].
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import nn

from models.resnest.zoo import MODEL_NAMES, build_resnest
from runtime.errors import InputError, did_you_mean
from settings.loading import load_config
from settings.nodes import is_file

PROJECT = Path(__file__).resolve().parents[1]
Check = tuple[bool, str, Any, str]  # whether it holds, key, value, what is wanted


def _fraction(key, value) -> Check:
    return 0.0 <= value <= 1.0, key, value, "a fraction in [0, 1]"


def _not_negative(key, value) -> Check:
    return value >= 0, key, value, "0 or more"


def _require(*checks: Check) -> None:
    faults = [
        f"{key} is {value}, wanted {wanted}" for holds, key, value, wanted in checks if not holds
    ]
    if faults:
        raise InputError(faults)


@dataclass(frozen=True)
class DataConfig:
    """Section DATA."""

    DATASET: str = "ImageNet"  # class folders; no other kind exists
    ROOT: str = "~/.encoding/data/ILSVRC2012"  # holds train/ and val/
    # parity: accepted, and used by no transform [resnest.md: Config keys]
    BASE_SIZE: int | None = None
    CROP_SIZE: int = 224  # side of the network's input, px
    LABEL_SMOOTHING: float = 0.0
    MIXUP: float = 0.0  # alpha of mixup's Beta; 0: off. Mixed precision is --amp
    RAND_AUG: bool = False  # RandAugment(2, 12) before the other transforms
    # ours
    AUGMENT: Literal["original", "standard"] = "original"  # standard: torchvision's usual pipeline
    CENTER_MARGIN: int = 32  # validation sees CROP / (CROP + margin) of the shorter side
    MIN_CROP_AREA: float = 0.1  # of the random crop, as a fraction; torchvision's is 0.08
    CUTMIX: float = 0.0  # alpha; with MIXUP as well, each batch gets one of the two
    RANDOM_ERASING: float = 0.0  # probability; with AUGMENT standard
    # parity: of validation; bicubic is verify.py's [resnest.md: Validation transform]
    INTERPOLATION: Literal["bilinear", "bicubic"] = "bilinear"

    @property
    def mixes(self) -> bool:
        """Whether training images and labels are mixed."""
        return self.MIXUP > 0 or self.CUTMIX > 0

    def __post_init__(self):
        erases = self.RANDOM_ERASING > 0 and self.AUGMENT != "standard"
        _require(
            (self.DATASET == "ImageNet", "DATA.DATASET", self.DATASET, "ImageNet"),
            (self.CROP_SIZE >= 16, "DATA.CROP_SIZE", self.CROP_SIZE, "at least 16"),
            _fraction("DATA.LABEL_SMOOTHING", self.LABEL_SMOOTHING),
            _not_negative("DATA.CENTER_MARGIN", self.CENTER_MARGIN),
            (0 < self.MIN_CROP_AREA <= 1, "DATA.MIN_CROP_AREA", self.MIN_CROP_AREA, "in (0, 1]"),
            _fraction("DATA.RANDOM_ERASING", self.RANDOM_ERASING),
            (not erases, "DATA.RANDOM_ERASING", self.RANDOM_ERASING, "DATA.AUGMENT standard too"),
            _not_negative("DATA.MIXUP", self.MIXUP),
            _not_negative("DATA.CUTMIX", self.CUTMIX),
        )


@dataclass(frozen=True)
class ModelConfig:
    """Section MODEL."""

    NAME: str = "resnet50"
    # differs: the original's default, False, lets no number through [resnest.md: Config keys]
    # Way back: False, which still means 0.
    FINAL_DROP: float | bool = 0.0  # dropout before the classifier
    # ours
    STEM_STRIDE: Literal[4, 2, 1] = 4  # smaller for small images

    def __post_init__(self):
        object.__setattr__(self, "FINAL_DROP", float(self.FINAL_DROP))
        known = f"one of {', '.join(MODEL_NAMES)}.{did_you_mean(self.NAME, MODEL_NAMES)}"
        in_range = 0.0 <= self.FINAL_DROP < 1.0
        _require(
            (self.NAME in MODEL_NAMES, "MODEL.NAME", self.NAME, known),
            (in_range, "MODEL.FINAL_DROP", self.FINAL_DROP, "a probability below 1"),
        )


@dataclass(frozen=True)
class TrainingConfig:
    """Section TRAINING. Batch sizes are per process."""

    BATCH_SIZE: int = 64
    TEST_BATCH_SIZE: int = 256
    LAST_GAMMA: bool = False  # each block's last norm scale starts at 0
    EPOCHS: int = 120
    START_EPOCHS: int = 0
    WORKERS: int = 4
    # ours
    # differs: epochs between validations [resnest.md: Checkpoints]. Way back: 10.
    EVAL_EVERY: int = 1
    THREADS: int = 0  # at most so many threads compute on a CPU; 0: torch's own number

    def __post_init__(self):
        start, epochs, val_batch = self.START_EPOCHS, self.EPOCHS, self.TEST_BATCH_SIZE
        _require(
            # the norms inside split attention see one value per image
            (self.BATCH_SIZE >= 2, "TRAINING.BATCH_SIZE", self.BATCH_SIZE, "at least 2"),
            (val_batch >= 1, "TRAINING.TEST_BATCH_SIZE", val_batch, "1 or more"),
            (epochs >= 1, "TRAINING.EPOCHS", epochs, "1 or more"),
            (start >= 0, "TRAINING.START_EPOCHS", start, "0 or more"),
            (start < max(1, epochs), "TRAINING.START_EPOCHS", start, f"less than EPOCHS {epochs}"),
            _not_negative("TRAINING.WORKERS", self.WORKERS),
            (self.EVAL_EVERY >= 1, "TRAINING.EVAL_EVERY", self.EVAL_EVERY, "1 or more"),
            _not_negative("TRAINING.THREADS", self.THREADS),
        )


@dataclass(frozen=True)
class OptimizerConfig:
    """Section OPTIMIZER. LR is per process: the effective rate is LR times their number."""

    LR: float = 0.025
    LR_SCHEDULER: Literal["cos", "cosine", "poly", "step", "multistep", "linear"] = "cos"
    MOMENTUM: float = 0.9
    WEIGHT_DECAY: float = 1e-4
    DISABLE_BN_WD: bool = False
    WARMUP_EPOCHS: int = 0
    # ours
    LR_STEP: int | None = None  # epochs between two drops of "step"
    MILESTONES: tuple[int, ...] | None = None  # epochs of the drops of "multistep"
    GAMMA: float = 0.1  # factor of a drop

    def __post_init__(self):
        has_step = self.LR_SCHEDULER != "step" or (self.LR_STEP or 0) > 0
        has_milestones = self.LR_SCHEDULER != "multistep" or bool(self.MILESTONES)
        drops = list(self.MILESTONES or ())
        ascend = drops == sorted(drops) and min(drops, default=0) >= 0
        _require(
            _not_negative("OPTIMIZER.LR", self.LR),
            (0.0 <= self.MOMENTUM < 1.0, "OPTIMIZER.MOMENTUM", self.MOMENTUM, "in [0, 1)"),
            _not_negative("OPTIMIZER.WEIGHT_DECAY", self.WEIGHT_DECAY),
            _not_negative("OPTIMIZER.WARMUP_EPOCHS", self.WARMUP_EPOCHS),
            _not_negative("OPTIMIZER.GAMMA", self.GAMMA),
            (has_step, "OPTIMIZER.LR_STEP", self.LR_STEP, "the epochs between two drops of step"),
            (has_milestones, "OPTIMIZER.MILESTONES", self.MILESTONES, "epochs of drops, [30, 60]"),
            (ascend, "OPTIMIZER.MILESTONES", self.MILESTONES, "epochs from 0 on, ascending"),
            ((self.LR_STEP or 1) > 0, "OPTIMIZER.LR_STEP", self.LR_STEP, "1 or more"),
        )


@dataclass(frozen=True)
class ResNeStConfig:
    """A whole config file."""

    SEED: int = 1
    DATA: DataConfig = DataConfig()
    MODEL: ModelConfig = ModelConfig()
    TRAINING: TrainingConfig = TrainingConfig()
    OPTIMIZER: OptimizerConfig = OptimizerConfig()

    def __post_init__(self):
        warmup, epochs = self.OPTIMIZER.WARMUP_EPOCHS, self.TRAINING.EPOCHS
        _require(
            (warmup <= epochs, "OPTIMIZER.WARMUP_EPOCHS", warmup, f"at most EPOCHS {epochs}"),
            (0 <= self.SEED < 2**32, "SEED", self.SEED, "in [0, 2^32)"),
        )


def load_resnest_config(
    cfg: ResNeStConfig | str | Path | None = None,
    overrides: Mapping[str, Any] | Iterable[str] = (),
) -> ResNeStConfig:
    """The frozen config.

    cfg: a YAML path, also one below the project's folder; the name of a file in configs/resnest/; a
         loaded config; None for the defaults
    overrides: {"TRAINING.EPOCHS": 3} or texts "TRAINING.EPOCHS=3"; not for a loaded config
    Raises InputError with every fault.
    """
    if isinstance(cfg, ResNeStConfig):
        return cfg
    return load_config(ResNeStConfig, cfg if cfg is None else _config_file(cfg), overrides)


def build_network(cfg: ResNeStConfig, num_classes: int) -> nn.Module:
    """The config's network with random weights."""
    return build_resnest(
        cfg.MODEL.NAME,
        num_classes,
        final_drop=cfg.MODEL.FINAL_DROP,
        stem_stride=cfg.MODEL.STEM_STRIDE,
        last_gamma=cfg.TRAINING.LAST_GAMMA,
    )


def _config_file(named):
    """Where it lies: as given, below the project's folder, or among its recipes by name."""
    recipes = PROJECT / "configs" / "resnest"
    places = [Path(named), PROJECT / named, recipes / f"{named}.yaml", recipes / named]
    if Path(named).parent.name == "configs":  # where the original has its files
        places.append(recipes / Path(named).name)
    found = next((place for place in places if is_file(place)), None)
    return found or (Path(named) if Path(named).suffix else recipes / f"{named}.yaml")
