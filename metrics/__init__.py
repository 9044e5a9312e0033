"""Scores: arrays in, numbers out."""

from metrics.class_history import ClassHistory
from metrics.classification import ClassScores, ConfidentMistakes, ConfusionMatrix, TopK
from metrics.coco import CocoEvaluator, format_table, mmdetection_names
from metrics.segmentation import SegmentationMeter

__all__ = [
    "ClassHistory",
    "ClassScores",
    "CocoEvaluator",
    "ConfidentMistakes",
    "ConfusionMatrix",
    "SegmentationMeter",
    "TopK",
    "format_table",
    "mmdetection_names",
]
