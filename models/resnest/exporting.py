"""--export of a classifier."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.export import export_once
from models.facts import Facts


def export_trained(run: Any, net: nn.Module, facts: Facts, path: Path) -> None:
    """Write the network to `path` for images of the size that it was trained for; run: the Run."""
    side = facts.pixels.sizes[0]
    example = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    export_once(run, net, example, path, output_names=["logits"])
