"""What a classifier and its files say of themselves."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from models.facts import Facts, Pixels, facts_in, with_facts
from models.load_report import bare_state_dict
from settings.datasets import IMAGENET_MEAN, IMAGENET_STD, in_levels, known_names
from settings.resnest import ResNeStConfig

FAMILY = "resnest"


def facts_of(
    cfg: ResNeStConfig, names: Sequence[str] = (), num_classes: int | None = None
) -> Facts:
    """The facts of a config's network for the classes `names`.

    num_classes: None: as many; else the names count where they are as many
    """
    count = len(names) if num_classes is None else num_classes
    mean, std = in_levels(IMAGENET_MEAN), in_levels(IMAGENET_STD)
    pixels = Pixels("centre", (cfg.DATA.CROP_SIZE,), mean, std, margin=cfg.DATA.CENTER_MARGIN,
                    interpolation=cfg.DATA.INTERPOLATION)
    return Facts(FAMILY, cfg.MODEL.NAME, count, known_names(count, names), pixels)


def said_in(loaded: Mapping[str, Any], cfg: ResNeStConfig, names: Sequence[str] = ()) -> Facts:
    """What a loaded checkpoint or state dict says of itself.

    The original's say their class count alone: the rest is the config's, and the names are `names`
    where those are as many.
    """
    head = bare_state_dict(loaded).get("fc.weight")
    count = len(head) if torch.is_tensor(head) and head.ndim else max(1, len(names))
    return facts_in(loaded, FAMILY) or facts_of(cfg, names, count)


def weights_of(net: nn.Module, cfg: ResNeStConfig, names: Sequence[str]
               ) -> "OrderedDict[str, Any]":
    """The network's state dict with its facts; names: of the classes."""
    return with_facts(net.state_dict(), facts_of(cfg, names))
