"""Semantic segmentation: .odgt lists and folders, batches of like orientation, their pictures."""

from data.segmentation.ade20k import ADE20K_CLASSES, ADE20K_COLORS, class_colors, color_encode
from data.segmentation.batches import (
    IGNORED,
    EvalItems,
    TrainBatches,
    eval_item,
    image_names,
    orientation_batches,
    resized_size,
    train_batch,
)
from data.segmentation.check import check_seg_files, open_lists
from data.segmentation.lists import SegList, cache_made_lists, data_facts, read_seg_list

__all__ = [
    "ADE20K_CLASSES",
    "ADE20K_COLORS",
    "IGNORED",
    "EvalItems",
    "SegList",
    "TrainBatches",
    "cache_made_lists",
    "check_seg_files",
    "class_colors",
    "color_encode",
    "data_facts",
    "eval_item",
    "image_names",
    "open_lists",
    "orientation_batches",
    "read_seg_list",
    "resized_size",
    "train_batch",
]
