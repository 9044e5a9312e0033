"""The original's six decoders and a small one: feature maps in, class scores out.

Every decoder takes the encoder's list of maps and `segSize`. With `use_softmax` (evaluation) it
returns probabilities [B, num_class, *segSize]; without, log-probabilities at its own resolution,
and a pair (main, auxiliary) if it is deeply supervised. The flag decides, not train or eval mode.
Source: [segmentation.md: Decoders].
"""

import torch
from torch import nn
from torch.nn import functional as F

from models.residual import conv
from models.segmentation.blocks import conv_norm_relu, norm
from models.segmentation.pyramid import pyramid_conv

POOL_SCALES = (1, 2, 3, 6)
_POOL_CHANNELS = 512
_DROPOUT = 0.1


class C1(nn.Module):
    """One 3x3 convolution and a classifier on the last map.

    deep_sup: with an auxiliary classifier of the same kind on the map before the last
    """

    def __init__(self, num_class, fc_dim, use_softmax=False, deep_sup=False):
        super().__init__()
        self.use_softmax = use_softmax
        self.deep_sup = deep_sup
        self.cbr = conv_norm_relu(fc_dim, fc_dim // 4, 3)
        if deep_sup:
            self.cbr_deepsup = conv_norm_relu(fc_dim // 2, fc_dim // 4, 3)
        self.conv_last = nn.Conv2d(fc_dim // 4, num_class, 1)
        if deep_sup:
            self.conv_last_deepsup = nn.Conv2d(fc_dim // 4, num_class, 1)

    def forward(self, features, segSize=None):
        """features: the encoder's maps, the last [B, fc_dim, h, w], that before it of fc_dim / 2

        Returns [B, num_class, h, w] or [B, num_class, *segSize]; see the module.
        """
        scores = self.conv_last(self.cbr(features[-1]))
        if self.use_softmax:
            return _probabilities(scores, segSize)
        if not self.deep_sup:
            return F.log_softmax(scores, dim=1)
        auxiliary = self.conv_last_deepsup(self.cbr_deepsup(features[-2]))
        return F.log_softmax(scores, dim=1), F.log_softmax(auxiliary, dim=1)


class PPM(nn.Module):
    """Pyramid pooling. Zhao et al., arXiv:1612.01105.

    deep_sup: with an auxiliary classifier on the map before the last
    """

    def __init__(self, num_class, fc_dim, use_softmax=False, deep_sup=False):
        super().__init__()
        self.use_softmax = use_softmax
        self.deep_sup = deep_sup
        self.ppm = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(scale), *conv_norm_relu(fc_dim, _POOL_CHANNELS, 1))
            for scale in POOL_SCALES
        )
        if deep_sup:
            self.cbr_deepsup = conv_norm_relu(fc_dim // 2, fc_dim // 4, 3)
        self.conv_last = nn.Sequential(
            conv(fc_dim + len(POOL_SCALES) * _POOL_CHANNELS, _POOL_CHANNELS, 3),
            norm(_POOL_CHANNELS),
            nn.ReLU(inplace=True),
            nn.Dropout2d(_DROPOUT),
            nn.Conv2d(_POOL_CHANNELS, num_class, 1),
        )
        if deep_sup:
            self.conv_last_deepsup = nn.Conv2d(fc_dim // 4, num_class, 1)
            self.dropout_deepsup = nn.Dropout2d(_DROPOUT)

    def forward(self, features, segSize=None):
        """features: the encoder's maps, the last [B, fc_dim, h, w], that before it of fc_dim / 2

        Returns [B, num_class, h, w] or [B, num_class, *segSize]; see the module.
        """
        last = features[-1]
        first, *others = self.conv_last
        scores = pyramid_conv(last, [branch(last) for branch in self.ppm], first.weight)
        for layer in others:
            scores = layer(scores)
        if self.use_softmax:
            return _probabilities(scores, segSize)
        if not self.deep_sup:
            return F.log_softmax(scores, dim=1)
        auxiliary = self.dropout_deepsup(self.cbr_deepsup(features[-2]))
        return F.log_softmax(scores, dim=1), F.log_softmax(self.conv_last_deepsup(auxiliary), dim=1)


class UPerNet(nn.Module):
    """Pyramid pooling on top of a feature pyramid. Xiao et al., arXiv:1807.10221.

    widths:        channels of the first three of the four maps that it wants, `fc_dim` the last's
    fpn_dim:       channels of the feature pyramid
    pool_channels: channels of each pooled branch
    """

    def __init__(self, num_class, fc_dim, use_softmax=False, fpn_dim=512,
                 pool_channels=_POOL_CHANNELS, widths=(256, 512, 1024)):
        super().__init__()
        self.use_softmax = use_softmax
        self.ppm_pooling = nn.ModuleList(nn.AdaptiveAvgPool2d(scale) for scale in POOL_SCALES)
        self.ppm_conv = nn.ModuleList(
            conv_norm_relu(fc_dim, pool_channels, 1) for _ in POOL_SCALES
        )
        self.ppm_last_conv = conv_norm_relu(
            fc_dim + len(POOL_SCALES) * pool_channels, fpn_dim, 3
        )
        self.fpn_in = nn.ModuleList(conv_norm_relu(width, fpn_dim, 1) for width in widths)
        self.fpn_out = nn.ModuleList(
            nn.Sequential(conv_norm_relu(fpn_dim, fpn_dim, 3)) for _ in widths
        )
        self.conv_last = nn.Sequential(
            conv_norm_relu((len(widths) + 1) * fpn_dim, fpn_dim, 3),
            nn.Conv2d(fpn_dim, num_class, 1),
        )

    def forward(self, features, segSize=None):
        """features: maps [B, widths[i], h_i, w_i], finest first, and the deepest, [B, fc_dim, h, w]

        Returns [B, num_class, h_0, w_0] or [B, num_class, *segSize]; see the module.
        """
        last, size = features[-1], features[0].shape[-2:]
        maps = [last]
        for pool, layer in zip(self.ppm_pooling, self.ppm_conv, strict=True):
            # parity: enlarged before the convolution and its norm, not after as in PPM
            # [segmentation.md: Decoders]
            maps.append(layer(_enlarged(pool(last), last.shape[-2:])))
        top = self.ppm_last_conv(torch.cat(maps, 1))
        down, outs = top, []
        for i in reversed(range(len(self.fpn_in))):
            lateral = self.fpn_in[i](features[i])
            down = lateral + _enlarged(down, lateral.shape[-2:])
            outs.insert(0, self.fpn_out[i](down))
        joined = torch.cat([_enlarged(x, size) for x in (*outs, top)], 1)
        scores = self.conv_last(joined)
        return _probabilities(scores, segSize) if self.use_softmax else F.log_softmax(scores, dim=1)


def _enlarged(x, size):
    if x.shape[-2:] == size:
        return x
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def _probabilities(scores, size):
    """Logits enlarged to `size` (h, w), then softmax, in that order."""
    return F.softmax(_enlarged(scores, size), dim=1)
