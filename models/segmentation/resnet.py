"""ResNet and ResNeXt encoders with the original's stem, plain or dilated."""

from torch import nn

from models.residual import BasicBlock, Bottleneck, conv, residual_stage
from models.segmentation.blocks import GroupBottleneck, dilate, init_like_original, norm


class ResNetEncoder(nn.Module):
    """A stem of three 3x3 convolutions, not torchvision's, and four layers.

    widths:  of the stem's last convolution, twice that of its others, and of the layers' blocks
    dilated: layers 3 and 4 keep stride 8 and see as far by dilation
    forward: [B, 3, H, W] -> maps of 4 layers at strides 4, 8, 16, 32, dilated 4, 8, 8, 8
    """

    def __init__(self, block, depths, widths=(128, 64, 128, 256, 512), dilated=False):
        super().__init__()
        stem, *widths = widths
        self.conv1 = conv(3, stem // 2, 3, stride=2)
        self.bn1 = norm(stem // 2)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = conv(stem // 2, stem // 2, 3)
        self.bn2 = norm(stem // 2)
        self.relu2 = nn.ReLU(inplace=True)
        self.conv3 = conv(stem // 2, stem, 3)
        self.bn3 = norm(stem)
        self.relu3 = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        channels = (stem, *(width * block.expansion for width in widths))
        strides = (1, 2, 2, 2)
        for i, (width, depth, stride) in enumerate(zip(widths, depths, strides, strict=True)):
            stage = residual_stage(block, channels[i], width, depth, stride, norm)
            self.add_module(f"layer{i + 1}", stage)
        if dilated:
            dilate(self.layer3, 2)
            dilate(self.layer4, 4)
        init_like_original(self)

    def forward(self, x, return_feature_maps=False):
        """[B, 3, H, W] float, normalised, to the four layers' maps, or to [the last one] alone."""
        x = self.relu1(self.bn1(self.conv1(x)))
        x = self.relu2(self.bn2(self.conv2(x)))
        x = self.relu3(self.bn3(self.conv3(x)))
        x = self.maxpool(x)
        features = []
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
            features.append(x)
        return features if return_feature_maps else [x]


def resnet10_small() -> ResNetEncoder:
    """Ours, for small images on CPUs: 1.2 million parameters, strides 4, 8, 8, 8.

    Without dilation, which on a map of a few cells would mostly look beyond its border.
    """
    encoder = ResNetEncoder(BasicBlock, (1, 1, 1, 1), (32, 32, 64, 128, 256))
    for layer in (encoder.layer3, encoder.layer4):
        dilate(layer, 1)
    return encoder


def resnet18(dilated: bool = False) -> ResNetEncoder:
    return ResNetEncoder(BasicBlock, (2, 2, 2, 2), dilated=dilated)


def resnet50(dilated: bool = False) -> ResNetEncoder:
    return ResNetEncoder(Bottleneck, (3, 4, 6, 3), dilated=dilated)


def resnet101(dilated: bool = False) -> ResNetEncoder:
    return ResNetEncoder(Bottleneck, (3, 4, 23, 3), dilated=dilated)


def resnext101() -> ResNetEncoder:
    return ResNetEncoder(GroupBottleneck, (3, 4, 23, 3), widths=(128, 128, 256, 512, 1024))
