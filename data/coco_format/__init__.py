"""Annotation files in COCO's format: read once, checked, and kept as compact arrays."""

from data.coco_format.check import first_faults
from data.coco_format.classes import derive_classes, settle_classes
from data.coco_format.index import CocoIndex
from data.coco_format.opening import keep_indexes, open_coco, share_indexes

__all__ = [
    "CocoIndex",
    "derive_classes",
    "first_faults",
    "keep_indexes",
    "open_coco",
    "settle_classes",
    "share_indexes",
]
