"""ResNet's two blocks and stages of them: what the encoders of three families are made of.

State-dict keys are torchvision's: conv1, bn1, ..., downsample.0, downsample.1.
Not these blocks: ResNeSt's (split attention in the middle, which rectifies its own maps, and
average pools before or behind it), Darknet's (leaky, and no activation behind the sum).
Source: He et al., arXiv:1512.03385, with the stride on the 3x3 convolutions.
"""

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

Norm = Callable[[int], nn.Module]  # channels -> a norm of them


def conv(
    in_channels: int, out_channels: int, size: int, stride: int = 1, groups: int = 1
) -> nn.Conv2d:
    """A convolution without bias that keeps the map's size at stride 1; size odd."""
    return nn.Conv2d(
        in_channels, out_channels, size, stride, padding=size // 2, groups=groups, bias=False
    )


conv3x3 = partial(conv, size=3)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    expansion = 1

    def __init__(self, in_channels: int, planes: int, stride: int = 1,
                 norm: Norm = nn.BatchNorm2d, downsample: nn.Module | None = None):
        super().__init__()
        self.conv1 = conv(in_channels, planes, 3, stride)
        self.bn1 = norm(planes)
        self.conv2 = conv(planes, planes, 3)
        self.bn2 = norm(planes)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """[B, in_channels, H, W] to [B, planes, H / stride, W / stride], not negative."""
        residual = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(x)) + residual)


class Bottleneck(nn.Module):
    """1x1, 3x3 with the stride, 1x1 convolutions beside a shortcut.

    middle:    makes the 3x3 convolution, called as (channels, channels, stride=stride)
    expansion: of the class: output channels / planes
    """

    expansion = 4

    def __init__(self, in_channels: int, planes: int, stride: int = 1,
                 norm: Norm = nn.BatchNorm2d, downsample: nn.Module | None = None,
                 middle: Callable[..., nn.Module] = conv3x3):
        super().__init__()
        self.conv1 = conv(in_channels, planes, 1)
        self.bn1 = norm(planes)
        self.conv2 = middle(planes, planes, stride=stride)
        self.bn2 = norm(planes)
        self.conv3 = conv(planes, planes * self.expansion, 1)
        self.bn3 = norm(planes * self.expansion)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """[B, in_channels, H, W] to [B, expansion * planes, H / stride, W / stride], >= 0."""
        residual = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        return self.relu(self.bn3(self.conv3(x)) + residual)


def shortcut(
    in_channels: int, out_channels: int, stride: int, norm: Norm = nn.BatchNorm2d
) -> nn.Sequential | None:
    """The 1x1 projection beside a block that changes the shape; None beside one that does not."""
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(conv(in_channels, out_channels, 1, stride), norm(out_channels))


def residual_stage(
    block: type[BasicBlock | Bottleneck], in_channels: int, planes: int, depth: int,
    stride: int = 1, norm: Norm = nn.BatchNorm2d,
) -> nn.Sequential:
    """`depth` blocks, the first with the stride and, where shapes differ, a shortcut."""
    out_channels = planes * block.expansion
    downsample = shortcut(in_channels, out_channels, stride, norm)  # draws its weights first
    first = block(in_channels, planes, stride, norm, downsample)
    return nn.Sequential(
        first, *(block(out_channels, planes, norm=norm) for _ in range(depth - 1)))
