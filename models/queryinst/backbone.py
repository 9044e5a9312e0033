"""ResNet and feature pyramid; state-dict keys are torchvision's and MMDetection's.

Source: arXiv:1512.03385, arXiv:1612.03144; [queryinst.md: Network].
"""

from contextlib import contextmanager, nullcontext
from functools import partial

import torch.nn.functional as F
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from models.residual import BasicBlock, Bottleneck, residual_stage
from settings.queryinst.model import DEPTHS, BackboneConfig


class ResNet(nn.Module):
    """Images [B, 3, H, W] to the outputs of the four stages, strides 4, 8, 16, 32.

    channels: of the four outputs
    Frozen parts have requires_grad False and their batch norms stay in evaluation mode; with
    `norm_eval` all batch norms do, while their scale and shift are trained. `with_cp` keeps of a
    block only what it got, and computes it again for the gradients.
    """

    def __init__(self, cfg: BackboneConfig):
        super().__init__()
        kind, blocks = DEPTHS[cfg.depth]
        block = {"basic": BasicBlock, "bottleneck": Bottleneck}[kind]
        self.norm_eval, self.frozen_stages = cfg.norm_eval, cfg.frozen_stages
        self.recomputes = cfg.with_cp
        self.conv1 = nn.Conv2d(3, cfg.base_channels, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(cfg.base_channels)
        self.channels = []
        in_channels = cfg.base_channels
        for i, count in enumerate(blocks):
            planes = cfg.base_channels * 2**i
            stage = residual_stage(block, in_channels, planes, count, stride=2 if i > 0 else 1)
            if cfg.style == "caffe" and kind == "bottleneck":
                stage[0].conv1.stride, stage[0].conv2.stride = stage[0].conv2.stride, (1, 1)
            in_channels = planes * block.expansion
            self.add_module(f"layer{i + 1}", stage)
            self.channels.append(in_channels)
        trains_norms = cfg.norm_cfg.requires_grad
        norms = [module for module in self.modules() if isinstance(module, _BatchNorm)]
        for module in self.frozen_parts() + ([] if trains_norms else norms):
            module.requires_grad_(False)

    def frozen_parts(self):
        """The modules that `frozen_stages` keeps as they are."""
        if self.frozen_stages < 0:
            return []
        stages = [self.layer1, self.layer2, self.layer3, self.layer4]
        return [self.conv1, self.bn1, *stages[: self.frozen_stages]]

    def start_as_shortcuts(self):
        """The last norm of every block gives zeros."""
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            for block in stage:
                last = block.bn3 if isinstance(block, Bottleneck) else block.bn2
                nn.init.zeros_(last.weight)

    def forward(self, x):
        """[B, 3, H, W] float, normalised, to four maps [B, channels[i], h, w], finest first."""
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = F.max_pool2d(x, 3, stride=2, padding=1)
        outs = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            for block in stage:
                x = recomputed(block, x) if self.recomputes and x.requires_grad else block(x)
            outs.append(x)
        return outs

    def train(self, mode=True):
        super().train(mode)
        parts = [self] if self.norm_eval else self.frozen_parts()
        for module in (module for part in parts for module in part.modules()):
            if isinstance(module, _BatchNorm):
                module.eval()
        return self


def recomputed(block, x):
    """block(x), whose insides are not kept but computed again in the backward pass."""
    contexts = partial(_first_and_again, block)
    return checkpoint(block, x, use_reentrant=False, context_fn=contexts)


def _first_and_again(block):
    return nullcontext(), _without_statistics(block)


@contextmanager
def _without_statistics(block):
    """Batch norms that train move copies of their running statistics: these move once a batch."""
    kept = [(module, name, buffer) for module in block.modules()
            if isinstance(module, _BatchNorm) and module.training
            for name, buffer in module.named_buffers(recurse=False)]
    for module, name, buffer in kept:
        setattr(module, name, buffer.clone())
    try:
        yield
    finally:
        for module, name, buffer in kept:
            setattr(module, name, buffer)


class ConvModule(nn.Module):
    """A conv under the name `conv`, as MMDetection wraps it."""

    def __init__(self, in_channels, out_channels, kernel_size):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2)

    def forward(self, x):
        """[B, in_channels, H, W] to [B, out_channels, H, W]."""
        return self.conv(x)


class FeaturePyramid(nn.Module):
    """Four stages to four levels of equal width: no norms, no activations, no further levels."""

    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.lateral_convs = nn.ModuleList(ConvModule(c, out_channels, 1) for c in in_channels)
        self.fpn_convs = nn.ModuleList(
            ConvModule(out_channels, out_channels, 3) for _ in in_channels
        )

    def forward(self, stages):
        """4 maps [B, in_channels[i], h, w], finest first, to 4 levels [B, out_channels, h, w]."""
        levels = [conv(x) for conv, x in zip(self.lateral_convs, stages, strict=True)]
        for i in range(len(levels) - 1, 0, -1):
            size = levels[i - 1].shape[-2:]
            levels[i - 1] = levels[i - 1] + F.interpolate(levels[i], size=size, mode="nearest")
        return [conv(x) for conv, x in zip(self.fpn_convs, levels, strict=True)]
