"""YOLACT's loss: boxes (B), classes (C), masks (M), mask IoU (I) and semantic segmentation (S).

Shapes: B images, P priors, C classes with background 0, K prototypes, h x w the prototypes' map,
O non-crowd objects of the whole batch in image order, T positives (priors that have an object) of
the whole batch in image order. "Flat prior" i means prior i % P of image i // P.
Source: YOLACT, arXiv:1904.02689, section 3; YOLACT++, arXiv:1912.06218; project spec section 8.
"""

from itertools import accumulate
from typing import NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn.utils.rnn import pad_sequence

from common.boxes import (
    MIN_SIDE,
    box_area,
    center_to_corner,
    crop_masks,
    crop_window,
    encode,
    pairwise_intersection,
    pairwise_iou,
)

NEUTRAL = -1
IGNORE = -100  # rows of the class loss that count nothing; cross_entropy's own value

# Cost of an object's pixel outside its crop window: log(0) was clamped to -100, without gradient.
OUTSIDE_COST = 100.0


class MultiBoxLoss(nn.Module):
    """Calling it gives the named terms; the training loss is their plain sum.

    cfg:        a YOLACT config (frozen); read once per call, never changed
    normalize:  "rank": B, C, M, I are divided by this process's number of positives and S by its
                batch size, as the original did on each GPU. "global": by the numbers of all ranks,
                times the number of ranks, so that the mean over ranks (DistributedDataParallel's of
                the gradients, the logger's of the values) is the loss of one process that holds the
                whole batch.

    The one wait for the device is the read of the number of positives per image, which the
    random mask subset and the choice of negatives need; everything else is queued without a look.
    """

    def __init__(self, cfg, normalize="rank"):
        super().__init__()
        if normalize not in ("rank", "global"):
            raise ValueError(f'normalize is "rank" or "global", not {normalize!r}')
        self.cfg = cfg
        self.normalize = normalize

    def forward(self, net, predictions, targets, masks, num_crowds):
        """Return {"B", "C", "M", "I", "S"} in the order of the log, each a 0-d tensor with a graph.

        net:          the model; only `net.maskiou_net` is used, and only with `cfg.use_maskiou`
        predictions:  loc [B, P, 4], conf [B, P, C] logits, mask [B, P, K] coefficients, proto
                      [B, h, w, K], priors [P, 4] cx cy w h relative, segm [B, C-1, h3, w3] logits;
                      half precisions are computed in float32, also under autocast
        targets:      B tensors [n, 5] float: x1 y1 x2 y2 relative, 0-based class; n = 0 is fine
        masks:        B tensors [n, H, W] of 0 and 1, any dtype; crowds come last in both
        num_crowds:   B ints: how many of the last rows are crowds
        "I" is there only with `cfg.use_maskiou`, "S" with `cfg.use_semantic_segmentation_loss`.
        Where an image, or the whole batch, has nothing to learn a term is 0, never NaN.
        """
        with torch.autocast(predictions["loc"].device.type, enabled=False):
            return self._terms(net, predictions, targets, masks, num_crowds)

    def _terms(self, net, predictions, targets, masks, num_crowds):
        cfg = self.cfg
        objects, crowds = split_crowds(targets, masks, num_crowds)
        classes, prior_object = match(objects, crowds, predictions["priors"], cfg)
        num_pos = (classes > 0).sum(1)
        positives = find_positives(classes, prior_object, counts=num_pos.tolist())
        n, batch_size = self._normalisers(num_pos)

        losses = {
            "B": cfg.bbox_alpha * box_loss(predictions, objects, positives) / n,
            "M": None,  # keeps the order of the log
            "C": cfg.conf_alpha * class_loss(predictions["conf"], classes, positives, cfg) / n,
        }
        used = mask_subset(positives, cfg.masks_to_train)
        proto = at_least_float32(predictions["proto"])
        coeff = predictions["mask"].flatten(0, 1).index_select(0, used.index)
        maps = object_maps(objects, size=proto.shape[1:3])
        coeff = at_least_float32(coeff)
        losses["M"] = cfg.mask_alpha * mask_loss(proto, coeff, maps, objects, used, cfg) / n
        if cfg.use_maskiou:
            loss = mask_iou_loss(net.maskiou_net, proto, coeff, maps, objects, used, cfg)
            losses["I"] = cfg.maskiou_alpha * loss / n
        if cfg.use_semantic_segmentation_loss:
            loss = semantic_loss(at_least_float32(predictions["segm"]), objects)
            losses["S"] = cfg.semantic_segmentation_alpha * loss / batch_size
        return losses

    def _normalisers(self, num_pos):
        """What object terms and S are divided by: 0-d tensors."""
        totals = torch.stack((num_pos.sum(), torch.full_like(num_pos[0], len(num_pos)))).float()
        world_size = 1
        if self.normalize == "global" and dist.is_available() and dist.is_initialized():
            dist.all_reduce(totals)
            world_size = dist.get_world_size()
        # differs: no positive at all divides by 1 (the original gave NaN)
        return totals.clamp(min=1).div(world_size).unbind()


def at_least_float32(x):
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


class Objects(NamedTuple):
    """The non-crowd objects of a batch, in image order."""

    boxes: torch.Tensor  # [O, 4] x1 y1 x2 y2 relative
    labels: torch.Tensor  # [O] int64, 0-based
    masks: list  # per image [n, H, W]
    counts: list  # objects per image, ints


class Positives(NamedTuple):
    """Priors that have an object, in the order of their objects, so of their images too."""

    index: torch.Tensor  # [T] flat prior
    object: torch.Tensor  # [T] into the rows of Objects
    counts: list  # positives per image, ints: all there are
    used: list  # how many of them are in `index`


def split_crowds(targets, masks, num_crowds):
    """Objects of the batch, and per image the [n, 4] boxes of crowds, which only veto negatives."""
    counts = [len(t) - crowds for t, crowds in zip(targets, num_crowds, strict=True)]
    rows = torch.cat([t[:n] for t, n in zip(targets, counts, strict=True)])
    masks = [m[:n] for m, n in zip(masks, counts, strict=True)]
    objects = Objects(rows[:, :4], rows[:, 4].long(), masks, counts)
    return objects, [t[n:, :4] for t, n in zip(targets, counts, strict=True)]


# --- which prior learns what ---


@torch.no_grad()
def match(objects, crowds, priors, cfg):
    """Give every prior a class and an object.

    priors [P, 4] cx cy w h; crowds: per image [n, 4] boxes. Returns
    classes [B, P] int64: label + 1, 0 background, NEUTRAL for neither;
    prior_object [B, P] int64: row in `objects`, meaningful where classes > 0.
    """
    corners = center_to_corner(priors)
    iou = pairwise_iou(objects.boxes.float(), corners)  # [O, P]; an image's objects are a slice
    # One more column than priors: forced matches that do not exist are written there.
    best_iou = iou.new_zeros(len(crowds), len(priors) + 1)
    prior_object = objects.labels.new_zeros(len(crowds), len(priors) + 1)
    for image, rows in enumerate(iou.split(objects.counts)):
        if len(rows):
            best_iou[image, :-1], prior_object[image, :-1] = rows.max(0)
    if len(iou):
        forced = force_match(iou, objects.counts)
        best_iou.scatter_(1, forced, 2.0)
        slots = torch.arange(forced.shape[1], device=forced.device)
        prior_object.scatter_(1, forced, slots.expand_as(forced))
    best_iou, prior_object = best_iou[:, :-1], prior_object[:, :-1]
    for image, start in enumerate(starts(objects.counts)):
        prior_object[image] += start

    label_or_none = F.pad(objects.labels, (0, 1))  # no object in the last images: row O is read
    classes = label_or_none[prior_object] + 1
    classes.masked_fill_(best_iou < cfg.positive_iou_threshold, NEUTRAL)
    classes.masked_fill_(best_iou < cfg.negative_iou_threshold, 0)
    if cfg.crowd_iou_threshold < 1:
        for image, boxes in enumerate(crowds):
            if len(boxes):
                share = pairwise_intersection(boxes, corners).amax(0) / box_area(corners)
                crowded = (share > cfg.crowd_iou_threshold) & (classes[image] == 0)
                classes[image].masked_fill_(crowded, NEUTRAL)
    return classes, prior_object


def force_match(iou, counts):
    """The prior that each object gets whatever their IoU is.

    The rule: as often as an image has objects, the pair of the highest IoU left is matched, and its
    object and its prior leave. Ties go to the lower object, then the lower prior.
    iou [O, P] float32; counts: objects per image. Returns [B, G] int64, G the largest count: the
    prior of each object, P where the image has fewer objects.
    """
    num_priors, most = iou.shape[1], max(counts)
    # Other objects take at most most - 1 priors, so an object's match is among its `most` best ones
    # and the rule runs on [B, most, most], not [O, P]. IoU >= 0, so its bits order as integers do;
    # the low half of the key makes the lower prior win.
    rank = torch.arange(num_priors - 1, -1, -1, device=iou.device)
    key = (iou.contiguous().view(torch.int32).long() << 32) | rank
    key = key.topk(min(most, num_priors), dim=1, sorted=False).values
    key = pad_sequence(key.split(counts), batch_first=True, padding_value=-1)  # [B, most, k]
    prior = num_priors - 1 - (key & 0xFFFFFFFF)

    forced = prior.new_full((len(counts), most), num_priors)
    flat_key, flat_prior = key.flatten(1), prior.flatten(1)
    slot = torch.arange(most, device=iou.device).repeat_interleave(key.shape[2])
    for _ in range(most):
        best, at = flat_key.max(1, keepdim=True)
        winner, taken = slot[at], flat_prior.gather(1, at)
        found = best >= 0
        forced.scatter_(1, winner, torch.where(found, taken, forced.gather(1, winner)))
        leaves = (slot == winner) | (flat_prior == taken)
        flat_key = flat_key.masked_fill(leaves, -1)
    return forced


def starts(counts):
    """Where each image's rows begin, given how many rows each image has."""
    return [0, *accumulate(counts[:-1])]


def find_positives(classes, prior_object, counts):
    """Positives by image, and within an image by object."""
    index = torch.nonzero_static((classes > 0).flatten(), size=sum(counts))[:, 0]
    # Objects are numbered through the batch in image order, so sorting by object keeps the images.
    own, order = prior_object.flatten()[index].sort(stable=True)
    return Positives(index[order], own, counts, counts)


def mask_subset(positives, most):
    """At most `most` positives of every image, drawn without replacement from torch's generator."""
    if max(positives.counts) <= most:
        return positives
    device = positives.index.device
    chosen = [
        start + torch.randperm(n, device=device)[:most].sort().values
        for start, n in zip(starts(positives.counts), positives.counts, strict=True)
    ]
    used = [len(c) for c in chosen]
    chosen = torch.cat(chosen)
    return Positives(positives.index[chosen], positives.object[chosen], positives.counts, used)


# --- boxes and classes ---


def box_loss(predictions, objects, positives):
    """Sum of smooth-L1 (beta 1) over the four offsets of every positive."""
    loc = predictions["loc"].flatten(0, 1).index_select(0, positives.index)
    loc = at_least_float32(loc)
    priors = predictions["priors"]
    target = encode(objects.boxes[positives.object], priors[positives.index % len(priors)])
    return F.smooth_l1_loss(loc, target.to(loc.dtype), reduction="sum")


def class_loss(conf, classes, positives, cfg):
    """Sum of softmax cross-entropy over the positives and each image's hardest negatives.

    Only those rows are read with a graph, so that the backward pass fills conf's gradient once.
    """
    negative = hard_negatives(conf.detach(), classes, positives.counts, cfg.ohem_negpos_ratio)
    flat_classes = classes.flatten()
    drawn = flat_classes[negative]
    label = torch.cat((flat_classes[positives.index], drawn.masked_fill(drawn != 0, IGNORE)))
    rows = conf.flatten(0, 1).index_select(0, torch.cat((positives.index, negative)))
    return F.cross_entropy(at_least_float32(rows), label, ignore_index=IGNORE, reduction="sum")


def hard_negatives(conf, classes, counts, ratio):
    """Flat priors of the `ratio` x positives priors per image that look least like background.

    Where an image has too little background, priors of other classes are among them.
    """
    num_priors = classes.shape[1]
    wanted = [min(ratio * n, num_priors - 1) for n in counts]
    score = background_cost(conf).masked_fill_(classes != 0, -torch.inf)
    order = score.topk(max(wanted), dim=1).indices
    return torch.cat([order[i, :n] + i * num_priors for i, n in enumerate(wanted)])


def background_cost(conf):
    """[B, P, C] logits to [B, P] -log softmax of class 0."""
    # differs: each row subtracts its own maximum, not the batch's, which let low rows underflow
    # One image at a time: the temporaries stay in a CPU's cache, and half precision is widened
    # without a second copy of all logits.
    images = [at_least_float32(image) for image in conf]
    return torch.stack([image.logsumexp(1) - image[:, 0] for image in images])


# --- masks ---


class ObjectMaps(NamedTuple):
    """What the prototypes' pixels are to each object."""

    target: torch.Tensor  # [O, h, w] bool: the object's mask
    inside: torch.Tensor  # [O, h, w] bool: its crop window


def object_maps(objects, size):
    everywhere = objects.labels.new_ones((), dtype=torch.bool).expand(len(objects.labels), *size)
    return ObjectMaps(shrink_masks(objects.masks, size), crop_masks(everywhere, objects.boxes))


def shrink_masks(masks, size):
    """Masks at `size` (h, w): bilinear, align_corners False, no antialias, > 0.5.

    masks: list of [n, H, W] of 0 and 1, any dtype. Returns [sum of n, h, w] bool, the same as
    F.interpolate would give, but reads only the four pixels around each sample point.
    """
    taps, shrunk = {}, []
    for mask in masks:
        full = tuple(mask.shape[1:])
        if full not in taps:
            taps[full] = bilinear_taps(full, size, mask.device)
        index, fraction_y, fraction_x = taps[full]
        corners = mask.flatten(1).gather(1, index.expand(len(mask), -1)).float()
        corners = corners.view(-1, 2, 2, *size)  # [n, upper or lower, left or right, h, w]
        sides = corners[:, :, 0] * (1 - fraction_x) + corners[:, :, 1] * fraction_x
        shrunk.append(sides[:, 0] * (1 - fraction_y) + sides[:, 1] * fraction_y > 0.5)
    return torch.cat(shrunk)


def bilinear_taps(full, size, device):
    """What align_corners=False reads: flat indices [4 h w], fractions [h, 1] and [w]."""
    low, high, fraction = [], [], []
    for length, samples in zip(full, size, strict=True):
        center = (torch.arange(samples, device=device) + 0.5) * (length / samples) - 0.5
        center = center.clamp(min=0)
        low.append(center.long())
        high.append((low[-1] + 1).clamp(max=length - 1))
        fraction.append(center - low[-1])
    y = torch.stack((low[0], high[0]))[:, None, :, None]
    x = torch.stack((low[1], high[1]))[None, :, None, :]
    return (y * full[1] + x).flatten(), fraction[0][:, None], fraction[1]


def mask_loss(proto, coeff, maps, objects, used, cfg):
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

    sign = torch.where(maps.target, -1.0, 1.0).mul_(maps.inside).to(proto.dtype)
    if proto.device.type == "cpu":
        blocks = object_blocks(objects, used, (h, w))
    else:
        blocks = image_blocks(used)
    inside = WindowedBCE.apply(proto, coeff, sign, weight, blocks)
    missed_px = (maps.target & ~maps.inside).sum((1, 2))
    return inside + OUTSIDE_COST * (weight * missed_px[used.object]).sum()


class Block(NamedTuple):
    """Positives whose masks WindowedBCE takes together, and the pixels that it looks at."""

    image: int
    rows: slice  # of the positives
    objects: torch.Tensor | slice  # their objects, or the one that all of them have
    pixels: tuple  # slices of rows and of columns of the prototypes' map


def image_blocks(used):
    """All of an image at once: few launches, many pixels outside the windows."""
    rows = [slice(start, start + n) for start, n in zip(starts(used.used), used.used, strict=True)]
    whole = (slice(None), slice(None))
    return [Block(image, r, used.object[r], whole) for image, r in enumerate(rows)]


def object_blocks(objects, used, size):
    """Only the pixels inside an object's window: about a tenth, at the cost of a loop over objects.

    Reads windows and counts on the host, so it is for the CPU, where that waits for nothing.
    """
    windows = torch.stack(crop_window(objects.boxes, *size), dim=1).ceil().long().tolist()
    counts = torch.bincount(used.object, minlength=len(windows)).tolist()
    image_of = [image for image, n in enumerate(objects.counts) for _ in range(n)]
    blocks = []
    for i, (start, n) in enumerate(zip(starts(counts), counts, strict=True)):
        left, right, top, bottom = windows[i]
        pixels = (slice(top, max(top, bottom)), slice(left, max(left, right)))
        blocks.append(Block(image_of[i], slice(start, start + n), slice(i, i + 1), pixels))
    return blocks


class WindowedBCE(torch.autograd.Function):
    """Weighted sum of binary cross-entropies of linear masks over the pixels inside their windows.

    A pixel costs softplus(sign x logit): sign is -1 on the object, +1 beside it, 0 outside the
    window, where nothing counts. One block's logits exist at a time; the backward pass keeps their
    slopes only.
    """

    @staticmethod
    def forward(ctx, proto, coeff, sign, weight, blocks):
        # proto [B, h, w, K], coeff [T, K], sign [O, h, w], weight [T]
        total, slopes = proto.new_zeros(()), []
        for image, rows, own, (ys, xs) in blocks:
            pixels = proto[image, ys, xs].reshape(-1, proto.shape[3])
            flip = sign[own][:, ys, xs].flatten(1)
            logits = (coeff[rows] @ pixels.T).mul_(flip)
            total += (F.softplus(logits) * flip.abs()).sum(1) @ weight[rows]
            slopes.append(logits.sigmoid_().mul_(flip))
        ctx.blocks = blocks
        ctx.save_for_backward(proto, coeff, weight, *slopes)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        proto, coeff, weight, *slopes = ctx.saved_tensors
        weight = (grad * weight)[:, None]
        weighted = coeff * weight
        grad_proto, grad_coeff = torch.zeros_like(proto), torch.empty_like(coeff)
        for (image, rows, _, (ys, xs)), slope in zip(ctx.blocks, slopes, strict=True):
            part = grad_proto[image, ys, xs]
            part += (slope.T @ weighted[rows]).view(part.shape)
            grad_coeff[rows] = slope @ proto[image, ys, xs].reshape(-1, proto.shape[3])
        return grad_proto, grad_coeff.mul_(weight), None, None, None


def mask_iou_loss(maskiou_net, proto, coeff, maps, objects, used, cfg):
    """Sum of smooth-L1 between the IoU that `maskiou_net` reads off a mask and the true one.

    Masks whose target has at most `cfg.discard_mask_area` prototype pixels go through the network
    with weight 0: dropping them would need their number on the host.
    """
    logits = torch.cat([
        rows @ pixels.flatten(0, 1).T
        for rows, pixels in zip(coeff.split(used.used), proto.unbind(), strict=True)
    ])
    target = maps.target[used.object]
    masks = logits.view(target.shape).sigmoid() * maps.inside[used.object]  # [T, h, w]
    with torch.no_grad():
        binary = masks > 0.5
        area = target.sum((1, 2))
        iou = (binary & target).sum((1, 2)) / (binary | target).sum((1, 2)).clamp(min=1)
        weight = (area > cfg.discard_mask_area).to(masks.dtype)
    scores = maskiou_net(masks[:, None])  # [T, C-1]
    score = scores.gather(1, objects.labels[used.object, None])[:, 0]
    # differs: with no mask left the term is 0 with a graph; the original left it out
    return (F.smooth_l1_loss(score, iou.to(score.dtype), reduction="none") * weight).sum()


def semantic_loss(segm, objects):
    """Binary cross-entropy of the per-class maps, summed over images and classes, mean over pixels.

    segm [B, C-1, h, w] logits. A pixel's target is 1 where any object of the class covers it.
    """
    num_images, num_maps, h, w = segm.shape
    masks = shrink_masks(objects.masks, (h, w)).flatten(1).to(segm.dtype)
    per_image = objects.labels.split(objects.counts)
    image_map = torch.cat([labels + i * num_maps for i, labels in enumerate(per_image)])
    target = segm.new_zeros(num_images * num_maps, h * w)
    target.index_add_(0, image_map, masks).clamp_(max=1)
    return F.binary_cross_entropy_with_logits(
        segm, target.view_as(segm), reduction="sum") / (h * w)
