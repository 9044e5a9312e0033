"""The network and its loss as one module: what data-parallel wrappers and torch.compile take."""

from torch import nn


class NetLoss(nn.Module):
    """net(images) followed by criterion(net, predictions, targets, masks, num_crowds).

    Losses are computed where the replica is, so only scalars travel between devices.
    """

    def __init__(self, net, criterion):
        super().__init__()
        self.net = net
        self.criterion = criterion

    def forward(self, images, targets, masks, num_crowds):
        """images [B,3,S,S]; targets, masks and num_crowds as MultiBoxLoss. Returns named losses."""
        return self.criterion(self.net, self.net(images), targets, masks, num_crowds)
