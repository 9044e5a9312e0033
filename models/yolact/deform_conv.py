"""Modulated deformable convolution (DCNv2), with or without torchvision's compiled operator.

Source: Deformable ConvNets v2, arXiv:1811.11168, section 3.2; layout:
[yolact.md: Backbones].
"""

import functools
import logging

import torch
import torch.nn.functional as F
from torch import nn

log = logging.getLogger(__name__)


class DeformConv(nn.Module):
    """3x3 conv whose taps are moved and weighted by a conv of its own input.

    State-dict keys are the original's: weight, bias, conv_offset_mask.{weight,bias}.
    Starts with unmoved taps of weight 0.5 each. Always computes in the dtype of its weights, since
    half precision cannot place taps; under autocast the result is in the dtype of the input.
    """

    def __init__(self, in_channels, out_channels, stride=1, padding=1, dilation=1):
        super().__init__()
        taps = 9
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.conv_offset_mask = nn.Conv2d(
            in_channels, 3 * taps, 3, stride=stride, padding=padding, dilation=dilation
        )
        self.geometry = (stride, padding, dilation)
        # On a CPU the plain one is the faster, about twice forward and more with backward.
        self.compiled = compiled_deform_conv2d() if torch.cuda.is_available() else None
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)  # nn.Conv2d's own
        nn.init.zeros_(self.conv_offset_mask.weight)
        nn.init.zeros_(self.conv_offset_mask.bias)

    def forward(self, x):
        """[B, in_channels, H, W] to [B, out_channels, H / stride, W / stride], dtype of x."""
        deform = self.compiled if self.compiled and x.is_cuda else deform_conv2d
        with torch.autocast(x.device.type, enabled=False):
            wide = x.to(self.weight.dtype)
            # [B, 18, h, w]: dy, dx of each tap, taps row by row; then [B, 9, h, w]
            offset, mask = self.conv_offset_mask(wide).split((18, 9), dim=1)
            out = deform(wide, offset, self.weight, self.bias, *self.geometry, mask=mask.sigmoid())
        return out.to(x.dtype)


@functools.lru_cache(maxsize=1)
def compiled_deform_conv2d():
    """torchvision's `deform_conv2d`, or None, with one warning, where its operator cannot load."""
    try:
        from torchvision.ops import deform_conv2d as compiled

        compiled(torch.zeros(1, 1, 1, 1), torch.zeros(1, 2, 1, 1), torch.zeros(1, 1, 1, 1))
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        log.warning(
            "torchvision's deformable conv cannot be loaded (%s): plain torch does it, slower on a "
            "GPU and with nine times a layer's input in memory for backward; install the "
            "torchvision that belongs to this torch",
            str(error).splitlines()[0],
        )
        return None
    return compiled


def deform_conv2d(x, offset, weight, bias, stride=1, padding=0, dilation=1, mask=None):
    """What `torchvision.ops.deform_conv2d` returns, in plain torch operations.

    x:       [B, C, H, W] float
    offset:  [B, 2 * taps, h, w] in pixels: dy, dx of each tap, taps row by row
    weight:  [O, C, kh, kw], taps = kh * kw
    bias:    [O] or None
    mask:    [B, taps, h, w] factor of each tap, or None
    Returns [B, O, h, w]. Differentiable in all tensors. Pixels outside of the image are 0.
    """
    batch, channels, height, width = x.shape
    kernel_h, kernel_w = weight.shape[2:]
    taps = kernel_h * kernel_w
    out_h, out_w = offset.shape[2:]

    def positions(out_size, kernel_size):  # [out_size, kernel_size], pixels, without the offsets
        starts = torch.arange(out_size, device=x.device) * stride - padding
        return starts[:, None] + torch.arange(kernel_size, device=x.device) * dilation

    offset = offset.unflatten(1, (kernel_h, kernel_w, 2))  # [B, kh, kw, 2, h, w]
    y = positions(out_h, kernel_h).T[:, None, :, None] + offset[:, :, :, 0]
    x_pos = positions(out_w, kernel_w).T[None, :, None, :] + offset[:, :, :, 1]
    # grid_sample wants fractions of the size. With sizes that are powers of two they are exact for
    # whole pixels, so that unmoved taps meet their pixel and not a neighbour's side of it.
    padded_h, padded_w = _power_of_two(height), _power_of_two(width)
    x = F.pad(x, (0, padded_w - width, 0, padded_h - height))
    grid = torch.stack(((2 * x_pos + 1) / padded_w - 1, (2 * y + 1) / padded_h - 1), dim=-1)
    grid = grid.reshape(batch, taps * out_h, out_w, 2)
    samples = F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    samples = samples.reshape(batch, channels, taps, out_h * out_w)
    if mask is not None:
        samples = samples * mask.reshape(batch, 1, taps, out_h * out_w)
    out = weight.flatten(1) @ samples.flatten(1, 2)  # [B, O, h*w]
    if bias is not None:
        out = out + bias[:, None]
    return out.unflatten(2, (out_h, out_w))


def _power_of_two(size):
    return 1 << (size - 1).bit_length()
