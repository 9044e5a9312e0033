"""MMDetection's scores of a COCO evaluation: their names, what each is the mean of, the table.

Source: [queryinst.md: COCO scores].
"""

import math
from collections.abc import Iterable, Sequence

from metrics.coco_tables import CocoTables

MMDETECTION_LIMITS = (100, 300, 1000)  # detections an image
_AP_LIMIT = 100  # mAP is of so many, whatever the limits are
# name: (table, overlap or None for the mean over all, area, place of the limit; None: _AP_LIMIT)
_ITEMS: dict[str, tuple[str, float | None, str, int | None]] = {
    "mAP": ("precision", None, "all", None),
    "mAP_50": ("precision", 0.5, "all", 2),
    "mAP_75": ("precision", 0.75, "all", 2),
    "mAP_s": ("precision", None, "small", 2),
    "mAP_m": ("precision", None, "medium", 2),
    "mAP_l": ("precision", None, "large", 2),
    "AR@100": ("recall", None, "all", 0),
    "AR@300": ("recall", None, "all", 1),
    "AR@1000": ("recall", None, "all", 2),
    "AR_s@1000": ("recall", None, "small", 2),
    "AR_m@1000": ("recall", None, "medium", 2),
    "AR_l@1000": ("recall", None, "large", 2),
}
MMDETECTION_ITEMS = ("mAP", "mAP_50", "mAP_75", "mAP_s", "mAP_m", "mAP_l")


def mmdetection_names(
    iou_types: Iterable[str], items: Sequence[str] = MMDETECTION_ITEMS
) -> list[str]:
    """The names of what `CocoEvaluator.mmdetection_scores` gives for these IoU types."""
    return [f"coco/{iou_type}_{item}" for iou_type in iou_types for item in items]


def item_of(tables: CocoTables, item: str) -> float:
    """One score, a fraction; -1 where no object defines it.

    parity: without 100 among the limits mAP is -1 [queryinst.md: COCO scores]
    """
    kind, threshold, area, place = _ITEMS[item]
    if place is None:
        if _AP_LIMIT not in tables.limits:
            return -1.0
        place = tables.limits.index(_AP_LIMIT)
    value = tables.mean(kind, threshold=threshold, area=area, limit=place)
    return -1.0 if math.isnan(value) else value


def class_precisions(tables: CocoTables) -> list[tuple[float, ...]]:
    """MMDETECTION_ITEMS of each class, fractions; NaN where no object defines one.

    parity: all of them, mAP too, are of the last limit here [queryinst.md: COCO scores]
    """
    return [tuple(tables.mean(kind, threshold=threshold, area=area, category=place)
                  for kind, threshold, area, _ in map(_ITEMS.__getitem__, MMDETECTION_ITEMS))
            for place in range(len(tables.category_ids))]


def class_table(names: Sequence[str], rows: Sequence[Sequence[float]]) -> list[str]:
    """The lines of a table: a class and its numbers, MMDETECTION_ITEMS, to three decimals."""
    cells = [["category", *MMDETECTION_ITEMS]]
    cells += [[name, *(str(round(value, 3)) for value in row)]
              for name, row in zip(names, rows, strict=True)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    rule = "+" + "+".join("-" * (width + 2) for width in widths) + "+"
    lines = [f"| {' | '.join(map(str.ljust, row, widths))} |" for row in cells]
    return [rule, lines[0], rule, *lines[1:], rule]
