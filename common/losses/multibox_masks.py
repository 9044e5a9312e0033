"""The mask terms of MultiBoxLoss: M, and YOLACT++'s mask IoU term I.

Shapes: B images, K prototypes of h x w pixels, O objects and T positives of the whole batch.
Source: YOLACT, arXiv:1904.02689, section 3; YOLACT++, arXiv:1912.06218; [yolact.md: Losses].
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from common.losses.boxes import MIN_SIDE, crop_window, inside_window
from common.losses.multibox_match import LossSettings, Objects, Positives
from common.losses.sparse import Context

# Cost of an object's pixel outside its crop window: log(0) was clamped to -100, without gradient.
OUTSIDE_COST = 100.0

Size = tuple[int, int]  # (h, w)


class ObjectMaps(NamedTuple):
    """What the prototypes' pixels are to each object."""

    target: Tensor  # [O, h, w] bool: the object's mask
    inside: Tensor  # [O, h, w] bool: its crop window


def object_maps(objects: Objects, size: Size) -> ObjectMaps:
    return ObjectMaps(shrink_masks(objects.masks, size), inside_window(objects.boxes, *size))


def shrink_masks(masks: Sequence[Tensor], size: Size) -> Tensor:
    """Masks at `size` (h, w): bilinear, align_corners False, no antialias, > 0.5.

    masks: list of [n, H, W] of 0 and 1, any dtype. Returns [sum of n, h, w] bool, the same as
    F.interpolate would give, but reads only the four pixels around each sample point and decides
    by a table: which of the 16 patterns of four bits are above 0.5 there.
    """
    shrunk = []
    for mask in masks:
        (top, bottom), (left, right), table = bilinear_sampler(
            (mask.shape[1], mask.shape[2]), size, mask.device)
        mask = mask.to(torch.uint8)
        rows = torch.add(mask.index_select(1, top), mask.index_select(1, bottom), alpha=2)
        shape = (len(mask), *size)
        pattern = torch.add(rows.gather(2, left.expand(shape)), rows.gather(2, right.expand(shape)),
                            alpha=4)
        shrunk.append((table >> pattern.to(torch.int16)).bitwise_and_(1).bool())
    return torch.cat(shrunk)


@lru_cache(maxsize=16)  # a run meets two sizes, and the table costs a third of its use
def bilinear_sampler(
    full: Size, size: Size, device: torch.device
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], Tensor]:
    """How to sample masks of `full` (H, W) pixels at `size` (h, w).

    Returns the (upper, lower) row indices [h], the (left, right) column indices [w], and [h, w]
    int16: bit p is set where pattern p interpolates to more than 0.5. A pattern's bits are upper
    left, lower left, upper right, lower right, lowest first.
    """
    pairs, fractions = [], []
    for length, samples in zip(full, size, strict=True):
        center = (torch.arange(samples, device=device) + 0.5) * (length / samples) - 0.5
        center = center.clamp(min=0)
        low = center.long()
        pairs.append((low, (low + 1).clamp(max=length - 1)))
        fractions.append(center - low)
    # F.interpolate's own order of float32 operations, which decides ties: first x, then y.
    pattern = torch.arange(16, device=device)
    upper_left, lower_left, upper_right, lower_right = (
        (pattern >> bit & 1)[:, None, None] for bit in range(4))
    fy, fx = fractions[0][:, None], fractions[1]
    value = ((upper_left * (1 - fx) + upper_right * fx) * (1 - fy)
             + (lower_left * (1 - fx) + lower_right * fx) * fy)  # [16, h, w]
    table = (value > 0.5).to(torch.int32) << pattern.to(torch.int32)[:, None, None]
    return pairs[0], pairs[1], table.sum(0).to(torch.int16)


def mask_loss(
    proto: Tensor,
    coeff: Tensor,
    maps: ObjectMaps,
    objects: Objects,
    used: Positives,
    cfg: LossSettings,
) -> Tensor:
    """Binary cross-entropy of the used positives' masks, per pixel of their boxes' area.

    proto [B, h, w, K] and coeff [T, K] with a graph. Inside the crop window it is that of
    sigmoid(proto . coeff); outside, where the prediction is cut to 0, a background pixel costs
    nothing and an object's pixel OUTSIDE_COST. Images that use a subset count for all positives.
    """
    h, w = proto.shape[1:3]
    area_px = torch.full_like(objects.boxes[:, 0], h * w)
    if cfg.mask_proto_normalize_emulate_roi_pooling:
        area_px *= (objects.boxes[:, 2:] - objects.boxes[:, :2]).clamp(min=MIN_SIDE).prod(1)
    stands_for = [torch.full((m,), n / max(m, 1), device=proto.device)
                  for n, m in zip(used.counts, used.used, strict=True)]
    weight = (torch.cat(stands_for) / area_px[used.object]).to(proto.dtype)

    if proto.device.type == "cpu":
        blocks = object_blocks(objects, used, (h, w))
    else:
        blocks = image_blocks(used)
    # differs: the original takes the logarithm of the sigmoid, clamped at -100. Where float32
    # rounds that to 0 or 1 a wrong pixel costs 100 and has no gradient, so it is never learnt; from
    # the logit x it costs |x|, with gradient [yolact.md: Losses]. Way back: none, elsewhere the
    # numbers are equal.
    sign = maps.inside.view(torch.int8) - 2 * (maps.target & maps.inside).view(torch.int8)
    inside = WindowedBCE.apply(proto, coeff, sign, blocks)
    missed_px = (maps.target & ~maps.inside).sum((1, 2))
    return (weight * (inside + OUTSIDE_COST * missed_px[used.object])).sum()


class Block(NamedTuple):
    """Positives whose masks WindowedBCE takes together, and the pixels that it looks at."""

    image: int
    number: int  # of positives, from where the block before ended
    objects: Tensor | slice  # their objects, or the one that all of them have
    pixels: tuple[slice, slice]  # of rows and of columns of the prototypes' map


def image_blocks(used: Positives) -> list[Block]:
    """All of an image at once: few launches, many pixels outside the windows."""
    whole = (slice(None), slice(None))
    rows = zip(used.used, used.object.split(used.used), strict=True)
    return [Block(image, n, own, whole) for image, (n, own) in enumerate(rows)]


def object_blocks(objects: Objects, used: Positives, size: Size) -> list[Block]:
    """Only the pixels inside an object's window: about a tenth, at the cost of a loop over objects.

    Reads windows and counts on the host, so it is for the CPU, where that waits for nothing.
    """
    windows = torch.stack(crop_window(objects.boxes, *size), dim=1).ceil().long().tolist()
    counts = torch.bincount(used.object, minlength=len(windows)).tolist()
    image_of = [image for image, n in enumerate(objects.counts) for _ in range(n)]
    blocks = []
    for i, (left, right, top, bottom) in enumerate(windows):
        pixels = (slice(top, max(top, bottom)), slice(left, max(left, right)))
        blocks.append(Block(image_of[i], counts[i], slice(i, i + 1), pixels))
    return blocks


class WindowedBCE(torch.autograd.Function):
    """Sums of binary cross-entropy of linear masks over the pixels inside their windows.

    A pixel costs softplus(sign x logit): sign is -1 on the object, +1 beside it; where it is 0,
    outside the window, nothing counts. One block's logits exist at a time, and only their slopes
    are kept for the backward pass.
    """

    @staticmethod
    def forward(
        ctx: Context, proto: Tensor, coeff: Tensor, sign: Tensor, blocks: list[Block]
    ) -> Tensor:
        # proto [B, h, w, K], coeff [T, K], sign [O, h, w] int8; returns [T]
        costs, slopes, pulls = [coeff.new_zeros(0)], [], [coeff[:0]]
        rows = coeff.split([block.number for block in blocks])
        for (image, _, own, (ys, xs)), row in zip(blocks, rows, strict=True):
            pixels = proto[image, ys, xs].reshape(-1, proto.shape[3])
            flip = sign[own, ys, xs].flatten(1).to(proto.dtype)
            logits = (row @ pixels.T).mul_(flip)
            costs.append(F.softplus(logits).mul_(flip.abs()).sum(1))
            slope = logits.sigmoid_().mul_(flip)
            slopes.append(slope)
            pulls.append(slope @ pixels)
        ctx.blocks, ctx.shape = blocks, proto.shape
        ctx.save_for_backward(coeff, torch.cat(pulls), *slopes)
        return torch.cat(costs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Context, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        coeff, pull, *slopes = ctx.saved_tensors
        weighted = (coeff * grad[:, None]).split([block.number for block in ctx.blocks])
        grad_proto = grad.new_zeros(ctx.shape)
        for (image, _, _, (ys, xs)), row, slope in zip(ctx.blocks, weighted, slopes, strict=True):
            part = grad_proto[image, ys, xs]
            part += (slope.T @ row).view(part.shape)
        return grad_proto, pull * grad[:, None], None, None


def mask_iou_loss(
    maskiou_net: Callable[[Tensor], Tensor],
    proto: Tensor,
    coeff: Tensor,
    maps: ObjectMaps,
    objects: Objects,
    used: Positives,
    cfg: LossSettings,
) -> Tensor:
    """Sum of smooth-L1 between the IoU that `maskiou_net` reads off a mask and the true one.

    Masks whose target has at most `cfg.discard_mask_area` prototype pixels go through the network
    with weight 0: dropping them would mean waiting for their number.
    """
    logits = torch.cat([
        rows @ pixels.flatten(0, 1).T
        for rows, pixels in zip(coeff.split(used.used), proto.unbind(), strict=True)
    ])
    target = maps.target[used.object]
    masks = logits.view(target.shape).sigmoid() * maps.inside[used.object]  # [T, h, w]
    labels = objects.labels[used.object]
    counts = target.sum((1, 2)) > cfg.discard_mask_area
    if 0 < cfg.maskious_to_train < len(masks):
        # differs: the cap is maskious_to_train; the original drew masks_to_train of them
        # [yolact.md: Losses]. Way back: none, no config sets the cap.
        rank = torch.rand(len(masks), device=masks.device).masked_fill_(~counts, -1)
        drawn = rank.topk(cfg.maskious_to_train).indices
        masks, target, labels, counts = masks[drawn], target[drawn], labels[drawn], counts[drawn]
    with torch.no_grad():
        binary = masks > 0.5
        iou = (binary & target).sum((1, 2)) / (binary | target).sum((1, 2)).clamp(min=1)
    scores = maskiou_net(masks[:, None])  # [T, C-1]
    score = scores.gather(1, labels[:, None])[:, 0]
    # differs: with no mask left the term is 0 with a graph; the original left it out
    # [yolact.md: Losses]. Way back: none, it failed over several GPUs.
    return (F.smooth_l1_loss(score, iou.to(score.dtype), reduction="none") * counts).sum()
