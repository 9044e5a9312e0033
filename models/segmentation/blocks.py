"""What several encoders and decoders are made of.

Parameter and buffer names everywhere in this package are the original's: they are a file format.
"""

from torch import nn

BN_MOMENTUM = 0.001  # the original's, HRNet's encoder apart [segmentation.md: Batch norm]
HRNET_BN_MOMENTUM = 0.1


def conv(in_channels: int, out_channels: int, size: int, stride: int = 1, **options) -> nn.Conv2d:
    """A convolution without bias that keeps the map's size at stride 1; size 1 or 3."""
    return nn.Conv2d(
        in_channels, out_channels, size, stride, padding=size // 2, bias=False, **options
    )


def norm(channels: int, momentum: float = BN_MOMENTUM) -> nn.BatchNorm2d:
    """Batch norm with the original's momentum."""
    return nn.BatchNorm2d(channels, momentum=momentum)


def conv_norm_relu(
    in_channels: int, out_channels: int, size: int, stride: int = 1, momentum: float = BN_MOMENTUM
) -> nn.Sequential:
    """Convolution, batch norm, relu."""
    return nn.Sequential(
        conv(in_channels, out_channels, size, stride),
        norm(out_channels, momentum),
        nn.ReLU(inplace=True),
    )


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut. He et al., arXiv:1512.03385."""

    expansion = 1

    def __init__(self, in_channels, width, stride=1, downsample=None, momentum=BN_MOMENTUM):
        super().__init__()
        self.conv1 = conv(in_channels, width, 3, stride)
        self.bn1 = norm(width, momentum)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = conv(width, width, 3)
        self.bn2 = norm(width, momentum)
        self.downsample = downsample

    def forward(self, x):
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return self.relu(out + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride), 1x1 convolutions beside a shortcut.

    expansion: output channels / width: 4 in ResNet; 2, with groups, in ResNeXt
    """

    expansion = 4

    def __init__(self, in_channels, width, stride=1, downsample=None, momentum=BN_MOMENTUM,
                 groups=1):
        super().__init__()
        self.conv1 = conv(in_channels, width, 1)
        self.bn1 = norm(width, momentum)
        self.conv2 = conv(width, width, 3, stride, groups=groups)
        self.bn2 = norm(width, momentum)
        self.conv3 = conv(width, width * self.expansion, 1)
        self.bn3 = norm(width * self.expansion, momentum)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x):
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return self.relu(out + (x if self.downsample is None else self.downsample(x)))


class GroupBottleneck(Bottleneck):
    """ResNeXt's block: 32 groups, expansion 2. Xie et al., arXiv:1611.05431."""

    expansion = 2

    def __init__(self, in_channels, width, stride=1, downsample=None):
        super().__init__(in_channels, width, stride, downsample, groups=32)


def residual_layer(block, in_channels, width, depth, stride=1, **options) -> nn.Sequential:
    """`depth` blocks; the first has the stride, and a 1x1 shortcut where shapes differ."""
    out_channels, downsample = width * block.expansion, None
    if stride != 1 or in_channels != out_channels:
        momentum = options.get("momentum", BN_MOMENTUM)
        downsample = nn.Sequential(
            conv(in_channels, out_channels, 1, stride), norm(out_channels, momentum)
        )
    first = block(in_channels, width, stride, downsample, **options)
    rest = [block(out_channels, width, **options) for _ in range(depth - 1)]
    return nn.Sequential(first, *rest)


def dilate(layer: nn.Module, dilation: int) -> None:
    """Turn the stride inside `layer` into dilation, in place; parameters stay as they are.

    A strided convolution gets stride 1 and, if 3x3, half of `dilation`; the other 3x3 ones all of
    it. With 1 the strides go and nothing is dilated. Source: [segmentation.md: Dilation].
    """
    for module in layer.modules():
        if not isinstance(module, nn.Conv2d):
            continue
        was_strided = module.stride == (2, 2)
        if was_strided:
            module.stride = (1, 1)
        if module.kernel_size == (3, 3):
            reach = max(dilation // 2, 1) if was_strided else dilation
            module.dilation = module.padding = (reach, reach)


def init_like_original(encoder: nn.Module) -> None:
    """The original's start without a file: normal, deviation sqrt(2 / (kh kw out)), norms 1 / 0."""
    for module in encoder.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
            # the depthwise convolutions of MobileNetV2 are not divided by their groups
            groups = module.groups if module.groups < module.in_channels else 1
            nn.init.normal_(module.weight, 0.0, (2 / (fan_out // groups)) ** 0.5)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
