"""--export of QueryInst: its heads, or what it detects."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.export import ANY_BATCH, ANY_SIZE, FIXED, export_once
from models.facts import Facts
from models.queryinst.boxes import decode_boxes, proposal_boxes, resize_weights, roi_levels
from models.queryinst.network import BOX_CELLS, MASK_CELLS
from models.queryinst.roi_align import STRIDES, taps
from models.same_detections import largest_difference

OUTPUTS = ("boxes", "scores", "labels", "masks")


def export_trained(
    run: Any, net: Any, facts: Facts, path: Path, detections: bool = False
) -> None:
    """Write the network to `path`; run: the Run.

    detections: boxes, scores, labels and masks come out, see `Detector`, for any size where the
                format allows, else for that which it was trained for; without, all that
                `forward_heads` gives, for that size
    """
    unit = facts.pixels.multiple
    short, long = (-(-side // unit) * unit for side in
                   (facts.pixels.sizes[0], facts.pixels.longest or facts.pixels.sizes[0]))
    if detections:
        images = torch.randn(1, 3, short, long, generator=torch.Generator().manual_seed(0))
        export_once(run, Detector(net), (images, torch.tensor([[short, long]])), path,
                    input_names=["images", "image_sizes"], output_names=OUTPUTS, facts=facts,
                    free=(ANY_SIZE, ANY_BATCH, FIXED), grid=unit, compare=largest_difference)
        return
    images = torch.zeros(1, 3, short, long)
    export_once(run, net, images, path, method="forward_heads", input_names=["images"],
                facts=facts)


class Detector(nn.Module):
    """What `QueryInst.predict` gives, in one graph, all images of a batch at once."""

    def __init__(self, net: Any):
        super().__init__()
        self.net = net

    def forward(self, images, image_sizes):
        """images [B, 3, H, W] float, normalised, padded with 0; image_sizes [B, 2] int64, (h, w)
        of each before padding.

        Returns a dict of K = max_per_img rows, surest first: boxes [B, K, 4] x1 y1 x2 y2, px of
        the input; scores [B, K]; labels [B, K] int64, 0-based; masks [B, K, H, W] bool.
        """
        net, test = self.net, self.net.cfg.model.test_cfg.rcnn
        rows = _Rows(net.neck(net.backbone(images)))
        sizes = image_sizes.flip(1).to(images.dtype)  # (w, h)
        boxes = proposal_boxes(net.rpn_head["init_proposal_bboxes"].weight,
                               torch.cat((sizes, sizes), 1))
        queries = net.rpn_head["init_proposal_features"].weight
        queries = queries.expand(images.shape[0], *queries.shape)
        for head in net.roi_head["bbox_head"]:
            logits, deltas, attended, queries = head(rows.pool(boxes, BOX_CELLS), queries)
            boxes = decode_boxes(boxes, deltas)
        masks = net.roi_head["mask_head"][-1](rows.pool(boxes, MASK_CELLS), attended.flatten(0, 1))
        masks = masks.unflatten(0, tuple(boxes.shape[:2]))  # [B, P, C, 28, 28]

        probs = logits.sigmoid()
        count, classes = probs.shape[1:]
        scores, index = probs.flatten(1).topk(min(test.max_per_img, count * classes), dim=1)
        cells = tuple(masks.shape[3:])
        masks = masks.flatten(1, 2).flatten(2)
        masks = masks.gather(1, index[..., None].expand(*index.shape, masks.shape[2]))
        masks = masks.unflatten(2, cells).sigmoid()
        boxes = boxes.gather(1, (index // classes)[..., None].expand(*index.shape, 4))
        height, width = images.shape[2:]
        down = resize_weights(boxes[..., 1].flatten(), boxes[..., 3].flatten(), height, cells[0])
        across = resize_weights(boxes[..., 0].flatten(), boxes[..., 2].flatten(), width, cells[1])
        pasted = down @ masks.flatten(0, 1) @ across.transpose(1, 2)
        shown = (pasted >= test.mask_thr_binary).unflatten(0, tuple(scores.shape))
        return {"boxes": boxes, "scores": scores, "labels": index % classes, "masks": shown}


class _Rows:
    """`PyramidRows` image by image, with plain gathers, so that the batch may be of any length."""

    def __init__(self, levels):
        rows = [level.flatten(2).transpose(1, 2) for level in levels]
        self.rows = torch.cat(rows, dim=1)  # [B, sum of h w, C]
        layout, first = [], 0
        for level, stride in zip(levels, STRIDES, strict=False):
            height, width = level.shape[2:]
            layout.append(torch.cat([torch.full((1,), value, dtype=torch.int64)
                                     for value in (width, height, first, stride)]))
            first = first + height * width
        self.layout = torch.stack(layout, dim=1)  # [4, levels]

    def pool(self, boxes, size):
        """[B, P, 4] to [B * P, size * size, C], as `PyramidRows.pool`."""
        flat = boxes.flatten(0, 1)
        layout = self.layout[:, roi_levels(flat)]
        width, first, stride = layout[0], layout[2], layout[3]
        corners = flat.t() / stride
        (x, y), (x_weight, y_weight) = taps(corners[:2], corners[2:], layout[:2], size)
        y = y * width[:, None, None] + first[:, None, None]
        index = (y[:, :, None, :, None] + x[:, None, :, None, :]).flatten(3)
        weight = (y_weight[:, :, None, :, None] * x_weight[:, None, :, None, :]).flatten(3)
        channels = self.rows.shape[2]
        index = index.view(*boxes.shape[:2], -1).flatten(1)  # [B, P * cells * 16]
        taken = self.rows.gather(1, index[..., None].expand(*index.shape, channels))
        taken = taken.view(*weight.flatten(0, 2).shape, channels)
        pooled = (taken * weight.flatten(0, 2)[..., None]).sum(1)
        return pooled.unflatten(0, (-1, size * size))
