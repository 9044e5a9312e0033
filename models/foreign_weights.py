"""The weights in anyone's checkpoint: out of any wrapper, without prefixes."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from common.checkpoint.files import load_any_checkpoint
from runtime.errors import InputError
from runtime.vetting.finite import not_finite

# Under these keys training scripts keep weights, and averages of them (EMA).
WEIGHTS_KEYS = ("state_dict", "model_state_dict", "model", "net", "net_state_dict", "network",
                "model_state", "weights", "params")
AVERAGE_KEYS = ("model_ema", "ema_state_dict", "state_dict_ema", "model_ema_state_dict",
                "ema_model", "params_ema", "ema")
# Wrappers put these before every name: DataParallel, torch.compile, Lightning's modules.
PREFIXES = ("module.", "_orig_mod.")
WHOLE_PREFIXES = ("model.", "net.", "network.")
MOST_KEYS = 8  # of a file without weights, in a message


def read_weights(
    path: str | Path, log: Callable[[str], None] | None = None
) -> dict[str, torch.Tensor]:
    """The state dict in anyone's file of weights: what `--pretrained` takes in every script.

    log: told which weights were taken, where the file holds more than these
    Raises InputError as `load_any_checkpoint`, and for a file that holds no weights.
    """
    return weights_in(load_any_checkpoint(path), str(path), log)


def weights_in(
    loaded: Mapping[str, Any], source: str, log: Callable[[str], None] | None = None
) -> dict[str, torch.Tensor]:
    """Names and tensors of a loaded file, without wrappers, prefixes and all that is no tensor.

    An average of the weights goes before the weights themselves. Several networks under keys of
    their own, {"encoder": {...}, "decoder": {...}}, become `encoder.` and `decoder.` names.
    source: what messages call it. Raises InputError when there are no weights.
    """
    key, found = _wrapped(loaded)
    if found is None and any(torch.is_tensor(value) for value in loaded.values()):
        found = loaded
    elif found is None:
        found = {f"{part}.{name}": value for part, state in loaded.items()
                 if _is_state_dict(state) for name, value in state.items()}
    elif log:
        others = [k for k in (*WEIGHTS_KEYS, *AVERAGE_KEYS)
                  if k != key and isinstance(loaded.get(k), Mapping) and loaded[k]]
        rest = f", not those under {' and '.join(others)}" if others else ""
        kind = "averaged weights" if key in AVERAGE_KEYS else "weights"
        log(f"{source}: the {kind} under {key} are taken{rest}")
    tensors = {str(name): value for name, value in found.items() if torch.is_tensor(value)}
    if spoilt := not_finite(tensors):
        raise InputError(f"{source}: {spoilt}")
    if not tensors:
        keys = [str(each) for each in loaded]
        there = ", ".join(keys[:MOST_KEYS]) + (", ..." if len(keys) > MOST_KEYS else "")
        raise InputError(
            f"{source}: no weights in it (it holds {there or 'nothing'}); wanted is a state dict, "
            f"alone or under one of {', '.join(WEIGHTS_KEYS)}"
        )
    return _bare_names(tensors)


def _wrapped(loaded):
    """(key, state dict) of the wrapper that goes first; (None, None) when there is none."""
    # MMEngine's hook swaps the two when it saves: the average is then its state_dict.
    swapped = "meta" in loaded and isinstance(loaded.get("state_dict"), Mapping)
    for key in (*(() if swapped else AVERAGE_KEYS), *WEIGHTS_KEYS):
        inner = loaded.get(key)
        if isinstance(inner, Mapping):
            deeper = _wrapped(inner)[1]
            found = inner if deeper is None else deeper
            if any(torch.is_tensor(value) for value in found.values()):
                return key, found
    return None, None


def _is_state_dict(value):
    return (isinstance(value, Mapping) and bool(value)
            and all(isinstance(k, str) and torch.is_tensor(v) for k, v in value.items()))


def _bare_names(tensors):
    if len(tensors) > 1:
        tensors.pop("n_averaged", None)  # torch's AveragedModel counts its updates there
    bare = {}
    for name, value in tensors.items():
        while name.startswith(PREFIXES):
            name = name[name.index(".") + 1 :]
        bare[name] = value
    for prefix in WHOLE_PREFIXES:
        if bare and all(name.startswith(prefix) for name in bare):
            bare = {name[len(prefix) :]: value for name, value in bare.items()}
    return bare
