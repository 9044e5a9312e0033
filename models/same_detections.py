"""Whether two programs found the same objects, though not in the same order where scores tie."""

import math
from collections.abc import Mapping

import torch

SCORE_GAP = 1e-4  # scores that differ by less may change places, or fall off the list's end


def largest_difference(
    wanted: Mapping[str, torch.Tensor], found: Mapping[str, torch.Tensor]
) -> float:
    """The largest of: differences of scores, of boxes as a fraction of the largest coordinate, and
    shares of a mask's pixels that differ; infinite where an object is missing.

    wanted, found: boxes [B, K, 4], scores [B, K], surest first, labels [B, K], masks [B, K, H, W],
                   and maybe mask_scores [B, K]; rows with score 0 are empty
    """
    largest = (wanted["scores"] - found["scores"]).abs().max().item()
    scale = max(1.0, wanted["boxes"].abs().max().item())
    for image in range(len(wanted["scores"])):
        ours, theirs = ({name: value[image] for name, value in each.items()}
                        for each in (wanted, found))
        floor = max(ours["scores"][-1].item() + SCORE_GAP, 0.0)
        for i in (ours["scores"] > floor).nonzero().flatten().tolist():
            same = (theirs["scores"] - ours["scores"][i]).abs() <= SCORE_GAP
            rows = (same & (theirs["labels"] == ours["labels"][i])).nonzero().flatten()
            if not len(rows):
                return math.inf
            distance = (theirs["boxes"][rows] - ours["boxes"][i]).abs().amax(1)
            j = rows[distance.argmin()]
            largest = max(largest, distance.min().item() / scale,
                          (theirs["masks"][j] != ours["masks"][i]).float().mean().item())
            if "mask_scores" in ours:
                gap = (theirs["mask_scores"][j] - ours["mask_scores"][i]).abs().item()
                largest = max(largest, gap)
    return largest
