"""Box arithmetic that losses, detection and data share: tensors in, tensors out.

Shapes: `...` is any number of leading dimensions, N boxes or masks, h and w a map's height and
width in pixels. "Relative" coordinates are fractions of the image. All functions keep dtype and
device, are differentiable where that makes sense, and accept N = 0.
Source: YOLACT, arXiv:1904.02689; box coding as in SSD, arXiv:1512.02325, section 2.2.
"""

import torch
from torch import Tensor

# SSD's "variances": the scale of centre offsets and of log sizes.
CENTER_VARIANCE = 0.1
SIZE_VARIANCE = 0.2

# No side counts as smaller than this fraction of the image (0.0006 px at 550): its logarithm and
# the division by it stay finite. The data path discards boxes more than ten times larger.
MIN_SIDE = 1e-6


def center_to_corner(boxes: Tensor) -> Tensor:
    """[..., 4] cx cy w h to [..., 4] x1 y1 x2 y2."""
    center, size = boxes[..., :2], boxes[..., 2:]
    return torch.cat((center - size / 2, center + size / 2), dim=-1)


def decode(loc: Tensor, priors: Tensor) -> Tensor:
    """Boxes that regressed offsets stand for.

    loc:     [..., P, 4] float, offsets dx dy dw dh as the network gives them
    priors:  [P, 4] float, cx cy w h
    Returns [..., P, 4] x1 y1 x2 y2 in the unit of `priors`, not clipped.
    """
    center = priors[..., :2] + loc[..., :2] * CENTER_VARIANCE * priors[..., 2:]
    size = priors[..., 2:] * torch.exp(loc[..., 2:] * SIZE_VARIANCE)
    top_left = center - size / 2
    # parity: x2 = w + x1, not cx + w/2; the last bit can move a pixel box [yolact.md: Priors]
    return torch.cat((top_left, size + top_left), dim=-1)


def encode(boxes: Tensor, priors: Tensor) -> Tensor:
    """Regression targets dx dy dw dh of boxes against priors, the inverse of `decode`.

    boxes:   [..., 4] float, x1 y1 x2 y2, relative
    priors:  [..., 4] float, cx cy w h, relative, broadcastable to `boxes`
    Returns [..., 4]. Sides below MIN_SIDE count as MIN_SIDE, so the targets are always finite.
    """
    center = (boxes[..., :2] + boxes[..., 2:]) / 2
    size = (boxes[..., 2:] - boxes[..., :2]).clamp(min=MIN_SIDE)
    offset = (center - priors[..., :2]) / (CENTER_VARIANCE * priors[..., 2:])
    return torch.cat((offset, torch.log(size / priors[..., 2:]) / SIZE_VARIANCE), dim=-1)


def pairwise_intersection(a: Tensor, b: Tensor) -> Tensor:
    """[..., A, 4] and [..., B, 4] corner boxes to [..., A, B] intersection areas."""
    # One contiguous coordinate at a time, and in place: on a CPU memory traffic is all this costs,
    # and pairs in a last dimension of 2 would take 20 times as long.
    ax1, ay1, ax2, ay2 = (side.contiguous()[..., :, None] for side in a.unbind(-1))
    bx1, by1, bx2, by2 = (side.contiguous()[..., None, :] for side in b.unbind(-1))
    width = torch.minimum(ax2, bx2).sub_(torch.maximum(ax1, bx1)).clamp_(min=0)
    height = torch.minimum(ay2, by2).sub_(torch.maximum(ay1, by1)).clamp_(min=0)
    return width.mul_(height)


def box_area(boxes: Tensor) -> Tensor:
    """[..., 4] corner boxes to [...] areas."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def pairwise_iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of every box of `a` with every box of `b`.

    a, b:  [..., A, 4] and [..., B, 4] float, x1 y1 x2 y2 in the same unit
    Returns [..., A, B] in [0, 1]. Two boxes without area have IoU 0, never NaN.
    """
    intersection = pairwise_intersection(a, b)
    area_a = box_area(a).clamp(min=torch.finfo(intersection.dtype).tiny)
    union = (area_a[..., :, None] + box_area(b)[..., None, :]).sub_(intersection)
    return intersection.div_(union)


def crop_window(
    boxes_rel: Tensor, h: int, w: int, pad: int = 1
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The part of an h x w map that belongs to each box, in map pixels.

    boxes_rel:  [N, 4] float, x1 y1 x2 y2 as fractions of the image; either corner may come first
    pad:        pixels added on every side, before clipping to the map
    Returns (left, right, top, bottom), each [N] float: column c is inside where
    left <= c < right, row r where top <= r < bottom. Bounds are not rounded.
    """
    x1, y1, x2, y2 = boxes_rel.unbind(-1)
    left = (torch.minimum(x1, x2) * w - pad).clamp(min=0)
    right = (torch.maximum(x1, x2) * w + pad).clamp(max=w)
    top = (torch.minimum(y1, y2) * h - pad).clamp(min=0)
    bottom = (torch.maximum(y1, y2) * h + pad).clamp(max=h)
    return left, right, top, bottom


def inside_window(boxes_rel: Tensor, h: int, w: int, pad: int = 1) -> Tensor:
    """[N, h, w] bool: which pixels of an h x w map lie in each box's `crop_window`."""
    left, right, top, bottom = (bound[:, None] for bound in crop_window(boxes_rel, h, w, pad))
    column = torch.arange(w, device=boxes_rel.device)
    row = torch.arange(h, device=boxes_rel.device)
    keep_x = (column >= left) & (column < right)
    keep_y = (row >= top) & (row < bottom)
    return keep_y[:, :, None] & keep_x[:, None, :]


def crop_masks(masks: Tensor, boxes_rel: Tensor, pad: int = 1) -> Tensor:
    """Zero each mask outside the window of its own box.

    masks:      [N, h, w] of any dtype
    boxes_rel:  [N, 4] float, x1 y1 x2 y2 as fractions of the image; either corner may come first
    pad:        pixels added to the window on every side
    Returns [N, h, w], same dtype as `masks`; the window's rule is `crop_window`'s.
    Raises ValueError if the two N differ.
    """
    if masks.shape[0] != boxes_rel.shape[0]:
        raise ValueError(f"{masks.shape[0]} masks but {boxes_rel.shape[0]} boxes")
    return masks * inside_window(boxes_rel, masks.shape[1], masks.shape[2], pad)
