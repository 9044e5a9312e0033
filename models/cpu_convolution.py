"""nn.Conv2d whose weights get their gradient from matrix products on CPUs.

oneDNN's gradient of the weights, from channels-last maps in float32, falls behind matrix products
over the same rows (a row: the channels of one pixel). G operations/s of both, where a large product
reaches 110 to 130 (benchmarks/convolution_gradient.py: resnest50, batch 8, 224 px, 2 threads,
without AVX-512):

    3x3, in-out, side   64-128, 56   128-256, 56   256-512, 28   512-1024, 14   512-1024, 7
                            42, 66        56, 92       72, 106        68, 113        55, 97
    1x1, in-out, side   64-256, 56    256-64, 56   512-128, 28   1024-256, 14   1024-2048, 7
                            84, 91        85, 90        83, 93        79, 106        73, 87

All gradients of weights of a step took 1.34 s and 0.97 s. Sixteen channels out are too few: 16-16
at 112x112 has 64, 33. With AVX-512 products were the faster for 1x1 on small maps only; for 3x3,
where oneDNN does better there, they were not tried.
"""

import functools

import torch
from torch import nn
from torch.autograd.function import once_differentiable

MIN_MACS = 25e6  # multiply-adds of an image; smaller convolutions gain nothing
MIN_WIDTH = 32  # channels out of a group, for 3x3
# From so many pixels on each image has its own product, below all share one. Own and shared, 3x3,
# G operations/s: 94, 76 at 56x56 (128-256), 107, 99 at 28x28 (256-512), 55, 72 at 7x7 (512-1024).
OWN_PRODUCT_PIXELS = 28 * 28
AVX512_MAX_PIXELS = 28 * 28  # for 1x1: the largest map on which products gain there


class Conv2d(nn.Conv2d):
    """The same numbers up to rounding, and the same state dict."""

    def forward(self, x):
        if self.takes_products(x):
            return _Convolution.apply(x, self.weight, self)
        return super().forward(x)

    def takes_products(self, x):
        """Whether products are the faster way to the gradient of the weights."""
        if (
            x.device.type != "cpu" or x.dtype != torch.float32 or self.bias is not None
            or not (torch.is_grad_enabled() and self.weight.requires_grad)
            or torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling()
            or self.padding_mode != "zeros" or isinstance(self.padding, str)
            or self.stride != (1, 1)
            or x.is_contiguous() or not x.is_contiguous(memory_format=torch.channels_last)
        ):
            return False
        pixels = x.shape[2] * x.shape[3]
        if pixels * self.weight.numel() < MIN_MACS:
            return False
        if self.kernel_size == (1, 1):
            return _lacks_avx512() or pixels <= AVX512_MAX_PIXELS
        is_wide = self.out_channels // self.groups >= MIN_WIDTH
        return self.kernel_size == (3, 3) and is_wide and _lacks_avx512()


class _Convolution(torch.autograd.Function):
    """apply(maps [B, C, H, W], weight, conv): `conv` of the maps, without its bias."""

    @staticmethod
    def forward(ctx, x, weight, conv):
        ctx.conv = conv
        ctx.save_for_backward(x, weight)
        return torch.conv2d(
            x, weight, None, conv.stride, conv.padding, conv.dilation, conv.groups)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        (x, weight), conv = ctx.saved_tensors, ctx.conv
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_x = torch.ops.aten.convolution_backward(
                grad, x, weight, None, conv.stride, conv.padding, conv.dilation, False, (0, 0),
                conv.groups, (True, False, False))[0]
        if ctx.needs_input_grad[1]:
            grad_weight = weight_gradient(conv, x, grad)
        return grad_x, grad_weight, None


def weight_gradient(conv, x, grad):
    """Gradient of the weights of `conv`, whose stride is 1: [out, in / groups, kH, kW].

    x:     [B, in, H, W], what went in
    grad:  [B, out, H', W'], same dtype, the gradient of what came out
    For each group and each row of the kernel it is one product: grad as [pixels, out], transposed,
    times x as [pixels, kW * in], where a pixel has the channels of all that the row reaches.
    """
    if conv.kernel_size == (1, 1) and conv.padding == (0, 0):
        grad, x = (maps.flatten(2).unsqueeze(2) for maps in (grad, x))  # one line: no copies
    batch, _, height, width = grad.shape
    has_own = height * width >= OWN_PRODUCT_PIXELS and batch >= torch.get_num_threads()
    images = 1 if has_own else batch
    line = images * width  # from a pixel to the one below it
    lefts = _lines(grad, images, conv.groups).flatten(1, 3)
    rights = _with_neighbours(_lines(x, images, conv.groups), width, conv)
    found = x.new_empty(conv.groups, lefts.shape[3], conv.kernel_size[0], rights.shape[3])
    for group in range(conv.groups):
        left = lefts[:, :, group].transpose(1, 2)
        for i in range(conv.kernel_size[0]):
            first = i * conv.dilation[0] * line
            right = rights[:, first:first + height * line, group]
            if has_own:
                torch.sum(torch.bmm(left, right), 0, out=found[group, :, i])
            else:
                torch.mm(left[0], right[0], out=found[group, :, i])
    return found.view(conv.out_channels, *conv.kernel_size, -1).permute(0, 3, 1, 2)


def _lines(maps, images, groups):
    """View [B, C, H, W] as [B / images, H, images, W, groups, C / groups]."""
    return maps.unflatten(1, (groups, -1)).unflatten(0, (-1, images)).permute(0, 4, 1, 5, 2, 3)


def _with_neighbours(lines, width, conv):
    """Lines of x, padding above and below included: [products, pixels, groups, kW * C / groups].

    Each line has `width` pixels, one for each place of the kernel.
    """
    (top, left), dilation, kernel_width = conv.padding, conv.dilation[1], conv.kernel_size[1]
    if (top, left, kernel_width) == (0, 0, 1):
        return lines.flatten(1, 3)
    products, height, images, x_width, groups, channels = lines.shape
    out = lines.new_empty(
        products, height + 2 * top, images, width, groups, kernel_width, channels)
    out[:, :top] = 0
    out[:, top + height:] = 0
    for j in range(kernel_width):
        column = out[:, top:top + height, :, :, :, j]
        shift = j * dilation - left
        begin = min(max(0, -shift), width)
        end = max(begin, min(width, x_width - shift))
        column[:, :, :, :begin] = 0
        column[:, :, :, begin:end] = lines[:, :, :, begin + shift:end + shift]
        column[:, :, :, end:] = 0
    return out.view(products, -1, groups, kernel_width * channels)


@functools.cache
def _lacks_avx512():
    return torch.backends.cpu.get_cpu_capability() != "AVX512"
