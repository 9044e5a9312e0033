"""The network and its loss as one module: what data-parallel wrappers and torch.compile take."""

from collections.abc import Sequence

from torch import Tensor, nn


class NetLoss(nn.Module):
    """net(images) followed by criterion(net, predictions, targets, masks, num_crowds).

    Losses are computed where the replica is, so only scalars travel between devices.
    """

    def __init__(self, net: nn.Module, criterion: nn.Module):
        super().__init__()
        self.net = net
        self.criterion = criterion

    def forward(
        self, images: Tensor, targets: Sequence[Tensor], masks: Sequence[Tensor],
        num_crowds: Sequence[int],
    ) -> dict[str, Tensor]:
        """images [B,3,S,S]; targets, masks and num_crowds as MultiBoxLoss. Returns named losses."""
        return self.criterion(self.net, self.net(images), targets, masks, num_crowds)
