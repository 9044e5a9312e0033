"""Backbones: ResNet (plain, deformable, GroupNorm), Darknet-53 and VGG-16 with reduced fc layers.

Each is a module whose forward takes images [B, 3, H, W] and returns the outputs of all its stages,
finest first; `channels` are theirs. State-dict keys and their order are the original's
[yolact.md: Backbones], which is why stages are called `layers` and stand before the stem. A network
that wants more stages than a backbone has gets down-sampling ones appended, from `num_own_stages`
on.
"""

from functools import partial

from torch import nn

from models.residual import BasicBlock, Bottleneck, shortcut
from models.yolact.deform_conv import DeformConv


def build_backbone(cfg):
    """The backbone of a config's backbone section, with random weights."""
    builders = {"resnet": ResNet, "darknet": Darknet, "vgg": Vgg16}
    return builders[cfg.type](cfg.args, num_stages=max(cfg.selected_layers) + 1)


def make_norm(kind, channels):
    return nn.BatchNorm2d(channels) if kind == "batch" else nn.GroupNorm(32, channels)


class ResNet(nn.Module):
    """ResNet with the stride on the 3x3 convs; strides 4, 8, 16, 32.

    Source: arXiv:1512.03385; args: `settings.yolact.BackboneArgs`.
    """

    def __init__(self, args, num_stages):
        super().__init__()
        self.args = args
        self.channels = []
        self.num_own_stages = len(args.layers)
        self.layers = nn.ModuleList()
        self._in_channels = args.width
        self._block = Bottleneck if args.block == "bottleneck" else BasicBlock
        self.conv1 = nn.Conv2d(3, args.width, 7, stride=2, padding=3, bias=False)
        self.bn1 = make_norm(args.norm, args.width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        dcn_layers = args.dcn_layers + (0,) * (self.num_own_stages - len(args.dcn_layers))
        for i, (blocks, num_deformed) in enumerate(zip(args.layers, dcn_layers, strict=True)):
            self._append_stage(args.width * 2**i, blocks, 1 if i == 0 else 2, num_deformed)
        extra_planes = 16 * args.width // self._block.expansion
        for _ in range(self.num_own_stages, num_stages):
            self._append_stage(extra_planes, blocks=1, stride=2, num_deformed=0)

    def _append_stage(self, planes, blocks, stride, num_deformed):
        stage, norm = nn.Sequential(), partial(make_norm, self.args.norm)
        for i in range(blocks):
            is_last_ones = i + num_deformed >= blocks
            deformable = is_last_ones and i % self.args.dcn_interval == 0
            # config checks leave deformable layers to bottlenecks
            options = {"middle": DeformConv} if deformable else {}
            block = self._block(self._in_channels, planes, stride, norm, **options)
            out_channels = planes * block.expansion
            block.downsample = shortcut(self._in_channels, out_channels, stride, norm)
            stage.append(block)
            self._in_channels, stride = out_channels, 1
        self.layers.append(stage)
        self.channels.append(self._in_channels)

    def forward(self, x):
        """[B, 3, H, W] float, normalised, to a map [B, channels[i], h, w] a stage, finest first."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        outs = []
        for stage in self.layers:
            x = stage(x)
            outs.append(x)
        return outs


def darknet_conv(in_channels, out_channels, kernel_size, stride=1):
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride=stride,
                     padding=kernel_size // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels), nn.LeakyReLU(0.1, inplace=True))


class DarknetBlock(nn.Module):
    """1x1 to half the channels and 3x3 back, added to the input without an activation."""

    def __init__(self, channels):
        super().__init__()
        self.conv1 = darknet_conv(channels, channels // 2, 1)
        self.conv2 = darknet_conv(channels // 2, channels, 3)

    def forward(self, x):
        """[B, channels, H, W] to [B, channels, H, W]."""
        return self.conv2(self.conv1(x)) + x


class Darknet(nn.Module):
    """Darknet-53; strides 2, 4, 8, 16, 32. Source: YOLOv3, arXiv:1804.02767."""

    def __init__(self, args, num_stages):
        super().__init__()
        self.num_own_stages = len(args.layers)
        self.channels = [64 * 2**i for i in range(self.num_own_stages)]
        self.channels += [1024] * (num_stages - self.num_own_stages)
        blocks = args.layers + (1,) * (num_stages - self.num_own_stages)
        self.layers = nn.ModuleList()
        in_channels = 32
        for channels, num_blocks in zip(self.channels, blocks, strict=True):
            down = darknet_conv(in_channels, channels, 3, stride=2)
            rest = [DarknetBlock(channels) for _ in range(num_blocks)]
            self.layers.append(nn.Sequential(down, *rest))
            in_channels = channels
        self._preconv = darknet_conv(3, 32, 3)

    def forward(self, x):
        """[B, 3, H, W] float, normalised, to a map [B, channels[i], h, w] a stage, finest first."""
        x = self._preconv(x)
        outs = []
        for stage in self.layers:
            x = stage(x)
            outs.append(x)
        return outs


# SSD's VGG-16: channels of the 3x3 convs of each group; a pool opens every group but the first.
VGG_GROUPS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
# ... and of the appended groups: channels of the 1x1 conv (the 3x3 has twice as many), stride.
VGG_EXTRAS = ((256, 2), (128, 2), (128, 1), (128, 1))
VGG_NORMED_GROUP = 3


class Vgg16(nn.Module):
    """VGG-16 with fc6 and fc7 as convs, one group each output; group 3's goes through a norm.

    Source: SSD, arXiv:1512.02325, section 3.
    """

    def __init__(self, args, num_stages):
        super().__init__()
        self.layers = nn.ModuleList()
        self.channels = []
        in_channels = 3
        for i, group in enumerate(VGG_GROUPS):
            # group 3's pool rounds up, so that 300 pixels give 38 cells, not 37
            stage = nn.Sequential() if i == 0 else nn.Sequential(
                nn.MaxPool2d(2, stride=2, ceil_mode=i == VGG_NORMED_GROUP))
            for channels in group:
                stage.append(nn.Conv2d(in_channels, channels, 3, padding=1))
                stage.append(nn.ReLU(inplace=True))
                in_channels = channels
            self._append(stage, in_channels)
        fc6 = nn.Conv2d(512, 1024, 3, padding=6, dilation=6)
        fc7 = nn.Conv2d(1024, 1024, 1)
        pool = nn.MaxPool2d(3, stride=1, padding=1)
        self._append(nn.Sequential(pool, fc6, nn.ReLU(True), fc7, nn.ReLU(True)), 1024)
        self.num_own_stages = len(self.layers)
        for i in range(num_stages - self.num_own_stages):
            self._append_extra(*VGG_EXTRAS[min(i, len(VGG_EXTRAS) - 1)])
        self.norms = nn.ModuleList([nn.BatchNorm2d(self.channels[VGG_NORMED_GROUP])])

    def _append(self, stage, channels):
        self.layers.append(stage)
        self.channels.append(channels)

    def _append_extra(self, channels, stride):
        narrow = nn.Conv2d(self.channels[-1], channels, 1)
        wide = nn.Conv2d(channels, 2 * channels, 3, stride=stride, padding=stride - 1)
        stage = nn.Sequential(narrow, nn.ReLU(inplace=True), wide, nn.ReLU(inplace=True))
        self._append(stage, 2 * channels)

    def forward(self, x):
        """[B, 3, H, W] float, normalised, to a map [B, channels[i], h, w] a stage, finest first."""
        outs = []
        for i, stage in enumerate(self.layers):
            x = stage(x)
            outs.append(self.norms[0](x) if i == VGG_NORMED_GROUP else x)
        return outs
