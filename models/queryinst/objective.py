"""What a QueryInst config says of losses and matching, stage by stage.

Stages that are alike are computed together: with one section for all of them that is all.
"""

from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import torch

from common.losses.set_matching import MatchWeights
from common.losses.set_prediction import Matches, SetLossWeights, stage_losses
from settings.queryinst.heads import BboxHeadConfig, MaskHeadConfig, RcnnTrainConfig
from settings.queryinst.model import ModelConfig


def cost_weights(rcnn: RcnnTrainConfig) -> MatchWeights:
    """The matching costs of a stage; one that is not listed counts nothing."""
    costs: dict[str, Any] = {cost.type: cost for cost in rcnn.assigner.match_costs}
    weights = {key: costs[name].weight if name in costs else 0.0
               for key, name in (("cls", "FocalLossCost"), ("l1", "BBoxL1Cost"),
                                 ("giou", "IoUCost"))}
    focal = costs.get("FocalLossCost")
    shape = {} if focal is None else {"alpha": focal.alpha, "gamma": focal.gamma}
    return MatchWeights(**weights, **shape)


def loss_weights(bbox: BboxHeadConfig, mask: MaskHeadConfig, rcnn: RcnnTrainConfig
                 ) -> SetLossWeights:
    """The losses of a stage."""
    return SetLossWeights(
        bbox.loss_cls.loss_weight, bbox.loss_bbox.loss_weight, bbox.loss_iou.loss_weight,
        mask.loss_mask.loss_weight, positive=rcnn.pos_weight if rcnn.pos_weight > 0 else 1.0,
        alpha=bbox.loss_cls.alpha, gamma=bbox.loss_cls.gamma, dice_eps=mask.loss_mask.eps)


def of_stages(matches: Matches, part: slice) -> Matches:
    """Those of some of the stages."""
    return replace(matches, rows=matches.rows[part], objects=matches.objects[part],
                   labels=matches.labels[part], boxes=matches.boxes[part],
                   finite=matches.finite[part])


@dataclass(frozen=True)
class Objective:
    """costs and weights, each of the S stages."""

    costs: tuple[MatchWeights, ...]
    weights: tuple[SetLossWeights, ...]

    @classmethod
    def of(cls, model: ModelConfig) -> "Objective":
        """What the config's section asks for."""
        stages = zip(model.roi_head.bbox_heads, model.roi_head.mask_heads, model.rcnns, strict=True)
        return cls(tuple(map(cost_weights, model.rcnns)),
                   tuple(loss_weights(*stage) for stage in stages))

    def losses(
        self, logits: torch.Tensor, boxes: torch.Tensor, masks: torch.Tensor,
        targets: torch.Tensor, matches: Matches, average: torch.Tensor, min_normaliser: float,
    ) -> dict[str, torch.Tensor]:
        """As `stage_losses`, from the same arguments."""
        parts, first = [], 0
        for weights, alike in groupby(self.weights):
            part = slice(first, first + len(list(alike)))
            parts.append(stage_losses(
                logits[part], boxes[part], masks[part], targets[part], of_stages(matches, part),
                average, weights, min_normaliser))
            first = part.stop
        return {name: torch.cat([terms[name] for terms in parts]) for name in parts[0]}
