"""What a segmentation network and its files say of themselves."""

from collections.abc import Mapping
from typing import Any

import torch

from models.facts import Facts, Pixels, facts_in, with_facts
from models.segmentation.weights import original_weights
from settings.datasets import ADE20K_CLASSES, IMAGENET_MEAN, IMAGENET_STD, in_levels, known_names
from settings.segmentation import SegConfig

FAMILY = "segmentation"
_CLASSIFIERS = ("conv_last.weight", "conv_last.4.weight", "conv_last.1.weight")


def facts_of(cfg: SegConfig, num_classes: int | None = None) -> Facts:
    """The facts of a config's networks; num_classes: None, the config's."""
    dataset, model = cfg.DATASET, cfg.MODEL
    count = dataset.num_class if num_classes is None else num_classes
    sizes = dataset.imgSizes if isinstance(dataset.imgSizes, tuple) else (dataset.imgSizes,)
    mean, std = in_levels(IMAGENET_MEAN), in_levels(IMAGENET_STD)
    pixels = Pixels("fit", sizes, mean, std, longest=dataset.imgMaxSize,
                    multiple=dataset.padding_constant, by="stretching")
    names = known_names(count, dataset.class_names, ADE20K_CLASSES)
    return Facts(FAMILY, f"{model.arch_encoder}-{model.arch_decoder}", count, names, pixels)


def said_in(loaded: Mapping[str, Any], cfg: SegConfig) -> Facts:
    """What loaded weights, {"encoder": ..., "decoder": ...} or one of them, say of themselves.

    The original's say their class count alone: then the rest is the config's, and names are
    ADE20K's where the config has not as many.
    """
    decoder = loaded.get("decoder", loaded)
    heads = [decoder[key] for key in _CLASSIFIERS if key in decoder]
    count = len(heads[0]) if heads and torch.is_tensor(heads[0]) else None
    return facts_in(loaded, FAMILY) or facts_of(cfg, count)


def weights_of(module: Any, cfg: SegConfig) -> dict[str, dict[str, Any]]:
    """`original_weights` of a module, encoder's and decoder's both with the facts."""
    facts = facts_of(cfg)
    return {net: with_facts(state, facts) for net, state in original_weights(module).items()}
