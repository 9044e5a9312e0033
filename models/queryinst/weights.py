"""Weights into QueryInst: its own and MMDetection's files, other class counts, backbones.

Whatever does not go in is named in a report; nothing is skipped silently.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from models.foreign_weights import read_weights
from models.load_report import COUNTERS, LoadReport, bare_state_dict, compare_weights
from models.queryinst.facts import weights_of
from models.queryinst.mmengine_form import MmengineForm
from runtime.errors import InputError
from runtime.pretrained import find_pretrained_once
from settings.queryinst.model import BackboneConfig

# torchvision's first weights, which MMDetection's `torchvision://` means.
_TORCHVISION = "torchvision://"
_FILES = {
    "resnet18": "resnet18-f37072fd.pth",
    "resnet34": "resnet34-b627a593.pth",
    "resnet50": "resnet50-0676ba61.pth",
    "resnet101": "resnet101-63fe2227.pth",
    "resnet152": "resnet152-394f9c45.pth",
}
_DEPTHS = {(1, 1, 1, 1): 10, (2, 2, 2, 2): 18, (3, 4, 6, 3): 50, (3, 4, 23, 3): 101}  # by blocks
_RECIPES = {  # (depth, proposals) -> names
    (50, 100): "queryinst_r50_fpn_1x_coco or queryinst_r50_fpn_ms-480-800-3x_coco",
    (50, 300): "queryinst_r50_fpn_300-proposals_crop-ms-480-800-3x_coco",
    (101, 100): "queryinst_r101_fpn_ms-480-800-3x_coco",
    (101, 300): "queryinst_r101_fpn_300-proposals_crop-ms-480-800-3x_coco",
}


def backbone_file(cfg: BackboneConfig) -> str | None:
    """The pretrained file's name in the weights folder, or its path; None: random weights.

    Raises InputError for a `torchvision://` name that is not known.
    """
    if cfg.init_cfg is None:
        return None
    checkpoint = cfg.init_cfg.checkpoint
    if not checkpoint.startswith(_TORCHVISION):
        return checkpoint
    name = checkpoint.removeprefix(_TORCHVISION)
    if name not in _FILES:
        raise InputError(f"model.backbone.init_cfg.checkpoint {checkpoint}: known are "
                         f"{', '.join(_TORCHVISION + known for known in _FILES)}, or give a file")
    return _FILES[name]


def load_backbone(net: Any, path: str | Path) -> LoadReport:
    """Load a torchvision-style ResNet file into `net.backbone`.

    A classifier's entries are ignored. Raises InputError when the file cannot be read, or is not
    for this backbone.
    """
    state = {key.removeprefix("backbone."): value for key, value in read_weights(path).items()
             if not key.startswith("fc.")}
    fitting, report = compare_weights(net.backbone, state, str(path), COUNTERS)
    if report.missing or report.mismatched:
        depth = net.cfg.model.backbone.depth
        raise InputError(f"{path}: does not fit a ResNet-{depth}: {'; '.join(report.lines()[1:])}; "
                         "set model.backbone.init_cfg.checkpoint to the right file, or to None")
    net.backbone.load_state_dict(fitting, strict=False)
    return report


def start_weights(run: Any, net: Any, pretrained: str | None, folder: str | Path) -> None:
    """Weights to train from, put into `net`; run.log says which and what they lack (all ranks).

    pretrained: anyone's weights, of any classes: what fits is taken. Else the backbone's file,
                which lies in `folder` or is fetched, where the config names one; else random ones
    """
    file = backbone_file(net.cfg.model.backbone)
    report: LoadReport | list[str] = ["Random weights"]
    if pretrained:
        report = load_weights(net, read_weights(pretrained, run.log), partial=True,
                              source=pretrained)
        run.log(f"Weights from {pretrained}")
    elif file:
        path = Path(file) if Path(file).is_file() else find_pretrained_once(run, file, folder)
        report = load_backbone(net, path)
        run.log(f"Backbone from {path}")
    for line in report:
        run.log(line)


def checkpoint_of(form: MmengineForm, state: Mapping[str, Any]) -> dict[str, Any]:
    """A checkpoint in MMDetection's layout; ours is `training`, the state without the optimizer's.

    form: of the run; state: as `Learner.state`, with the best scores so far under `best`
    """
    iteration, moments = state["iteration"], state["optimizer"]
    training = {key: value for key, value in state.items() if key != "optimizer"}
    return {"meta": form.meta(iteration), "state_dict": weights_of(form.net, form.names),
            "message_hub": form.message_hub(iteration, state["best"]),
            "optimizer": form.optimizer(moments, state["scaler"], iteration),
            "param_schedulers": form.param_schedulers(moments, iteration), "training": training}


def scored_of(content: Mapping[str, Any], scored: nn.Module) -> dict[str, Any]:
    """The same with what was scored as its weights, an average maybe, and nothing to train on."""
    names = content["meta"]["dataset_meta"]["classes"]
    return {"meta": content["meta"], "state_dict": weights_of(scored, names),
            "training": {**content["training"], "ema": None}}


def load_weights(
    net: Any, state_dict: Mapping[str, Any], partial: bool = False, source: str = "weights"
) -> LoadReport:
    """Load a state dict, or a checkpoint that holds one as `state_dict`, in place.

    A `module.` prefix is dropped, old files' top-level `bbox_head.` is `rpn_head.`, and
    `num_batches_tracked` may be absent.
    partial: take what agrees in name and shape, for example from another number of classes
    source:  what the messages call it
    Raises InputError when nothing fits or, unless `partial`, when anything does not.
    """
    state = bare_state_dict(state_dict)
    if not any(key.startswith("rpn_head.") for key in state):
        state = {"rpn_" + key.removeprefix("bbox_") if key.startswith("bbox_head.") else key: value
                 for key, value in state.items()}
    fitting, report = compare_weights(net, state, source, COUNTERS)
    if not partial:
        head = state.get("roi_head.bbox_head.0.fc_cls.weight")
        in_file = None if head is None else len(head)
        report.require_all(source, net.cfg.name, "classes", in_file, net.cfg.model.num_classes,
                           _whose(state, net.cfg.model))
    net.load_state_dict(fitting, strict=False)
    return report


def _whose(state: Mapping[str, Any], model: Any) -> str:
    """Whose weights these are, if of another backbone or number of proposals than the model's."""
    blocks = Counter(key.split(".")[1] for key in state
                     if key.startswith("backbone.layer") and key.endswith(".conv1.weight"))
    depth = _DEPTHS.get(tuple(blocks[stage] for stage in sorted(blocks)))
    boxes = state.get("rpn_head.init_proposal_bboxes.weight")
    if depth == 50 and "backbone.layer1.0.conv3.weight" not in state:
        depth = 34  # as many blocks, of two convolutions
    own = (model.backbone.depth, model.rpn_head.num_proposals)
    if depth is None or boxes is None or (depth, len(boxes)) == own:
        return ""
    recipes = _RECIPES.get((depth, len(boxes)))
    remedy = f"use {recipes}" if recipes else (
        f"set model.backbone.depth={depth} and model.rpn_head.num_proposals={len(boxes)}")
    return f"these are weights of a ResNet-{depth} with {len(boxes)} proposals ({remedy})"
