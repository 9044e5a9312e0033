"""Split attention: a 3x3 convolution into several groups of maps, mixed by learned weights.

Source: ResNeSt, arXiv:2004.08955, section 3; radix-major layout, [resnest.md: Split attention].
"""

import torch
from torch import nn
from torch.nn import functional as F

MIN_INNER_CHANNELS = 32


class SplAtConv2d(nn.Module):
    """`radix` groups of maps from one 3x3 convolution, summed with attention over the groups.

    [B, C, H, W] -> [B, C, H/stride, W/stride], any float dtype. State-dict keys are the original's.
    In train mode the inner norm sees 1x1 maps: a batch of one sample raises ValueError, as torch's
    BatchNorm does.
    """

    def __init__(self, channels, radix, cardinality, stride, dilation, norm_layer):
        super().__init__()
        self.channels, self.radix, self.cardinality = channels, radix, cardinality
        inner = max(channels * radix // 4, MIN_INNER_CHANNELS)
        self.conv = nn.Conv2d(
            channels,
            channels * radix,
            kernel_size=3,
            stride=stride,
            padding=dilation,
            dilation=dilation,
            groups=cardinality * radix,
            bias=False,
        )
        self.bn0 = norm_layer(channels * radix)
        self.relu = nn.ReLU(inplace=True)
        self.fc1 = nn.Conv2d(channels, inner, 1, groups=cardinality)
        self.bn1 = norm_layer(inner)
        self.fc2 = nn.Conv2d(inner, channels * radix, 1, groups=cardinality)

    def forward(self, x):
        """[B, C, H, W] to [B, C, H / stride, W / stride]."""
        maps = self.relu(self.bn0(self.conv(x)))  # [B, R*C, H, W], chunk r is radix r
        weights = self.attention(maps.mean((2, 3), keepdim=True))
        # under autocast the softmax is float32, and would make the maps so, too
        return weighted_sum(maps, weights.to(maps.dtype), self.radix)

    def attention(self, means):
        """Means of the maps -> their weights, both [B, R*C, 1, 1] and radix-major."""
        # The mean of the summed chunks, without ever forming their full-sized sum.
        pooled = means.unflatten(1, (self.radix, self.channels)).sum(1)
        logits = self.fc2(self.relu(self.bn1(self.fc1(pooled))))  # cardinal-major
        if self.radix == 1:
            return torch.sigmoid(logits)
        split = (self.cardinality, self.radix, self.channels // self.cardinality)
        weights = F.softmax(logits.flatten(1).unflatten(1, split), dim=2)
        return weights.transpose(1, 2).reshape(logits.shape)


def weighted_sum(maps, weights, radix):
    """Sum over r of chunk r of `maps` [B, R*C, H, W] times chunk r of `weights` [B, R*C, 1, 1]."""
    total = None
    for chunk, weight in zip(maps.chunk(radix, 1), weights.chunk(radix, 1), strict=True):
        total = chunk * weight if total is None else torch.addcmul(total, chunk, weight)
    return total
