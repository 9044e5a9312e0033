"""Finds pretrained files in a folder or fetches them, and takes the weights out of any wrapper.

Nothing else in the project touches the network.
"""

import hashlib
import http.client
import urllib.request
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import torch
from tqdm import tqdm

from common.checkpoint.foreign import load_any_checkpoint
from runtime.errors import InputError, SaveError
from runtime.files import write_atomically

_TORCHVISION = "https://download.pytorch.org/models/"
# File name -> (address, first digits of its SHA-256); torchvision's names end in those digits.
KNOWN_FILES: dict[str, tuple[str, str]] = {
    f"{name}-{digits}.pth": (f"{_TORCHVISION}{name}-{digits}.pth", digits)
    for name, digits in (
        ("resnet18", "5c106cde"),
        ("resnet18", "f37072fd"),
        ("resnet34", "b627a593"),
        ("resnet50", "19c8e357"),
        ("resnet50", "0676ba61"),
        ("resnet101", "5d3b4d8f"),
        ("resnet101", "63fe2227"),
    )
}
_YOLACT_PAGE = "the section Training of https://github.com/dbolya/yolact links to it"
WHERE_TO_GET = {  # no address that a program could depend on
    "resnet101_reducedfc.pth": _YOLACT_PAGE,
    "darknet53.pth": _YOLACT_PAGE,
}
# Under these keys training scripts keep weights, and averages of them (EMA).
WEIGHTS_KEYS = ("state_dict", "model_state_dict", "model", "net", "net_state_dict", "network",
                "model_state", "weights", "params")
AVERAGE_KEYS = ("model_ema", "ema_state_dict", "state_dict_ema", "model_ema_state_dict",
                "ema_model", "params_ema", "ema")
# Wrappers put these before every name: DataParallel, torch.compile, Lightning's modules.
PREFIXES = ("module.", "_orig_mod.")
WHOLE_PREFIXES = ("model.", "net.", "network.")
MOST_KEYS = 8  # of a file without weights, in a message
TIMEOUT_S = 30  # without a single byte
BLOCK_BYTES = 1 << 20


def find_pretrained(
    name: str,
    folder: str | Path,
    known: Mapping[str, tuple[str, str]] = KNOWN_FILES,
    progress: bool = True,
) -> Path:
    """The path `folder/name`, after downloading the file when it is not there.

    known:    file name -> (address, first digits of its SHA-256)
    progress: show a bar while downloading, on a terminal

    A file appears under its name only when all of it has arrived and its hash is right. Under
    several processes use `find_pretrained_once`.
    Raises InputError, saying where to get the file and where to put it, when it is not there and
    cannot be fetched; SaveError when it cannot be written.
    """
    path = Path(folder) / name
    if path.is_file():
        return path
    if name not in known:
        source = WHERE_TO_GET.get(name)
        advice = f"{source}; put it there" if source else "put the file there"
        raise InputError(f"{path}: this pretrained file is missing; {advice}")
    address, digits = known[name]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SaveError(f"{path}: could not be written: {error.strerror or error}") from error
    write_atomically(path, partial(_download, path, address, digits, progress))
    return path


def find_pretrained_once(run: Any, name: str, folder: str | Path) -> Path:
    """`find_pretrained` of several processes: rank 0 fetches what is missing (all ranks).

    run: the Run
    """
    run.from_main(lambda: (find_pretrained(name, folder), None))
    return find_pretrained(name, folder)


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


def _download(path: Path, address: str, digits: str, progress: bool, file: BinaryIO) -> None:
    digest = hashlib.sha256()
    received = 0
    try:
        response = urllib.request.urlopen(address, timeout=TIMEOUT_S)
    except (OSError, http.client.HTTPException) as error:
        raise _failed(path, address, error) from error
    with response:
        size = response.length  # None when the server does not say
        hidden = None if progress else True  # None: hidden unless on a terminal
        with tqdm(total=size, desc=path.name, unit="B", unit_scale=True, disable=hidden) as bar:
            while block := _read_block(response, path, address):
                file.write(block)
                digest.update(block)
                received += len(block)
                bar.update(len(block))
    if size is not None and received != size:
        raise _failed(path, address, f"only {received} of {size} bytes arrived")
    if not digest.hexdigest().startswith(digits):
        reason = f"its SHA-256 begins with {digest.hexdigest()[: len(digits)]}, not {digits}"
        raise _failed(path, address, reason)


def _read_block(response: http.client.HTTPResponse, path: Path, address: str) -> bytes:
    try:
        return response.read(BLOCK_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise _failed(path, address, error) from error


def _failed(path: Path, address: str, reason: Exception | str) -> InputError:
    text = str(reason).strip("<>")
    return InputError(
        f"{path}: this pretrained file is missing and could not be downloaded ({text}); "
        f"get it from {address} and put it there"
    )
