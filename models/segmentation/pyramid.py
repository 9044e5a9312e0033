"""The 3x3 convolution over a map and its enlarged pooled maps, at a fraction of the plain cost."""

import torch
from torch import Tensor
from torch.nn import functional as F


def pyramid_conv(x: Tensor, pooled: list[Tensor], weight: Tensor) -> Tensor:
    """conv3x3(cat([x, enlarge(p) for p in pooled]), weight, padding=1), without enlarging first.

    x:      [B, C, H, W]
    pooled: maps [B, C_k, s_k, s_k]; "enlarge" is bilinear to H x W, align_corners False
    weight: [O, C + sum C_k, 3, 3]
    Returns [B, O, H, W], equal to the plain form within rounding, gradients too.

    Enlarging and convolving are both linear, so each kernel tap is applied to the small map (1x1,
    at s_k^2 cells instead of H W) and its result is then enlarged, shifted by the tap's offset and
    summed. Along one axis, "enlarge, shift, leave out what falls beyond the border" is a matrix
    [H, s], and the three offsets side by side one matrix [H, 3 s]. In PPM four fifths of the input
    channels are such maps.
    """
    own, *shares = weight.split([x.shape[1], *(p.shape[1] for p in pooled)], dim=1)
    height, width = x.shape[-2:]
    rows, columns = [], []
    for p, share in zip(pooled, shares, strict=True):
        taps = _taps(p, share)
        rows.append(torch.matmul(_shifted_enlarging(height, p.shape[2], p), taps))
        columns.append(_shifted_enlarging(width, p.shape[3], p))
    # [B, O, H, sum 3 s] @ [sum 3 s, W]: enlarged along x and summed over the pooled maps at once
    enlarged = torch.matmul(torch.cat(rows, dim=-1), torch.cat(columns, dim=1).t())
    return F.conv2d(x, own, padding=1) + enlarged


def _taps(p, weight):
    """All kernel taps on the small map: [B, O, 3 h, 3 w], rows (dy, y), columns (dx, x)."""
    out_channels, in_channels = weight.shape[:2]
    batch, _, h, w = p.shape
    kernel = weight.permute(2, 3, 0, 1).reshape(9 * out_channels, in_channels, 1, 1)
    taps = F.conv2d(p, kernel).view(batch, 3, 3, out_channels, h, w)
    return taps.permute(0, 3, 1, 4, 2, 5).reshape(batch, out_channels, 3 * h, 3 * w)


def _shifted_enlarging(length, small, like):
    """[length, 3 small]: for offsets -1, 0, 1 the weights of bilinear enlarging, 0 beyond borders.

    Row y of part d is what the kernel's tap d sees from y: enlarged row y + d - 1, or the padding.
    """
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    cells = torch.eye(small, dtype=dtype, device=like.device)[None]
    # torch's own weights, so that nothing differs from enlarging the maps themselves
    enlarging = F.interpolate(cells, size=length, mode="linear", align_corners=False)[0].t()
    padded = F.pad(enlarging, (0, 0, 1, 1))
    return torch.cat([padded[d : d + length] for d in range(3)], dim=1).to(like.dtype)
