"""ResNeSt: a ResNet-D whose 3x3 convolutions are split-attention convolutions.

Source: arXiv:2004.08955; sizes and quirks: [resnest.md: Networks], [resnest.md: Blocks].
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from models.resnest.split_attention import SplAtConv2d

EXPANSION = 4
BASE_WIDTH = 64  # planes that `bottleneck_width` is given for


@dataclass(frozen=True)
class Architecture:
    """What tells one network of the family from another; the defaults are the original's.

    layers:      blocks per stage
    radix:       groups of maps that attention chooses between; at least 1
    groups:      cardinality of the 3x3 convolutions
    planes:      inner channels of each stage at `bottleneck_width` 64
    stem_stride: 4; 2 leaves out the max pool, 1 the first convolution's stride too (small images)
    dilation:    2 or 4 keep the last one or two stages at stride 8 by dilating instead
    dilated:     the same as dilation 4
    avd:         a strided 3x3 average pool does the down-sampling of a stage's first block
    final_drop:  dropout before the classifier, in [0, 1)
    last_gamma:  each block's last norm scale starts at 0, so that blocks start as identities
    """

    layers: tuple[int, ...]
    radix: int = 1
    groups: int = 1
    bottleneck_width: int = 64
    planes: tuple[int, ...] = (64, 128, 256, 512)
    dilated: bool = False
    dilation: int = 1
    deep_stem: bool = False
    stem_width: int = 64
    stem_stride: int = 4
    avg_down: bool = False
    avd: bool = False
    avd_first: bool = False
    final_drop: float = 0.0
    last_gamma: bool = False
    norm_layer: Callable[[int], nn.Module] = nn.BatchNorm2d

    def __post_init__(self):
        if len(self.layers) != len(self.planes):
            raise ValueError(f"{len(self.layers)} stages of blocks, {len(self.planes)} of planes")
        if self.radix < 1 or self.dilation not in (1, 2, 4) or self.stem_stride not in (1, 2, 4):
            raise ValueError("radix is at least 1, dilation 1, 2 or 4, stem_stride 1, 2 or 4")
        if not 0.0 <= self.final_drop < 1.0:
            raise ValueError(f"final_drop is a probability below 1, got {self.final_drop}")


class Bottleneck(nn.Module):
    """1x1, split attention, 1x1, added to the shortcut: [B, C, H, W] -> [B, 4 planes, H/s, W/s]."""

    def __init__(self, arch, in_channels, planes, stride, dilation, downsample, has_avd):
        super().__init__()
        width = int(planes * (arch.bottleneck_width / BASE_WIDTH)) * arch.groups
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = arch.norm_layer(width)
        # parity: the pool counts the padding's zeros [resnest.md: Blocks]
        self.avd_layer = nn.AvgPool2d(3, stride, padding=1) if has_avd else None
        self.avd_first = arch.avd_first
        self.conv2 = SplAtConv2d(
            width, arch.radix, arch.groups, 1 if has_avd else stride, dilation, arch.norm_layer
        )
        self.conv3 = nn.Conv2d(width, planes * EXPANSION, 1, bias=False)
        self.bn3 = arch.norm_layer(planes * EXPANSION)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x):
        """[B, in_channels, H, W] to [B, 4 planes, H / stride, W / stride], not negative."""
        out = self.relu(self.bn1(self.conv1(x)))
        if self.avd_layer is not None and self.avd_first:
            out = self.avd_layer(out)
        out = self.conv2(out)
        if self.avd_layer is not None and not self.avd_first:
            out = self.avd_layer(out)
        out = self.bn3(self.conv3(out))
        out += x if self.downsample is None else self.downsample(x)
        return self.relu(out)


class ResNeSt(nn.Module):
    """[B, 3, H, W] normalised images -> [B, num_classes] logits; H and W at least 32.

    State-dict keys, their order and the order of random draws are the original's.
    `.arch` is the Architecture, `.num_classes` the number of logits.
    """

    def __init__(self, arch: Architecture, num_classes: int = 1000):
        super().__init__()
        self.arch, self.num_classes = arch, num_classes
        self.conv1, channels = _stem(arch)
        self.bn1 = arch.norm_layer(channels)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1) if arch.stem_stride == 4 else nn.Identity()
        dilation = 4 if arch.dilated else arch.dilation
        strides, dilations = {
            1: ((1, 2, 2, 2), (1, 1, 1, 1)),
            2: ((1, 2, 2, 1), (1, 1, 1, 2)),
            4: ((1, 2, 1, 1), (1, 1, 2, 4)),
        }[dilation]
        self.num_stages = len(arch.layers)
        for i, (planes, blocks) in enumerate(zip(arch.planes, arch.layers, strict=True)):
            stage = _stage(arch, channels, planes, blocks, strides[i], dilations[i], is_first=i > 0)
            setattr(self, f"layer{i + 1}", stage)
            channels = planes * EXPANSION
        self.avgpool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.drop = nn.Dropout(arch.final_drop) if arch.final_drop > 0.0 else None
        self.fc = nn.Linear(channels, num_classes)
        self._init_weights()

    def forward(self, x):
        """[B, 3, H, W] float, normalised, to logits [B, num_classes]."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for i in range(self.num_stages):
            x = getattr(self, f"layer{i + 1}")(x)
        x = self.avgpool(x)
        if self.drop is not None:
            x = self.drop(x)
        return self.fc(x)

    def _init_weights(self):
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                # parity: He's fan-out without dividing by the groups [resnest.md: Initialisation]
                fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
                nn.init.normal_(module.weight, 0.0, math.sqrt(2.0 / fan_out))
            elif isinstance(module, Bottleneck) and self.arch.last_gamma:
                # differs: the original's last_gamma was undone by its own norm initialisation
                # [resnest.md: Initialisation]. Way back: TRAINING.LAST_GAMMA False.
                nn.init.zeros_(module.bn3.weight)


def _stem(arch):
    """(the convolutions before the first norm, their output channels)"""
    stride = min(arch.stem_stride, 2)
    if not arch.deep_stem:
        return nn.Conv2d(3, 64, 7, stride, padding=3, bias=False), 64
    width = arch.stem_width
    convs = nn.Sequential(
        nn.Conv2d(3, width, 3, stride, padding=1, bias=False),
        arch.norm_layer(width),
        nn.ReLU(inplace=True),
        nn.Conv2d(width, width, 3, padding=1, bias=False),
        arch.norm_layer(width),
        nn.ReLU(inplace=True),
        nn.Conv2d(width, 2 * width, 3, padding=1, bias=False),
    )
    return convs, 2 * width


def _stage(arch, in_channels, planes, blocks, stride, dilation, is_first):
    """`blocks` bottlenecks. is_first: its first block pools (AVD) even at stride 1."""
    out_channels = planes * EXPANSION
    downsample = None
    if stride != 1 or in_channels != out_channels:
        downsample = _shortcut(arch, in_channels, out_channels, stride, dilation)
    # parity: the first block of a dilated stage is dilated half as much as the others
    # [resnest.md: Blocks]
    first_dilation = 1 if dilation in (1, 2) else 2
    has_avd = arch.avd and (stride > 1 or is_first)
    stage = [Bottleneck(arch, in_channels, planes, stride, first_dilation, downsample, has_avd)]
    for _ in range(1, blocks):
        stage.append(Bottleneck(arch, out_channels, planes, 1, dilation, None, has_avd=False))
    return nn.Sequential(*stage)


def _shortcut(arch, in_channels, out_channels, stride, dilation):
    norm = arch.norm_layer(out_channels)
    if not arch.avg_down:
        return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), norm)
    window = stride if dilation == 1 else 1
    pool = nn.AvgPool2d(window, window, ceil_mode=True, count_include_pad=False)
    return nn.Sequential(pool, nn.Conv2d(in_channels, out_channels, 1, bias=False), norm)
