"""Fits a tree of located values to a schema of dataclasses; every misfit becomes one fault line."""

import dataclasses
import math
import re
import typing
from collections.abc import Iterable, Mapping
from dataclasses import MISSING
from typing import Annotated, Any, Literal

from runtime.errors import InputError, did_you_mean, nearest
from runtime.other_tools import key_for
from runtime.spelling import same_name
from settings.foreign import NONE, ForeignKeys, ForeignTypes, Note
from settings.nodes import Node, expanded, literal
from settings.ranges import UNIONS, Mark, Section, hints_of, mark_faults, shown

BAD = object()  # stands for a value whose fault is already reported
_HINTED = 50  # faults that get a hint; more misspellings than that are another kind of file
_SCALARS = {int: "an integer", float: "a number", bool: "true or false", str: "text"}


def default_of(field: dataclasses.Field) -> Any:
    """A dataclass field's default, or `dataclasses.MISSING`."""
    return field.default_factory() if field.default_factory is not MISSING else field.default


class Builder:
    """Turns Nodes into values of the declared types; appends what does not fit to `faults`.

    notes: gets the keys that are accepted and change nothing
    """

    def __init__(self, schema: type, faults: list[str], notes: list[Note] | None = None):
        self.schema = schema
        self.faults = faults
        self.notes = [] if notes is None else notes

    def build(self, hint: Any, node: Node, path: str, default: Any) -> Any:
        """The value of type `hint`, or `BAD`. default: what a nested dataclass starts from."""
        if dataclasses.is_dataclass(hint):
            return self.build_dataclass(hint, node, path, default)
        origin, args = typing.get_origin(hint), typing.get_args(hint)
        if origin is Annotated:
            return self.build_marked(args[0], args[1:], node, path, default)
        if origin in UNIONS:
            return self.build_union(args, node, path, default)
        if origin is Literal:
            return self.build_choice(args, node, path)
        if hint is Any:
            return _natural(node)
        if hint in _SCALARS:
            return self.build_scalar(hint, node, path)
        if (origin or hint) is dict:
            return self.build_dict(args, node, path)
        if (origin or hint) in (list, tuple):
            return self.build_sequence(origin or hint, args, node, path)
        raise TypeError(f"{path}: a schema cannot declare {hint}")

    def wrong(self, node: Node, path: str, wanted: str) -> Any:
        self.faults.append(f"{node.where}: {path or 'the config'} wants {wanted}, got {node.text}")
        return BAD

    def build_marked(self, hint: Any, marks: tuple[Mark, ...], node: Node, path: str,
                     default: Any) -> Any:
        """The value when it is of type `hint` and all `marks` of `settings.ranges` let it pass."""
        given = node.value.get("type") if isinstance(node.value, dict) else None
        for mark in marks:
            if isinstance(mark, ForeignTypes) and given and given.value in mark.names.split():
                self.faults.append(f"{given.where}: {path}.type: {mark.owner}'s {given.value} is "
                                   "not built here")
                return BAD
        value = self.build(hint, node, path, default)
        if value is BAD:
            return BAD
        got = node.text if isinstance(node.value, str) else shown(value)
        faults = mark_faults(marks, value, path, got)
        self.faults += [f"{node.where}: {fault}" for fault in faults]
        return BAD if faults else value

    def build_dataclass(self, hint: type, node: Node, path: str, default: Any) -> Any:
        if not isinstance(node.value, dict):
            return self.wrong(node, path, "a mapping of keys")
        base = default if isinstance(default, hint) and not node.replaces else None
        if issubclass(hint, Section):
            node = hint.prepared(node, path, base, self.faults)
        hints = hints_of(hint)
        fields = {field.name: field for field in dataclasses.fields(hint) if field.init}
        given: dict[str, Any] = {}
        for key, child in node.value.items():
            dotted = f"{path}.{key}" if path else key
            if key not in fields:
                foreign = getattr(hint, "FOREIGN", NONE)
                if not (self.is_variable(node, key, foreign)
                        or self.is_foreign(foreign, key, child, dotted)):
                    hint_text = self.hint_for(key, path + "." if path else "", fields)
                    self.faults.append(f"{child.where}: unknown key {dotted}.{hint_text}")
                continue
            child_default = getattr(base, key) if base else default_of(fields[key])
            given[key] = self.build(hints[key], child, dotted, child_default)
        for key, field in fields.items():
            if base is None and key not in given and default_of(field) is MISSING:
                dotted = f"{path}.{key}" if path else key
                self.faults.append(f"{node.where}: key {dotted} is missing and has no default")
                given[key] = BAD
        if any(value is BAD for value in given.values()):
            return BAD
        try:
            return dataclasses.replace(base, **given) if base else hint(**given)
        except InputError as error:
            # a section names its keys as they stand in it
            above = f"{path}." if path and issubclass(hint, Section) else ""
            self.faults += [f"{_place(node, path, fault)}: {above}{fault}"
                            for fault in error.faults]
        except ValueError as error:
            place = _place(node, path, str(error))
            self.faults.append(f"{place}: {path + ': ' if path else ''}{error}")
        return BAD

    def is_foreign(self, foreign: ForeignKeys, key: str, node: Node, path: str) -> bool:
        """Whether an original has the key; what that means becomes a note or a fault."""
        if key in foreign.ignored:
            self.notes.append(Note(path, foreign.ignored[key]))
        elif key in foreign.refused:
            self.faults.append(f"{node.where}: {path} is not supported here: "
                               f"{foreign.refused[key]}")
        elif key in foreign.same:
            self.want_same(foreign.same[key], node, path)
        return key in foreign.ignored or key in foreign.refused or key in foreign.same

    def is_variable(self, node: Node, key: str, foreign: ForeignKeys) -> bool:
        """Whether a key is a variable of a Python config, with a note where it changes nothing."""
        is_known = key in foreign.refused or key in foreign.same
        why = None if is_known else node.variables.get(key)
        if why:
            self.notes.append(Note(key, why))
        return why is not None

    def want_same(self, wanted: Any, node: Node, path: str) -> None:
        """Appends a fault for each part of `node` that is not as in `wanted`."""
        node = expanded(node)
        if isinstance(wanted, Mapping) and isinstance(node.value, dict):
            for key, child in node.value.items():
                if key in wanted:
                    self.want_same(wanted[key], child, f"{path}.{key}")
                else:
                    self.faults.append(f"{child.where}: unknown key {path}.{key}."
                                       f"{did_you_mean(key, wanted)}")
        elif isinstance(wanted, Mapping) and isinstance(node.value, list):  # one for each stage
            for i, item in enumerate(node.value):
                self.want_same(wanted, item, f"{path}[{i}]")
        elif _natural(node) != _tuples(wanted):
            self.faults.append(f"{node.where}: {path} wants {shown(wanted)}, got {node.text}: "
                               "other values are not supported here")

    def hint_for(self, key: str, section: str, siblings: Iterable[str]) -> str:
        """The hint for an unknown key.

        The same word in its section, then elsewhere; the nearest of its section; what other tools
        call so; the nearest elsewhere.
        """
        if len(self.faults) > _HINTED:
            return ""
        same = next((sibling for sibling in siblings if same_name(key, sibling)), None)
        if same:
            return f" Did you mean {section}{same}?"
        by_leaf: dict[str, str] = {}
        for dotted in _dotted_keys(self.schema):
            by_leaf.setdefault(dotted.rpartition(".")[2], dotted)
        namesake = next((leaf for leaf in by_leaf if same_name(key, leaf)), None)
        near = None if namesake else nearest(key, siblings)
        found = (namesake and by_leaf[namesake]) or (near and section + near)
        found = found or key_for(key, _dotted_keys(self.schema)) or by_leaf.get(
            nearest(key, by_leaf) or "")
        return f" Did you mean {found}?" if found else ""

    def build_union(self, args: tuple, node: Node, path: str, default: Any) -> Any:
        members = [arg for arg in args if arg is not type(None)]
        is_scalar = isinstance(node.value, str) and not node.quoted
        if len(members) < len(args) and is_scalar and literal(node) is None:
            return None
        if isinstance(node.value, (dict, list)) and any(map(_has_section, members)):
            members = [member for member in members if _may_be(member, node)] or members
        if len(members) == 1:
            return self.build(members[0], node, path, default)
        if isinstance(node.value, dict) and all(map(dataclasses.is_dataclass, members)):
            return self.build_typed(members, node, path, default)
        members.sort(key=lambda member: member is str)  # any text fits str: ask it last
        faults_before, notes_before = len(self.faults), len(self.notes)
        for member in members:
            value = self.build(member, node, path, default)
            if value is not BAD:
                return value
            del self.faults[faults_before:], self.notes[notes_before:]
        return self.wrong(node, path, " or ".join(_words(member) for member in members))

    def build_typed(self, sections: list, node: Node, path: str, default: Any) -> Any:
        """One of several sections, told by its `type`."""
        by_type = {name: section for section in sections
                   for name in typing.get_args(hints_of(section)["type"])}
        given = node.value.get("type")
        if given is None:
            self.faults.append(f"{node.where}: key {path}.type is missing and has no default")
            return BAD
        name = self.build_choice(tuple(by_type), given, f"{path}.type")
        if name is BAD:
            return BAD
        others = {key for section in sections for key in _keys(section)} - _keys(by_type[name])
        # a dump may have every kind's keys, with null for those of the others
        kept = {key: child for key, child in node.value.items()
                if key not in others or not _is_null(child)}
        return self.build(by_type[name], dataclasses.replace(node, value=kept), path, default)

    def build_choice(self, choices: tuple, node: Node, path: str) -> Any:
        text = node.value if isinstance(node.value, str) else None
        for choice in choices:
            if text is not None and (text == choice or literal(node) == choice):
                return choice
        names = [str(choice) for choice in choices]
        self.wrong(node, path, f"one of {', '.join(names)}")
        self.faults[-1] += "." + did_you_mean(text or "", names)
        return BAD

    def build_scalar(self, hint: type, node: Node, path: str) -> Any:
        if not isinstance(node.value, str):
            return self.wrong(node, path, _SCALARS[hint])
        if hint is str:
            is_null = not node.quoted and node.value and literal(node) is None
            return self.wrong(node, path, "text") if is_null else node.value
        value = literal(node)
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if hint is float and is_number and math.isfinite(value):
            return float(value)
        if hint is int and is_number and abs(value) >= 2**63:
            return self.wrong(node, path, "an integer that 64 bits hold")
        if type(value) is hint and hint is not float:
            return value
        self.wrong(node, path, _SCALARS[hint])
        if hint is int and is_number and math.isfinite(value) and value == int(value):
            self.faults[-1] += f". Write {int(value)}"
        return BAD

    def build_sequence(self, kind: type, args: tuple, node: Node, path: str) -> Any:
        items = _items(node)
        if items is None and args and isinstance(node.value, dict) and _is_section(args[0]):
            items = [node]  # one section stands for a list of one, as in MMEngine
        fixed = bool(args) and args[-1] is not Ellipsis and kind is tuple
        if items is None or (fixed and len(items) != len(args)):
            return self.wrong(node, path, _words(kind[args] if args else kind))
        hints = args if fixed else (args[0] if args else Any,) * len(items)
        built = [
            self.build(hint, item, f"{path}[{i}]", MISSING)
            for i, (hint, item) in enumerate(zip(hints, items, strict=True))
        ]
        return BAD if any(value is BAD for value in built) else kind(built)

    def build_dict(self, args: tuple, node: Node, path: str) -> Any:
        node = expanded(node)
        if not isinstance(node.value, dict):
            return self.wrong(node, path, "a mapping of keys")
        key_hint, value_hint = args or (Any, Any)
        built = {}
        for key, child in node.value.items():
            key_node = Node(key, child.where)
            name = _key(key) if key_hint is Any else self.build(key_hint, key_node, path, MISSING)
            built[name] = self.build(value_hint, child, f"{path}.{key}", MISSING)
        is_bad = BAD in built or any(value is BAD for value in built.values())
        return BAD if is_bad else built


def _is_section(hint: Any) -> bool:
    return dataclasses.is_dataclass(_bare(hint))


def _place(node: Node, path: str, fault: str) -> str:
    """Where the key stands that a fault begins with; where its section does when it is not given.

    path: of the section that `node` is; a fault may name its key from there or from the top
    """
    words = re.split(r"[^\w.]", fault, maxsplit=1)[0].removeprefix(f"{path}.").split(".")
    for word in words:
        if not isinstance(node.value, dict) or word not in node.value:
            break
        node = node.value[word]
    return node.where


def _items(node: Node) -> list[Node] | None:
    """The items of a list, of a literal such as `(300, 375)`, or of plain words `a,b`."""
    node = expanded(node)
    if not isinstance(node.value, str):
        return node.value if isinstance(node.value, list) else None
    text = node.value
    if text[:1] + text[-1:] in ("()", "[]"):
        text = text[1:-1]
    elif "," not in text:
        return None
    return [Node(word.strip(), node.where) for word in text.split(",") if word.strip()]


def _natural(node: Node) -> Any:
    """What a value says by itself, where the schema declares Any. Sequences become tuples."""
    if isinstance(node.value, dict):
        return {_key(key): _natural(child) for key, child in node.value.items()}
    if isinstance(node.value, list):
        return tuple(_natural(child) for child in node.value)
    if node.quoted:
        return node.value
    value = literal(node)
    return _natural(value) if isinstance(value, Node) else value


def _tuples(value: Any) -> Any:
    """A plain value in the form that `_natural` gives."""
    if isinstance(value, Mapping):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, (list, tuple)) else value


def _key(text: str) -> int | str:
    """A mapping's key where no type is declared: whole numbers (category ids) are numbers."""
    return int(text) if text.isdecimal() else text


def _keys(section: type) -> set[str]:
    """Those of its fields, and those that an original has with one value."""
    return {*hints_of(section), *getattr(section, "FOREIGN", NONE).same}


def _is_null(node: Node) -> bool:
    return isinstance(node.value, str) and not node.quoted and literal(node) is None


def _has_section(hint: Any) -> bool:
    """Whether a section is among the types of a union."""
    hint = _bare(hint)
    is_union = typing.get_origin(hint) in UNIONS
    return any(map(_has_section, typing.get_args(hint))) if is_union else (
        dataclasses.is_dataclass(hint))


def _may_be(hint: Any, node: Node) -> bool:
    """Whether a mapping can be a value of the type; or, where `node` is none, a list."""
    if isinstance(node.value, dict):
        return _has_section(hint) or (typing.get_origin(hint) or hint) is dict
    return (typing.get_origin(hint) or hint) in (list, tuple)


def _bare(hint: Any) -> Any:
    """A declared type without its marks."""
    return typing.get_args(hint)[0] if typing.get_origin(hint) is Annotated else hint


def _words(hint: Any) -> str:
    """A declared type as a message names it."""
    hint = _bare(hint)
    args = typing.get_args(hint)
    if hint in _SCALARS:
        return _SCALARS[hint]
    if dataclasses.is_dataclass(hint) or (typing.get_origin(hint) or hint) is dict:
        return "a mapping of keys"
    if typing.get_origin(hint) is Literal:
        return "one of " + ", ".join(map(str, args))
    if (typing.get_origin(hint) or hint) is tuple and args and args[-1] is not Ellipsis:
        return f"a list of {len(args)} values"
    of_what = {int: " of integers", float: " of numbers", str: " of texts"}
    return "a list" + of_what.get(_bare(args[0]) if args else None, "")


def _dotted_keys(schema: type, prefix: str = "") -> list[str]:
    """Every key of a schema with its path, sections included."""
    keys = []
    hints = typing.get_type_hints(schema)
    for field in dataclasses.fields(schema):
        if not field.init:
            continue
        keys.append(prefix + field.name)
        for hint in (hints[field.name], *typing.get_args(hints[field.name])):
            if dataclasses.is_dataclass(hint) and hint is not schema:
                keys += _dotted_keys(hint, f"{prefix}{field.name}.")
    return keys
