"""Scores: arrays in, numbers out."""

from metrics.coco import CocoEvaluator, format_table

__all__ = ["CocoEvaluator", "format_table"]
