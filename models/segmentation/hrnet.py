"""The HRNetV2-W48 encoder: four resolutions kept side by side. Sun et al., arXiv:1904.04514."""

from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from models.residual import BasicBlock, Bottleneck, conv, residual_stage
from models.segmentation.blocks import HRNET_BN_MOMENTUM, conv_norm_relu, norm

_WIDTHS = (48, 96, 192, 384)
_MODULES = (1, 4, 3)  # of stages 2, 3, 4
_BLOCKS = 4  # of each branch in a module
_OPTIONS = {"momentum": HRNET_BN_MOMENTUM}
_norm = partial(norm, **_OPTIONS)


class HRModule(nn.Module):
    """`branches` chains of blocks, each at its own resolution, then every one told to every other.

    Takes and gives a list of maps [B, 48 * 2^i, H / 2^i, W / 2^i].
    """

    def __init__(self, branches: int):
        super().__init__()
        widths = _WIDTHS[:branches]
        self.branches = nn.ModuleList(
            residual_stage(BasicBlock, width, width, _BLOCKS, norm=_norm) for width in widths
        )
        # keys `fuse_layers.{to}.{from}`; a branch joins itself as it is
        self.fuse_layers = nn.ModuleList(
            nn.ModuleDict({str(j): _fuse_layer(j, i) for j in range(branches) if j != i})
            for i in range(branches)
        )

    def forward(self, maps):
        """Maps [B, 48 * 2^i, H / 2^i, W / 2^i], one a branch, to as many of the same shapes."""
        maps = [branch(x) for branch, x in zip(self.branches, maps, strict=True)]
        fused = []
        for i, layers in enumerate(self.fuse_layers):
            total = None
            for j, x in enumerate(maps):
                if j != i:
                    x = layers[str(j)](x)
                if j > i:
                    x = _enlarged(x, maps[i].shape[-2:])
                total = x if total is None else total + x
            fused.append(F.relu(total))
        return fused


class HRNetV2(nn.Module):
    """[B, 3, H, W] -> one map of 720 channels at stride 4: all branches, enlarged and joined."""

    def __init__(self):
        super().__init__()
        self.conv1 = conv(3, 64, 3, stride=2)
        self.bn1 = _norm(64)
        self.conv2 = conv(64, 64, 3, stride=2)
        self.bn2 = _norm(64)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = residual_stage(Bottleneck, 64, 64, 4, norm=_norm)
        # each stage's new branch starts from the last map before it
        new = [_new_branch(a, b) for a, b in zip((256, *_WIDTHS[1:]), _WIDTHS[1:], strict=False)]
        self.transition1 = nn.ModuleList([conv_norm_relu(256, _WIDTHS[0], 3, **_OPTIONS), new[0]])
        self.stage2 = _stage(branches=2, modules=_MODULES[0])
        self.transition2 = nn.ModuleDict({"2": new[1]})
        self.stage3 = _stage(branches=3, modules=_MODULES[1])
        self.transition3 = nn.ModuleDict({"3": new[2]})
        self.stage4 = _stage(branches=4, modules=_MODULES[2])

    def forward(self, x, return_feature_maps=False):
        """[B, 3, H, W] float, normalised, to a list of one map [B, 720, H / 4, W / 4]."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        x = self.layer1(x)
        maps = self.stage2([transition(x) for transition in self.transition1])
        maps = self.stage3([*maps, self.transition2["2"](maps[-1])])
        maps = self.stage4([*maps, self.transition3["3"](maps[-1])])
        size = maps[0].shape[-2:]
        # one map either way; the argument is every encoder's
        return [torch.cat([maps[0], *(_enlarged(m, size) for m in maps[1:])], dim=1)]


def _stage(branches, modules):
    return nn.Sequential(*(HRModule(branches) for _ in range(modules)))


def _new_branch(in_channels, out_channels):
    return nn.Sequential(conv_norm_relu(in_channels, out_channels, 3, stride=2, **_OPTIONS))


def _fuse_layer(source, target):
    """From branch `source` to branch `target`: 1x1 (then enlarged), or a chain of strided 3x3."""
    if source > target:
        return nn.Sequential(conv(_WIDTHS[source], _WIDTHS[target], 1), _norm(_WIDTHS[target]))
    width = _WIDTHS[source]
    chain = [
        conv_norm_relu(width, width, 3, stride=2, **_OPTIONS) for _ in range(target - source - 1)
    ]
    last = conv(width, _WIDTHS[target], 3, stride=2), _norm(_WIDTHS[target])
    return nn.Sequential(*chain, nn.Sequential(*last))


def _enlarged(x, size):
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)
