"""RoIAlign over a pyramid: each box is pooled from its own level, all levels and images at once.

The maps lie in one table with a row for each pixel. A pooled cell is the mean of 2x2 bilinear
samples, so it is a weighted sum of 16 rows, which is what `embedding_bag` computes. Unlike
torchvision's operator this needs no compiled extension, gives the same gradients in every run, and
each level, used or not, gets a gradient.
Source: Mask R-CNN, arXiv:1703.06870; specs/queryinst.md section 4 ("aligned", sampling ratio 2).
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
        # of each level: h, w, its first row, its stride; a blocking copy would wait for the device
        layout = torch.tensor([heights, widths, firsts, STRIDES[: len(levels)]])
        self.layout = layout.to(self.rows.device, non_blocking=True)

    def pool(self, boxes, image, size):
        """Pooled features [N, size * size, C], cells row by row.

        boxes: [N, 4] xyxy pixels of the images; they get no gradient
        image: [N] int64, which image of the batch each box is of
        """
        with torch.no_grad():
            boxes = boxes.detach().to(self.rows.dtype)
            level = roi_levels(boxes)
            height, width, first, stride = self.layout[:, level]
            scale = 1 / stride.to(boxes.dtype)
            y, y_weight = _taps(boxes[:, 1], boxes[:, 3], scale, height, size)
            x, x_weight = _taps(boxes[:, 0], boxes[:, 2], scale, width, size)
            # [N, 4] and [N, 4] taps of row and column to [N, rows, columns, 16]
            y = y * width[:, None, None] + (first + image * height * width)[:, None, None]
            index = (y[:, :, None, :, None] + x[:, None, :, None, :]).flatten(3)
            weight = (y_weight[:, :, None, :, None] * x_weight[:, None, :, None, :]).flatten(3)
        pooled = F.embedding_bag(
            index.flatten(0, 2), self.rows, per_sample_weights=weight.flatten(0, 2), mode="sum"
        )
        return pooled.unflatten(0, (len(boxes), size * size))


def _taps(start, end, scale, length, size):
    """One axis: which pixels a cell is made of, int64 [N, size, 4], and their weights.

    start, end: [N] in image pixels; length: [N] pixels of the level
    """
    start = start * scale - 0.5
    cell = (end * scale - 0.5 - start) / size
    cells = torch.arange(size, device=start.device, dtype=start.dtype)
    parts = (torch.arange(SAMPLES, device=start.device, dtype=start.dtype) + 0.5) / SAMPLES
    at = start[:, None, None] + (cells[:, None] + parts) * cell[:, None, None]  # [N, size, samples]
    last = (length - 1)[:, None, None].to(at.dtype)
    inside = (at >= -1) & (at <= last + 1)
    at = torch.minimum(at.nan_to_num().clamp(min=0), last)
    lower = at.floor()
    upper_weight = (at - lower) * inside / SAMPLES
    lower_weight = (1 - (at - lower)) * inside / SAMPLES
    upper = torch.minimum(lower + 1, last)
    pixels = torch.stack((lower, upper), dim=-1).flatten(2).long()
    return pixels, torch.stack((lower_weight, upper_weight), dim=-1).flatten(2)
