"""Schema of how a QueryInst validation or test is scored: MMDetection's CocoMetric.

Source: [queryinst.md: COCO scores].
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from settings.foreign import ForeignKeys
from settings.ranges import NOT_EMPTY, Count, Distinct, Range, Rule, Section

_Item = Literal["mAP", "mAP_50", "mAP_75", "mAP_s", "mAP_m", "mAP_l", "AR@100", "AR@300",
                "AR@1000", "AR_s@1000", "AR_m@1000", "AR_l@1000"]
_Overlap = Annotated[float, Range(above=0, at_most=1)]
_THREE = Rule("three numbers of detections", lambda numbers: len(numbers) == 3)
_METRICS = ("bbox", "segm")
ITEMS: tuple[_Item, ...] = ("mAP", "mAP_50", "mAP_75", "mAP_s", "mAP_m", "mAP_l")
OVERLAPS = tuple(i / 100 for i in range(50, 100, 5))
_LOCAL = "files are read from this machine's disk"
_ONE_WAY = "scores are computed in one way, which gives pycocotools' numbers"


@dataclass(frozen=True)
class EvaluatorConfig(Section):
    """COCO scores of a validation.

    ann_file:     None: the data loader's; as it stands, not below data_root
    classwise:    a table by class in the log, and the scores `coco/<class>_precision`
    proposal_nums: the most detections an image; mAP is of 100, mAP_50 and the others of the last
    iou_thrs:     overlaps that mAP is the mean of; None: 0.5, 0.55 ... 0.95
    metric_items: the scores of each metric; None: mAP mAP_50 mAP_75 mAP_s mAP_m mAP_l
    outfile_prefix: the detections go to PREFIX.bbox.json and PREFIX.segm.json, too
    format_only:  only there: no score is computed
    """

    FOREIGN: ClassVar = ForeignKeys(
        ignored={
            "backend_args": _LOCAL, "file_client_args": _LOCAL, "use_mp_eval": _ONE_WAY,
            "collect_device": "each process sends its detections as they are",
            "collect_dir": "each process sends its detections as they are",
            "sort_categories": "the order of the classes is that of the annotation file"})

    type: Literal["CocoMetric"] = "CocoMetric"
    ann_file: str | None = None
    metric: Annotated[tuple[str, ...] | str, NOT_EMPTY, Distinct()] = ("bbox", "segm")
    classwise: bool = False
    proposal_nums: Annotated[tuple[Count, ...], _THREE] = (100, 300, 1000)
    iou_thrs: Annotated[tuple[_Overlap, ...], NOT_EMPTY, Distinct()] | None = None
    metric_items: Annotated[tuple[_Item, ...], NOT_EMPTY, Distinct()] | None = None
    format_only: bool = False
    outfile_prefix: str | None = None
    prefix: Literal["coco"] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.metric, str):
            object.__setattr__(self, "metric", (self.metric,))
        super().__post_init__()

    def misfits(self) -> list[str]:
        others = [each for each in self.metric if each not in _METRICS]
        if others:
            return [f"metric wants bbox, segm or both, got {', '.join(others)}: recalls of "
                    "proposals are not computed here"]
        if self.format_only and not self.outfile_prefix:
            return ["outfile_prefix is missing, format_only needs it: the files are named "
                    "PREFIX.bbox.json and PREFIX.segm.json"]
        return []

    @property
    def items(self) -> tuple[str, ...]:
        """The scores of each metric, by MMDetection's names."""
        return self.metric_items or ITEMS

    @property
    def overlaps(self) -> tuple[float, ...]:
        """The IoU thresholds, ascending."""
        return tuple(sorted(self.iou_thrs)) if self.iou_thrs else OVERLAPS

    def scores_of(self, names: Iterable[str]) -> list[str]:
        """The scores that a validation gives, none with format_only; names: of the classes."""
        if self.format_only:
            return []
        by_class = [f"coco/{name}_precision" for name in names] if self.classwise else []
        return [*by_class, *(f"coco/{metric}_{item}" for metric in self.metric
                             for item in self.items)]


EVALUATOR = EvaluatorConfig()
