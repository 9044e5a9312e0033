"""The networks by name: the original's fourteen and two of ours for small machines."""

import dataclasses
from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from models.load_report import COUNTERS
from models.resnest.network import Architecture, ResNeSt
from runtime.errors import InputError, did_you_mean
from settings.resnest import MODEL_NAMES, ResNeStConfig


def _resnest(layers, stem_width=64, **changes):
    deep = {"radix": 2, "deep_stem": True, "avg_down": True, "avd": True}
    return Architecture(layers, stem_width=stem_width, **{**deep, **changes})


def _fast(radix, groups, width):
    return _resnest(
        (3, 4, 6, 3), 32, radix=radix, groups=groups, bottleneck_width=width, avd_first=True
    )


_ARCHITECTURES = {  # one for each of MODEL_NAMES, in its order
    # parity: these are not plain ResNets: radix 1 puts a channel gate behind every 3x3 convolution
    # [resnest.md: Networks]
    "resnet50": Architecture((3, 4, 6, 3)),
    "resnet101": Architecture((3, 4, 23, 3)),
    "resnet152": Architecture((3, 8, 36, 3)),
    "resnest50": _resnest((3, 4, 6, 3), 32),
    "resnest101": _resnest((3, 4, 23, 3)),
    "resnest200": _resnest((3, 24, 36, 3)),
    "resnest269": _resnest((3, 30, 48, 8)),
    "resnest50_fast_1s1x64d": _fast(1, 1, 64),
    "resnest50_fast_2s1x64d": _fast(2, 1, 64),
    "resnest50_fast_4s1x64d": _fast(4, 1, 64),
    "resnest50_fast_1s2x40d": _fast(1, 2, 40),
    "resnest50_fast_2s2x40d": _fast(2, 2, 40),
    "resnest50_fast_4s2x40d": _fast(4, 2, 40),
    "resnest50_fast_1s4x24d": _fast(1, 4, 24),
    # ours: resnest14 has one block a stage, resnest14_small a quarter of its channels as well
    "resnest14": _resnest((1, 1, 1, 1), 32),
    "resnest14_small": _resnest((1, 1, 1, 1), 16, planes=(16, 32, 64, 128)),
}


def build_resnest(name: str, num_classes: int = 1000, **kwargs: Any) -> ResNeSt:
    """The network called `name` with random weights; kwargs change fields of its Architecture.

    Raises InputError for an unknown name, TypeError for an unknown field.
    """
    if name not in _ARCHITECTURES:
        known = f"{did_you_mean(name, MODEL_NAMES)} Known: {', '.join(MODEL_NAMES)}"
        raise InputError(f"unknown model {name!r}.{known}")
    return ResNeSt(dataclasses.replace(_ARCHITECTURES[name], **kwargs), num_classes)


def build_network(cfg: ResNeStConfig, num_classes: int) -> ResNeSt:
    """The config's network with random weights."""
    return build_resnest(
        cfg.MODEL.NAME,
        num_classes,
        final_drop=cfg.MODEL.FINAL_DROP,
        stem_stride=cfg.MODEL.STEM_STRIDE,
        last_gamma=cfg.TRAINING.LAST_GAMMA,
    )


def fitting_models(state: Mapping[str, Any]) -> list[str]:
    """The networks that have the names and shapes of a state dict, whatever its classes."""
    head = state.get("fc.weight")
    blocks = Counter(key.partition(".")[0] for key in state if key.endswith(".conv3.weight"))
    layers = tuple(blocks[stage] for stage in sorted(blocks))
    likely = [name for name, each in _ARCHITECTURES.items() if each.layers == layers]
    given = {key: value.shape for key, value in state.items()
             if torch.is_tensor(value) and not key.endswith(COUNTERS)}
    found = []
    for name in likely if torch.is_tensor(head) and head.ndim == 2 and len(head) else ():
        with torch.device("meta"):
            own = build_resnest(name, len(head)).state_dict()
        if given == {k: v.shape for k, v in own.items() if not k.endswith(COUNTERS)}:
            found.append(name)
    return found


def param_groups(
    model: nn.Module, weight_decay: float, disable_bn_wd: bool = False
) -> list[dict[str, Any]]:
    """Parameter groups for SGD, in the order that the original's optimizer states rely on.

    disable_bn_wd: False: one group in named_parameters order. True: first, without decay, whatever
        has "bn" or "bias" in its name, then the rest.
    The wrappers' prefixes (`module.`) change nothing.
    """
    if not disable_bn_wd:
        return [{"params": list(model.parameters()), "weight_decay": weight_decay}]
    spared, decayed = [], []
    for name, parameter in model.named_parameters():
        # parity: the rule goes by name, so the norms inside the deep stem and the shortcuts, which
        # are not called bn, do get decay [resnest.md: Optimizer]
        is_spared = "bn" in name or "bias" in name
        (spared if is_spared else decayed).append(parameter)
    return [
        {"params": spared, "weight_decay": 0.0},
        {"params": decayed, "weight_decay": weight_decay},
    ]
