"""What a QueryInst network and its files say of themselves."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from models.facts import Facts, Pixels, facts_in, with_facts
from models.load_report import bare_state_dict
from settings.datasets import COCO_CLASSES, known_names
from settings.queryinst.config import QueryInstConfig
from settings.queryinst.pipeline import ResizeStep

FAMILY = "queryinst"
_NO_RESIZE = (1333, 800)  # MMDetection's, for a pipeline that does not resize


def facts_of(
    cfg: QueryInstConfig, num_classes: int | None = None, names: Sequence[str] = ()
) -> Facts:
    """The facts of a config's network.

    num_classes: None: the config's; names: of the classes, else COCO's for 80
    """
    count = cfg.model.num_classes if num_classes is None else num_classes
    loader = cfg.val_dataloader or cfg.test_dataloader
    resizes = [step for step in loader.dataset.transforms if isinstance(step, ResizeStep)
               ] if loader else []
    scale, pre = resizes[-1].scale if resizes else _NO_RESIZE, cfg.model.data_preprocessor
    stretches = bool(resizes) and not resizes[-1].keep_ratio and scale[0] == scale[1]
    pixels = Pixels("stretch" if stretches else "fit", (min(scale),), tuple(pre.mean),
                    tuple(pre.std), "RGB" if pre.bgr_to_rgb else "BGR",
                    longest=None if stretches else max(scale), multiple=pre.pad_size_divisor)
    return Facts(FAMILY, str(cfg.name), count, known_names(count, names, COCO_CLASSES), pixels)


def said_in(loaded: Mapping[str, Any], cfg: QueryInstConfig) -> Facts:
    """What a loaded checkpoint or state dict says of itself.

    MMDetection's say their class count and, in `meta`, the classes' names; the rest is the
    config's.
    """
    head = bare_state_dict(loaded).get("roi_head.bbox_head.0.fc_cls.weight")
    count = len(head) if torch.is_tensor(head) and head.ndim else None
    return facts_in(loaded, FAMILY) or facts_of(cfg, count, _names_in_meta(loaded))


def weights_of(net: Any, names: Sequence[str]) -> "OrderedDict[str, Any]":
    """The network's state dict with its facts; names: of the classes."""
    return with_facts(net.state_dict(), facts_of(net.cfg, len(names), names))


def _names_in_meta(loaded: Mapping[str, Any]) -> tuple[str, ...]:
    """`dataset_meta.classes` as MMDetection 3 writes it, or version 2's `CLASSES`."""
    meta = loaded.get("meta")
    about = meta.get("dataset_meta") if isinstance(meta, Mapping) else None
    for place, key in ((about, "classes"), (about, "CLASSES"), (meta, "CLASSES")):
        names = place.get(key) if isinstance(place, Mapping) else None
        if isinstance(names, str):
            return (names,)
        if isinstance(names, list | tuple) and all(isinstance(name, str) for name in names):
            return tuple(names)
    return ()
