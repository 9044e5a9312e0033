"""Losses, one file per model family: tensors and a small options object in, named scalars out."""

from common.losses.classification import (
    LabelSmoothing,
    NLLMultiLabelSmooth,
    cutmix,
    draw_cutmix,
    draw_mixup,
    mix,
    mixup,
)
from common.losses.multibox import MultiBoxLoss
from common.losses.net_loss import NetLoss
from common.losses.set_matching import generalized_iou, hungarian_match, match_cost
from common.losses.set_prediction import dice_loss, mask_targets, sigmoid_focal

__all__ = [
    "LabelSmoothing",
    "MultiBoxLoss",
    "NLLMultiLabelSmooth",
    "NetLoss",
    "cutmix",
    "dice_loss",
    "draw_cutmix",
    "draw_mixup",
    "generalized_iou",
    "hungarian_match",
    "mask_targets",
    "match_cost",
    "mix",
    "mixup",
    "sigmoid_focal",
]
