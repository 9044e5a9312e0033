"""The config of train_seg: the original's keys and defaults, and what they may be together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from runtime.errors import InputError, did_you_mean
from settings.loading import load_config
from settings.nodes import is_file

CONFIG_FOLDER = Path(__file__).resolve().parents[1] / "configs" / "seg"

# Channels of an encoder's last map, and its stride.
_ENCODERS = {
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
_DECODERS = ("c1", "c1_deepsup", "ppm", "ppm_deepsup", "upernet", "upernet_lite",
             "upernet_small")
# Channels that the feature pyramids want of an encoder's last map; they give scores at stride 4.
_UPERNET_CHANNELS = {"upernet": 2048, "upernet_lite": 2048, "upernet_small": 256}
_UPERNET_STRIDE = 4


@dataclass(frozen=True)
class DatasetConfig:
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
    num_class: int = 150
    imgSizes: tuple[int, ...] | int = (300, 375, 450, 525, 600)
    imgMaxSize: int = 1000
    padding_constant: int = 8
    segm_downsampling_rate: int = 8
    random_flip: bool = True
    # differs: cells that only pad are ignored, not class 0 [segmentation.md: Training batches]
    # Way back: DATASET.pad_label 0.
    pad_label: Literal[-1, 0] = -1
    class_names: tuple[str, ...] = ()
    exif_turn: bool = False

    def __post_init__(self):
        if isinstance(self.imgSizes, int):
            object.__setattr__(self, "imgSizes", (self.imgSizes,))  # only way in a frozen class
        _check_positive(
            self, "num_class", "imgMaxSize", "padding_constant", "segm_downsampling_rate"
        )
        if not self.imgSizes or min(self.imgSizes) < 1:
            raise ValueError(f"imgSizes must be short sides above 0, got {list(self.imgSizes)}")
        if self.padding_constant % self.segm_downsampling_rate:
            raise ValueError(
                f"padding_constant {self.padding_constant} must be a multiple of "
                f"segm_downsampling_rate {self.segm_downsampling_rate}"
            )
        if self.num_class > 255:
            raise ValueError(f"num_class {self.num_class}: an 8-bit label file holds at most 255")
        if self.class_names and len(self.class_names) != self.num_class:
            raise ValueError(
                f"{len(self.class_names)} class_names for num_class {self.num_class}: give one each"
            )


@dataclass(frozen=True)
class ModelConfig:
    """Networks and the weights that they start from.

    weights_encoder: "" the ImageNet file, `none` random weights, or a file
    weights_decoder: "" random weights, or a file
    fc_dim:          channels of the encoder's last map
    bn_momentum:     of all batch norms; null: the original's 0.001, in HRNet's encoder 0.1
    """

    arch_encoder: str = "resnet50dilated"
    arch_decoder: str = "ppm_deepsup"
    weights_encoder: str = ""
    weights_decoder: str = ""
    fc_dim: int = 2048
    bn_momentum: float | None = None

    def __post_init__(self):
        if self.bn_momentum is not None and not 0 < self.bn_momentum <= 1:
            raise ValueError(f"bn_momentum must be above 0 and at most 1, got {self.bn_momentum}")

    @property
    def is_deep_supervised(self) -> bool:
        """Whether the decoder has an auxiliary classifier."""
        # differs: the original looks at the name's end case-sensitively
        # [segmentation.md: Loss and accuracy]. Way back: none, a name in capitals fails there.
        return self.arch_decoder.lower().endswith("deepsup")


@dataclass(frozen=True)
class TrainConfig:
    """Iterations, rates and batch norms.

    start_epoch: above 0: go on after that epoch's checkpoint
    epoch_iters: updates in an "epoch", whatever the data set's size
    beta1:       SGD's momentum
    fix_bn:      the whole model stays in eval mode while it trains
    sync_bn:     batch statistics over all processes
    bn_average:  running statistics: "corrected" moves fast at first, as the original does on
                 several GPUs; "plain" is its way on one; "auto" follows it, by the devices in use
    """

    batch_size_per_gpu: int = 2
    num_epoch: int = 20
    start_epoch: int = 0
    epoch_iters: int = 5000
    optim: str = "SGD"
    lr_encoder: float = 0.02
    lr_decoder: float = 0.02
    lr_pow: float = 0.9
    beta1: float = 0.9
    weight_decay: float = 1e-4
    deep_sup_scale: float = 0.4
    fix_bn: bool = False
    workers: int = 16
    disp_iter: int = 20
    seed: int = 304
    sync_bn: bool = True
    bn_average: Literal["auto", "plain", "corrected"] = "auto"

    def __post_init__(self):
        _check_positive(self, "batch_size_per_gpu", "num_epoch", "epoch_iters", "disp_iter")
        for name in ("start_epoch", "workers", "seed", "lr_encoder", "lr_decoder", "lr_pow",
                     "beta1", "weight_decay", "deep_sup_scale"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if self.seed >= 2**32:
            raise ValueError(f"seed must be below 2^32, got {self.seed}")
        if self.beta1 >= 1:
            raise ValueError(f"beta1 must be below 1, got {self.beta1}")
        if self.optim.upper() != "SGD":
            # differs: the original trains with SGD whatever stands here
            # [segmentation.md: Config keys]. Way back: TRAIN.optim SGD.
            raise ValueError(f"optim {self.optim}: only SGD is there")
        if self.start_epoch > self.num_epoch:
            raise ValueError(f"start_epoch {self.start_epoch} is past num_epoch {self.num_epoch}")


@dataclass(frozen=True)
class ValConfig:
    """Evaluation. interval: epochs between evaluations while training; 0 is never.

    batch_size is the original's key; images have different sizes and are evaluated one by one.
    """

    batch_size: int = 1
    visualize: bool = False
    checkpoint: str = "epoch_20.pth"
    interval: int = 1

    def __post_init__(self):
        _check_positive(self, "batch_size")
        if self.interval < 0:
            raise ValueError(f"interval must not be negative, got {self.interval}")


@dataclass(frozen=True)
class TestConfig:
    """Prediction of single images. result: the folder for pictures; batch_size as in VAL."""

    batch_size: int = 1
    checkpoint: str = "epoch_20.pth"
    result: str = "./"

    def __post_init__(self):
        _check_positive(self, "batch_size")


@dataclass(frozen=True)
class SegConfig:
    """All of it. DIR is the run's folder, where checkpoints are also read from."""

    DIR: str = "ckpt/ade20k-resnet50dilated-ppm_deepsup"
    DATASET: DatasetConfig = field(default_factory=DatasetConfig)
    MODEL: ModelConfig = field(default_factory=ModelConfig)
    TRAIN: TrainConfig = field(default_factory=TrainConfig)
    VAL: ValConfig = field(default_factory=ValConfig)
    TEST: TestConfig = field(default_factory=TestConfig)

    def __post_init__(self):
        faults = _misfits(self.MODEL, self.DATASET)
        if not self.DIR:
            faults.append("DIR is empty: wants the folder that the run writes to")
        if faults:
            raise InputError(faults)


def load_seg_config(
    cfg: str | Path | SegConfig,
    overrides: Mapping[str, str] | Sequence[str | tuple[str, str]] = (),
) -> SegConfig:
    """The frozen config of a name in configs/seg, a YAML file (also the originals'), or itself.

    overrides: {"TRAIN.lr_encoder": "0.1"}, see `pairs_to_overrides`; or such pairs and texts
               "KEY=VALUE", the last one wins
    An original's path such as config/ade20k-hrnetv2.yaml that is not there names our recipe.
    Raises InputError with every fault.
    """
    if isinstance(cfg, SegConfig):
        path = None
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
    return load_config(SegConfig, path, overrides)


def pairs_to_overrides(words: Sequence[str]) -> dict[str, str]:
    """{key: value} of trailing `KEY VALUE` pairs. Raises InputError when a value is missing."""
    if len(words) % 2:
        joined = next((word for word in words if "=" in word), None)
        remedy = f"write {joined.replace('=', ' ', 1)}" if joined else f"{words[-1]} has no value"
        raise InputError(
            f"overrides are KEY VALUE pairs, {len(words)} words were given: {remedy}"
        )
    return dict(zip(words[::2], words[1::2], strict=True))


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


def _misfits(model, dataset):
    faults = []
    for key, name, known in (
        ("MODEL.arch_encoder", model.arch_encoder, _ENCODERS),
        ("MODEL.arch_decoder", model.arch_decoder, _DECODERS),
    ):
        if name.lower() not in known:
            hint = did_you_mean(name, known)
            faults.append(f"{key}: unknown name {name!r}.{hint} Known: {', '.join(known)}")
    if faults:
        return faults
    encoder, decoder = model.arch_encoder.lower(), model.arch_decoder.lower()
    channels, stride = _ENCODERS[encoder]
    if model.fc_dim != channels:
        faults.append(f"MODEL.fc_dim {model.fc_dim}: {encoder} gives {channels} channels")
    if decoder in _UPERNET_CHANNELS:
        stride, wanted = _UPERNET_STRIDE, _UPERNET_CHANNELS[decoder]
        if channels != wanted:
            fitting = " or ".join(name for name, (width, _) in _ENCODERS.items() if width == wanted)
            faults.append(
                f"MODEL.arch_decoder {decoder} wants the maps of {fitting}, not of {encoder}")
    elif model.is_deep_supervised and encoder == "hrnetv2":
        faults.append("MODEL.arch_decoder: hrnetv2 has one map only: take c1 or ppm")
    if dataset.segm_downsampling_rate != stride:
        faults.append(
            f"DATASET.segm_downsampling_rate {dataset.segm_downsampling_rate}: {encoder} with "
            f"{decoder} gives scores at 1/{stride} of the input, set {stride}"
        )
    if dataset.padding_constant % stride:
        faults.append(
            f"DATASET.padding_constant {dataset.padding_constant}: {encoder} with {decoder} wants "
            f"a multiple of {stride}"
        )
    return faults


def _check_positive(section, *names):
    for name in names:
        if getattr(section, name) < 1:
            raise ValueError(f"{name} must be above 0, got {getattr(section, name)}")
