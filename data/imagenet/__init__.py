"""Classification: folders of classes, ResNeSt's transforms and crops, and their pictures."""

from data.imagenet.crops import center_crop_box, random_crop_box
from data.imagenet.folders import (
    ClassificationDataset,
    collate_classes,
    data_facts,
    open_class_folders,
)
from data.imagenet.pictures import save_class_samples, save_findings, save_mistakes
from data.imagenet.rand_augment import RAND_AUGMENT_OPS, RandAugment
from data.imagenet.transforms import (
    Lighting,
    Normalize,
    RandomErasing,
    RandomResizedCrop,
    standard_transform,
    train_transform,
    transforms_of,
    val_transform,
)

__all__ = [
    "RAND_AUGMENT_OPS",
    "ClassificationDataset",
    "Lighting",
    "Normalize",
    "RandAugment",
    "RandomErasing",
    "RandomResizedCrop",
    "center_crop_box",
    "collate_classes",
    "data_facts",
    "open_class_folders",
    "random_crop_box",
    "save_class_samples",
    "save_findings",
    "save_mistakes",
    "standard_transform",
    "train_transform",
    "transforms_of",
    "val_transform",
]
