"""YOLACT's samples: COCO images with masks, augmented as the original does, and their pictures."""

from data.yolact.instances import INPUTS, InstanceDataset, collate_instances
from data.yolact.pictures import save_samples
from data.yolact.transform import YolactTransform

__all__ = [
    "INPUTS",
    "InstanceDataset",
    "YolactTransform",
    "collate_instances",
    "save_samples",
]
