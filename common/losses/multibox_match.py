"""Which prior of YOLACT learns which object: the first step of MultiBoxLoss.

Shapes: B images, P priors, O non-crowd objects of the whole batch in image order, T positives
(priors that have an object) of the whole batch. "Flat prior" i is prior i % P of image i // P.
Source: [yolact.md: Matching]; the forced matches are SSD's, arXiv:1512.02325, section 2.2.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from common.losses.boxes import box_area, center_to_corner, pairwise_intersection, pairwise_iou

NEUTRAL = -1  # class of priors that are neither positive nor background


class LossSettings(Protocol):
    """What the whole loss reads of a YOLACT config: fields of settings/yolact.py."""

    @property
    def positive_iou_threshold(self) -> float: ...
    @property
    def negative_iou_threshold(self) -> float: ...
    @property
    def crowd_iou_threshold(self) -> float: ...
    @property
    def ohem_negpos_ratio(self) -> int: ...
    @property
    def masks_to_train(self) -> int: ...
    @property
    def mask_proto_normalize_emulate_roi_pooling(self) -> bool: ...
    @property
    def use_maskiou(self) -> bool: ...
    @property
    def discard_mask_area(self) -> float: ...
    @property
    def maskious_to_train(self) -> int: ...
    @property
    def use_semantic_segmentation_loss(self) -> bool: ...
    @property
    def bbox_alpha(self) -> float: ...
    @property
    def conf_alpha(self) -> float: ...
    @property
    def mask_alpha(self) -> float: ...
    @property
    def maskiou_alpha(self) -> float: ...
    @property
    def semantic_segmentation_alpha(self) -> float: ...


class Objects(NamedTuple):
    """The non-crowd objects of a batch, in image order."""

    boxes: Tensor  # [O, 4] x1 y1 x2 y2 relative
    labels: Tensor  # [O] int64, 0-based
    masks: list[Tensor]  # per image [n, H, W]
    counts: list[int]  # objects per image


class Positives(NamedTuple):
    """Priors that have an object, in the order of their objects, so of their images too."""

    priors: Tensor  # [T] flat
    object: Tensor  # [T] into the rows of Objects
    counts: list[int]  # positives per image: all there are
    used: list[int]  # how many of them are in `priors`


def split_crowds(
    targets: Sequence[Tensor], masks: Sequence[Tensor], num_crowds: Sequence[int]
) -> tuple[Objects, list[Tensor]]:
    """Objects of the batch, and per image the [n, 4] boxes of crowds, which only veto negatives."""
    counts = [len(t) - int(crowds) for t, crowds in zip(targets, num_crowds, strict=True)]
    rows = torch.cat([t[:n] for t, n in zip(targets, counts, strict=True)])
    masks = [m[:n] for m, n in zip(masks, counts, strict=True)]
    objects = Objects(rows[:, :4], rows[:, 4].long(), masks, counts)
    return objects, [t[n:, :4] for t, n in zip(targets, counts, strict=True)]


def starts(counts: Sequence[int]) -> list[int]:
    """Where each image's rows begin, given how many rows each image has."""
    return [0, *accumulate(counts[:-1])]


@torch.no_grad()
def match(
    objects: Objects, crowds: Sequence[Tensor], priors: Tensor, cfg: LossSettings
) -> tuple[Tensor, Tensor]:
    """Give every prior a class and an object.

    priors [P, 4] cx cy w h; crowds: per image [n, 4] boxes. Returns
    classes [B, P] int64: label + 1, 0 background, NEUTRAL for neither;
    prior_object [B, P] int64: row in `objects`, meaningful where classes > 0.
    """
    num_images, num_priors = len(crowds), len(priors)
    if max(objects.counts) > num_priors:
        raise ValueError(f"{max(objects.counts)} objects in an image, but only {num_priors} priors")
    corners = center_to_corner(priors)
    best_iou = corners.new_zeros(num_images, num_priors)
    prior_object = objects.labels.new_zeros(num_images, num_priors)
    candidates = []
    boxes = objects.boxes.to(corners.dtype).split(objects.counts)
    # Image by image: a padded batch would cost as many objects as the fullest image has.
    for image, (start, own) in enumerate(zip(starts(objects.counts), boxes, strict=True)):
        if len(own):
            iou = pairwise_iou(own, corners)
            torch.max(iou, dim=0, out=(best_iou[image], prior_object[image]))
            prior_object[image] += start
            candidates.append(best_priors(iou, max(objects.counts)))
    if candidates:
        forced = force_match(torch.cat(candidates), objects.counts, num_priors)
        best_iou.view(-1).index_fill_(0, forced, 2.0)
        every_object = torch.arange(len(forced), device=forced.device)
        prior_object.view(-1).index_copy_(0, forced, every_object)

    label_or_none = F.pad(objects.labels, (0, 1))  # a batch without objects reads row 0, too
    classes = label_or_none[prior_object] + 1
    classes.masked_fill_(best_iou < cfg.positive_iou_threshold, NEUTRAL)
    classes.masked_fill_(best_iou < cfg.negative_iou_threshold, 0)
    if cfg.crowd_iou_threshold < 1:
        for image, crowd in enumerate(crowds):
            if len(crowd):
                share = pairwise_intersection(crowd, corners).amax(0) / box_area(corners)
                crowded = (share > cfg.crowd_iou_threshold) & (classes[image] == 0)
                classes[image].masked_fill_(crowded, NEUTRAL)
    return classes, prior_object


def best_priors(iou: Tensor, most: int) -> Tensor:
    """Keys of each object's `most` best priors, in no order: [n, P] float32 to [n, most] int64.

    A key is larger where IoU is larger, then where the prior is lower. IoU >= 0, so that its bits
    order as integers do; the low half of a key is P - 1 - prior.
    """
    rank = torch.arange(iou.shape[1] - 1, -1, -1, device=iou.device)
    key = (iou.float().view(torch.int32).long() << 32).bitwise_or_(rank)
    return key.topk(most, dim=1, sorted=False).values


def force_match(keys: Tensor, counts: list[int], num_priors: int) -> Tensor:
    """The prior that each object gets whatever their IoU is.

    The rule: as often as an image has objects, the pair of the highest IoU left is matched, and its
    object and its prior leave. Ties go to the lower object, then the lower prior. The others take
    G - 1 priors at most, so an object's best G ones are all that the rule can reach.
    keys [O, G]: `best_priors`, G the largest of `counts`. Returns [O] int64 flat priors.
    """
    most = keys.shape[1]
    keys = pad_sequence(keys.split(counts), batch_first=True, padding_value=-1).flatten(1)
    prior = num_priors - 1 - (keys & 0xFFFFFFFF)  # [B, G x G]
    slot = torch.arange(most, device=keys.device).repeat_interleave(most)
    forced = prior.new_zeros(len(counts), most)
    for _ in range(most):
        at = keys.argmax(1, keepdim=True)
        winner, taken = slot[at], prior.gather(1, at)
        # An image that ran out of objects has only -1 keys and draws slot 0, which must stay.
        left = keys.gather(1, at) >= 0
        forced.scatter_(1, winner, torch.where(left, taken, forced.gather(1, winner)))
        keys.masked_fill_((slot == winner) | (prior == taken), -1)
    return torch.cat([forced[i, :n] + i * num_priors for i, n in enumerate(counts)])


def find_positives(classes: Tensor, prior_object: Tensor, counts: list[int]) -> Positives:
    """Positives by image, and within an image by object."""
    # nonzero_static: the number is known already, so that the device need not be waited for again
    index = torch.nonzero_static((classes > 0).flatten(), size=sum(counts))[:, 0]
    # Objects are numbered through the batch in image order, so sorting by object keeps the images.
    own, order = prior_object.flatten()[index].sort(stable=True)
    return Positives(index[order], own, counts, counts)


def join_matches(
    matched: Sequence[Mapping[str, Tensor]], objects: Objects
) -> tuple[Tensor, Positives]:
    """(classes [B, P] int64, the positives) of what MultiBoxLoss calls `matched`."""
    classes = torch.stack([each["classes"] for each in matched]).long()
    flat = [each["priors"] + i * classes.shape[1] for i, each in enumerate(matched)]
    firsts = zip(matched, starts(objects.counts), strict=True)
    rows = [each["objects"] + first for each, first in firsts]
    counts = [len(each) for each in flat]
    return classes, Positives(torch.cat(flat).long(), torch.cat(rows).long(), counts, counts)


def mask_subset(positives: Positives, most: int) -> Positives:
    """At most `most` positives of every image, drawn without replacement from torch's generator."""
    if max(positives.counts) <= most:
        return positives
    device = positives.priors.device
    drawn = [
        start + torch.randperm(n, device=device)[:most].sort().values
        for start, n in zip(starts(positives.counts), positives.counts, strict=True)
    ]
    used = [len(each) for each in drawn]
    chosen = torch.cat(drawn)
    return Positives(positives.priors[chosen], positives.object[chosen], positives.counts, used)
