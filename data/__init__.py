"""Data sets, augmentation, samplers, decoding, the sample maker, the data set checker."""

from data.aspect_loader import AspectRatioLoader
from data.class_folders import (
    ClassificationDataset,
    collate_classes,
    open_class_folders,
)
from data.class_pictures import save_class_samples, save_mistakes
from data.classes import derive_classes, settle_classes
from data.coco_check import first_faults
from data.coco_index import CocoIndex
from data.coco_open import open_coco, share_indexes
from data.coco_summary import show_checked
from data.decode import read_image
from data.instance_pictures import save_predictions, save_samples
from data.instances import InstanceDataset, collate_instances
from data.loader import (
    ResumableLoader,
    SampleKey,
    ordered_batches,
    sample_rng,
    whole_batches,
)
from data.query_instances import QueryInstDataset, network_input
from data.query_open import open_query_data
from data.query_pictures import save_query_predictions, save_query_samples
from data.query_transform import rescale_size
from data.yolact_transform import YolactTransform

__all__ = [
    "AspectRatioLoader",
    "ClassificationDataset",
    "CocoIndex",
    "InstanceDataset",
    "QueryInstDataset",
    "ResumableLoader",
    "SampleKey",
    "YolactTransform",
    "collate_classes",
    "collate_instances",
    "derive_classes",
    "first_faults",
    "network_input",
    "open_class_folders",
    "open_coco",
    "open_query_data",
    "ordered_batches",
    "read_image",
    "rescale_size",
    "sample_rng",
    "save_class_samples",
    "save_mistakes",
    "save_predictions",
    "save_query_predictions",
    "save_query_samples",
    "save_samples",
    "settle_classes",
    "share_indexes",
    "show_checked",
    "whole_batches",
]
