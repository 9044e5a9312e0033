"""--export of a YOLACT network."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from models.export import export_once
from models.facts import Facts


def export_trained(run: Any, net: Any, facts: Facts, path: Path) -> None:
    """Write the network to `path` for images of the size that it was trained for; run: the Run."""
    side = facts.pixels.sizes[0]
    net.cfg = replace(net.cfg, max_size=side)
    export_once(run, net, torch.zeros(1, 3, side, side), path, method="forward_heads")
