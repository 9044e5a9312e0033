"""Split attention: a 3x3 convolution into several groups of maps, mixed by learned weights.

Source: ResNeSt, arXiv:2004.08955, section 3; radix-major layout, specs/resnest.md section 5.
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
        x = self.relu(self.bn0(self.conv(x)))  # [B, R*C, H, W], chunk r is radix r
        # The mean of the summed chunks, without ever forming their full-sized sum.
        pooled = x.mean((2, 3), keepdim=True)  # [B, R*C, 1, 1]
        pooled = pooled.unflatten(1, (self.radix, self.channels)).sum(1)
        inner = self.relu(self.bn1(self.fc1(pooled)))
        return weighted_sum(x, self.attention(self.fc2(inner)), self.radix)

    def attention(self, logits):
        """[B, R*C, 1, 1] cardinal-major logits -> weights of the same shape, radix-major."""
        if self.radix == 1:
            return torch.sigmoid(logits)
        split = (self.cardinality, self.radix, self.channels // self.cardinality)
        weights = F.softmax(logits.flatten(1).unflatten(1, split), dim=2)
        return weights.transpose(1, 2).reshape(logits.shape)


def weighted_sum(x, weights, radix):
    """Sum over r of chunk r of `x` [B, R*C, H, W] times chunk r of `weights` [B, R*C, 1, 1]."""
    if radix == 1:
        return x * weights
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        return _WeightedSum.apply(x, weights, radix)
    return _sum_of_products(x, weights, radix)


class _WeightedSum(torch.autograd.Function):
    """`_sum_of_products`; its gradient is written chunk by chunk, not joined from copies.

    One pass less over the largest maps of the backward. Compilers fuse the plain form themselves.
    """

    @staticmethod
    def forward(ctx, x, weights, radix):
        ctx.radix = radix
        ctx.save_for_backward(x, weights)
        return _sum_of_products(x, weights, radix)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        x, weights = ctx.saved_tensors
        grad_x, grad_weights = torch.empty_like(x), torch.empty_like(weights)
        for out, out_weight, chunk, weight in zip(
            *(each.chunk(ctx.radix, 1) for each in (grad_x, grad_weights, x, weights)), strict=True
        ):
            torch.mul(grad, weight, out=out)
            out_weight.copy_((grad * chunk).sum((2, 3), keepdim=True))
        return grad_x, grad_weights, None


def _sum_of_products(x, weights, radix):
    total = None
    for chunk, weight in zip(x.chunk(radix, 1), weights.chunk(radix, 1), strict=True):
        total = chunk * weight if total is None else torch.addcmul(total, chunk, weight)
    return total
