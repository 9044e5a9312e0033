"""Schema of a QueryInst config's data: loaders, data sets, pipelines.

Keys are MMDetection's; the defaults are those of queryinst_r50_fpn_1x_coco.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from settings.foreign import ForeignKeys
from settings.nodes import Node, merge
from settings.queryinst.pipeline import (
    ENDS,
    LoadAnnotationsStep,
    LoadImageStep,
    PackStep,
    RandomFlipStep,
    ResizeStep,
    Step,
    pipeline_faults,
)
from settings.ranges import Count, Distinct, Section, Whole

_RESIZE = ResizeStep(scale=(1333, 800), keep_ratio=True)
TRAIN_PIPELINE: tuple[Step, ...] = (
    LoadImageStep(), LoadAnnotationsStep(), _RESIZE, RandomFlipStep(prob=0.5), PackStep())
TEST_PIPELINE: tuple[Step, ...] = (LoadImageStep(), _RESIZE, LoadAnnotationsStep(), PackStep())


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

    FOREIGN = ForeignKeys(ignored={"palette": "the pictures have colours of their own"})

    classes: Annotated[tuple[str, ...] | str, Distinct()] = ()

    def __post_init__(self) -> None:
        if isinstance(self.classes, str):
            object.__setattr__(self, "classes", (self.classes,))
        super().__post_init__()


_LISTS = "annotations are indexed once and shared by all workers"


@dataclass(frozen=True)
class DatasetConfig(Section):
    """A COCO-format data set and how its samples are made."""

    FOREIGN = ForeignKeys(
        same={"backend_args": None, "file_client_args": None, "proposal_file": None,
              "return_classes": False, "caption_prompt": None},
        ignored={"serialize_data": _LISTS, "lazy_init": _LISTS,
                 "seg_map_suffix": "there are no semantic maps",
                 "max_refetch": "--bad-images says what happens at an image that is unreadable"},
    )

    type: Literal["CocoDataset"] = "CocoDataset"
    data_root: str = "data/coco/"
    ann_file: str = ""
    data_prefix: DataPrefix = DataPrefix()
    metainfo: MetaInfo = MetaInfo()
    filter_cfg: FilterConfig | None = FilterConfig()  # None: nothing is left out
    test_mode: bool | None = None  # true: filter_cfg is not looked at; None: as the part needs
    # of what the filter leaves: the first so many (the last, below 0), or those at these positions
    indices: tuple[int, ...] | int | None = None
    times: Count = 1  # RepeatDataset's: how often an epoch has each image
    pipeline: tuple[Step, ...] = TRAIN_PIPELINE

    def __post_init__(self) -> None:
        if self.filter_cfg is None:
            object.__setattr__(self, "filter_cfg", FilterConfig(False, 0))
        super().__post_init__()

    def misfits(self) -> list[str]:
        return pipeline_faults(self.pipeline)

    @property
    def info_path(self) -> str:
        """The annotation file: `ann_file` below `data_root` unless it is absolute."""
        return str(Path(self.data_root) / self.ann_file)

    @property
    def images_path(self) -> str:
        """The image folder: `data_prefix.img` below `data_root` unless it is absolute."""
        return str(Path(self.data_root) / self.data_prefix.img)

    @property
    def transforms(self) -> tuple[Step, ...]:
        """The steps between loading and packing."""
        return tuple(step for step in self.pipeline if not isinstance(step, ENDS))


@dataclass(frozen=True)
class SamplerConfig(Section):
    """shuffle: a new order each epoch; None: as the part needs."""

    FOREIGN = ForeignKeys(same={"type": "DefaultSampler", "seed": None, "round_up": True})

    shuffle: bool | None = None


@dataclass(frozen=True)
class BatchSamplerConfig(Section):
    """Batches of images that are all upright, or all not. drop_last: of full ones only."""

    type: Literal["AspectRatioBatchSampler"] = "AspectRatioBatchSampler"
    drop_last: bool = False


_OWN_LOADER = "the loader is this project's, and takes care of it"


@dataclass(frozen=True)
class DataLoaderConfig(Section):
    """Batches of one process."""

    FOREIGN = ForeignKeys(
        same={"collate_fn": {"type": "pseudo_collate"}, "num_batch_per_epoch": None},
        ignored=dict.fromkeys(("persistent_workers", "pin_memory", "prefetch_factor", "timeout",
                               "multiprocessing_context"), _OWN_LOADER),
        refused={"worker_init_fn": "code of a config is not run"},
    )

    batch_size: Count = 2  # images a batch and process
    num_workers: Whole = 2  # processes that load data, for each process that computes
    sampler: SamplerConfig = SamplerConfig()
    batch_sampler: BatchSamplerConfig | None = None  # None: batches in the sampler's order
    drop_last: bool = False  # without batch_sampler: full batches only
    dataset: DatasetConfig = field(default_factory=DatasetConfig)

    @classmethod
    def prepared(cls, node: Node, path: str, base: Any, faults: list[str]) -> Node:
        return _with_plain_dataset(node, path, faults)

    def misfits(self) -> list[str]:
        if not self.drop_last or self.batch_sampler is None:
            return []
        return ["drop_last wants false beside batch_sampler, which has a drop_last of its own"]


_WRAPPERS = {
    "ConcatDataset": "one annotation file a part is read; join the files into one",
    "ClassBalancedDataset": "images are drawn evenly, whatever their classes",
    "MultiImageMixDataset": "transforms that mix images are not built",
}


def _with_plain_dataset(node: Node, path: str, faults: list[str]) -> Node:
    """A loader with RepeatDataset's `times` in the data set that it repeats."""
    dataset = node.value.get("dataset")
    kind = dataset.value.get("type") if dataset and isinstance(dataset.value, dict) else None
    if dataset is None or kind is None:
        return node
    if kind.value in _WRAPPERS:
        faults.append(f"{kind.where}: {path}.dataset.type: MMDetection's {kind.value} is not built "
                      f"here: {_WRAPPERS[kind.value]}")
        return replace(node, value={k: v for k, v in node.value.items() if k != "dataset"})
    if kind.value != "RepeatDataset":
        return node
    around = {key: value for key, value in dataset.value.items()
              if key not in ("type", "dataset", "lazy_init")}
    inner = dataset.value.get("dataset", Node({}, dataset.where))
    return replace(node, value={**node.value, "dataset": merge(replace(dataset, value=around),
                                                               inner)})


TRAIN_DATALOADER = DataLoaderConfig(
    sampler=SamplerConfig(shuffle=True),
    batch_sampler=BatchSamplerConfig(),
    dataset=DatasetConfig(
        ann_file="annotations/instances_train2017.json", data_prefix=DataPrefix("train2017/"),
        test_mode=False,
    ),
)
VAL_DATALOADER = DataLoaderConfig(
    batch_size=1,
    sampler=SamplerConfig(shuffle=False),
    dataset=DatasetConfig(
        ann_file="annotations/instances_val2017.json",
        data_prefix=DataPrefix("val2017/"),
        test_mode=True,
        pipeline=TEST_PIPELINE,
    ),
)


def scoring_faults(key: str, loader: DataLoaderConfig) -> list[str]:
    """What a loader of images to score may not ask for. key: its name"""
    drawn = [step.type for step in loader.dataset.transforms if not isinstance(step, ResizeStep)]
    wrong = {"dataset.pipeline may resize, but it draws by "
             f"{', '.join(drawn)}: leave that to the training's": drawn,
             "sampler.shuffle wants false: the order changes no score": loader.sampler.shuffle,
             "batch_sampler wants None: the images are scored in the file's order":
                 loader.batch_sampler,
             "drop_last wants false: every image is scored": loader.drop_last,
             "dataset.times wants 1: an image is scored once": loader.dataset.times > 1,
             "dataset.indices wants None: the scores are over the whole annotation file":
                 loader.dataset.indices is not None,
             "dataset.test_mode wants true: no image is left out":
                 loader.dataset.test_mode is False}
    return [f"{key}.{fault}" for fault, is_wrong in wrong.items() if is_wrong]
