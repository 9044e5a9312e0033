"""Starts a network from a file of weights, the classifier's own class count notwithstanding."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.foreign_weights import read_weights
from models.load_report import bare_state_dict, misfits
from runtime.errors import InputError
from runtime.pretrained import find_pretrained
from settings.resnest import MODEL_NAMES

_RELEASE = "https://github.com/zhanghang1989/ResNeSt/releases/download/weights_step1/"
_PUBLISHED = {  # name -> first digits of the file's SHA-256
    "resnest50": "528c19ca",
    "resnest101": "22405ba7",
    "resnest200": "75117900",
    "resnest269": "0cc87c48",
    "resnest50_fast_1s1x64d": "d8fbf808",
    "resnest50_fast_2s1x64d": "44938639",
    "resnest50_fast_4s1x64d": "f74f3fc3",
    "resnest50_fast_1s2x40d": "32830b84",
    "resnest50_fast_2s2x40d": "9d126481",
    "resnest50_fast_4s2x40d": "41d14ed0",
    "resnest50_fast_1s4x24d": "d4a4f76f",
}
# File name -> (address, first digits of its SHA-256): for runtime.pretrained.
PRETRAINED_FILES = {
    f"{name}-{digits}.pth": (f"{_RELEASE}{name}-{digits}.pth", digits)
    for name, digits in _PUBLISHED.items()
}
CLASSIFIER = ("fc.weight", "fc.bias")


@dataclass(frozen=True)
class WeightsReport:
    """What `load_weights` took from a file, in words by `str()`.

    loaded:       entries taken over
    file_classes: classes of the file's classifier; None when it has none
    fresh:        entries left as they were: the classifier's, if it has another class count
    doubt:        why the file may belong to another network all the same, "" when nothing says so
    """

    source: str
    loaded: int
    file_classes: int | None
    fresh: tuple[str, ...]
    doubt: str

    def __str__(self) -> str:
        text = f"{self.source}: {self.loaded} entries loaded"
        if self.fresh:
            had = "no classifier" if self.file_classes is None else f"{self.file_classes} classes"
            text += f"; the file has {had}, so {', '.join(self.fresh)} start at random"
        return f"{text}. {self.doubt}" if self.doubt else text


def pretrained_file(name: str) -> str | None:
    """File name of the published ImageNet weights of the network `name`; None: there are none."""
    return f"{name}-{_PUBLISHED[name]}.pth" if name in _PUBLISHED else None


def find_weights(named: str | Path, folder: str | Path) -> Path:
    """The file that `named` means: a path, or a published file or network by name.

    A published file that is not there is fetched, to `folder` unless `named` has a folder.
    Raises InputError when it cannot be.
    """
    path = Path(named)
    name = pretrained_file(path.name) or path.name
    if path.is_file() or name not in PRETRAINED_FILES:
        return path
    has_folder = path.parent != Path(".")
    return find_pretrained(name, path.parent if has_folder else folder, PRETRAINED_FILES)


def load_weights(
    net: nn.Module,
    path: str | Path,
    name: str = "",
    checkpoint: Mapping[str, Any] | None = None,
    log: Callable[[str], None] | None = None,
) -> WeightsReport:
    """Load a file into a network of `models.resnest` and say what came of it.

    path: weights in any wrapper, as `models.foreign_weights.read_weights` takes them
    name: the network's, to notice a file that is named after another one of the same shapes
    checkpoint: the file's content, if it is loaded already: its `state_dict`, or itself
    log:  told which of a file's weights were taken

    A classifier of another class count is left out. Raises InputError, naming file and keys, when
    anything else is missing, unexpected or of another shape; the network is then unchanged.
    """
    state = read_weights(path, log) if checkpoint is None else bare_state_dict(checkpoint)
    own = net.state_dict()
    head = state.get("fc.weight")
    file_classes = len(head) if torch.is_tensor(head) and head.ndim else None
    fresh = tuple(
        key for key in CLASSIFIER
        if file_classes != len(own["fc.weight"]) or key not in state
    )
    given = {key: value for key, value in state.items() if key not in fresh}
    wanted = {key: value for key, value in own.items() if key not in fresh}
    faults = misfits(wanted, given, str(path), missing_hint=_plain_resnet_hint(given))
    if faults:
        raise InputError(faults)
    net.load_state_dict(given, strict=False)
    return WeightsReport(str(path), len(own) - len(fresh), file_classes, fresh, _doubt(path, name))


def _plain_resnet_hint(given):
    if "layer1.0.conv2.weight" not in given:
        return ""
    return ": a plain ResNet's, while resnet50, 101 and 152 here have a gate behind each 3x3"


def _doubt(path, name):
    """resnest50 and resnest50_fast_2s1x64d, for one, differ in no key and no shape."""
    named = max((n for n in MODEL_NAMES if Path(path).name.startswith(n)), key=len, default=name)
    if not name or named == name:
        return ""
    return f"The file is named after {named}, the model is {name}: check that they belong together."
