"""YAML files and overrides as a tree that remembers where each value was written.

A `Node` keeps the source text of every scalar, so that the schema, not YAML, decides what the text
means: YAML 1.1 reads `1e-3` and `(300, 375)` as text and `off` as a boolean.
"""

import ast
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import yaml

MAX_DEPTH = 50  # aliases can nest without end
MAX_NODES = 200_000  # aliases of aliases can multiply without end
MAX_BYTES = 1_000_000  # of a file; the largest recipe has 3,000
MAX_LITERAL = 200_000  # letters of a value that Python's own parser is asked about
_SHOWN = 80  # letters of a value in a message
WORDS = {  # YAML 1.1's words, and Python's
    **dict.fromkeys(("", "~", "null", "Null", "NULL", "None")),
    **dict.fromkeys(("true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON"), True),
    **dict.fromkeys(("false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF"), False),
    **dict.fromkeys((".inf", "+.inf", "inf"), float("inf")),
    **dict.fromkeys(("-.inf", "-inf"), float("-inf")),
}
_NO_VARIABLES: Mapping[str, str] = {}


@dataclass(frozen=True)
class Node:
    """One value: a mapping {text: Node}, a list [Node], or a scalar's text.

    where:     "file:line" or the flag, the start of every message about it
    quoted:    the text stood in quotes, so it is text unless the schema wants something else
    replaces:  a mapping that stands for the whole value (`_delete_: true`) instead of merging
    variables: {key of a mapping that need not be a key of the schema, because it is a variable of
               a Python config: why it changes nothing, "" where its file uses it}
    """

    value: Any
    where: str
    quoted: bool = False
    replaces: bool = False
    variables: Mapping[str, str] = field(default_factory=lambda: _NO_VARIABLES)

    @property
    def text(self) -> str:
        """The value as a message shows it."""
        if isinstance(self.value, dict):
            return "a mapping"
        if isinstance(self.value, list):
            return f"a list of {len(self.value)}"
        value = self.value if len(self.value) <= _SHOWN else self.value[:_SHOWN] + "..."
        return repr(value) if self.quoted or not value else value


def literal(node: Node) -> Node | Any:
    """What a scalar's text says by itself: None, bool, int, float, str, a Node for a container."""
    text = node.value
    if text in WORDS:
        return WORDS[text]
    if text[:1] not in "0123456789+-.([{'\"" or len(text) > MAX_LITERAL:
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
    """`child` over `base`: mappings merge key by key, anything else replaces.

    A mapping of numbers over a list changes those items of it.
    """
    if isinstance(base.value, list) and _are_places(child, len(base.value)):
        items = [merge(item, child.value[str(i)]) if str(i) in child.value else item
                 for i, item in enumerate(base.value)]
        return replace(child, value=items)
    both_mappings = isinstance(base.value, dict) and isinstance(child.value, dict)
    if not both_mappings or child.replaces:
        return child
    merged = dict(base.value)
    for key, node in child.value.items():
        merged[key] = merge(merged[key], node) if key in merged else node
    return replace(child, value=merged, replaces=base.replaces,
                   variables={**base.variables, **child.variables})


def _are_places(child: Node, count: int) -> bool:
    """Whether the keys of a mapping are numbers of items of a list of `count`."""
    return isinstance(child.value, dict) and bool(child.value) and not child.replaces and all(
        key.isdecimal() and int(key) < count for key in child.value if len(key) < 6)


def is_file(path: Path) -> bool:
    """Whether there is a readable place with a file: also for names that no system can have."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long, a zero byte, a folder that may not be entered
        return False


def is_folder(path: Path) -> bool:
    """Whether there is a folder: also for names that no system can have."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def read_yaml(path: Path, faults: list[str]) -> Node:
    """The mapping of a YAML file, its `_base_` as it stands; faults are appended."""
    root = _compose(path, faults)
    tree = Node({}, str(path)) if root is None else _Converter(path, faults).convert(root)
    if isinstance(tree.value, dict):
        return tree
    faults.append(f"{tree.where}: a config is a mapping of keys, this is {tree.text}")
    return Node({}, str(path))


def _compose(path: Path, faults: list[str]) -> yaml.Node | None:
    """The file as YAML's graph of nodes; None when there is nothing in it, or a fault."""
    try:
        if path.stat().st_size > MAX_BYTES:
            faults.append(f"{path}: {path.stat().st_size:,} bytes are too large to be a config")
            return None
        text = path.read_bytes().decode("utf-8-sig")
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        faults.append(f"{place}: not valid YAML: {error.problem or error.context}")
    except (yaml.YAMLError, UnicodeError):
        faults.append(f"{path}: not a text file in UTF-8; a YAML file is wanted")
    except RecursionError:
        faults.append(f"{path}: nested too deep to be a config")
    except OSError as error:
        faults.append(f"{path}: cannot be read: {error.strerror or error}")
    except (ValueError, TypeError, IndexError, AttributeError) as error:  # YAML's own slips
        faults.append(f"{path}: not valid YAML: {error}")
    return None


class _Converter:
    """YAML's node graph to a tree of Nodes, with the line of every value.

    place: the file, whose lines are named, or else the flag, which is named alone
    """

    def __init__(self, place: Path | str, faults: list[str]):
        self.place = place
        self.faults = faults
        self.count = 0

    def where(self, node: yaml.Node) -> str:
        has_lines = isinstance(self.place, Path)
        return f"{self.place}:{node.start_mark.line + 1}" if has_lines else str(self.place)

    def convert(self, node: yaml.Node, depth: int = 0) -> Node:
        where = self.where(node)
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
            key, line = key_node.value, self.where(key_node)
            value = replace(self.convert(value_node, depth + 1), where=line)
            if not isinstance(key_node, yaml.ScalarNode):
                self.faults.append(f"{line}: a key must be one word")
            elif key_node.tag == "tag:yaml.org,2002:merge":
                for source in value.value if isinstance(value.value, list) else [value]:
                    if isinstance(source.value, dict):
                        below = merge(source, below)
                    else:
                        self.faults.append(f"{line}: << wants a mapping, got {source.text}")
            elif key in items:
                self.faults.append(f"{line}: key {key} stands twice, first at {items[key].where}")
            else:
                items[key] = value
        delete = items.pop("_delete_", None)
        replaces = delete is not None and isinstance(delete.value, str) and literal(delete) is True
        return Node({**below.value, **items}, where, replaces=replaces)


def override_value(text: str, where: str, faults: list[str]) -> Node:
    """The VALUE of KEY=VALUE: brackets, braces and quotes as in YAML, anything else plain text."""
    if text[:1] in ("[", "{", '"', "'") and len(text) <= MAX_BYTES:
        try:
            node = yaml.compose(text, Loader=yaml.SafeLoader)
        except (yaml.YAMLError, RecursionError, ValueError):
            return Node(text, where)
        return _Converter(where, faults).convert(node)
    return Node(text, where)
