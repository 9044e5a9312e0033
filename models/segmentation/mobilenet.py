"""The dilated MobileNetV2 encoder. Sandler et al., arXiv:1801.04381."""

from torch import nn

from models.residual import conv
from models.segmentation.blocks import dilate, init_like_original, norm

# (expansion t, channels c, repeats n, first stride s); width 1
_SETTINGS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
_FEATURES = (2, 4, 7, 14, 17)  # blocks whose outputs the decoders see


class InvertedResidual(nn.Module):
    """Expand by 1x1, filter each channel by 3x3, project by 1x1; added to the input if alike."""

    def __init__(self, in_channels, out_channels, stride, expansion):
        super().__init__()
        width = in_channels * expansion
        expand = [conv(in_channels, width, 1), norm(width), nn.ReLU6(inplace=True)]
        self.conv = nn.Sequential(
            *(expand if expansion > 1 else []),
            conv(width, width, 3, stride, groups=width),
            norm(width),
            nn.ReLU6(inplace=True),
            conv(width, out_channels, 1),
            norm(out_channels),
        )
        # decided before dilation takes the stride away
        self.adds = stride == 1 and in_channels == out_channels

    def forward(self, x):
        """[B, in_channels, H, W] to [B, out_channels, H / stride, W / stride]."""
        return x + self.conv(x) if self.adds else self.conv(x)


class MobileNetV2Dilated(nn.Module):
    """[B, 3, H, W] -> five maps of 24, 32, 64, 160, 320 channels at strides 4, 8, 8, 8, 8."""

    def __init__(self):
        super().__init__()
        stem = nn.Sequential(conv(3, 32, 3, stride=2), norm(32), nn.ReLU6(inplace=True))
        blocks, channels = [stem], 32
        for expansion, width, repeats, stride in _SETTINGS:
            for i in range(repeats):
                block = InvertedResidual(channels, width, stride if i == 0 else 1, expansion)
                blocks.append(block)
                channels = width
        self.features = nn.Sequential(*blocks)
        for block in self.features[7:14]:
            dilate(block, 2)
        for block in self.features[14:]:
            dilate(block, 4)
        init_like_original(self)

    def forward(self, x, return_feature_maps=False):
        """[B, 3, H, W] float, normalised, to the five maps, or to [the last one] alone."""
        features = []
        for i, block in enumerate(self.features):
            x = block(x)
            if i in _FEATURES:
                features.append(x)
        return features if return_feature_maps else [x]
