"""Losses, one file per model family: tensors and a small options object in, named scalars out."""

from common.losses.multibox import MultiBoxLoss
from common.losses.net_loss import NetLoss

__all__ = ["MultiBoxLoss", "NetLoss"]
