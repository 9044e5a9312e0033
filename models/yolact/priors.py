"""Priors: the boxes at each cell of each pyramid level that the heads' offsets start from."""

import math

import torch

from common.losses.boxes import center_to_corner, pairwise_iou


def make_priors(cfg, level_sizes, device=None):
    """Priors of all levels, finest first.

    cfg:          a YOLACT config with a backbone
    level_sizes:  (h, w) of each level, cells
    Returns [P, 4] float32, cx cy w h as fractions of the image; cells row by row, and at each cell
    the priors in the order of aspect lists, scales, ratios. Not clipped. [yolact.md: Priors]
    """
    levels = [
        _level_priors(cfg, level, height, width, device)
        for level, (height, width) in enumerate(level_sizes)
    ]
    return torch.cat(levels).to(torch.float32)


def _level_priors(cfg, level, height, width, device):
    # parity: computed in double precision, the result rounded once [yolact.md: Priors]
    options = {"dtype": torch.float64, "device": device}
    shapes = torch.tensor(_prior_shapes(cfg, level, height, width), **options)
    y = (torch.arange(height, **options) + 0.5) / height
    x = (torch.arange(width, **options) + 0.5) / width
    grid = (height, width, len(shapes))
    centers = torch.stack((x[None, :, None].expand(grid), y[:, None, None].expand(grid)), dim=-1)
    return torch.cat((centers, shapes.expand(*grid, 2)), dim=-1).reshape(-1, 4)


def _prior_shapes(cfg, level, height, width):
    """(w, h) of the priors at one cell, as fractions of the image."""
    backbone = cfg.backbone
    unit_w, unit_h = (cfg.max_size, cfg.max_size) if backbone.use_pixel_scales else (width, height)
    shapes = []
    for ratios in backbone.pred_aspect_ratios[level]:
        for scale in backbone.pred_scales[level]:
            for ratio in ratios:
                root = ratio if backbone.preapply_sqrt else math.sqrt(ratio)
                w, h = scale * root / unit_w, scale / root / unit_h
                # parity: "square" keeps the width, so three ratios give three sizes
                # [yolact.md: Priors]
                shapes.append((w, w if backbone.use_square_anchors else h))
    return shapes


def unmatched(boxes, priors, threshold):
    """Which objects no prior matches: bool [n], best IoU with a prior below `threshold`.

    boxes: [n, 4] x1 y1 x2 y2 relative; priors: [P, 4] cx cy w h relative
    """
    corners = center_to_corner(priors)
    parts = [pairwise_iou(part, corners).amax(1) < threshold for part in boxes.split(64)]
    return torch.cat(parts) if parts else boxes.new_zeros(0, dtype=torch.bool)
