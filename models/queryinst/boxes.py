"""Box arithmetic of QueryInst. Boxes are xyxy pixels of the resized image, never clipped to it."""

import math

import torch

SHIFT_SCALE = 0.5  # of MMDetection's target_stds (0.5, 0.5, 1, 1)
MAX_LOG_SCALE = abs(math.log(16 / 1000))  # a side grows or shrinks by 62.5 at most
LEVEL_SIDE_PX = 56  # boxes of this side and up to twice as large belong to the finest level
NUM_LEVELS = 4


def decode_boxes(boxes: torch.Tensor, deltas: torch.Tensor) -> torch.Tensor:
    """Boxes moved and scaled by a head's output.

    boxes:  [..., 4] float, xyxy
    deltas: [..., 4] float: shift of the centre in widths and heights, logarithm of the scales
    Returns [..., 4] xyxy. Differentiable in both.
    """
    shift, log_scale = deltas.split(2, dim=-1)
    shift, log_scale = shift * SHIFT_SCALE, log_scale.clamp(-MAX_LOG_SCALE, MAX_LOG_SCALE)
    first, last = boxes.split(2, dim=-1)
    size = last - first
    center = (first + last) * 0.5 + shift * size
    half = size * log_scale.exp() * 0.5
    return torch.cat((center - half, center + half), dim=-1)


def roi_levels(boxes: torch.Tensor) -> torch.Tensor:
    """The pyramid level, int64 [...] from 0 (finest) to 3, that boxes [..., 4] are pooled from."""
    size = boxes[..., 2:] - boxes[..., :2]
    # a learnt proposal may turn inside out; it then counts as small
    side = size.prod(dim=-1).clamp(min=0).sqrt()
    level = (side / LEVEL_SIDE_PX + 1e-6).log2().floor()
    return level.nan_to_num().clamp(0, NUM_LEVELS - 1).long()


def proposal_boxes(proposals: torch.Tensor, whwh: torch.Tensor) -> torch.Tensor:
    """[P, 4] learnt cxcywh fractions and [B, 4] (w, h, w, h) to [B, P, 4] xyxy pixels."""
    center, size = proposals.split(2, dim=-1)
    return torch.cat((center - size / 2, center + size / 2), dim=-1) * whwh[:, None]
