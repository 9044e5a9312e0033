"""Loads the weights of both networks; where they do not fit, says which recipe's they are."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from common.checkpoint.forms import net_path
from models.segmentation.network import build_decoder, build_encoder
from models.segmentation.weights import faults_of, load_original_state_dict
from runtime.errors import InputError
from settings.segmentation import CONFIG_FOLDER, load_seg_config

Weights = Mapping[str, Mapping[str, Any]]  # {"encoder": state dict, "decoder": state dict}


def load_both(module: nn.Module, weights: Weights, path: Path) -> str:
    """Both networks' weights of a checkpoint into `module`, which has `encoder` and `decoder`.

    path: of the encoder's file. Returns what messages call the files, FOLDER/*_epoch_N.pth.
    Raises InputError as `load_original_state_dict`; of other architectures in one line, which
    names the recipes whose they are.
    """
    name = str(net_path(path, "*"))
    try:
        for net, state in weights.items():
            load_original_state_dict(getattr(module, net), state, str(net_path(path, net)))
    except InputError as error:
        recipes = fitting_recipes(weights)
        if not recipes or _is_of(module, weights):  # the classes alone differ
            raise
        raise InputError(f"{name}: these weights are of another encoder or decoder than the "
                         f"config's: use --cfg {' or '.join(recipes)}") from error
    return name


def fitting_recipes(weights: Weights) -> list[str]:
    """The recipes in configs/seg whose encoder and decoder have these names and shapes."""
    found = []
    widths = {value.shape[1] for value in weights.get("decoder", {}).values()
              if torch.is_tensor(value) and value.ndim == 4}
    for file in sorted(CONFIG_FOLDER.glob("*.yaml")):
        model = load_seg_config(file.stem).MODEL
        if model.fc_dim not in widths:  # saves building it
            continue
        with torch.device("meta"):
            module = nn.ModuleDict({
                "encoder": build_encoder(model.arch_encoder, model.fc_dim),
                "decoder": build_decoder(model.arch_decoder, model.fc_dim, _classes(weights))})
        if not any(faults_of(module[net], state, "")[0] for net, state in weights.items()):
            found.append(file.stem)
    return found


def _is_of(module: nn.Module, weights: Weights) -> bool:
    """Whether all but the classifiers' entries fit."""
    for net, state in weights.items():
        own = getattr(module, net)
        rest = {key: value if not key.startswith("conv_last") else own.state_dict().get(key, value)
                for key, value in state.items()}
        if faults_of(own, rest, "")[0]:
            return False
    return True


def _classes(weights: Weights) -> int:
    """Classes of a decoder's file: the outputs of its last convolution."""
    heads = [value for key, value in weights.get("decoder", {}).items()
             if key.startswith("conv_last") and torch.is_tensor(value) and value.ndim == 4]
    return len(heads[-1]) if heads else 1
