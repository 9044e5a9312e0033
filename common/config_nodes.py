"""YAML files and overrides as a tree that remembers where each value was written.

A `Node` keeps the source text of every scalar, so that the schema, not YAML, decides what the text
means: YAML 1.1 reads `1e-3` and `(300, 375)` as text and `off` as a boolean.
"""

import ast
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import yaml

MAX_DEPTH = 50  # aliases can nest without end
MAX_NODES = 200_000  # aliases of aliases can multiply without end
WORDS = {  # YAML 1.1's words, and Python's
    **dict.fromkeys(("", "~", "null", "Null", "NULL", "None")),
    **dict.fromkeys(("true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON"), True),
    **dict.fromkeys(("false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF"), False),
    **dict.fromkeys((".inf", "+.inf", "inf"), float("inf")),
    **dict.fromkeys(("-.inf", "-inf"), float("-inf")),
}


@dataclass(frozen=True)
class Node:
    """One value: a mapping {text: Node}, a list [Node], or a scalar's text.

    where:    "file:line" or the flag, the start of every message about it
    quoted:   the text stood in quotes, so it is text unless the schema wants something else
    replaces: a mapping that stands for the whole value (`_delete_: true`) instead of merging
    """

    value: Any
    where: str
    quoted: bool = False
    replaces: bool = False

    @property
    def text(self) -> str:
        """The value as a message shows it."""
        if isinstance(self.value, dict):
            return "a mapping"
        if isinstance(self.value, list):
            return f"a list of {len(self.value)}"
        return repr(self.value) if self.quoted or not self.value else self.value


def literal(node: Node) -> Node | Any:
    """What a scalar's text says by itself: None, bool, int, float, str, a Node for a container."""
    text = node.value
    if text in WORDS:
        return WORDS[text]
    if text[:1] not in "0123456789+-.([{'\"":
        return text
    try:
        with warnings.catch_warnings():  # Python warns of odd escapes in what may just be text
            warnings.simplefilter("ignore")
            value = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text
    if isinstance(value, (list, tuple, dict)):
        return from_plain(value, node.where)
    is_huge = isinstance(value, int) and value.bit_length() > 1000  # no float holds it
    return value if isinstance(value, (int, float, str)) and not is_huge else text


def expanded(node: Node) -> Node:
    """`node`, or the container that its text spells: `(300, 375)`."""
    inner = literal(node) if isinstance(node.value, str) else None
    return inner if isinstance(inner, Node) else node


def from_plain(value: Any, where: str) -> Node:
    """A Node for a Python value: dataclasses, mappings, sequences, scalars, None."""
    if is_dataclass(value):
        value = {field.name: getattr(value, field.name) for field in fields(value) if field.init}
    if isinstance(value, Mapping):
        return Node({str(k): from_plain(v, where) for k, v in value.items()}, where)
    if isinstance(value, (list, tuple)):
        return Node([from_plain(v, where) for v in value], where)
    if isinstance(value, (str, os.PathLike)):
        return Node(str(value), where, quoted=True)
    return Node(repr(value), where)


def merge(base: Node, child: Node) -> Node:
    """`child` over `base`: mappings merge key by key, anything else replaces."""
    both_mappings = isinstance(base.value, dict) and isinstance(child.value, dict)
    if not both_mappings or child.replaces:
        return child
    merged = dict(base.value)
    for key, node in child.value.items():
        merged[key] = merge(merged[key], node) if key in merged else node
    return replace(child, value=merged, replaces=base.replaces)


def read_file(path: Path, faults: list[str], above: tuple[Path, ...] = ()) -> Node:
    """The mapping of a YAML file merged over its `_base_` files; faults are appended.

    above: the files that led here through `_base_`, to find a circle.
    """
    empty = Node({}, str(path))
    try:
        with open(path, encoding="utf-8") as file:
            root = yaml.compose(file.read(), Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        faults.append(f"{place}: not valid YAML: {error.problem or error.context}")
        return empty
    except (yaml.YAMLError, UnicodeDecodeError):
        faults.append(f"{path}: not a text file in UTF-8; a YAML file is wanted")
        return empty
    except RecursionError:
        faults.append(f"{path}: nested too deep to be a config")
        return empty
    except OSError as error:
        faults.append(f"{path}: cannot be read: {error.strerror or error}")
        return empty
    if root is None:
        return empty
    tree = _Converter(path, faults).convert(root)
    if not isinstance(tree.value, dict):
        faults.append(f"{tree.where}: a config is a mapping of keys, this is {tree.text}")
        return empty
    return _over_bases(tree, path, faults, above)


def _over_bases(tree: Node, path: Path, faults: list[str], above: tuple[Path, ...]) -> Node:
    # fvcore, which reads the classification original's files, spells it in capitals
    named = tree.value.pop("_base_", None) or tree.value.pop("_BASE_", None)
    if named is None:
        return tree
    result = Node({}, str(path))
    for node in named.value if isinstance(named.value, list) else [named]:
        if not isinstance(node.value, str):
            faults.append(f"{node.where}: _base_ wants a file name or a list of them")
            continue
        base = Path(os.path.normpath(path.parent / node.value))
        if not base.is_file():
            faults.append(f"{node.where}: _base_ names {base}, which does not exist")
        elif base.resolve() in (*above, path.resolve()):
            faults.append(f"{node.where}: _base_ names {base}, which is based on this file itself")
        else:
            result = merge(result, read_file(base, faults, (*above, path.resolve())))
    return merge(result, tree)


class _Converter:
    """YAML's node graph to a tree of Nodes, with the line of every value."""

    def __init__(self, path: Path, faults: list[str]):
        self.path = path
        self.faults = faults
        self.count = 0

    def convert(self, node: yaml.Node, depth: int = 0) -> Node:
        where = f"{self.path}:{node.start_mark.line + 1}"
        self.count += 1
        if depth > MAX_DEPTH or self.count > MAX_NODES:
            if self.count <= MAX_NODES + 1:
                self.faults.append(f"{where}: nested too deep, or too large, to be a config")
            self.count = MAX_NODES + 1  # stop walking; one message is enough
            return Node("", where)
        if not node.tag.startswith("tag:yaml.org,2002:") or ":python/" in node.tag:
            self.faults.append(f"{where}: tag {node.tag} is not allowed in a config")
            return Node("", where)
        if isinstance(node, yaml.SequenceNode):
            return Node([self.convert(item, depth + 1) for item in node.value], where)
        if isinstance(node, yaml.MappingNode):
            return self.convert_mapping(node, where, depth)
        return Node(node.value, where, quoted=node.style is not None)

    def convert_mapping(self, node: yaml.MappingNode, where: str, depth: int) -> Node:
        items: dict[str, Node] = {}
        below = Node({}, where)  # what `<<` brings in, under the mapping's own keys
        for key_node, value_node in node.value:
            key, line = key_node.value, key_node.start_mark.line + 1
            value = replace(self.convert(value_node, depth + 1), where=f"{self.path}:{line}")
            if not isinstance(key_node, yaml.ScalarNode):
                self.faults.append(f"{self.path}:{line}: a key must be one word")
            elif key_node.tag == "tag:yaml.org,2002:merge":
                for source in value.value if isinstance(value.value, list) else [value]:
                    below = merge(source, below)
            elif key in items:
                self.faults.append(
                    f"{self.path}:{line}: key {key} stands twice, first at {items[key].where}"
                )
            else:
                items[key] = value
        delete = items.pop("_delete_", None)
        replaces = delete is not None and literal(delete) is True
        return Node({**below.value, **items}, where, replaces=replaces)


def override_value(text: str, where: str) -> Node:
    """The VALUE of KEY=VALUE: brackets, braces and quotes as in YAML, anything else plain text."""
    if text[:1] in ("[", "{", '"', "'"):
        try:
            node = yaml.compose(text, Loader=yaml.SafeLoader)
        except (yaml.YAMLError, RecursionError):
            return Node(text, where)
        return _relocate(_Converter(Path(where), []).convert(node), where)
    return Node(text, where)


def _relocate(node: Node, where: str) -> Node:
    value = node.value
    if isinstance(value, dict):
        value = {key: _relocate(item, where) for key, item in value.items()}
    elif isinstance(value, list):
        value = [_relocate(item, where) for item in value]
    return replace(node, value=value, where=where)
