"""--export of a YOLACT network: its heads, or what it detects."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from common.losses.boxes import crop_masks, decode, pairwise_iou
from models.export import ANY_BATCH, FIXED, export_once
from models.facts import Facts
from models.same_detections import largest_difference
from runtime.errors import InputError

OUTPUTS = ("boxes", "scores", "labels", "masks")


def export_trained(
    run: Any, net: Any, facts: Facts, path: Path, detections: bool = False,
    fast_nms: bool = True, cross_class_nms: bool = False,
) -> None:
    """Write the network to `path` for images of the size that it was trained for; run: the Run.

    detections: boxes, scores, labels and masks come out, see `Detector`; else the heads' outputs
    fast_nms, cross_class_nms: as in `detect`, for these. Raises InputError for traditional NMS,
                               whose number of steps depends on what is found
    """
    if detections and not fast_nms:
        raise InputError("--fast_nms=False: a graph of fixed shapes has no traditional NMS; leave "
                         "it out, or --export-detections")
    side = facts.pixels.sizes[0]
    net.cfg = replace(net.cfg, max_size=side)
    images = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    # the priors are those of one size
    how = {"facts": facts, "free": (ANY_BATCH, FIXED), "input_names": ["images"]}
    if detections:
        names = [*OUTPUTS, "mask_scores"] if rescores(net.cfg) else OUTPUTS
        export_once(run, Detector(net, cross_class_nms), images, path, output_names=names,
                    compare=largest_difference, **how)
    else:
        export_once(run, net, images, path, method="forward_heads", **how)


def rescores(cfg: Any) -> bool:
    """Whether masks have scores of their own (YOLACT++)."""
    return cfg.use_maskiou and cfg.rescore_mask


class Detector(nn.Module):
    """Network, Fast NMS and masks in one graph of fixed shapes, all images of a batch at once.

    What `detect` and `postprocess` give, in K = max_num_detections rows an image; of all classes
    at once (`cross_class_nms`) in nms_top_k.
    """

    def __init__(self, net: Any, cross_class_nms: bool = False):
        super().__init__()
        self.net = net
        self.best = _best_of_all if cross_class_nms else _best

    def forward(self, images):
        """images [B, 3, S, S] float, normalised.

        Returns a dict, surest first: boxes [B, K, 4] float x1 y1 x2 y2, px of the input; scores
        [B, K], 0 where nothing more was found; labels [B, K] int64, 0-based; masks [B, K, S, S]
        bool; and mask_scores [B, K] from a network that predicts them.
        """
        cfg = self.net.cfg
        found = self.net.forward_heads(images)
        boxes = decode(found["loc"], found["priors"])  # [B, P, 4]
        score, label, prior = self.best(boxes, found["conf"].softmax(-1)[..., 1:], cfg)
        boxes, coefficients = _rows(boxes, prior), _rows(found["mask"], prior)

        proto = found["proto"]  # [B, h, w, M]
        soft = torch.sigmoid(coefficients @ proto.flatten(1, 2).transpose(1, 2))
        soft = soft.flatten(0, 1).unflatten(1, proto.shape[1:3])
        soft = crop_masks(soft, boxes.flatten(0, 1))[:, None]  # [B * K, 1, h, w]
        outputs = {}
        if rescores(cfg):
            ious = self.net.maskiou_net(soft).gather(1, label.flatten()[:, None])
            outputs["mask_scores"] = score.clamp(min=0) * ious.view_as(score)
            if cfg.rescore_bbox:
                score = torch.where(score < 0, score, outputs["mask_scores"])
        side = cfg.max_size
        masks = F.interpolate(soft, size=(side, side), mode="bilinear", align_corners=False) > 0.5
        first, second = boxes.split(2, dim=-1)
        corners = torch.cat((torch.minimum(first, second), torch.maximum(first, second)), dim=-1)
        return {"boxes": corners.clamp(0, 1) * side, "scores": score.clamp(min=0), "labels": label,
                "masks": masks.view(*score.shape, side, side) & (score >= 0)[..., None, None],
                **outputs}


def _best(boxes, scores, cfg):
    """Fast NMS of boxes [B, P, 4] with scores [B, P, C]: score (-1: none), label, prior [B, K]."""
    passes = scores.amax(2, keepdim=True) > cfg.nms_conf_thresh
    # what does not pass comes last, and so suppresses nothing that does
    scores = torch.where(passes, scores, -1.0).transpose(1, 2)  # [B, C, P]
    top = min(cfg.nms_top_k, scores.shape[2])
    scores, prior = scores.topk(top, dim=2)  # [B, C, t], best first
    flat = _rows(boxes, prior.flatten(1))
    candidates = flat.unflatten(1, tuple(prior.shape[1:]))
    overlap = pairwise_iou(candidates, candidates).triu(diagonal=1).amax(-2)
    scores = torch.where((overlap <= cfg.nms_thresh) & (scores >= 0), scores, -1.0).flatten(1)
    score, order = scores.topk(min(cfg.max_num_detections, scores.shape[1]), dim=1)
    return score, order // top, prior.flatten(1).gather(1, order)


def _best_of_all(boxes, scores, cfg):
    """`_best` over each prior's best class, whatever the classes of the boxes compared."""
    scores, label = scores.max(2)  # [B, P]
    scores = torch.where(scores > cfg.nms_conf_thresh, scores, -1.0)
    scores, prior = scores.topk(min(cfg.nms_top_k, scores.shape[1]), dim=1)  # best first
    candidates = _rows(boxes, prior)
    overlap = pairwise_iou(candidates, candidates).triu(diagonal=1).amax(-2)
    scores = torch.where((overlap <= cfg.nms_thresh) & (scores >= 0), scores, -1.0)
    score, order = scores.topk(scores.shape[1], dim=1)  # what is left comes first
    prior = prior.gather(1, order)
    return score, label.gather(1, prior), prior


def _rows(table, index):
    """[B, P, n] and [B, K] row numbers to [B, K, n]."""
    return table.gather(1, index[..., None].expand(*index.shape, table.shape[-1]))
