"""--export of a classifier."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.export import ANY_BATCH, ANY_SIZE, FIXED, export_once
from models.facts import Facts


def export_trained(run: Any, net: nn.Module, facts: Facts, path: Path) -> None:
    """Write the network to `path`: images [B, 3, H, W] to logits [B, C]; run: the Run.

    The size is that it was trained for, and others where the format allows.
    """
    side = facts.pixels.sizes[0]
    images = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    export_once(run, net, images, path, input_names=["images"], output_names=["logits"],
                facts=facts, free=(ANY_SIZE, ANY_BATCH, FIXED))
