"""Scores: arrays in, numbers out."""

from runtime.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(__name__, {
    "ClassHistory": "metrics.class_history",
    "ClassScores": "metrics.classification",
    "CocoEvaluator": "metrics.coco",
    "ConfidentMistakes": "metrics.classification",
    "ConfusionMatrix": "metrics.classification",
    "SegmentationMeter": "metrics.segmentation",
    "TopK": "metrics.classification",
    "format_table": "metrics.coco",
    "mmdetection_names": "metrics.coco_mmdetection",
})
