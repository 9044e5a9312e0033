"""Schema of a QueryInst config's data: loaders, data sets, pipelines.

Keys are MMDetection's; the defaults are those of queryinst_r50_fpn_1x_coco.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from settings.ranges import (
    ASCENDING,
    NOT_EMPTY,
    Count,
    Distinct,
    Fraction,
    OneOf,
    Section,
    Whole,
)

# Steps that draw or resize: type -> (keys it needs, keys it may have).
_STEPS = {
    "Resize": (("scale",), ("keep_ratio",)),
    "RandomChoiceResize": (("scales",), ("keep_ratio",)),
    "RandomFlip": (("prob",), ()),
    "RandomChoice": (("transforms",), ()),
    "RandomCrop": (("crop_size",), ("crop_type", "allow_negative_crop")),
}
_Size = tuple[Count, Count]  # px
_True = Annotated[bool, OneOf((True,))]
_FIRST, _LAST = ("LoadImageFromFile", "LoadAnnotations"), "PackDetInputs"


@dataclass(frozen=True)
class StepConfig(Section):
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
    with_bbox: _True | None = None  # LoadAnnotations
    with_mask: _True | None = None
    scale: _Size | None = None  # Resize: the longer side's limit and the shorter's
    # RandomChoiceResize: one is drawn
    scales: Annotated[tuple[_Size, ...], NOT_EMPTY] | None = None
    keep_ratio: _True | None = None
    prob: Fraction | None = None  # RandomFlip, horizontal
    # RandomChoice: one list is drawn
    transforms: Annotated[tuple[tuple["StepConfig", ...], ...], NOT_EMPTY] | None = None
    crop_type: Literal["absolute_range"] | None = None  # RandomCrop
    crop_size: Annotated[_Size, ASCENDING] | None = None  # the least and the greatest side
    allow_negative_crop: _True | None = None  # a crop may have no object

    def misfits(self) -> list[str]:
        needed, allowed = _STEPS.get(self.type, ((), ()))
        if self.type == "LoadAnnotations":
            allowed = ("with_bbox", "with_mask")
        given = [key for key, value in vars(self).items() if value is not None and key != "type"]
        faults = [f"type {self.type} needs {key}" for key in needed if key not in given]
        faults += [f"{key} is no key of {self.type}" for key in given
                   if key not in needed + allowed]
        if any(step.type in (*_FIRST, _LAST) for steps in self.transforms or () for step in steps):
            faults.append("transforms of RandomChoice may not load or pack")
        return faults


_LOAD = (
    StepConfig("LoadImageFromFile"),
    StepConfig("LoadAnnotations", with_bbox=True, with_mask=True),
)
_RESIZE = StepConfig("Resize", scale=(1333, 800), keep_ratio=True)
_PACK = StepConfig("PackDetInputs")
TRAIN_PIPELINE = (*_LOAD, _RESIZE, StepConfig("RandomFlip", prob=0.5), _PACK)
TEST_PIPELINE = (_LOAD[0], _RESIZE, _LOAD[1], _PACK)


@dataclass(frozen=True)
class DataPrefix(Section):
    """Folders below data_root."""

    img: str = ""


@dataclass(frozen=True)
class FilterConfig(Section):
    """Training images that are left out."""

    filter_empty_gt: bool = True  # those without an annotation of a known category
    min_size: Whole = 32  # px: those whose shorter side is below


@dataclass(frozen=True)
class MetaInfo(Section):
    """classes: names to use, of those that the annotation file lists; (): all of them."""

    classes: Annotated[tuple[str, ...] | str, Distinct()] = ()

    def __post_init__(self) -> None:
        if isinstance(self.classes, str):
            object.__setattr__(self, "classes", (self.classes,))
        super().__post_init__()


@dataclass(frozen=True)
class DatasetConfig(Section):
    """A COCO-format data set and how its samples are made."""

    type: Literal["CocoDataset"] = "CocoDataset"
    data_root: str = "data/coco/"
    ann_file: str = ""
    data_prefix: DataPrefix = DataPrefix()
    metainfo: MetaInfo = MetaInfo()
    filter_cfg: FilterConfig = FilterConfig()
    pipeline: tuple[StepConfig, ...] = TRAIN_PIPELINE

    def misfits(self) -> list[str]:
        types = [step.type for step in self.pipeline]
        ends = (*_FIRST, _LAST)
        if sorted(t for t in types if t in ends) == sorted(ends) and types[-1] == _LAST:
            return []
        return [f"pipeline wants {' and '.join(_FIRST)} once each, and {_LAST} at the end, got "
                f"{', '.join(types)}"]

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
class DataLoaderConfig(Section):
    """Batches of one process."""

    batch_size: Count = 2  # images a batch and process
    num_workers: Whole = 2  # processes that load data, for each process that computes
    dataset: DatasetConfig = DatasetConfig()


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
