"""YOLACT's loss: boxes (B), classes (C), masks (M), mask IoU (I) and semantic segmentation (S).

Shapes: B images, P priors, C classes with background 0, K prototypes of h x w pixels. Objects and
positives (priors that have an object) of the whole batch lie in one tensor, in image order, so that
no image is padded to another's number. "Flat prior" i is prior i % P of image i // P.
Source: YOLACT, arXiv:1904.02689, section 3; YOLACT++, arXiv:1912.06218; [yolact.md: Losses].
"""

from collections.abc import Mapping, Sequence

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from common.config import yolact_config
from common.losses.boxes import encode
from common.losses.multibox_masks import mask_iou_loss, mask_loss, object_maps, shrink_masks
from common.losses.multibox_match import (
    LossSettings,
    Objects,
    Positives,
    find_positives,
    join_matches,
    mask_subset,
    match,
    split_crowds,
)
from common.losses.sparse import SparseTargetBCE, TakeRows, at_least_float32
from runtime.launch.ranks import computes_together

Matches = Sequence[Mapping[str, Tensor]] | None
IGNORE = -100  # rows of the class loss that count nothing; cross_entropy's own value


class MultiBoxLoss(nn.Module):
    """Calling it gives the named terms; the training loss is their plain sum.

    cfg:        a YOLACT config or its name; read at every call: delayed settings may replace it
    normalize:  "rank": B, C, M, I are divided by this process's number of positives and S by its
                batch size, as the original did on each GPU. "global": by the numbers of all ranks,
                times the number of ranks, so that the mean over ranks (DistributedDataParallel's of
                the gradients, the logger's of the values) is the loss of one process that holds the
                whole batch.

    Without `matched` it waits for the device once: for the number of positives per image, which the
    random mask subset and the number of negatives follow from. Everything else is queued without a
    look at values.
    Raises ValueError for another `normalize`.
    """

    def __init__(self, cfg: LossSettings | str, normalize: str = "rank"):
        super().__init__()
        if normalize not in ("rank", "global"):
            raise ValueError(f'normalize is "rank" or "global", not {normalize!r}')
        self.cfg: LossSettings = yolact_config(cfg)
        self.normalize = normalize

    def forward(
        self,
        net: nn.Module,
        predictions: Mapping[str, Tensor],
        targets: Sequence[Tensor],
        masks: Sequence[Tensor],
        num_crowds: Sequence[int],
        matched: Matches = None,
    ) -> dict[str, Tensor]:
        """Return {"B", "C", "M", "I", "S"} in the order of the log, each a 0-d tensor with a graph.

        net:          the model; only `net.maskiou_net` is used, and only with `cfg.use_maskiou`
        predictions:  loc [B, P, 4], conf [B, P, C] logits, mask [B, P, K] coefficients, proto
                      [B, h, w, K], priors [P, 4] cx cy w h relative, segm [B, C-1, h3, w3] logits;
                      half precisions are computed in float32, also under autocast
        targets:      B tensors [n, 5] float: x1 y1 x2 y2 relative, 0-based class; n = 0 is fine
        masks:        B tensors [n, H, W] of 0 and 1, any dtype
        num_crowds:   B ints: how many of the last rows of targets and masks are crowds
        matched:      None, or what models/yolact/matching.py has found of these targets: B dicts of
                      classes [P], and priors and objects [T] of the positives in order
        "I" is there only with `cfg.use_maskiou`, "S" with `cfg.use_semantic_segmentation_loss`.
        Where an image, or the whole batch, has nothing to learn a term is 0, never NaN.
        """
        with torch.autocast(predictions["loc"].device.type, enabled=False):
            return self._terms(net, predictions, targets, masks, num_crowds, matched)

    def _terms(
        self,
        net: nn.Module,
        predictions: Mapping[str, Tensor],
        targets: Sequence[Tensor],
        masks: Sequence[Tensor],
        num_crowds: Sequence[int],
        matched: Matches = None,
    ) -> dict[str, Tensor]:
        cfg = self.cfg
        objects, crowds = split_crowds(targets, masks, num_crowds)
        if matched is None:
            classes, prior_object = match(objects, crowds, predictions["priors"], cfg)
            counts = (classes > 0).sum(1).tolist()
            positives = find_positives(classes, prior_object, counts)
        else:
            classes, positives = join_matches(matched, objects)
        n, batch_size = self._normalisers(positives.counts, classes.device)

        used = mask_subset(positives, cfg.masks_to_train)
        proto = at_least_float32(predictions["proto"])
        coeff = at_least_float32(TakeRows.apply(predictions["mask"].flatten(0, 1), used.priors))
        maps = object_maps(objects, size=(proto.shape[1], proto.shape[2]))
        losses = {
            "B": cfg.bbox_alpha * box_loss(predictions, objects, positives) / n,
            "M": cfg.mask_alpha * mask_loss(proto, coeff, maps, objects, used, cfg) / n,
            "C": cfg.conf_alpha * class_loss(predictions["conf"], classes, positives, cfg) / n,
        }
        if cfg.use_maskiou:
            head = net.maskiou_net
            assert callable(head)  # torch types every attribute of a module as tensor or module
            loss = mask_iou_loss(head, proto, coeff, maps, objects, used, cfg)
            losses["I"] = cfg.maskiou_alpha * loss / n
        if cfg.use_semantic_segmentation_loss:
            loss = semantic_loss(at_least_float32(predictions["segm"]), objects)
            losses["S"] = cfg.semantic_segmentation_alpha * loss / batch_size
        return losses

    def _normalisers(self, counts: list[int], device: torch.device) -> tuple[Tensor, ...]:
        """What object terms and S are divided by: 0-d tensors."""
        totals = torch.tensor([sum(counts), len(counts)], dtype=torch.float32)
        totals = totals.to(device, non_blocking=True)
        world_size = 1
        if self.normalize == "global" and computes_together():
            dist.all_reduce(totals)
            world_size = dist.get_world_size()
        # differs: no positive at all divides by 1 [yolact.md: Losses]. Way back: none, it gave NaN.
        return totals.clamp(min=1).div(world_size).unbind()


def box_loss(
    predictions: Mapping[str, Tensor], objects: Objects, positives: Positives
) -> Tensor:
    """Sum of smooth-L1 (beta 1) over the four offsets of every positive."""
    loc = at_least_float32(TakeRows.apply(predictions["loc"].flatten(0, 1), positives.priors))
    priors = predictions["priors"]
    target = encode(objects.boxes[positives.object], priors[positives.priors % len(priors)])
    return F.smooth_l1_loss(loc, target.to(loc.dtype), reduction="sum")


def class_loss(
    conf: Tensor, classes: Tensor, positives: Positives, cfg: LossSettings
) -> Tensor:
    """Sum of softmax cross-entropy over the positives and each image's hardest negatives.

    Only those rows are read with a graph, so that the backward pass fills conf's gradient once.
    """
    negative = hard_negatives(conf.detach(), classes, positives.counts, cfg.ohem_negpos_ratio)
    flat_classes = classes.flatten()
    drawn = flat_classes[negative]
    label = torch.cat((flat_classes[positives.priors], drawn.masked_fill(drawn != 0, IGNORE)))
    rows = TakeRows.apply(conf.flatten(0, 1), torch.cat((positives.priors, negative)))
    return F.cross_entropy(at_least_float32(rows), label, ignore_index=IGNORE, reduction="sum")


def hard_negatives(conf: Tensor, classes: Tensor, counts: Sequence[int], ratio: int) -> Tensor:
    """Flat priors of the `ratio` x positives priors per image that look least like background.

    An image with too little background gets some that are not background at the end.
    """
    num_priors = classes.shape[1]
    wanted = [min(ratio * n, num_priors - 1) for n in counts]
    score = background_cost(conf).masked_fill_(classes != 0, -torch.inf)
    order = score.topk(max(wanted), dim=1).indices
    return torch.cat([order[i, :n] + i * num_priors for i, n in enumerate(wanted)])


def background_cost(conf: Tensor) -> Tensor:
    """[B, P, C] logits to [B, P] -log softmax of class 0."""
    # differs: each row subtracts its own maximum, not the batch's, which let low rows underflow
    # [yolact.md: Losses]. Way back: none, where nothing underflows the numbers are equal.
    top = at_least_float32(conf.amax(2))
    cost, scratch = torch.empty_like(top), top.new_empty(conf.shape[1:])
    # One scratch image for all: on a CPU fresh memory costs more than the arithmetic.
    for image, shift, out in zip(conf, top, cost, strict=True):
        torch.sub(at_least_float32(image), shift[:, None], out=scratch)
        torch.sum(scratch.exp_(), dim=1, out=out)
    return cost.log_().add_(top).sub_(conf[:, :, 0])


def semantic_loss(segm: Tensor, objects: Objects) -> Tensor:
    """Binary cross-entropy of the per-class maps, summed over images and classes, mean over pixels.

    segm [B, C-1, h, w] logits. A pixel's target is 1 where any object of the class covers it.
    """
    num_images, num_maps, h, w = segm.shape
    masks = shrink_masks(objects.masks, (h, w)).flatten(1)
    per_image = objects.labels.split(objects.counts)
    own_map = torch.cat([labels + i * num_maps for i, labels in enumerate(per_image)])
    # Objects of one class share the pixels that several of them cover, so that these count once.
    cover = masks.new_zeros(num_images * num_maps, h * w, dtype=torch.int16)
    cover.index_add_(0, own_map, masks.to(torch.int16))
    share = masks / cover[own_map].clamp(min=1)
    logits = segm.flatten(0, 1).flatten(1)
    return SparseTargetBCE.apply(logits, own_map, share.to(segm.dtype)) / (h * w)
