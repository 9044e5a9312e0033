"""Split attention: a 3x3 convolution into several groups of maps, mixed by learned weights.

Source: ResNeSt, arXiv:2004.08955, section 3; radix-major layout, [resnest.md: Split attention].
"""

import torch
from torch import nn
from torch.nn import functional as F

from models.cpu_convolution import Conv2d

MIN_INNER_CHANNELS = 32
CACHE_BYTES = 1 << 20  # a server core's own cache, L2, holds 1 or 2 MB


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
        self.conv = Conv2d(
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
        """[B, C, H, W] to [B, C, H / stride, W / stride]."""
        maps = self.bn0(self.conv(x))  # [B, R*C, H, W], chunk r is radix r
        if torch.is_grad_enabled() and not torch.compiler.is_compiling() and _exceeds_caches(maps):
            inner = [p for m in (self.fc1, self.bn1, self.fc2) for p in m.parameters()]
            trained = [p for p in inner if p.requires_grad]
            return _AttendedSum.apply(maps, self.attention, self.radix, *trained)[1]
        maps = self.relu(maps)
        weights = self.attention(maps.mean((2, 3), keepdim=True))
        return weighted_sum(maps, weights, self.radix)

    def attention(self, means):
        """Means of the maps -> their weights, both [B, R*C, 1, 1] and radix-major."""
        # The mean of the summed chunks, without ever forming their full-sized sum.
        pooled = means.unflatten(1, (self.radix, self.channels)).sum(1)
        logits = self.fc2(self.relu(self.bn1(self.fc1(pooled))))  # cardinal-major
        if self.radix == 1:
            return torch.sigmoid(logits)
        split = (self.cardinality, self.radix, self.channels // self.cardinality)
        weights = F.softmax(logits.flatten(1).unflatten(1, split), dim=2)
        return weights.transpose(1, 2).reshape(logits.shape)


def weighted_sum(maps, weights, radix):
    """Sum over r of chunk r of `maps` [B, R*C, H, W] times chunk r of `weights` [B, R*C, 1, 1]."""
    total = None
    for chunk, weight in zip(maps.chunk(radix, 1), weights.chunk(radix, 1), strict=True):
        total = chunk * weight if total is None else torch.addcmul(total, chunk, weight)
    return total


class _AttendedSum(torch.autograd.Function):
    """ReLU in place, attention and weighted sum as one node of the graph.

    apply(maps, attention, radix, *trained parameters of the attention) -> (rectified maps, sum)
    These maps are the network's largest, and on a CPU their way to and from memory is all that
    this costs. Part by part they stay in the caches, and their gradient is written once: a third
    of the traffic of the operations one after the other, counted in passes over the maps. Maps that
    fit into the caches anyway gain nothing.
    """

    @staticmethod
    def forward(ctx, maps, attention, radix, *parameters):
        ctx.mark_dirty(maps)
        ctx.set_materialize_grads(False)
        means = maps.new_empty(*maps.shape[:2], 1, 1)
        for part in _parts(maps):
            torch.mean(maps[part].relu_(), (2, 3), keepdim=True, out=means[part])
        with torch.enable_grad():
            weights = attention(means.requires_grad_())
        total = torch.empty_like(maps.chunk(radix, 1)[0], dtype=torch.result_type(maps, weights))
        for part in _parts(maps):
            total[part] = weighted_sum(maps[part], weights[part], radix)
        ctx.radix, ctx.attention = radix, (weights, (means, *parameters))
        ctx.save_for_backward(maps)
        return maps, total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, _, grad):
        (maps,) = ctx.saved_tensors
        weights, inputs = ctx.attention
        grad_maps, grad_weights = torch.empty_like(maps), torch.empty_like(weights)
        pairs = _chunks(ctx.radix, maps, weights.detach(), grad_maps, grad_weights)
        for part in _parts(maps):
            for chunk, _, _, grad_weight in pairs:
                grad_weight[part] = (grad[part] * chunk[part]).sum((2, 3), keepdim=True)
        grad_means, *grads = torch.autograd.grad(weights, inputs, grad_weights, retain_graph=True)
        grad_means = (grad_means / maps[0, 0].numel()).chunk(ctx.radix, 1)
        for part in _parts(maps):
            for mean, (_, weight, grad_chunk, _) in zip(grad_means, pairs, strict=True):
                torch.addcmul(mean[part], grad[part], weight[part], out=grad_chunk[part])
            torch.ops.aten.threshold_backward.grad_input(
                grad_maps[part], maps[part], 0, grad_input=grad_maps[part])
        return grad_maps, None, None, *grads


def _exceeds_caches(maps):
    """Whether `maps` are more than the cores' caches hold; on a GPU always."""
    return maps.device.type != "cpu" or maps.nbytes > torch.get_num_threads() * CACHE_BYTES


def _parts(maps):
    """Slices of the batch: of as many images as the cores' caches hold, all of them on a GPU."""
    count = max(1, len(maps))
    if maps.device.type == "cpu":
        count = max(1, torch.get_num_threads() * CACHE_BYTES * len(maps) // max(1, maps.nbytes))
    return [slice(i, i + count) for i in range(0, len(maps), count)]


def _chunks(radix, *tensors):
    """For each radix its chunks of the channels of `tensors`, views."""
    return list(zip(*(each.chunk(radix, 1) for each in tensors), strict=True))
