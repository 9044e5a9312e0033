"""What several encoders and decoders are made of.

Parameter and buffer names everywhere in this package are the original's: they are a file format.
"""

from functools import partial

from torch import nn

from models.residual import Bottleneck, conv, conv3x3

BN_MOMENTUM = 0.001  # the original's, HRNet's encoder apart [segmentation.md: Batch norm]
HRNET_BN_MOMENTUM = 0.1


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


class GroupBottleneck(Bottleneck):
    """ResNeXt's block: 32 groups, expansion 2. Xie et al., arXiv:1611.05431."""

    expansion = 2

    def __init__(self, *args, **options):
        super().__init__(*args, **options, middle=partial(conv3x3, groups=32))


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
