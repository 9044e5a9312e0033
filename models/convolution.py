"""nn.Conv2d whose weights get their gradient the fast way on CPUs.

oneDNN's gradient of the weights, from channels-last maps in float32, falls behind in two places.
Shown are times inside a training step of resnest50, batch 8, 224 px, 2 threads, medians:

- Without AVX-512, large kernels take up to twice the time that they take from the same maps in
  planes, copying included (128 to 256 channels at 56x56: 135 and 84 ms). With AVX-512 it is the
  other way round.
- 1x1 on small maps: one matrix product takes two thirds of the time (1024 channels at 14x14: 10.4
  and 7.2 ms; with AVX-512 7x7 gains most, 17.1 and 8.5 ms). From 56x56 on it takes longer.
"""

import functools

import torch
from torch import nn
from torch.autograd.function import once_differentiable

PRODUCT_PIXELS = 28 * 28  # the largest map for which one product is the faster
# multiply-adds of an image; smaller convolutions gain nothing
MIN_PRODUCT_MACS, MIN_PLANES_MACS = 25e6, 200e6


class Conv2d(nn.Conv2d):
    """The same numbers up to rounding, and the same state dict."""

    def forward(self, x):
        way = self._gradient_way(x)
        if way is None:
            return super().forward(x)
        return _Convolution.apply(x, self.weight, self, way)

    def _gradient_way(self, x):
        """What computes the gradient of the weights; None: torch itself."""
        if (
            x.device.type != "cpu" or x.dtype != torch.float32 or self.bias is not None
            or not (torch.is_grad_enabled() and self.weight.requires_grad)
            or torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling()
            or self.padding_mode != "zeros" or isinstance(self.padding, str)
            or self.stride != (1, 1)
            or x.is_contiguous() or not x.is_contiguous(memory_format=torch.channels_last)
        ):
            return None
        pixels = x.shape[2] * x.shape[3]
        macs = pixels * self.weight.numel()
        if self.kernel_size == (1, 1):
            is_product = self.padding == (0, 0) and self.groups == 1
            gains = is_product and pixels <= PRODUCT_PIXELS and macs >= MIN_PRODUCT_MACS
            return _by_product if gains else None
        gains = macs >= MIN_PLANES_MACS and _lacks_avx512()
        return _from_planes if gains else None


class _Convolution(torch.autograd.Function):
    """apply(maps [B, C, H, W], weight, conv, way): `conv` of the maps, without its bias."""

    @staticmethod
    def forward(ctx, x, weight, conv, way):
        ctx.conv, ctx.way = conv, way
        ctx.save_for_backward(x, weight)
        return torch.conv2d(
            x, weight, None, conv.stride, conv.padding, conv.dilation, conv.groups)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = _gradients(grad, x, weight, ctx.conv, (True, False, False))[0]
        return grad_x, ctx.way(grad, x, weight, ctx.conv), None, None


def _by_product(grad, x, weight, _conv):
    grad_rows, rows = (maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1]) for maps in (grad, x))
    return (grad_rows.t() @ rows).view_as(weight)


def _from_planes(grad, x, weight, conv):
    grad, x, weight = (each.contiguous() for each in (grad, x, weight))
    return _gradients(grad, x, weight, conv, (False, True, False))[1]


def _gradients(grad, x, weight, conv, wanted):
    """torch's own gradients of (x, weight, bias), those that are `wanted`."""
    return torch.ops.aten.convolution_backward(
        grad, x, weight, None, conv.stride, conv.padding, conv.dilation, False, (0, 0),
        conv.groups, wanted)


@functools.cache
def _lacks_avx512():
    return torch.backends.cpu.get_cpu_capability() != "AVX512"
