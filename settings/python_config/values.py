"""The values of a Python config: scalars, and containers that know the line of each item.

Work and sizes are bounded, so that a hostile file costs a fraction of a second.
"""

import ast
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from settings.nodes import MAX_DEPTH, Node, expanded, literal

MAX_WORK = 300_000  # units of one config with its bases: an item is one, a visited expression 5
MAX_TEXT = 100_000  # letters of one text
MAX_BITS = 4096  # of one whole number
MAX_LEVELS = 90  # of brackets and operators
EXPRESSION_WORK = 5
CONTAINER_WORK = 5
LETTERS_PER_UNIT = 10

Value = Any  # None, bool, int, float, str, Imported, range, Row, Table


class Unreadable(Exception):
    """An expression that has no value here. why: the rest of the line; "": it was told already"""

    def __init__(self, node: ast.AST, why: str):
        super().__init__(why)
        self.node = node
        self.why = why


class TooMuch(Exception):
    """The file asks for more work than a config needs."""


class Budget:
    """The work that is left."""

    def __init__(self) -> None:
        self.left = MAX_WORK

    def spend(self, units: int) -> None:
        """Raises TooMuch when there is no more."""
        self.left -= units
        if self.left < 0:
            raise TooMuch


class Imported(str):
    """A class that the config names as a value, by its last name. dotted: all of its name"""

    dotted: str

    def __new__(cls, dotted: str) -> "Imported":
        made = super().__new__(cls, dotted.rpartition(".")[2])
        made.dotted = dotted
        return made

    @property
    def package(self) -> str:
        """The first of its names; "" for one of a file beside the config."""
        return self.dotted.partition(".")[0]


class Table(dict[Any, Value]):
    """A dict. lines: {key: where it was written}; deep: `update` merges dicts within, as
    mmengine's own do, which come from another file
    """

    def __init__(self, where: str, deep: bool = False):
        super().__init__()
        self.where = where
        self.lines: dict[Any, str] = {}
        self.deep = deep

    def put(self, key: Any, value: Value, where: str) -> None:
        """Set an item. Raises TypeError for a key that no config can have."""
        if not isinstance(key, (str, int, float)):
            raise TypeError("a key is a text or a number")
        self[key] = value
        self.lines[key] = where

    def take(self, other: "Table") -> None:
        """Set the items of another one, with their lines."""
        for key, value in other.items():
            self.put(key, value, other.lines[key])

    def merge(self, other: "Table", budget: Budget, level: int = 0) -> None:
        """As mmengine's dicts update: dicts within dicts are merged too."""
        if level > MAX_DEPTH:
            raise ValueError("nested too deep")
        budget.spend(len(other))
        for key, value in other.items():
            mine = self.get(key)
            if (isinstance(value, Table) and isinstance(mine, Table) and mine is not value
                    and value.get("_delete_") is not True):
                mine.merge(value, budget, level + 1)
            else:
                self.put(key, value, other.lines[key])

    def copied(self) -> "Table":
        """Another one with the same items."""
        made = Table(self.where, self.deep)
        made.take(self)
        return made


class Row(list[Value]):
    """A list, a tuple or a set. lines: where each item was written"""

    def __init__(self, where: str, items: Iterable[Value] = (), is_tuple: bool = False):
        super().__init__(items)
        self.where = where
        self.lines = [where] * len(self)
        self.is_tuple = is_tuple

    def add(self, value: Value, where: str) -> None:
        """Append an item."""
        self.append(value)
        self.lines.append(where)

    def take(self, other: Iterable[Value], where: str) -> None:
        """Append the items of another one."""
        lines = list(other.lines) if isinstance(other, Row) else None
        items = list(other)
        self += items
        self.lines += lines if lines is not None else [where] * len(items)

    def part(self, which: slice) -> "Row":
        """The items of a slice."""
        made = Row(self.where, self[which], self.is_tuple)
        made.lines = self.lines[which]
        return made


def weigh(value: Value, budget: Budget, level: int = 0,
          known: dict[int, int] | None = None) -> int:
    """Items and letters of a value with all that it holds, each time that it is held.

    Raises ValueError for what holds itself, or is nested deeper than a config may be.
    """
    known = {} if known is None else known
    if isinstance(value, str):
        return 1 + len(value) // LETTERS_PER_UNIT
    if isinstance(value, range):
        return 1 + len(value)
    if not isinstance(value, (Row, Table)):
        return 1
    if level > MAX_DEPTH:
        raise ValueError("nested too deep to be a config")
    if id(value) not in known:
        budget.spend(1 + len(value))
        inner = value.values() if isinstance(value, Table) else value
        known[id(value)] = 1 + sum(weigh(item, budget, level + 1, known) for item in inner)
    return known[id(value)]


def iterated(value: Value, budget: Budget) -> Iterator[Value]:
    """The items of a container, a text or a range. Raises TypeError for anything else."""
    if not isinstance(value, (str, range, Row, Table)):
        raise TypeError("it is no list")
    for item in list(value) if isinstance(value, (Row, Table)) else value:
        budget.spend(1)
        yield item


def deep_copy(value: Value, budget: Budget) -> Value:
    """A copy that shares no container with `value`."""
    budget.spend(weigh(value, budget))
    return _copied(value)


def _copied(value: Value) -> Value:
    if isinstance(value, Table):
        made = Table(value.where, value.deep)
        for key, item in value.items():
            made.put(key, _copied(item), value.lines[key])
        return made
    if isinstance(value, Row):
        row = Row(value.where, map(_copied, value), value.is_tuple)
        row.lines = list(value.lines)
        return row
    return value


def to_node(value: Value, where: str, budget: Budget) -> Node:
    """`value` as the schema reads it. Raises ValueError when it is nested without end."""
    budget.spend(weigh(value, budget))
    return _node(value, where)


def _node(value: Value, where: str) -> Node:
    if isinstance(value, Table):
        items = {str(key): _node(item, value.lines[key]) for key, item in value.items()
                 if key != "_delete_"}
        kind = items.get("type")
        if kind is not None and isinstance(kind.value, str):
            items["type"] = Node(_class_name(kind.value), kind.where, kind.quoted)
        return Node(items, where, replaces=value.get("_delete_") is True)
    if isinstance(value, (Row, range)):
        lines = value.lines if isinstance(value, Row) else [where] * len(value)
        return Node([_node(item, line) for item, line in zip(value, lines, strict=True)], where)
    if isinstance(value, str):
        return Node(str(value), where, quoted=True)
    return Node(repr(value), where)


def _class_name(text: str) -> str:
    """A class's own name: the dump of a config that names classes has their modules before it."""
    package, dot, _ = text.partition(".")
    return text.rpartition(".")[2] if dot and package in PACKAGES else text


PACKAGES = ("mmdet", "mmengine", "mmcv", "mmpretrain", "mmcls", "torch", "torchvision")


def from_node(node: Node, budget: Budget) -> Value:
    """What another file's tree is worth in this one."""
    budget.spend(1)
    if isinstance(node.value, dict):
        table = Table(node.where, deep=True)
        for key, item in node.value.items():
            table.put(key, from_node(item, budget), item.where)
        if node.replaces:
            table.put("_delete_", True, node.where)
        return table
    if isinstance(node.value, list):
        row = Row(node.where, [from_node(item, budget) for item in node.value])
        row.lines = [item.where for item in node.value]
        return row
    if node.quoted:
        return node.value
    inner = expanded(node)
    return from_node(inner, budget) if inner is not node else literal(node)


def shown(value: Value) -> str:
    """What Python's str() gives for a value that `weigh` has found small."""
    return str(value) if isinstance(value, str) else _repr(value)


def _repr(value: Value) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k!r}: {_repr(v)}" for k, v in value.items()) + "}"
    if isinstance(value, Row):
        inner = ", ".join(map(_repr, value))
        if value.is_tuple:
            return f"({inner},)" if len(value) == 1 else f"({inner})"
        return f"[{inner}]"
    return repr(value)
