"""Typed, frozen configs: dataclasses are the schema, files the recipes.

Defaults < file (over its `_base_` files) < overrides. Whatever is wrong in a file is collected and
raised as one `InputError`, each fault with file and line.
"""

import contextlib
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING
from pathlib import Path
from typing import Any, TypeVar

import yaml

from runtime.errors import InputError, did_you_mean
from runtime.files import write_text
from settings.files import read_file
from settings.foreign import Note
from settings.nodes import (
    Node,
    expanded,
    from_plain,
    is_file,
    is_folder,
    literal,
    merge,
    override_value,
)
from settings.schema import Builder, default_of

__all__ = ["InputError", "did_you_mean", "load_config", "save_config", "to_dict", "to_yaml"]

SET_TOO_LATE = "a variable whose value other keys have taken: set it where it stands in them"
MOST_FAULTS = 100  # lines of one report

Schema = TypeVar("Schema")


def load_config(
    schema: type[Schema],
    path: str | Path | None = None,
    overrides: Mapping[str, Any] | Iterable[str | tuple[str, Any]] = (),
    notes: list[Note] | None = None,
) -> Schema:
    """The frozen config: `schema`'s defaults, the file at `path` over them, then `overrides`.

    path:      a YAML file, or a Python config in MMDetection's form, which is read and never run
    schema:    a frozen dataclass; fields may be int, float, bool, str, Literal, X | None, unions,
               tuple, list, dict, dataclasses, Any (there, sequences come back as tuples), each
               with marks of `settings.ranges`: Annotated[int, Range(at_least=1)]
    overrides: {"dotted.key": value}, or texts "dotted.key=value" and pairs (dotted key, value) in
               any order; an integer part of a key indexes a list
    notes:     gets the original's keys that are accepted and change nothing

    A schema's class attributes: ALIKE, {section: another of the same kind}, says what a section
    takes where it leaves something out; WHOLE the sections that a Python config gives as a whole:
    what is not in them is as in their class, not as in the schema; EMPTY the lists that are empty
    in a Python config without the key. It states impossible combinations in `misfits`, see
    `settings.ranges.Section`, or by raising ValueError in `__post_init__`.
    Raises InputError with every fault found, each starting with its file:line or flag.
    """
    faults: list[str] = []
    tree = Node({}, "defaults")
    if path is not None:
        if not is_file(Path(path)):
            raise InputError(_no_such_file(Path(path)))
        tree = read_file(Path(path), faults)
        if Path(path).suffix == ".py":  # what MMDetection's sections leave out is the class's own
            whole = vars(schema).get("WHOLE", ())
            none = {key: Node([], str(path)) for key in vars(schema).get("EMPTY", ())}
            tree = dataclasses.replace(tree, value=none | {
                key: _whole(node) if key in whole else node for key, node in tree.value.items()})
    alike = getattr(schema, "ALIKE", {})
    items = list(_override_items(overrides, faults))
    for key, node in items:
        if key.partition(".")[0] not in alike:
            tree = _with_override(tree, schema, key, node, faults)
    for section, other in alike.items():
        own = [item for item in items if item[0].partition(".")[0] == section]
        tree = _filled(tree, schema, section, other, is_wanted=bool(own))
        for key, node in own:
            tree = _with_override(tree, schema, key, node, faults)
    config = Builder(schema, faults, notes).build(schema, tree, "", MISSING)
    if len(faults) > MOST_FAULTS:
        faults[MOST_FAULTS:] = [f"... and {len(faults) - MOST_FAULTS} faults more"]
    if faults:
        raise InputError(faults)
    return config


def to_dict(config: Any) -> Any:
    """`config` as plain dicts, lists and scalars; tuples become lists."""
    if dataclasses.is_dataclass(config):
        names = [field.name for field in dataclasses.fields(config) if field.init]
        return {name: to_dict(getattr(config, name)) for name in names}
    if isinstance(config, Mapping):
        return {key: to_dict(value) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return [to_dict(value) for value in config]
    return config


def to_yaml(config: Any) -> str:
    """`config` as plain YAML that `load_config` reads back to an equal object."""
    return yaml.dump(to_dict(config), Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def save_config(config: Any, path: str | Path) -> None:
    """Write `to_yaml(config)` to a file. Raises SaveError when it cannot be written."""
    text = to_yaml(config)
    write_text(path, text)


class _Dumper(yaml.SafeDumper):
    """Quotes every text that would read back as something else, and repeats instead of aliasing."""

    def ignore_aliases(self, data):
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    reads_back = literal(Node(text, "")) == text
    style = None if reads_back else "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def _no_such_file(path: Path) -> str:
    if is_folder(path):
        return f"{path}: a folder, and a config is a file"
    siblings = []
    with contextlib.suppress(OSError, ValueError):  # a name that no system can have
        siblings = [entry.name for entry in path.parent.iterdir()
                    if entry.suffix in (".yaml", ".yml", ".py")]
    return f"{path}: no such config file.{did_you_mean(path.name, siblings)}"


def _override_items(overrides: Mapping | Iterable[str | tuple], faults: list[str]):
    for item in overrides.items() if isinstance(overrides, Mapping) else overrides:
        if not isinstance(item, str):
            key, value = item
            yield key, from_plain(value, f"override {key}={value}")
            continue
        text, where = item, f"--cfg-options {item}"
        key, equals, value = text.partition("=")
        if equals and key.strip():
            yield key.strip(), override_value(value.strip(), where, faults)
        else:
            faults.append(f"{where}: want KEY=VALUE, for example TRAIN.lr=0.01")


def _with_override(tree: Node, schema: type, key: str, node: Node, faults: list[str]) -> Node:
    """`tree` with `node` put at the dotted `key`; list and dict defaults are filled in."""
    parts = key.split(".")

    def put(current: Node, depth: int) -> Node:
        if depth == len(parts):
            return merge(current, node)
        part, value = parts[depth], expanded(current).value
        if isinstance(value, list):
            if not part.isdecimal() or int(part) >= len(value):
                faults.append(f"{node.where}: {'.'.join(parts[:depth])} has no item {part}")
                return current
            i = int(part)
            items = [*value[:i], put(value[i], depth + 1), *value[i + 1 :]]
            return dataclasses.replace(current, value=items)
        if not isinstance(value, dict):
            current, value = Node({}, node.where), {}
        below = value.get(part) or _default_container(schema, parts[: depth + 1], node.where)
        return dataclasses.replace(current, value={**value, part: put(below, depth + 1)},
                                   variables=_without_use(current.variables, part))

    return put(tree, 0)


def _whole(node: Node) -> Node:
    """`node` whose mappings, inner ones too, stand for all that there is."""
    if not isinstance(node.value, dict):
        return node
    value = {key: _whole(child) for key, child in node.value.items()}
    return dataclasses.replace(node, value=value, replaces=True)


def _filled(tree: Node, schema: type, section: str, other: str, is_wanted: bool) -> Node:
    """`tree` whose `section`, where it has one or `is_wanted`, has over it what `other` says."""
    own = tree.value.get(section)
    if own is None:
        is_section = is_wanted
    else:
        is_section = isinstance(own.value, dict)
    if not is_section:
        return tree
    default = next(field for field in dataclasses.fields(schema) if field.name == other)
    below = from_plain(default_of(default), "defaults")
    for node in (tree.value.get(other), own):
        below = below if node is None else merge(below, node)
    return dataclasses.replace(tree, value={**tree.value, section: below})


def _without_use(variables: Mapping[str, str], key: str) -> Mapping[str, str]:
    """The variables of a Python config, one of which is set when its file has used it already."""
    return {**variables, key: SET_TOO_LATE} if key in variables else variables


def _default_container(schema: type, parts: Sequence[str], where: str) -> Node:
    """The schema's default at `parts` when it is a list, tuple or dict; else an empty mapping."""
    value: Any = schema
    for part in parts:
        if dataclasses.is_dataclass(value) and part.isdecimal():
            continue  # an item of a section that stands for several alike
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            value = getattr(value, part, None)
        elif dataclasses.is_dataclass(value):
            field = next((f for f in dataclasses.fields(value) if f.name == part), None)
            value = default_of(field) if field else None
        elif isinstance(value, (list, tuple)) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            value = value.get(part) if isinstance(value, dict) else None
    if isinstance(value, (list, tuple, dict)):
        return from_plain(value, where)
    return Node({}, where)
