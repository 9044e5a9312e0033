"""Small masks to bitmaps of the image. Source: [queryinst.md: Inference]."""

import torch


@torch.no_grad()
def paste_masks(
    masks: torch.Tensor, boxes: torch.Tensor, size: tuple[int, int], threshold: float = 0.5
) -> torch.Tensor:
    """[k, h, w] bool: masks [k, s, s], probabilities, stretched into their boxes [k, 4] xyxy.

    size: (h, w) of the image in pixels, which boxes may exceed
    Bilinear at the pixels' centres, in float32, with zeros around; a pixel is set where the value
    reaches the threshold. That is separable: two small products of matrices for each mask, over the
    pixels of its box only, so little memory is needed whatever the size.
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
