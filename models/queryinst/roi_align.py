"""RoIAlign over a pyramid: each box is pooled from its own level, all levels and images at once.

The maps lie in one table with a row for each pixel. A pooled cell is the mean of 2x2 bilinear
samples, so it is a weighted sum of 16 rows, which is what `embedding_bag` computes. Unlike
torchvision's operator this needs no compiled extension, gives the same gradients in every run, and
each level, used or not, gets a gradient.
Source: Mask R-CNN, arXiv:1703.06870; [queryinst.md: Forward pass] ("aligned", sampling 2).
"""

import torch
import torch.nn.functional as F

from models.queryinst.boxes import roi_levels

SAMPLES = 2  # a cell and axis
STRIDES = (4, 8, 16, 32)


class PyramidRows:
    """The levels of a batch, [B, C, h, w] each, finest first, as rows.

    rows: [sum of B h w, C], at least float32
    """

    def __init__(self, levels):
        rows = [level.permute(0, 2, 3, 1).reshape(-1, level.shape[1]) for level in levels]
        self.rows = torch.cat(rows)
        if self.rows.dtype in (torch.float16, torch.bfloat16):
            self.rows = self.rows.float()  # half precision cannot hold the samples' weights
        heights, widths, firsts, first = [], [], [], 0
        for level in levels:
            batch_size, _, height, width = level.shape
            heights.append(height)
            widths.append(width)
            firsts.append(first)
            first += batch_size * height * width
        # of each level: w, h, its first row, its stride; a blocking copy would wait for the device
        layout = torch.tensor([widths, heights, firsts, STRIDES[: len(levels)]])
        self.layout = layout.to(self.rows.device, non_blocking=True)

    def pool(self, boxes, image, size):
        """Pooled features [N, size * size, C], cells row by row.

        boxes: [N, 4] xyxy pixels of the images; they get no gradient
        image: [N] int64, which image of the batch each box is of
        """
        with torch.no_grad():
            boxes = boxes.detach().to(self.rows.dtype)
            layout = self.layout[:, roi_levels(boxes)]
            (width, height), (first, stride) = layout.split(2)
            corners = boxes.t() / stride
            # x and y at once, each [N, size, 4] taps
            (x, y), (x_weight, y_weight) = taps(corners[:2], corners[2:], layout[:2], size)
            # [N, 4] and [N, 4] taps of row and column to [N, rows, columns, 16]
            y = y * width[:, None, None] + (first + image * height * width)[:, None, None]
            index = (y[:, :, None, :, None] + x[:, None, :, None, :]).flatten(3)
            weight = (y_weight[:, :, None, :, None] * x_weight[:, None, :, None, :]).flatten(3)
        pooled = F.embedding_bag(
            index.flatten(0, 2), self.rows, per_sample_weights=weight.flatten(0, 2), mode="sum"
        )
        return pooled.unflatten(0, (len(boxes), size * size))


def taps(start, end, length, size):
    """Which pixels of an axis a cell is made of, int64 [..., size, 4], and their weights.

    start, end: [...] where the box begins and ends, in pixels of the level
    length:     [...] pixels of the level
    """
    start = start - 0.5
    cell = (end - 0.5 - start) / size
    samples = torch.arange(size * SAMPLES, device=start.device, dtype=start.dtype)
    samples = ((samples + 0.5) / SAMPLES).view(size, SAMPLES)
    at = start[..., None, None] + samples * cell[..., None, None]  # [..., size, samples]
    last = (length - 1)[..., None, None].to(at.dtype)
    inside = (at >= -1) & (at <= last + 1)
    at = torch.minimum(at.nan_to_num().clamp(min=0), last)
    lower = at.floor()
    share = at - lower
    upper = torch.minimum(lower + 1, last)
    pixels = torch.stack((lower, upper), dim=-1).flatten(-2).long()
    weights = torch.stack((1 - share, share), dim=-1) * (inside / SAMPLES)[..., None]
    return pixels, weights.flatten(-2)
