"""The config of train_seg: the original's keys and defaults, and what they may be together."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, Literal

from runtime.errors import InputError, did_you_mean
from settings.changes import about_config
from settings.loading import load_config
from settings.nodes import is_file
from settings.ranges import (
    Count,
    NotNegative,
    OneOf,
    Range,
    Rule,
    Section,
    Seed,
    Whole,
)
from settings.shared_flags import (
    check_patience,
    check_size,
    named_in_faults,
    say_changes,
    usable_workers,
)

CONFIG_FOLDER = Path(__file__).resolve().parents[1] / "configs" / "seg"

# Channels of an encoder's last map, and its stride.
ENCODERS = {
    "mobilenetv2dilated": (320, 8),
    "resnet10small": (256, 8),
    "resnet18": (512, 32),
    "resnet18dilated": (512, 8),
    "resnet50": (2048, 32),
    "resnet50dilated": (2048, 8),
    "resnet101": (2048, 32),
    "resnet101dilated": (2048, 8),
    "resnext101": (2048, 32),
    "hrnetv2": (720, 4),
}
DECODERS = ("c1", "c1_deepsup", "ppm", "ppm_deepsup", "upernet", "upernet_lite",
             "upernet_small")
# Channels that the feature pyramids want of an encoder's last map; they give scores at stride 4.
_UPERNET_CHANNELS = {"upernet": 2048, "upernet_lite": 2048, "upernet_small": 256}
_UPERNET_STRIDE = 4
_A_FOLDER = Rule("the folder that the run writes to", bool)
_SHORT_SIDES = Rule(
    "short sides above 0", lambda sides: min((sides,) if isinstance(sides, int) else sides,
                                             default=0) > 0)


@dataclass(frozen=True)
class DatasetConfig(Section):
    """Lists, sizes and labels.

    list_train, list_val: .odgt files, or what `read_seg_list` makes a list of
    imgSizes:     short sides in pixels: one is drawn for each training batch; evaluation averages
                  over all. A single number stands for a tuple of one
    random_flip:  mirror training images at random
    pad_label:    label of the cells that only pad a batch: -1, ignored, or the original's 0
    class_names:  names for tables and pictures; () means ADE20K's when num_class is 150
    exif_turn:    turn photos and labels as their EXIF orientations say; the original ignores them
    """

    root_dataset: str = "./data/"
    list_train: str = "./data/training.odgt"
    list_val: str = "./data/validation.odgt"
    num_class: Annotated[
        int, Range(at_least=1, at_most=255, why="an 8-bit label file holds no more")] = 150
    imgSizes: Annotated[tuple[int, ...] | int, _SHORT_SIDES] = (300, 375, 450, 525, 600)
    imgMaxSize: Count = 1000
    padding_constant: Count = 8
    segm_downsampling_rate: Count = 8
    random_flip: bool = True
    # differs: cells that only pad are ignored, not class 0 [segmentation.md: Training batches]
    # Way back: DATASET.pad_label 0.
    pad_label: Literal[-1, 0] = -1
    class_names: tuple[str, ...] = ()
    exif_turn: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.imgSizes, int):
            object.__setattr__(self, "imgSizes", (self.imgSizes,))  # only way in a frozen class
        super().__post_init__()

    def misfits(self) -> list[str]:
        faults = []
        if self.padding_constant % self.segm_downsampling_rate:
            faults.append("padding_constant wants a multiple of segm_downsampling_rate "
                          f"{self.segm_downsampling_rate}, got {self.padding_constant}")
        if self.class_names and len(self.class_names) != self.num_class:
            faults.append(f"class_names wants num_class {self.num_class} names, got "
                          f"{len(self.class_names)}")
        return faults


@dataclass(frozen=True)
class ModelConfig(Section):
    """Networks and the weights that they start from.

    weights_encoder: "" the ImageNet file, `none` random weights, or a file
    weights_decoder: "" random weights, or a file
    fc_dim:          channels of the encoder's last map
    bn_momentum:     of all batch norms; null: the original's 0.001, in HRNet's encoder 0.1
    """

    arch_encoder: Annotated[str, OneOf(tuple(ENCODERS), any_case=True)] = "resnet50dilated"
    arch_decoder: Annotated[str, OneOf(DECODERS, any_case=True)] = "ppm_deepsup"
    weights_encoder: str = ""
    weights_decoder: str = ""
    fc_dim: int = 2048
    bn_momentum: Annotated[float, Range(above=0, at_most=1)] | None = None

    @property
    def is_deep_supervised(self) -> bool:
        """Whether the decoder has an auxiliary classifier."""
        # differs: the original looks at the name's end case-sensitively
        # [segmentation.md: Loss and accuracy]. Way back: none, a name in capitals fails there.
        return self.arch_decoder.lower().endswith("deepsup")


@dataclass(frozen=True)
class TrainConfig(Section):
    """Iterations, rates and batch norms.

    start_epoch: above 0: go on after that epoch's checkpoint
    epoch_iters: updates in an "epoch", whatever the data set's size
    beta1:       SGD's momentum
    fix_bn:      the whole model stays in eval mode while it trains
    sync_bn:     batch statistics over all processes
    bn_average:  running statistics: "corrected" moves fast at first, as the original does on
                 several GPUs; "plain" is its way on one; "auto" follows it, by the devices in use
    """

    batch_size_per_gpu: Count = 2
    num_epoch: Count = 20
    start_epoch: Whole = 0
    epoch_iters: Count = 5000
    # differs: the original trains with SGD whatever stands here
    # [segmentation.md: Config keys]. Way back: TRAIN.optim SGD.
    optim: Annotated[str, OneOf(("SGD",), any_case=True)] = "SGD"
    lr_encoder: NotNegative = 0.02
    lr_decoder: NotNegative = 0.02
    lr_pow: NotNegative = 0.9
    beta1: Annotated[float, Range(at_least=0, below=1)] = 0.9
    weight_decay: NotNegative = 1e-4
    deep_sup_scale: NotNegative = 0.4
    fix_bn: bool = False
    workers: Whole = 16
    disp_iter: Count = 20
    seed: Seed = 304
    sync_bn: bool = True
    bn_average: Literal["auto", "plain", "corrected"] = "auto"

    def misfits(self) -> list[str]:
        if self.start_epoch <= self.num_epoch:
            return []
        return [f"start_epoch wants at most num_epoch {self.num_epoch}, got {self.start_epoch}"]


@dataclass(frozen=True)
class ValConfig(Section):
    """Evaluation. interval: epochs between evaluations while training; 0 is never.

    batch_size is the original's key; images have different sizes and are evaluated one by one.
    """

    batch_size: Count = 1
    visualize: bool = False
    checkpoint: str = "epoch_20.pth"
    interval: Whole = 1


@dataclass(frozen=True)
class TestConfig(Section):
    """Prediction of single images. result: the folder for pictures; batch_size as in VAL."""

    batch_size: Count = 1
    checkpoint: str = "epoch_20.pth"
    result: str = "./"


@dataclass(frozen=True)
class SegConfig(Section):
    """All of it. DIR is the run's folder, where checkpoints are also read from."""

    DIR: Annotated[str, _A_FOLDER] = "ckpt/ade20k-resnet50dilated-ppm_deepsup"
    DATASET: DatasetConfig = field(default_factory=DatasetConfig)
    MODEL: ModelConfig = field(default_factory=ModelConfig)
    TRAIN: TrainConfig = field(default_factory=TrainConfig)
    VAL: ValConfig = field(default_factory=ValConfig)
    TEST: TestConfig = field(default_factory=TestConfig)

    def misfits(self) -> list[str]:
        return _network_misfits(self.MODEL) + _size_misfits(self.MODEL, self.DATASET)


def load_seg_config(
    cfg: str | Path | SegConfig,
    overrides: Mapping[str, str] | Sequence[str | tuple[str, str]] = (),
) -> SegConfig:
    """The frozen config of a name in configs/seg, a YAML file (also the originals'), or itself.

    overrides: {"TRAIN.lr_encoder": "0.1"}, or such pairs and texts "KEY=VALUE", of which the
               last one wins
    An original's path such as config/ade20k-hrnetv2.yaml that is not there names our recipe.
    DATASET.num_class without DATASET.class_names means own data: names of the file that are not as
    many are dropped.
    Raises InputError with every fault.
    """
    if isinstance(cfg, SegConfig):
        if overrides:
            raise ValueError("overrides apply to a name or a file, not to a loaded config")
        return cfg
    path = Path(cfg)
    if not is_file(path):
        recipe = CONFIG_FOLDER / f"{path.stem if path.suffix == '.yaml' else path.name}.yaml"
        if not is_file(recipe):
            names = sorted(entry.stem for entry in CONFIG_FOLDER.glob("*.yaml"))
            hint = did_you_mean(path.stem, names)
            raise InputError(f"{cfg}: no such config file, and no recipe of that name.{hint}")
        path = recipe
    pairs = overrides.items() if isinstance(overrides, Mapping) else overrides
    given = [pair if isinstance(pair, str) else tuple(pair) for pair in pairs]
    return load_config(SegConfig, path, [*_without_foreign_names(path, given), *given])


def _without_foreign_names(
    path: Path, overrides: Sequence[str | tuple[str, str]]
) -> list[tuple[str, str]]:
    """The override that empties the file's class names where they are another data set's."""
    values: dict[str, str] = {}
    for pair in overrides:
        key, value = pair.partition("=")[::2] if isinstance(pair, str) else pair
        values[key.strip()] = value
    if "DATASET.num_class" not in values or "DATASET.class_names" in values:
        return []
    try:
        names = load_config(SegConfig, path).DATASET.class_names
    except InputError:  # said when the file is read with the overrides
        return []
    fit = not names or str(len(names)) == str(values["DATASET.num_class"]).strip()
    return [] if fit else [("DATASET.class_names", "()")]


def with_flags(cfg: SegConfig, flags: SimpleNamespace) -> SegConfig:
    """The config with --seed, --workers, --epochs, --image-size and --mirror.

    What they change beyond their own key goes to `flags.notes`, a line each.
    Raises InputError for a size that the networks cannot take, and for --patience without
    validations.
    """
    flags.notes = []
    check_patience(flags.patience, cfg.VAL.interval > 0,
                   "VAL.interval is 0; give the epochs between two")
    train, dataset = cfg.TRAIN, cfg.DATASET
    # differs: no more workers than cores; the batches do not depend on their number
    # [segmentation.md: Config keys]. Way back: --workers 16.
    workers = usable_workers(train.workers, flags.workers, "TRAIN.workers", flags.notes.append)
    epochs = flags.epochs or train.num_epoch  # the rates follow: they are stated over the whole
    with named_in_faults(f"--epochs {epochs}"):
        train = replace(train, seed=train.seed if flags.seed is None else flags.seed,
                        workers=workers, num_epoch=epochs)
    if flags.mirror is not None:
        dataset = replace(dataset, random_flip=flags.mirror)
    if flags.image_size is not None:
        dataset = _of_size(dataset, flags.image_size)
        say_changes(flags.notes.append, "--image-size", {
            f"DATASET.{key}": (getattr(cfg.DATASET, key), getattr(dataset, key))
            for key in ("imgSizes", "imgMaxSize")})
    return replace(cfg, TRAIN=train, DATASET=dataset)


def _of_size(dataset: DatasetConfig, size: int) -> DatasetConfig:
    """With `size` as the largest of the short sides, and all others in the same proportion."""
    sides = dataset.imgSizes if isinstance(dataset.imgSizes, tuple) else (dataset.imgSizes,)
    rate = dataset.segm_downsampling_rate
    check_size(size, math.ceil(rate * max(sides) / min(sides)),
               f"the scores have a cell for {rate} pixels"
               + ("" if len(sides) == 1 else f", and the least of the sizes is {min(sides)} / "
                  f"{max(sides)} of it"))
    factor = size / max(sides)
    return replace(dataset, imgSizes=tuple(max(1, round(side * factor)) for side in sides),
                   imgMaxSize=max(1, round(dataset.imgMaxSize * factor)))


def check_batch(arch_decoder: str, train: TrainConfig, is_synchronised: bool) -> None:
    """Raise InputError when a batch norm would see one value only: pyramid pooling to one cell.

    is_synchronised: batch statistics are taken over several processes
    """
    pools = arch_decoder.lower().startswith("ppm")
    if pools and train.batch_size_per_gpu == 1 and not (is_synchronised or train.fix_bn):
        raise InputError(
            f"TRAIN.batch_size_per_gpu 1: {arch_decoder} normalises maps of one cell, so it needs "
            "at least 2 images for each device, or TRAIN.fix_bn True"
        )


def _network_misfits(model: ModelConfig) -> list[str]:
    """What does not go together of encoder, decoder and the width that is stated."""
    encoder, decoder = model.arch_encoder.lower(), model.arch_decoder.lower()
    channels, _ = ENCODERS[encoder]
    faults = []
    if model.fc_dim != channels:
        faults.append(f"MODEL.fc_dim wants the {channels} channels that {encoder} gives, got "
                      f"{model.fc_dim}")
    wanted = _UPERNET_CHANNELS.get(decoder, channels)
    if channels != wanted:
        fitting = " or ".join(name for name, (width, _) in ENCODERS.items() if width == wanted)
        faults.append(f"MODEL.arch_decoder {decoder} wants the maps of {fitting}, not of {encoder}")
    if model.is_deep_supervised and encoder == "hrnetv2":
        faults.append(f"MODEL.arch_decoder wants c1 or ppm, got {decoder}: hrnetv2 has one map")
    return faults


def _size_misfits(model: ModelConfig, dataset: DatasetConfig) -> list[str]:
    """What does not go together of the networks' stride and the sizes of maps and batches."""
    encoder, decoder = model.arch_encoder.lower(), model.arch_decoder.lower()
    stride = _UPERNET_STRIDE if decoder in _UPERNET_CHANNELS else ENCODERS[encoder][1]
    faults = []
    if dataset.segm_downsampling_rate != stride:
        faults.append(f"DATASET.segm_downsampling_rate wants {stride}, got "
                      f"{dataset.segm_downsampling_rate}: {encoder} with {decoder} gives scores at "
                      f"1/{stride} of the input")
    if dataset.padding_constant % stride:
        faults.append(f"DATASET.padding_constant wants a multiple of {stride} for {encoder} with "
                      f"{decoder}, got {dataset.padding_constant}")
    return faults


def about(name: str, cfg: SegConfig) -> dict[str, Any]:
    """Facts for `Run.describe` of a config in force: what it has other than the recipe `name`."""
    return about_config(name, cfg, load_seg_config)
