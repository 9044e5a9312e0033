"""Box arithmetic of QueryInst, and masks put into boxes.

Boxes are xyxy pixels of the resized image, never clipped to it.
"""

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


@torch.no_grad()
def paste_masks(
    masks: torch.Tensor, boxes: torch.Tensor, size: tuple[int, int], threshold: float = 0.5
) -> torch.Tensor:
    """[k, h, w] bool: masks [k, s, s], probabilities, stretched into their boxes [k, 4] xyxy.

    size: (h, w) of the image in pixels, which boxes may exceed
    Bilinear at the pixels' centres, in float32, with zeros around; a pixel is set where the value
    reaches the threshold. That is separable: two small products of matrices for each mask, over the
    pixels of its box only, so little memory is needed whatever the size.
    Source: [queryinst.md: Inference].
    """
    height, width = size
    masks, boxes = masks.float(), boxes.float()
    down = resize_weights(boxes[:, 1], boxes[:, 3], height, masks.shape[1])
    across = resize_weights(boxes[:, 0], boxes[:, 2], width, masks.shape[2])
    limits = boxes.new_tensor((width, height))
    first = torch.minimum((boxes[:, :2].floor() - 1).clamp(min=0), limits).nan_to_num()
    last = torch.minimum((boxes[:, 2:].ceil() + 1).clamp(min=0), limits).nan_to_num()
    windows = torch.cat((first, last), 1).long().tolist()
    pasted = torch.zeros(len(masks), height, width, dtype=torch.bool, device=masks.device)
    for i, (x0, y0, x1, y1) in enumerate(windows):
        values = down[i, y0:y1] @ masks[i] @ across[i, x0:x1].T
        pasted[i, y0:y1, x0:x1] = values >= threshold
    return pasted


def resize_weights(start, end, length, side):
    """[k, length, side] float32: how much each cell of a mask counts at each pixel of an axis."""
    at = torch.arange(length, device=start.device, dtype=torch.float32) + 0.5
    at = (at - start[:, None]) / (end - start)[:, None] * 2 - 1
    # parity: boxes without extent show the mask's centre [queryinst.md: Inference]
    at = torch.where(at.isinf(), 0.0, at)
    at = ((at + 1) * side - 1) / 2
    cells = torch.arange(side, device=start.device)
    return (1 - (at[..., None] - cells).abs()).clamp(min=0).nan_to_num()
