"""Losses, one file per model family: tensors and a small options object in, named scalars out."""

from common.losses.multibox import MultiBoxLoss
from common.losses.net_loss import NetLoss
from common.losses.set_matching import generalized_iou, hungarian_match, match_cost
from common.losses.set_prediction import dice_loss, mask_targets, sigmoid_focal

__all__ = [
    "MultiBoxLoss",
    "NetLoss",
    "dice_loss",
    "generalized_iou",
    "hungarian_match",
    "mask_targets",
    "match_cost",
    "sigmoid_focal",
]
