"""What a YOLACT network and its files say of themselves."""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from models.facts import Channels, Facts, Pixels, facts_in, with_facts
from models.load_report import bare_state_dict
from models.yolact.weights import num_classes_in
from settings.datasets import COCO_CLASSES, YOLACT_MEANS, YOLACT_STDS, known_names
from settings.yolact import TransformConfig, YolactConfig

FAMILY = "yolact"


def facts_of(cfg: YolactConfig, num_classes: int | None = None) -> Facts:
    """The facts of a config's network; num_classes: foreground classes, None: the config's."""
    count = cfg.num_classes - 1 if num_classes is None else num_classes
    transform = cfg.backbone.transform if cfg.backbone else TransformConfig()
    mean, std = _channels(transform)
    pixels = Pixels("stretch", (cfg.max_size,), mean, std, transform.channel_order)
    names = known_names(count, cfg.dataset.class_names, COCO_CLASSES)
    return Facts(FAMILY, str(cfg.name), count, names, pixels)


def said_in(loaded: Mapping[str, Any], cfg: YolactConfig) -> Facts:
    """What a loaded file of weights says of itself; the original's say their class count alone.

    Then the rest is the config's, and names are COCO's where the config has not as many.
    """
    count = num_classes_in(bare_state_dict(loaded))
    return facts_in(loaded, FAMILY) or facts_of(cfg, None if count is None else count - 1)


def weights_of(net: Any) -> "OrderedDict[str, Any]":
    """The network's state dict with its facts."""
    return with_facts(net.state_dict(), facts_of(net.cfg))


def _channels(transform: TransformConfig) -> tuple[Channels, Channels]:
    """(mean, std) in the order of the transform's channels."""
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if transform.normalize:
        mean, std = YOLACT_MEANS, YOLACT_STDS
    elif transform.subtract_means:
        mean = YOLACT_MEANS
    elif transform.to_float:
        std = (255.0, 255.0, 255.0)
    if transform.channel_order == "RGB":
        mean, std = mean[::-1], std[::-1]
    return mean, std
