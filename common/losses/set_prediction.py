"""Losses of QueryInst's stages: classes, boxes and masks of predictions matched one to one.

Shapes: S stages, B images, P proposals an image, N positives (matched proposals) of the whole
batch, image by image and in each by ascending proposal, C classes with C itself as background.
Source: QueryInst, arXiv:2105.01928; [queryinst.md: Losses].
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TypedDict

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F

from common.losses.set_matching import (
    AS_PUBLISHED,
    FOCAL_ALPHA,
    FOCAL_GAMMA,
    MatchWeights,
    assign_all,
    cost_parts,
    generalized_iou,
    total_cost,
)
from common.losses.sparse import at_least_float32
from runtime.launch.ranks import computes_together

MASK_SIDE = 28
DICE_EPS = 1e-5
NORMALISER_EPS = float(torch.finfo(torch.float32).eps)
MASK_BLOCK_BYTES = 1 << 28  # of bitmaps that are pooled at once


@dataclass(frozen=True)
class SetLossWeights:
    """Factors of the four terms and of matched proposals in the first; what shapes the terms."""

    cls: float = 2.0
    bbox: float = 5.0
    iou: float = 2.0
    mask: float = 8.0
    positive: float = 1.0
    alpha: float = FOCAL_ALPHA
    gamma: float = FOCAL_GAMMA
    dice_eps: float = DICE_EPS


class Truth(TypedDict):
    """What the stages read of an image's sample."""

    boxes: torch.Tensor  # [n, 4]
    labels: torch.Tensor  # [n] int64
    img_shape: tuple[int, int]  # (h, w)


@dataclass(frozen=True)
class Matches:
    """Which proposal of the batch has which object, in every stage.

    rows:    [S, N] int64, proposals of the batch, image * P + proposal
    image:   [N] int64, the same in all stages
    objects: [S, N] int64, objects of the batch, numbered image by image
    labels:  [S, N] int64; boxes: [S, N, 4]
    whwh:    [N, 4] width, height, width, height of the image
    finite:  [S] whether the predictions of the stage are finite
    """

    rows: torch.Tensor
    image: torch.Tensor
    objects: torch.Tensor
    labels: torch.Tensor
    boxes: torch.Tensor
    whwh: torch.Tensor
    finite: list[bool]

    def boxes_of(self, boxes: torch.Tensor) -> torch.Tensor:
        """The matched ones, [S, N, 4], of the boxes of all proposals, [S, B, P, 4]."""
        return boxes.flatten(1, 2).gather(1, self.rows[..., None].expand(-1, -1, 4))


@torch.no_grad()
def match_stages(
    logits: torch.Tensor, boxes: torch.Tensor, samples: Sequence[Truth],
    weights: Sequence[MatchWeights] = (),
) -> Matches:
    """The assignment of every stage, with one wait for the device.

    logits:  [S, B, P, C]; boxes: [S, B, P, 4]
    samples: of the B images; weights: of the S stages
    """
    num_stages, _, num_proposals, _ = logits.shape
    alike = [(kind, len(list(same))) for kind, same in groupby(weights)] or [
        (AS_PUBLISHED, num_stages)]
    counts = [count for _, count in alike]
    costs = [
        torch.cat([total_cost(cost_parts(
            some_logits.flatten(0, 1), some_boxes.flatten(0, 1), sample["boxes"],
            sample["labels"], sample["img_shape"], kind)).unflatten(0, (count, num_proposals))
            for (kind, count), some_logits, some_boxes in zip(
                alike, logits[:, b].split(counts), boxes[:, b].split(counts), strict=True)])
        for b, sample in enumerate(samples)
    ]
    found, finite = assign_all(costs)
    counts = [len(stages[0][0]) for stages in found]
    image = np.repeat(np.arange(len(samples)), counts)
    first_object = np.cumsum([0] + [len(sample["labels"]) for sample in samples])
    rows, objects = (
        np.array([np.concatenate([stages[s][side] for stages in found]) for s in range(num_stages)])
        for side in (0, 1)
    )
    whwh = torch.tensor([tuple(sample["img_shape"][::-1]) * 2 for sample in samples])[image]

    def sent(array: np.ndarray | torch.Tensor) -> torch.Tensor:
        # a blocking copy would wait for the device
        return torch.as_tensor(array).to(logits.device, non_blocking=True)

    # one copy for all indices
    table = sent(np.vstack((rows + image * num_proposals, objects + first_object[image], image)))
    rows, objects, (image,) = table.split((num_stages, num_stages, 1))
    gt_labels = torch.cat([sample["labels"] for sample in samples])
    gt_boxes = torch.cat([sample["boxes"] for sample in samples]).to(boxes)
    return Matches(rows, image, objects, gt_labels[objects], gt_boxes[objects],
                   sent(whwh).to(boxes), np.all(finite, axis=0).tolist())


def mean_positives(
    samples: Sequence[Truth], num_proposals: int, device: torch.device
) -> torch.Tensor:
    """Matched proposals of the batch, averaged over the ranks, 0-d float32 (all ranks)."""
    own = sum(min(num_proposals, len(sample["labels"])) for sample in samples)
    count = torch.tensor(float(own)).to(device, non_blocking=True)
    if computes_together():
        dist.all_reduce(count)
        count /= dist.get_world_size()
    return count


def stage_losses(
    logits: torch.Tensor,
    boxes: torch.Tensor,
    masks: torch.Tensor,
    targets: torch.Tensor,
    matches: Matches,
    average: torch.Tensor,
    weights: SetLossWeights,
    min_normaliser: float,
) -> dict[str, torch.Tensor]:
    """{"loss_cls", "loss_bbox", "loss_iou", "loss_mask", "pos_acc"}, each [S].

    logits:  [S, B, P, C]; boxes: [S, B, P, 4]
    masks:   [S, N, 28, 28] logits of the positives, each of its object's class
    targets: [S, N, 28, 28] of 0 and 1
    average: from `mean_positives`
    min_normaliser: `average` counts as at least this much for the classes; 0 is the original's,
             whose loss without any object on any rank is divided by 1e-7

    Without positives the terms of boxes and masks are 0 and still have a graph. All terms of a
    stage are NaN when a prediction of it is not finite.
    """
    num_classes = logits.shape[-1]
    logits, boxes = at_least_float32(logits).flatten(1, 2), at_least_float32(boxes)
    labels = torch.full(logits.shape[:2], num_classes, device=logits.device)
    labels.scatter_(1, matches.rows, matches.labels)
    found = matches.boxes_of(boxes)
    distance = (found / matches.whwh - matches.boxes / matches.whwh).abs().sum((1, 2))
    iou = generalized_iou(found, matches.boxes)
    dice = dice_loss(at_least_float32(masks).sigmoid().flatten(0, 1), targets.flatten(0, 1),
                     weights.dice_eps)
    focal = focal_terms(logits, labels, weights.alpha, weights.gamma)
    if weights.positive != 1:
        focal = torch.where((labels < num_classes)[..., None], weights.positive * focal, focal)
    # differs: without a single object the classes are divided by 1 [queryinst.md: Losses]
    # Way back: min_normaliser = 0, an attribute of the network.
    by_class = average.clamp(min=min_normaliser) + NORMALISER_EPS
    by_box = average + NORMALISER_EPS
    # parity: only masks had this bound [queryinst.md: Losses]
    by_mask = average.clamp(min=1) + NORMALISER_EPS
    # without positives the sums are over nothing, and over nothing of the boxes
    nothing = boxes.sum((1, 2, 3)) * 0
    losses = {
        "loss_cls": weights.cls * focal.sum((1, 2)) / by_class,
        "loss_bbox": weights.bbox * (distance + nothing) / by_box,
        "loss_iou": weights.iou * ((1 - iou).sum(1) + nothing) / by_box,
        "loss_mask": weights.mask * dice.view(len(masks), -1).sum(1) / by_mask,
    }
    if not all(matches.finite):
        factor = logits.new_tensor([1.0 if finite else math.nan for finite in matches.finite])
        losses = {name: loss * factor for name, loss in losses.items()}
    with torch.no_grad():
        surest = logits.argmax(2).gather(1, matches.rows)
        right = (surest == matches.labels).sum(1)
        losses["pos_acc"] = 100 * right / max(1, matches.rows.shape[1])
    return losses


def sigmoid_focal(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Unweighted sum of the focal loss over all entries, 0-d, at least float32.

    logits: [N, C]; labels: [N] int64, C is background: no class is right
    """
    return focal_terms(logits, labels).sum()


def focal_terms(
    logits: torch.Tensor, labels: torch.Tensor, alpha: float = FOCAL_ALPHA,
    gamma: float = FOCAL_GAMMA,
) -> torch.Tensor:
    """The focal loss of each entry of logits [..., C], with labels [...] int64, C is background.

    Source: arXiv:1708.02002.
    """
    with torch.autocast(logits.device.type, enabled=False):
        logits = at_least_float32(logits)
        num_classes = logits.shape[-1]
        target = F.one_hot(labels, num_classes + 1)[..., :num_classes].to(logits)
        prob = logits.sigmoid()
        missed = (1 - prob) * target + prob * (1 - target)
        weight = (alpha * target + (1 - alpha) * (1 - target)) * missed**gamma
        cross_entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        return cross_entropy * weight


def dice_loss(
    prob: torch.Tensor, target: torch.Tensor, eps: float = DICE_EPS
) -> torch.Tensor:
    """1 - 2 p.t / (p.p + t.t) of each mask, [n], at least float32.

    prob, target: [n, ...] in [0, 1]
    Source: V-Net, arXiv:1606.04797; both squares are increased by eps.
    """
    prob, target = at_least_float32(prob).flatten(1), at_least_float32(target).flatten(1)
    shared = (prob * target).sum(1)
    squares = (prob**2).sum(1) + eps + (target**2).sum(1) + eps
    return 1 - 2 * shared / squares


@torch.no_grad()
def mask_targets(
    masks: torch.Tensor, boxes: torch.Tensor, gt_index: torch.Tensor
) -> torch.Tensor:
    """What a mask head should give: each object inside a box, [n, 28, 28] float32 of 0 and 1.

    masks:    [G, H, W] bool or numbers of 0 and 1, at the padded size
    boxes:    [n, 4] xyxy pixels; they are clipped to the bitmap here
    gt_index: [n] int64, the object of each box
    A cell is 1 where at least half of it is covered: RoIAlign with as many samples a cell as it has
    pixels. Sampling a bitmap on a grid is separable, so two products of matrices do it.
    """
    height, width = masks.shape[1:]
    block = max(1, MASK_BLOCK_BYTES // (8 * max(1, height * width)))
    # the weights of so many boxes take about as much as one block of bitmaps
    weighed = block * max(1, height * width // (MASK_SIDE * max(1, height + width)))
    covered = [_covered(masks, *part, block) for part in
               zip(boxes.double().split(weighed), gt_index.split(weighed), strict=True)]
    return (torch.cat(covered) >= 0.5).float()


def _covered(
    masks: torch.Tensor, boxes: torch.Tensor, gt_index: torch.Tensor, block: int
) -> torch.Tensor:
    """[n, 28, 28] float64, the covered share of each cell; `block` bitmaps at once."""
    height, width = masks.shape[1:]
    down = _cell_weights(boxes[:, 1], boxes[:, 3], height)  # [n, 28, H]
    across = _cell_weights(boxes[:, 0], boxes[:, 2], width)
    blocks = zip(down.split(block), across.split(block), gt_index.split(block), strict=True)
    return torch.cat([weights_down @ masks[index].double() @ weights_across.transpose(1, 2)
                      for weights_down, weights_across, index in blocks])


def _cell_weights(start: torch.Tensor, end: torch.Tensor, length: int) -> torch.Tensor:
    """[n, 28, length] float64: how much each pixel of an axis counts in each cell of each box."""
    start = start.clamp(0, length) - 0.5
    extent = end.clamp(0, length) - 0.5 - start
    cell = extent / MASK_SIDE
    count = cell.ceil().clamp(min=1)  # samples of a cell
    sample = torch.arange(max(1, -(-length // MASK_SIDE)), device=start.device)
    cells = torch.arange(MASK_SIDE, device=start.device)
    step = (sample + 0.5) * (cell / count)[:, None]
    at = (start[:, None] + cells * cell[:, None])[:, :, None] + step[:, None]  # [n, 28, samples]
    used = (sample < count[:, None])[:, None] & (extent > 0)[:, None, None]
    at = at.nan_to_num().clamp(0, length - 1)
    lower = at.floor()
    upper_weight = (at - lower) * used / count[:, None, None]
    lower_weight = (1 - (at - lower)) * used / count[:, None, None]
    weights = at.new_zeros(len(start), MASK_SIDE, length)
    weights.scatter_add_(2, lower.long(), lower_weight)
    weights.scatter_add_(2, (lower + 1).clamp(max=length - 1).long(), upper_weight)
    return weights
