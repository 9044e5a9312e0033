"""Weights into a YOLACT network: its own files, other class counts, pretrained backbones, none.

Whatever does not go in is named in a report; nothing is skipped silently.
"""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import nn

from common.checkpoint.files import load_any_checkpoint
from models.foreign_weights import read_weights, weights_in
from models.load_report import COUNTERS, compare_weights
from models.yolact.deform_conv import DeformConv
from runtime.errors import InputError
from runtime.pretrained import find_pretrained_once

_CONFIGS = {(3, 4, 6, 3): "yolact_resnet50", (3, 4, 23, 3): "yolact_base"}  # blocks a stage -> name


def load_weights(net, state_dict, partial=False, source="weights"):
    """Load a state dict of this network, or of one like it, in place; return a LoadReport.

    state_dict:  name -> tensor, as `net.state_dict()` or the original's files have it; a `module.`
                 prefix and the duplicates of old files are dropped
    partial:     take what agrees in name and shape, for example from another number of classes
    source:      what the messages call it
    Raises InputError when nothing fits or, unless `partial`, when anything does not.
    """
    state = bare_names(state_dict, net.cfg)
    fitting, report = compare_weights(net, state, source)
    if not partial:
        report.require_all(source, net.cfg.name, "classes with background", num_classes_in(state),
                           net.cfg.num_classes)
    net.load_state_dict(fitting, strict=False)
    return report


def load_backbone(net, path):
    """Load a pretrained backbone file into `net.backbone`; return a LoadReport.

    Entries that only the file has (a classifier) or only the network (deformable offsets) are
    fine. Raises InputError when the file cannot be read or nothing in it fits.
    """
    kind, norm = net.cfg.backbone.type, net.cfg.backbone.args.norm
    if Path(path).suffix == ".pkl":
        raise InputError(
            f"{path}: Detectron's pickles can run code when read; save the dict of its 'blobs' as "
            "tensors by torch.save once, and name that file in backbone.path"
        )
    loaded = load_any_checkpoint(path)
    state = weights_in(loaded.get("blobs", loaded), str(path))
    if kind == "resnet" and norm == "group":
        state = {_name_of_blob(key): value for key, value in state.items()}
    elif kind == "resnet":
        state = {_resnet_name(key): value for key, value in state.items()}
    elif kind == "vgg":
        names = _vgg_names(net.backbone)
        state = {names.get(key.split(".")[0], "?") + key[key.find("."):]: value
                 for key, value in state.items()}
    fitting, report = compare_weights(net.backbone, state, str(path))
    net.backbone.load_state_dict(fitting, strict=False)
    return report


@torch.no_grad()
def init_weights(net, backbone_path=None):
    """Initialise every weight of `net`; return lines that say how.

    backbone_path: a pretrained file for the backbone; None draws it from Kaiming's normal
    distribution. All convs outside of it get Xavier-uniform weights and zero biases, norms stay at
    one and zero, deformable convs unmoved. Draws from torch's global generator.
    """
    backbone = net.backbone
    own = {module for module in backbone.modules() if isinstance(module, (nn.Conv2d, DeformConv))}
    for stage in backbone.layers[backbone.num_own_stages :]:
        own -= set(stage.modules())
    for module in net.modules():
        if isinstance(module, nn.Conv2d) and module not in own:
            _draw(module.weight, nn.init.xavier_uniform_)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    if backbone_path is not None:
        report = load_backbone(net, backbone_path)
        return [f"backbone from {backbone_path}: {line}" for line in report.lines()]
    offset_convs = {m.conv_offset_mask for m in own if isinstance(m, DeformConv)}
    for module in backbone.modules():  # in order, so that a seed gives the same weights
        if module in own - offset_convs:
            _draw(module.weight, nn.init.kaiming_normal_, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return ["backbone from random weights"]


def is_backbone(state, net):
    """Whether a state dict is that of a backbone alone: nothing in it is named after a YOLACT part.

    Then its names are torchvision's, Darknet's or VGG's.
    """
    parts = {name for name, _ in net.named_children()}
    return not any(key.split(".")[0] in parts for key in state)


def load_whole_backbone(net, state, path):
    """`load_backbone`, and InputError unless the file's stages are those of the network.

    state: the file's names and tensors. Deformable offsets, stages behind the backbone's own, and
    a classifier do not count. The line names the config whose backbone it is.
    """
    own = tuple(f"layers.{i}." for i in range(net.backbone.num_own_stages))
    offsets = (".conv_offset_mask.weight", ".conv_offset_mask.bias", ".conv2.bias", *COUNTERS)
    try:
        report = load_backbone(net, path)
        wrong = [key for key in report.missing if key.startswith(own) and not key.endswith(offsets)]
        wrong += [key for key in report.unexpected if key.startswith("layers.")]
        wrong += report.mismatched
        reason = f"{wrong[0]} does not fit" if wrong else ""
    except InputError as error:
        reason = error.faults[0].removeprefix(f"{path}: ")
    if reason:
        blocks = Counter(key.split(".")[0] for key in state
                         if re.fullmatch(r"layer\d\.\d+\.conv1\.weight", key))
        fits = "yolact_darknet53" if "layers.0.0.0.weight" in state else _CONFIGS.get(
            tuple(blocks[stage] for stage in sorted(blocks)))
        published = f", {net.cfg.backbone.path}" if net.cfg.backbone.path else ""
        raise InputError(f"{path}: not of the {net.cfg.backbone.name} of config {net.cfg.name}: "
                         f"{reason}; " + (f"it fits --config {fits}" if fits
                                          else f"use a file of that backbone{published}"))


def _draw(weight, distribution, **how):
    """Fill `weight` with what a seed gives on the CPU in the plain layout, wherever it lies."""
    drawn = torch.empty(weight.shape, dtype=weight.dtype)
    weight.copy_(distribution(drawn, **how))


def bare_names(state_dict, cfg=None):
    """The state dict without wrappers' `module.`, and without what old files have twice.

    cfg: of the network, which tells these duplicates; None leaves them in
    """
    state = {str(key).removeprefix("module."): value for key, value in state_dict.items()}
    return {key: value for key, value in state.items()
            if cfg is None or not _is_old_duplicate(key, cfg)}


def num_classes_in(state):
    """Classes, background included, that a YOLACT state dict is for; None if it does not say."""
    box = state.get("prediction_layers.0.bbox_layer.weight")
    conf = state.get("prediction_layers.0.conf_layer.weight")
    if not (torch.is_tensor(box) and torch.is_tensor(conf) and box.ndim and conf.ndim
            and len(box) >= 4):
        return None
    return len(conf) // (len(box) // 4)


def _is_old_duplicate(key, cfg):
    """Entries of the original's first files that its networks do not have [yolact.md: Files]."""
    if key.startswith("backbone.layer") and not key.startswith("backbone.layers"):
        return True
    match = re.match(r"fpn\.downsample_layers\.(\d+)\.", key)
    return match is not None and int(match[1]) >= cfg.fpn.num_downsample


def _resnet_name(key):
    """torchvision's `layer1.` is `layers.0.` here."""
    match = re.match(r"layer(\d+)\.", key)
    return f"layers.{int(match[1]) - 1}.{key[match.end():]}" if match else key


def _vgg_names(backbone):
    """Number of a layer in the flat file -> `layers.<group>.<position>`."""
    flat = [
        f"layers.{group}.{position}"
        for group, stage in enumerate(backbone.layers[: backbone.num_own_stages])
        for position in range(len(stage))
    ]
    return {str(number): name for number, name in enumerate(flat)}


def _name_of_blob(blob):
    """Detectron's `res2_0_branch2a_gn_s` is `layers.0.0.bn1.weight` here."""
    match = re.fullmatch(r"(conv1|res(\d)_(\d+)_branch(1|2[abc]))_(w|gn_s|gn_b)", blob)
    if not match:
        return blob
    stem, stage, block, branch, kind = match.groups()
    leaf = "bias" if kind == "gn_b" else "weight"
    is_norm = kind != "w"
    if stem == "conv1":
        return f"{'bn1' if is_norm else 'conv1'}.{leaf}"
    prefix = f"layers.{int(stage) - 2}.{block}"
    if branch == "1":
        return f"{prefix}.downsample.{int(is_norm)}.{leaf}"
    return f"{prefix}.{'bn' if is_norm else 'conv'}{'abc'.index(branch[1]) + 1}.{leaf}"


def start_weights(run: Any, net: nn.Module, pretrained: str | None, folder: str | Path) -> None:
    """Weights to train from, put into `net`; run.log says which and what they lack (all ranks).

    pretrained: anyone's weights, of any classes: what fits is taken; of a backbone alone, as those
                of ImageNet are, all must fit. Else the backbone's file, which lies in `folder` or
                is fetched, where the config names one; else random ones
    """
    run.log("Initializing weights...")
    weights = read_weights(pretrained, run.log) if pretrained else {}
    if pretrained and is_backbone(weights, net):
        load_whole_backbone(net, weights, pretrained)
        report = net.init_weights(pretrained)
    elif pretrained:
        net.init_weights()  # for what the file lacks
        report = load_weights(net, weights, partial=True, source=pretrained)
    else:
        file = net.cfg.backbone.path
        report = net.init_weights(find_pretrained_once(run, file, folder) if file else None)
    for line in report:
        run.log(line)
