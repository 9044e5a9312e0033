"""--export of encoder and decoder as one network."""

from pathlib import Path
from typing import Any

import torch

from models.export import ANY_BATCH, ANY_SIZE, FIXED, export_once
from models.facts import Facts
from models.segmentation.network import scoring


def export_trained(run: Any, module: Any, facts: Facts, path: Path) -> None:
    """Write the network to `path`; run: the Run.

    images [B, 3, H, W] to probabilities [B, C, H, W], for squares of the smallest size that it was
    trained for, and others, multiples of the padding, where decoder and format allow.
    """
    unit = facts.pixels.multiple
    side = max(1, min(facts.pixels.sizes) // unit) * unit
    images = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    with scoring(module):
        export_once(run, module, images, path, method="class_probabilities",
                    input_names=["images"], output_names=["probabilities"], facts=facts,
                    free=(ANY_SIZE, ANY_BATCH, FIXED), grid=unit)
