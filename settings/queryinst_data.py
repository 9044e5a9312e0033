"""Schema of a QueryInst config's data: loaders, data sets, pipelines, evaluator.

Keys are MMDetection's; the defaults are those of queryinst_r50_fpn_1x_coco.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

# Steps that draw or resize: type -> (keys it needs, keys it may have).
_STEPS = {
    "Resize": (("scale",), ("keep_ratio",)),
    "RandomChoiceResize": (("scales",), ("keep_ratio",)),
    "RandomFlip": (("prob",), ()),
    "RandomChoice": (("transforms",), ()),
    "RandomCrop": (("crop_size",), ("crop_type", "allow_negative_crop")),
}
_FIRST, _LAST = ("LoadImageFromFile", "LoadAnnotations"), "PackDetInputs"


@dataclass(frozen=True)
class StepConfig:
    """One step of a pipeline; which keys count depends on its `type`."""

    type: Literal[
        "LoadImageFromFile",
        "LoadAnnotations",
        "Resize",
        "RandomChoiceResize",
        "RandomFlip",
        "RandomChoice",
        "RandomCrop",
        "PackDetInputs",
    ]
    with_bbox: bool | None = None  # LoadAnnotations: only true
    with_mask: bool | None = None
    scale: tuple[int, int] | None = None  # Resize: px, the longer side's limit and the shorter's
    scales: tuple[tuple[int, int], ...] | None = None  # RandomChoiceResize: one is drawn
    keep_ratio: bool | None = None  # only true
    prob: float | None = None  # RandomFlip, horizontal
    transforms: tuple[tuple["StepConfig", ...], ...] | None = None  # RandomChoice: one is drawn
    crop_type: Literal["absolute_range"] | None = None  # RandomCrop
    crop_size: tuple[int, int] | None = None  # px, the least and the greatest side
    allow_negative_crop: bool | None = None  # only true: a crop may have no object

    def __post_init__(self):
        needed, allowed = _STEPS.get(self.type, ((), ()))
        if self.type == "LoadAnnotations":
            allowed = ("with_bbox", "with_mask")
        given = [key for key, value in vars(self).items() if value is not None and key != "type"]
        faults = [f"{self.type} needs {key}" for key in needed if key not in given]
        faults += [
            f"{self.type} has no key {key}" for key in given if key not in needed + allowed
        ]
        faults += [
            f"{self.type}.{key} must be true here"
            for key in ("with_bbox", "with_mask", "keep_ratio", "allow_negative_crop")
            if vars(self)[key] is False
        ]
        scales = (self.scales or ()) + ((self.scale,) if self.scale else ())
        faults += [f"scale {scale}: wants two sides above 0 px" for scale in scales
                   if min(scale) < 1]
        if self.crop_size and not 1 <= self.crop_size[0] <= self.crop_size[1]:
            faults.append(f"crop_size {self.crop_size}: wants the least side, then the greatest")
        if self.prob is not None and not 0 <= self.prob <= 1:
            faults.append(f"prob {self.prob}: wants a number from 0 to 1")
        for key in ("scales", "transforms"):
            if key in given and not vars(self)[key]:
                faults.append(f"{self.type}.{key} is empty")
        if any(step.type in (*_FIRST, _LAST) for steps in self.transforms or () for step in steps):
            faults.append("RandomChoice.transforms may not load or pack")
        if faults:
            raise ValueError("; ".join(faults))


_LOAD = (
    StepConfig("LoadImageFromFile"),
    StepConfig("LoadAnnotations", with_bbox=True, with_mask=True),
)
_RESIZE = StepConfig("Resize", scale=(1333, 800), keep_ratio=True)
_PACK = StepConfig("PackDetInputs")
TRAIN_PIPELINE = (*_LOAD, _RESIZE, StepConfig("RandomFlip", prob=0.5), _PACK)
TEST_PIPELINE = (_LOAD[0], _RESIZE, _LOAD[1], _PACK)


@dataclass(frozen=True)
class DataPrefix:
    """Folders below data_root."""

    img: str = ""


@dataclass(frozen=True)
class FilterConfig:
    """Training images that are left out."""

    filter_empty_gt: bool = True  # those without an annotation of a known category
    min_size: int = 32  # px: those whose shorter side is below

    def __post_init__(self):
        if self.min_size < 0:
            raise ValueError(f"min_size {self.min_size} must not be negative")


@dataclass(frozen=True)
class MetaInfo:
    """classes: names to use, of those that the annotation file lists; (): all of them."""

    classes: tuple[str, ...] | str = ()

    def __post_init__(self):
        if isinstance(self.classes, str):
            object.__setattr__(self, "classes", (self.classes,))
        if len(set(self.classes)) < len(self.classes):
            twice = next(n for n in self.classes if self.classes.count(n) > 1)
            raise ValueError(f"classes has {twice} twice")


@dataclass(frozen=True)
class DatasetConfig:
    """A COCO-format data set and how its samples are made."""

    type: Literal["CocoDataset"] = "CocoDataset"
    data_root: str = "data/coco/"
    ann_file: str = ""
    data_prefix: DataPrefix = DataPrefix()
    metainfo: MetaInfo = MetaInfo()
    filter_cfg: FilterConfig = FilterConfig()
    pipeline: tuple[StepConfig, ...] = TRAIN_PIPELINE

    def __post_init__(self):
        types = [step.type for step in self.pipeline]
        ends = (*_FIRST, _LAST)
        if sorted(t for t in types if t in ends) != sorted(ends) or types[-1] != _LAST:
            raise ValueError(
                f"pipeline {', '.join(types)}: wants {' and '.join(_FIRST)} once each, and "
                f"{_LAST} at the end"
            )

    @property
    def info_path(self) -> str:
        """The annotation file: `ann_file` below `data_root` unless it is absolute."""
        return str(Path(self.data_root) / self.ann_file)

    @property
    def images_path(self) -> str:
        """The image folder: `data_prefix.img` below `data_root` unless it is absolute."""
        return str(Path(self.data_root) / self.data_prefix.img)

    @property
    def transforms(self) -> tuple[StepConfig, ...]:
        """The steps between loading and packing."""
        return tuple(step for step in self.pipeline if step.type in _STEPS)


@dataclass(frozen=True)
class DataLoaderConfig:
    """Batches of one process."""

    batch_size: int = 2  # images a batch and process
    num_workers: int = 2  # processes that load data, for each process that computes
    dataset: DatasetConfig = DatasetConfig()

    def __post_init__(self):
        if self.batch_size < 1 or self.num_workers < 0:
            raise ValueError(
                f"batch_size {self.batch_size}, num_workers {self.num_workers}: wants at least 1 "
                "and at least 0"
            )


TRAIN_DATALOADER = DataLoaderConfig(
    dataset=DatasetConfig(
        ann_file="annotations/instances_train2017.json", data_prefix=DataPrefix("train2017/")
    )
)
VAL_DATALOADER = DataLoaderConfig(
    batch_size=1,
    dataset=DatasetConfig(
        ann_file="annotations/instances_val2017.json",
        data_prefix=DataPrefix("val2017/"),
        pipeline=TEST_PIPELINE,
    ),
)


@dataclass(frozen=True)
class EvaluatorConfig:
    """COCO scores of a validation."""

    type: Literal["CocoMetric"] = "CocoMetric"
    ann_file: str | None = None  # None: val_dataloader's; as it stands, not below data_root
    metric: tuple[Literal["bbox", "segm"], ...] | Literal["bbox", "segm"] = ("bbox", "segm")

    def __post_init__(self):
        if isinstance(self.metric, str):
            object.__setattr__(self, "metric", (self.metric,))
        if not self.metric or len(set(self.metric)) < len(self.metric):
            raise ValueError("metric wants bbox, segm or both")
