"""The network and its loss as one module: what data-parallel wrappers and torch.compile take."""

from typing import Any

from torch import Tensor, nn


class NetLoss(nn.Module):
    """net(images) followed by criterion(net, predictions, *truth).

    Losses are computed where the replica is, so only scalars travel between devices.
    """

    def __init__(self, net: nn.Module, criterion: nn.Module):
        super().__init__()
        self.net = net
        self.criterion = criterion

    def forward(self, images: Tensor, *truth: Any) -> dict[str, Tensor]:
        """images [B, 3, S, S]; truth: what MultiBoxLoss takes after the predictions: targets,
        masks, num_crowds and, where it is known, matched. Returns named losses."""
        return self.criterion(self.net, self.net(images), *truth)
