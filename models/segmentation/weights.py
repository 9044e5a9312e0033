"""Weights in the original's form: one flat dict each for encoder and decoder.

The original's batch norms have three buffers more than torch's, `_tmp_running_mean`,
`_tmp_running_var` and `_running_iter`, which only count while it trains on several GPUs: there the
running statistics are tmp / iter. They are left out on reading and added on writing.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from common.checkpoint.forms import NETS, net_path
from models.foreign_weights import read_weights
from models.load_report import COUNTERS, LoadReport, compare_weights, misfits
from models.segmentation.hrnet import HRNetV2
from models.segmentation.mobilenet import MobileNetV2Dilated
from models.segmentation.resnet import ResNetEncoder
from runtime.errors import InputError
from runtime.pretrained import find_pretrained

_EXTRAS = ("_tmp_running_mean", "_tmp_running_var", "_running_iter")
_MAY_LACK = (*_EXTRAS, *COUNTERS)
_CLASSIFIERS = {  # what the ImageNet files hold beyond the encoder
    ResNetEncoder: ("fc.",),
    MobileNetV2Dilated: ("features.18.", "classifier."),
    HRNetV2: ("incre_modules.", "downsamp_modules.", "final_layer.", "classifier."),
}

_ADDRESS = "http://sceneparsing.csail.mit.edu/model/pretrained_resnet/"
_FILE_NAMES = {
    "resnet18": "resnet18-imagenet.pth",
    "resnet50": "resnet50-imagenet.pth",
    "resnet101": "resnet101-imagenet.pth",
    "resnext101": "resnext101-imagenet.pth",
    "mobilenetv2": "mobilenet_v2.pth.tar",
    "hrnetv2": "hrnetv2_w48-imagenet.pth",
}
# File name -> (address, first digits of its SHA-256): for runtime.pretrained.
# The original publishes no hashes.
IMAGENET_FILES = {name: (_ADDRESS + name, "") for name in _FILE_NAMES.values()}


def imagenet_file(arch: str) -> str:
    """Name of the ImageNet file that the original starts the encoder `arch` from.

    Raises InputError for an encoder of ours, which has none.
    """
    name = arch.lower().removesuffix("dilated")
    if name not in _FILE_NAMES:
        raise InputError(f"{arch} has no ImageNet file: set MODEL.weights_encoder none, or a file")
    return _FILE_NAMES[name]


def find_imagenet_file(arch: str, folders: Sequence[str | Path]) -> Path:
    """Path of the encoder's ImageNet file, which is fetched into the first folder if in none.

    Under several processes call it on the main one. Raises InputError when it cannot be had.
    """
    name = imagenet_file(arch)
    for folder in folders:
        if Path(folder, name).is_file():
            return Path(folder, name)
    try:
        return find_pretrained(name, folders[0], IMAGENET_FILES)
    except InputError as error:
        raise InputError(
            f"{error}, or into weights/; or start from random weights: MODEL.weights_encoder none"
        ) from error


def load_original_state_dict(
    net: nn.Module, state_dict: Mapping[str, Tensor], source: str = "these weights"
) -> None:
    """Load weights in the original's form into one encoder or decoder.

    source: how messages call them
    The batch norms' extra buffers and `num_batches_tracked` may be absent, a classifier's entries
    are ignored. Raises InputError for any other key that is missing, unexpected or of another
    shape; the net is then unchanged.
    differs: the original takes any file, in silence [segmentation.md: Weight files]
    Way back: --pretrained takes what fits, and says so.
    """
    _load(net, state_dict, source)


def load_weights_file(net: nn.Module, path: str | Path) -> None:
    """`load_original_state_dict` from a file; errors name it."""
    _load(net, read_weights(path), str(path))


def load_partly(net: nn.Module, state_dict: Mapping[str, Tensor], source: str) -> LoadReport:
    """Load what fits into one encoder or decoder: weights of other classes, or another decoder's.

    Returns what did not fit. Raises InputError when nothing does.
    """
    given = {
        key: value for key, value in state_dict.items() if key.rpartition(".")[2] not in _MAY_LACK
    }
    fitting, report = compare_weights(net, given, source, _MAY_LACK)
    net.load_state_dict(fitting, strict=False)
    return report


def to_original_state_dict(net: nn.Module) -> dict[str, Tensor]:
    """The state of one encoder or decoder under the original's keys, in its order, on the CPU.

    Running statistics get the weight that they have under the norm's momentum, 1 / momentum steps
    (1000, in HRNet 10), so that the original keeps them when it trains on.
    """
    norms = {name: m for name, m in net.named_modules() if isinstance(m, _BatchNorm)}
    state = {}
    for key, value in net.state_dict().items():
        value = value.detach().cpu().clone()
        state[key] = value
        owner, dot, entry = key.rpartition(".")
        if owner in norms and entry == "num_batches_tracked":  # a norm's last entry
            steps = max(1.0, 1 / norms[owner].momentum)
            for name in ("running_mean", "running_var"):
                state[f"{owner}{dot}_tmp_{name}"] = state[f"{owner}{dot}{name}"] * steps
            state[f"{owner}{dot}_running_iter"] = torch.full((1,), steps)
    return state


def original_weights(module: nn.Module) -> dict[str, dict[str, Tensor]]:
    """`to_original_state_dict` of a module's encoder and decoder, by these names."""
    return {
        "encoder": to_original_state_dict(module.encoder),
        "decoder": to_original_state_dict(module.decoder),
    }


def _load(net, state_dict, source):
    faults, given = faults_of(net, state_dict, source)
    if faults:
        raise InputError(faults)
    net.load_state_dict(given, strict=False)


def faults_of(
    net: nn.Module, state_dict: Mapping[str, Any], source: str
) -> tuple[list[str], dict[str, Any]]:
    """(what keeps weights in the original's form from being all of `net`'s, the entries for it)."""
    ignored = _CLASSIFIERS.get(type(net), ())
    given = {
        key: value
        for key, value in state_dict.items()
        if key.rpartition(".")[2] not in _EXTRAS and not str(key).startswith(ignored)
    }
    return misfits(net.state_dict(), given, source, _MAY_LACK, shape_hint=_class_hint), given


def _class_hint(key, value, own):
    """The commonest misfit, said in words: a decoder trained on another data set."""
    is_classifier = key.startswith("conv_last") and torch.is_tensor(value)
    if not is_classifier or value.shape[1:] != own.shape[1:]:
        return ""
    return f": trained for {len(value)} classes, DATASET.num_class is {len(own)}"


def networks_in(name: str, state: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """{net: state dict} of one file: of the net `name`, or of both under `encoder.`, `decoder.`"""
    split = {net: {key.removeprefix(f"{net}."): value for key, value in state.items()
                   if key.startswith(f"{net}.")} for net in NETS}
    return {net: part for net, part in split.items() if part} or {name: state}


def start_weights(
    run: Any, module: nn.Module, model: Any, pretrained: str | None, folders: Sequence[str | Path]
) -> None:
    """Weights to train from, for module's encoder and decoder; run.log says which (all ranks).

    pretrained: a checkpoint of ours or the original's, in any wrapper and of any classes: what fits
                is taken. It goes before the config's section `model`, whose weights_* must fit
    folders:    where the ImageNet files are looked for
    """
    nets = {"encoder": module.encoder, "decoder": module.decoder}
    if pretrained:
        pair = {net: net_path(pretrained, net) for net in NETS}
        files = {name: path for name, path in pair.items() if path.exists()}
        for name, path in (files or {"encoder": Path(pretrained)}).items():
            for part, state in networks_in(name, read_weights(path, run.log)).items():
                run.log(f"Loading weights for net_{part} from {path}")
                for line in load_partly(nets[part], state, str(path)):
                    run.log(line)
        return
    encoder_file = model.weights_encoder
    if encoder_file == "":
        encoder_file, _ = run.from_main(
            lambda: (find_imagenet_file(model.arch_encoder, folders), None))
    elif encoder_file.lower() == "none":
        encoder_file = ""
        run.log("Random weights for net_encoder")
    for name, path in (("encoder", encoder_file), ("decoder", model.weights_decoder)):
        if path:
            run.log(f"Loading weights for net_{name} from {path}")
            load_weights_file(nets[name], path)
