"""Section `model` of an MMDetection config in this project's words, before its fields are read.

MMDetection has the same number in many places, and lists with one mapping a stage. Here a number
stands once; what repeats it must agree, and is taken out. `bbox_head.0.KEY` on the command line
changes one stage of a mapping that stands for all.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from runtime.errors import InputError
from settings.nodes import Node, expanded, literal, merge

# Keys of `model` that repeat neck.out_channels; * is every stage.
_WIDTH = (
    "rpn_head.proposal_feature_channel",
    "roi_head.proposal_feature_channel",
    "roi_head.bbox_roi_extractor.*.out_channels",
    "roi_head.mask_roi_extractor.*.out_channels",
    "roi_head.bbox_head.*.in_channels",
    "roi_head.bbox_head.*.dynamic_conv_cfg.in_channels",
    "roi_head.bbox_head.*.dynamic_conv_cfg.out_channels",
    "roi_head.mask_head.*.in_channels",
    "roi_head.mask_head.*.conv_out_channels",
    "roi_head.mask_head.*.dynamic_conv_cfg.in_channels",
    "roi_head.mask_head.*.dynamic_conv_cfg.out_channels",
)
_CLASSES = ("roi_head.bbox_head.*.num_classes", "roi_head.mask_head.*.num_classes")
_OF_STAGES = ("roi_head.bbox_head", "roi_head.mask_head", "roi_head.bbox_roi_extractor",
              "roi_head.mask_roi_extractor", "train_cfg.rcnn")
_HEADS = ("roi_head.bbox_head", "roi_head.mask_head")

Found = list[tuple[str, Node]]  # (dotted key, its value)


def in_our_words(node: Node, path: str, base: Any, faults: list[str]) -> Node:
    """The section `node` of the dotted `path` without numbers that repeat others.

    base: the ModelConfig that it changes. A number that does not agree becomes a fault.
    """
    num_stages = _number(node, "roi_head.num_stages", base.roi_head.num_stages)
    for key in _OF_STAGES:
        node = _changed(node, key, partial(_spread, num_stages=num_stages))
    for key in _HEADS:
        rename = partial(_renamed, path=f"{path}.{key}", faults=faults)
        node = _changed(node, f"{key}.*", rename)

    found: Found = []
    width = _number(node, "neck.out_channels", base.neck.out_channels)
    for key in _WIDTH:
        node = _taken(node, key.split("."), path, found)
    faults += [f"{value.where}: {key} wants {width}, as {path}.neck.out_channels, got {value.text}"
               for key, value in found if _value(value) != width]

    node = _checked_neck(node, path, base, faults)
    return _one_class_count(node, path, faults)


def _value(node: Node) -> Any:
    return literal(node) if isinstance(node.value, str) else None


def _number(node: Node, key: str, default: int) -> int:
    """The whole number at a dotted key below `node`; the default where there is none."""
    for part in key.split("."):
        node = node.value.get(part, Node("", "")) if isinstance(node.value, dict) else Node("", "")
    value = _value(node)
    return value if isinstance(value, int) and not isinstance(value, bool) else default


def _changed(node: Node, key: str, change: Callable[[Node], Node]) -> Node:
    """`node` with what stands at the dotted key changed, in each stage for `*`."""
    head, _, rest = key.partition(".")
    if head == "*" and isinstance(node.value, list):
        return replace(node, value=[change(item) for item in node.value])
    if head == "*":
        return change(node)
    if not isinstance(node.value, dict) or head not in node.value:
        return node
    inner = node.value[head]
    inner = _changed(inner, rest, change) if rest else change(inner)
    return replace(node, value={**node.value, head: inner})


def _spread(section: Node, num_stages: int) -> Node:
    """A mapping of keys and of stages' numbers as a list of the stages."""
    if not isinstance(section.value, dict):
        return section
    numbered = {key: node for key, node in section.value.items()
                if key.isdecimal() and int(key) < num_stages}
    if not numbered:
        return section
    common = {key: node for key, node in section.value.items() if key not in numbered}
    by_stage = {int(key): node for key, node in numbered.items()}
    plain = replace(section, value=common)
    return replace(section, value=[
        merge(plain, by_stage[i]) if i in by_stage else plain for i in range(num_stages)])


def _renamed(head: Node, path: str, faults: list[str]) -> Node:
    """A head with dynamic_conv_cfg.feat_channels under our key, dynamic_channels."""
    found: Found = []
    head = _taken(head, ["dynamic_conv_cfg", "feat_channels"], path, found)
    for key, value in found:
        ours = head.value.get("dynamic_channels", value)
        if _value(ours) != _value(value):
            faults.append(f"{value.where}: {key} is {value.text}, and {path}.dynamic_channels is "
                          f"{ours.text} ({ours.where}): they are the same, give one")
        head = replace(head, value={**head.value, "dynamic_channels": ours})
    return head


def _taken(node: Node, parts: list[str], path: str, found: Found) -> Node:
    """`node` without the keys that `parts` lead to; they go to `found`."""
    head, *rest = parts
    node = expanded(node) if isinstance(node.value, str) else node
    if head == "*" and isinstance(node.value, list):
        return replace(node, value=[_taken(item, rest, f"{path}[{i}]", found)
                                    for i, item in enumerate(node.value)])
    if head == "*":
        return _taken(node, rest, path, found)
    if not isinstance(node.value, dict) or head not in node.value:
        return node
    others = {key: value for key, value in node.value.items() if key != head}
    if rest:
        inner = _taken(node.value[head], rest, f"{path}.{head}", found)
        return replace(node, value={**node.value, head: inner})
    found.append((f"{path}.{head}", node.value[head]))
    return replace(node, value=others)


def _checked_neck(node: Node, path: str, base: Any, faults: list[str]) -> Node:
    """Without neck.in_channels, which are the backbone's outputs."""
    found: Found = []
    node = _taken(node, ["neck", "in_channels"], path, found)
    backbone = {key: _number(node, f"backbone.{key}", vars(base.backbone)[key])
                for key in ("depth", "base_channels")}
    try:
        channels = list(replace(base.backbone, **backbone).channels)
    except (KeyError, InputError):  # a depth that there is not: the field says so
        return node
    for key, value in found:
        items = expanded(value).value
        given = [_value(item) for item in items] if isinstance(items, list) else None
        if given != channels:
            faults.append(f"{value.where}: {key} wants {channels}, the backbone's channels, got "
                          f"{given or value.text}")
    return node


def _one_class_count(node: Node, path: str, faults: list[str]) -> Node:
    """With the heads' num_classes as the network's one."""
    found: Found = []
    for key in _CLASSES:
        node = _taken(node, key.split("."), path, found)
    if not found:
        return node
    if "num_classes" in node.value:
        found.insert(0, (f"{path}.num_classes", node.value["num_classes"]))
    (first, number), *others = found
    for key, other in others:
        if _value(other) != _value(number):
            faults.append(f"{other.where}: {key} is {other.text}, but {first} is {number.text} "
                          f"({number.where}): there is one number of classes")
            break
    return replace(node, value={**node.value, "num_classes": number})
