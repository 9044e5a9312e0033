"""One-to-one assignment of predictions to objects by the least total cost.

Shapes: P predictions of an image, G its objects, C classes. Boxes are xyxy pixels.
Source: DETR, arXiv:2005.12872, section 3.1; [queryinst.md: Assignment].
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from common.losses.sparse import at_least_float32
from runtime.errors import Failed

FOCAL_ALPHA, FOCAL_GAMMA = 0.25, 2.0
LOG_EPS = 1e-12
AREA_EPS = 1e-6  # px^2: no union and no enclosing box counts as smaller


@dataclass(frozen=True)
class MatchWeights:
    """Factors of the three costs; alpha and gamma of the class cost."""

    cls: float = 2.0
    l1: float = 5.0
    giou: float = 2.0
    alpha: float = FOCAL_ALPHA
    gamma: float = FOCAL_GAMMA


AS_PUBLISHED = MatchWeights()


def generalized_iou(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """GIoU of boxes [..., 4] xyxy, one with one; leading dimensions broadcast.

    Returns [...] in [-1, 1], at least float32. Source: arXiv:1902.09630.
    """
    a, b = at_least_float32(a), at_least_float32(b)
    size_a, size_b = a[..., 2:] - a[..., :2], b[..., 2:] - b[..., :2]
    overlap = torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])
    around = torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])
    intersection = _area(overlap.clamp(min=0))
    union = (_area(size_a) + _area(size_b) - intersection).clamp(min=AREA_EPS)
    enclosing = _area(around.clamp(min=0)).clamp(min=AREA_EPS)
    return intersection / union - (enclosing - union) / enclosing


def _area(size: torch.Tensor) -> torch.Tensor:
    # not prod(-1), whose backward counts the zeros and waits for the device to tell
    return size[..., 0] * size[..., 1]


def match_cost(
    logits: torch.Tensor,
    boxes: torch.Tensor,
    gt_boxes: torch.Tensor,
    gt_labels: torch.Tensor,
    img_shape: tuple[int, int],
    parts: bool = False,
) -> torch.Tensor | dict[str, torch.Tensor]:
    """What it costs to give each object to each prediction, [P, G], at least float32.

    logits: [P, C]; boxes: [P, 4]; gt_boxes: [G, 4]; gt_labels: [G] int64; img_shape: (h, w)
    parts:  what `cost_parts` gives instead of its sum

    Computed without autocast. Non-finite inputs give non-finite costs.
    """
    costs = cost_parts(logits, boxes, gt_boxes, gt_labels, img_shape)
    return costs if parts else total_cost(costs)


def total_cost(parts: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """The sum of what `cost_parts` gives."""
    return parts["cls"] + parts["l1"] + parts["giou"]


@torch.no_grad()
def cost_parts(
    logits: torch.Tensor,
    boxes: torch.Tensor,
    gt_boxes: torch.Tensor,
    gt_labels: torch.Tensor,
    img_shape: tuple[int, int],
    weights: MatchWeights = AS_PUBLISHED,
) -> dict[str, torch.Tensor]:
    """The weighted summands {"cls", "l1", "giou"} of `match_cost`, from the same arguments."""
    with torch.autocast(logits.device.type, enabled=False):
        logits, boxes = at_least_float32(logits), at_least_float32(boxes)
        gt_boxes = gt_boxes.to(boxes)
        prob = logits[:, gt_labels].sigmoid()
        positive = -(prob + LOG_EPS).log() * weights.alpha * (1 - prob) ** weights.gamma
        negative = -(1 - prob + LOG_EPS).log() * (1 - weights.alpha) * prob**weights.gamma
        height, width = img_shape
        # a blocking copy would wait for the device
        whwh = torch.tensor((width, height) * 2).to(boxes, non_blocking=True)
        distance = ((boxes / whwh)[:, None] - (gt_boxes / whwh)[None]).abs().sum(-1)
        return {
            "cls": weights.cls * (positive - negative),
            "l1": weights.l1 * distance,
            "giou": -weights.giou * generalized_iou(boxes[:, None], gt_boxes[None]),
        }


def hungarian_match(
    logits: torch.Tensor,
    boxes: torch.Tensor,
    gt_boxes: torch.Tensor,
    gt_labels: torch.Tensor,
    img_shape: tuple[int, int],
) -> tuple[torch.Tensor, torch.Tensor]:
    """(proposals ascending, their objects), int64 [min(P, G)] each, on the device of `logits`.

    Arguments as `match_cost`; G = 0 gives empty tensors.
    Raises Failed, naming the part of the cost, when one is not finite.
    """
    costs = cost_parts(logits, boxes, gt_boxes, gt_labels, img_shape)
    bad = [name for name, cost in costs.items() if not cost.isfinite().all()]
    if bad:
        raise Failed(f"matching: the cost {', '.join(bad)} is not finite, so the predictions are "
                     "not; try a lower learning rate or --amp off")
    rows, columns = assign(total_cost(costs).cpu().numpy())
    return torch.from_numpy(rows).to(logits.device), torch.from_numpy(columns).to(logits.device)


def assign(cost: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(rows ascending, columns) of the cheapest assignment of a finite [P, G] matrix, int64."""
    from scipy.optimize import linear_sum_assignment  # here, for the sake of the other families

    rows, columns = linear_sum_assignment(cost)
    return rows.astype(np.int64), columns.astype(np.int64)


def assign_all(
    costs: Sequence[torch.Tensor],
) -> tuple[list[list[tuple[np.ndarray, np.ndarray]]], np.ndarray]:
    """Assignments of S stages and B images with one wait for the device.

    costs: of each image [S, P, G]
    Returns [image][stage] (rows, columns), and bool [B, S]: whether the costs were finite. Where
    they were not, a non-finite cost counts as a very high one, so there is an assignment always.
    """
    flat = torch.cat([cost.flatten() for cost in costs]).cpu().numpy()
    ends = np.cumsum([cost.numel() for cost in costs])
    found, finite = [], np.ones((len(costs), len(costs[0])), bool)
    for i, (cost, part) in enumerate(zip(costs, np.split(flat, ends[:-1]), strict=True)):
        stages = part.reshape(tuple(cost.shape))
        finite[i] = np.isfinite(stages).all((1, 2))
        if not finite[i].all():
            stages = np.where(np.isfinite(stages), stages, 1e9)
        found.append([assign(stage) for stage in stages])
    return found, finite
