"""The heads of a stage: dynamic instance interaction, and masks.

Shapes: B images, P proposals an image, N = boxes of the whole batch, D channels. State-dict keys
and their order are MMDetection's.
Source: QueryInst, arXiv:2105.01928; Sparse R-CNN, arXiv:2011.12450; [queryinst.md: Network],
[queryinst.md: Forward pass].
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

PRIOR = 0.01  # probability of a class at the start: focal loss, arXiv:1708.02002, section 3.3


class DynamicConv(nn.Module):
    """Two 1x1 convs over pooled features whose weights are made from each box's query.

    cells: how many of them to flatten and project at the end; None: they stay
    """

    def __init__(self, channels, inner_channels, cells=None):
        super().__init__()
        self.inner_channels = inner_channels
        self.dynamic_layer = nn.Linear(channels, 2 * channels * inner_channels)
        self.norm_in = nn.LayerNorm(inner_channels)
        self.norm_out = nn.LayerNorm(channels)
        self.fc_layer = self.fc_norm = None
        if cells is not None:
            self.fc_layer = nn.Linear(channels * cells, channels)
            self.fc_norm = nn.LayerNorm(channels)

    def forward(self, queries, features):
        """queries [N, D], features [N, cells, D] to [N, cells, D], built with `cells` to [N, D]."""
        channels, inner = features.shape[-1], self.inner_channels
        w_in, w_out = self.dynamic_layer(queries).split(channels * inner, dim=1)
        x = torch.bmm(features, w_in.unflatten(1, (channels, inner)))
        x = F.relu(self.norm_in(x))
        x = torch.bmm(x, w_out.unflatten(1, (inner, channels)))
        x = F.relu(self.norm_out(x))
        if self.fc_layer is None:
            return x
        return F.relu(self.fc_norm(self.fc_layer(x.flatten(1))))


class SelfAttention(nn.Module):
    """x + attention among the proposals of each image."""

    def __init__(self, channels, num_heads):
        super().__init__()
        self.attn = nn.MultiheadAttention(channels, num_heads, batch_first=True)

    def forward(self, x):
        """[B, P, D] to [B, P, D]."""
        return x + self.attn(x, x, x, need_weights=False)[0]


class FeedForward(nn.Module):
    """x + a two-layer perceptron of x."""

    def __init__(self, channels, inner_channels):
        super().__init__()
        first = nn.Sequential(nn.Linear(channels, inner_channels), nn.ReLU(inplace=True))
        self.layers = nn.Sequential(first, nn.Linear(inner_channels, channels))

    def forward(self, x):
        """[B, P, D] to [B, P, D]."""
        return x + self.layers(x)


def branch(channels, depth):
    """`depth` times linear, norm, ReLU, as one list of modules."""
    layers = nn.ModuleList()
    for _ in range(depth):
        layers += [nn.Linear(channels, channels, bias=False), nn.LayerNorm(channels), nn.ReLU()]
    return layers


class DIIHead(nn.Module):
    """The box head of a stage."""

    def __init__(self, channels, num_classes, cells, cfg):
        super().__init__()
        self.fc_cls = nn.Linear(channels, num_classes)
        self.fc_reg = nn.Linear(channels, 4)
        self.attention = SelfAttention(channels, cfg.num_heads)
        self.attention_norm = nn.LayerNorm(channels)
        self.instance_interactive_conv = DynamicConv(channels, cfg.dynamic_channels, cells)
        self.instance_interactive_conv_norm = nn.LayerNorm(channels)
        self.ffn = FeedForward(channels, cfg.feedforward_channels)
        self.ffn_norm = nn.LayerNorm(channels)
        self.cls_fcs = branch(channels, cfg.num_cls_fcs)
        self.reg_fcs = branch(channels, cfg.num_reg_fcs)

    def forward(self, features, queries):
        """One stage of box refinement.

        features: [B*P, cells, D], pooled from the boxes
        queries:  [B, P, D]
        Returns logits [B, P, C], deltas [B, P, 4] (see `decode_boxes`), attn_feats [B, P, D], what
        comes out of the attention, and object_feats [B, P, D], the next queries.
        """
        attended = self.attention_norm(self.attention(queries))
        dynamic = self.instance_interactive_conv(attended.flatten(0, 1), features)
        x = self.instance_interactive_conv_norm(attended + dynamic.view_as(attended))
        x = self.ffn_norm(self.ffn(x))
        cls_x = reg_x = x
        for layer in self.cls_fcs:
            cls_x = layer(cls_x)
        for layer in self.reg_fcs:
            reg_x = layer(reg_x)
        return self.fc_cls(cls_x), self.fc_reg(reg_x), attended, x

    def init_weights(self):
        """Xavier-uniform matrices, rare classes, boxes that start unmoved in the mean."""
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        nn.init.constant_(self.fc_cls.bias, -math.log(1 / PRIOR - 1))
        nn.init.zeros_(self.fc_reg.bias)


class MaskConv(nn.Module):
    """3x3 conv, batch norm, ReLU, under MMDetection's names."""

    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x):
        """[N, D, h, w] to [N, D, h, w], not negative."""
        return F.relu(self.bn(self.conv(x)), inplace=True)


class MaskHead(nn.Module):
    """The mask head of a stage.

    The batch norms use and update real batch statistics in training.
    """

    def __init__(self, channels, num_classes, inner_channels, num_convs):
        super().__init__()
        self.convs = nn.ModuleList(MaskConv(channels) for _ in range(num_convs))
        self.upsample = nn.ConvTranspose2d(channels, channels, 2, stride=2)
        self.conv_logits = nn.Conv2d(channels, num_classes, 1)
        self.instance_interactive_conv = DynamicConv(channels, inner_channels)

    def forward(self, features, queries):
        """features [N, h*h, D], queries [N, D] to logits [N, C, 2h, 2h]; h = 14. N = 0 is fine."""
        side = math.isqrt(features.shape[1])
        x = self.instance_interactive_conv(queries, features)
        x = x.transpose(1, 2).unflatten(2, (side, side))
        for conv in self.convs:
            x = conv(x)
        return self.conv_logits(F.relu(self.upsample(x), inplace=True))

    def init_weights(self):
        """Kaiming-normal 3x3 convs; everything else keeps torch's own start.

        parity: the declared xavier start never runs [queryinst.md: Initialisation]
        """
        for conv in self.convs:
            nn.init.kaiming_normal_(conv.conv.weight, mode="fan_out", nonlinearity="relu")
