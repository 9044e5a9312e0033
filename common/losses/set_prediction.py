"""Losses of QueryInst's stages: classes, boxes and masks of predictions matched one to one.

Shapes: S stages, B images, P proposals an image, N positives (matched proposals) of the whole
batch, image by image and in each by ascending proposal, C classes with C itself as background.
Source: QueryInst, arXiv:2105.01928; specs/queryinst.md section 6.
"""

from dataclasses import dataclass

import torch
import torch.distributed as dist
import torch.nn.functional as F

from common.losses.set_matching import (
    FOCAL_ALPHA,
    FOCAL_GAMMA,
    assign_all,
    generalized_iou,
    match_cost,
)
from common.losses.sparse import at_least_float32

MASK_SIDE = 28
DICE_EPS = 1e-5
NORMALISER_EPS = float(torch.finfo(torch.float32).eps)
MASK_BLOCK_BYTES = 1 << 28  # of bitmaps that are pooled at once


@dataclass(frozen=True)
class SetLossWeights:
    """Factors of the four terms."""

    cls: float = 2.0
    bbox: float = 5.0
    iou: float = 2.0
    mask: float = 8.0


@dataclass(frozen=True)
class Matches:
    """Which proposal of the batch has which object, of one stage.

    rows:     [N] int64, proposals of the batch, image * P + proposal
    image:    [N] int64
    gt_index: list of B, [n] int64: objects within their own image
    labels:   [N] int64; boxes: [N, 4]; whwh: [N, 4] width, height, width, height of the image
    finite:   False: predictions of this stage are not finite
    """

    rows: torch.Tensor
    image: torch.Tensor
    gt_index: list[torch.Tensor]
    labels: torch.Tensor
    boxes: torch.Tensor
    whwh: torch.Tensor
    finite: bool


@torch.no_grad()
def match_stages(logits, boxes, samples) -> list[Matches]:
    """The assignment of every stage, with one wait for the device.

    logits:  [S, B, P, C]; boxes: [S, B, P, 4]
    samples: list of B dicts with boxes [n, 4], labels [n], img_shape (h, w)
    """
    num_stages, _, num_proposals, _ = logits.shape
    costs = [
        match_cost(logits[:, b].flatten(0, 1), boxes[:, b].flatten(0, 1), sample["boxes"],
                   sample["labels"], sample["img_shape"]).unflatten(0, (num_stages, num_proposals))
        for b, sample in enumerate(samples)
    ]
    found, finite = assign_all(costs)
    device = logits.device
    gt_boxes = torch.cat([sample["boxes"] for sample in samples]).to(boxes)
    gt_labels = torch.cat([sample["labels"] for sample in samples])
    firsts = torch.tensor([0] + [len(sample["labels"]) for sample in samples]).cumsum(0)
    whwh = torch.tensor([tuple(sample["img_shape"][::-1]) * 2 for sample in samples]).to(boxes)
    matches = []
    for s in range(num_stages):
        pairs = [[torch.from_numpy(side) for side in stages[s]] for stages in found]
        image = torch.cat([torch.full_like(rows, b) for b, (rows, _) in enumerate(pairs)])
        proposals = torch.cat([rows for rows, _ in pairs])
        columns = torch.cat([columns for _, columns in pairs])
        counts = [len(rows) for rows, _ in pairs]
        # one copy to the device for all indices
        table = torch.stack((image * num_proposals + proposals, image, columns,
                             columns + firsts[image])).to(device)
        rows, image, columns, objects = table
        matches.append(Matches(rows, image, list(columns.split(counts)), gt_labels[objects],
                               gt_boxes[objects], whwh[image], bool(finite[:, s].all())))
    return matches


def mean_positives(samples, num_proposals, device):
    """Matched proposals of the batch, averaged over the ranks, 0-d float32 (all ranks)."""
    count = sum(min(num_proposals, len(sample["labels"])) for sample in samples)
    count = torch.tensor(float(count)).to(device, non_blocking=True)
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(count)
        count /= dist.get_world_size()
    return count


def stage_losses(logits, boxes, mask_logits, targets, matches, average, weights, min_normaliser):
    """{"loss_cls", "loss_bbox", "loss_iou", "loss_mask", "pos_acc"} of one stage, 0-d tensors.

    logits:      [B, P, C]; boxes: [B, P, 4]
    mask_logits: [N, C, 28, 28] of the positives; targets: [N, 28, 28] of 0 and 1
    matches:     a Matches; average: from `mean_positives`
    weights:     a SetLossWeights
    min_normaliser: `average` counts as at least this much for the classes; 0 is the original's,
                 whose loss without any object on any rank is divided by 1e-7

    Without positives the terms of boxes and masks are 0 and still have a graph. All terms are NaN
    when a prediction of the stage is not finite.
    """
    num_classes = logits.shape[-1]
    logits = at_least_float32(logits).flatten(0, 1)
    labels = torch.full((len(logits),), num_classes, device=logits.device)
    labels[matches.rows] = matches.labels
    found = at_least_float32(boxes).flatten(0, 1)[matches.rows]
    distance = (found / matches.whwh - matches.boxes / matches.whwh).abs().sum()
    iou = generalized_iou(found, matches.boxes)
    probs = at_least_float32(mask_logits)[torch.arange(len(targets)), matches.labels].sigmoid()
    # differs: without a single object the classes are divided by 1; min_normaliser=0 undoes it
    by_class = average.clamp(min=min_normaliser) + NORMALISER_EPS
    by_box = average + NORMALISER_EPS
    # parity: only masks had this bound (spec, section 6)
    by_mask = average.clamp(min=1) + NORMALISER_EPS
    # without positives the sums are over nothing, and over nothing of the boxes
    nothing = boxes.sum() * 0
    losses = {
        "loss_cls": weights.cls * sigmoid_focal(logits, labels) / by_class,
        "loss_bbox": weights.bbox * (distance + nothing) / by_box,
        "loss_iou": weights.iou * ((1 - iou).sum() + nothing) / by_box,
        "loss_mask": weights.mask * dice_loss(probs, targets).sum() / by_mask,
    }
    if not matches.finite:
        losses = {name: loss * float("nan") for name, loss in losses.items()}
    with torch.no_grad():
        right = logits[matches.rows].argmax(1) == matches.labels
        losses["pos_acc"] = 100 * right.sum() / max(1, len(matches.rows))
    return losses


def sigmoid_focal(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Unweighted sum of the focal loss over all entries, 0-d, at least float32.

    logits: [N, C]; labels: [N] int64, C is background: no class is right
    Source: arXiv:1708.02002, alpha 0.25, gamma 2.
    """
    with torch.autocast(logits.device.type, enabled=False):
        logits = at_least_float32(logits)
        num_classes = logits.shape[1]
        target = F.one_hot(labels, num_classes + 1)[:, :num_classes].to(logits)
        prob = logits.sigmoid()
        missed = (1 - prob) * target + prob * (1 - target)
        weight = (FOCAL_ALPHA * target + (1 - FOCAL_ALPHA) * (1 - target)) * missed**FOCAL_GAMMA
        cross_entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        return (cross_entropy * weight).sum()


def dice_loss(prob: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """1 - 2 p.t / (p.p + t.t) of each mask, [n], at least float32.

    prob, target: [n, ...] in [0, 1]
    Source: V-Net, arXiv:1606.04797; both squares are increased by 1e-5.
    """
    prob, target = at_least_float32(prob).flatten(1), at_least_float32(target).flatten(1)
    shared = (prob * target).sum(1)
    squares = (prob**2).sum(1) + DICE_EPS + (target**2).sum(1) + DICE_EPS
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
    boxes = boxes.double()
    down = _cell_weights(boxes[:, 1], boxes[:, 3], height)  # [n, 28, H]
    across = _cell_weights(boxes[:, 0], boxes[:, 2], width)
    targets = torch.empty(len(boxes), MASK_SIDE, MASK_SIDE, device=masks.device)
    block = max(1, MASK_BLOCK_BYTES // (8 * max(1, height * width)))
    for i in range(0, len(boxes), block):
        part = slice(i, i + block)
        bitmaps = masks[gt_index[part]].double()
        covered = down[part] @ bitmaps @ across[part].transpose(1, 2)
        targets[part] = (covered >= 0.5).float()
    return targets


def _cell_weights(start, end, length):
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
