"""What the values of a config may be: marks on the types of its schema.

    epochs: Annotated[int, Range(at_least=1)] = 12
    sizes: Annotated[tuple[Count, ...], NOT_EMPTY] = (300, 375)

A mark stands on a field's type, on the items of a list, on the values of a dict, or inside
`X | None`; on a union of several types it stands outside. `settings.schema` asks the marks while it
reads a file, so that a fault has its line. `Section`, the base of all schemas, asks them for every
object, also one that Python code or `dataclasses.replace` makes.
"""

import functools
import re
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

from runtime.errors import InputError, did_you_mean
from settings.nodes import Node

UNIONS = (typing.Union, types.UnionType)
_SHOWN = 80  # letters of a value in a message


class Mark(Protocol):
    """One demand on a value."""

    def faults(self, value: Any, got: str) -> list[str]:
        """What is wrong with `value`, to stand behind its key; got: the value in a message."""


@dataclass(frozen=True)
class Range:
    """A number within limits. why: the reason, where it does not go without saying."""

    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    why: str = ""

    def faults(self, value: Any, got: str) -> list[str]:
        holds = (  # written so that nan holds nowhere
            (self.at_least is None or value >= self.at_least)
            and (self.above is None or value > self.above)
            and (self.at_most is None or value <= self.at_most)
            and (self.below is None or value < self.below)
        )
        reason = f": {self.why}" if self.why else ""
        return [] if holds else [f"wants a number {self._limits()}, got {got}{reason}"]

    def _limits(self) -> str:
        if self.at_least is not None and self.at_most is not None:
            return f"from {self.at_least} to {self.at_most}"
        named = {"of at least": self.at_least, "above": self.above, "of at most": self.at_most,
                 "below": self.below}
        return " and ".join(f"{words} {n}" for words, n in named.items() if n is not None)


@dataclass(frozen=True)
class OneOf:
    """A value out of a few; of one only, where the original has more and this project has not."""

    choices: tuple[Any, ...]
    any_case: bool = False  # texts in capitals, too

    def faults(self, value: Any, got: str) -> list[str]:
        known = value.lower() if self.any_case else value
        if known in (c.lower() if self.any_case else c for c in self.choices):
            return []
        words = [_word(choice) for choice in self.choices]
        if len(words) == 1:
            return [f"wants {words[0]}, got {got}: other values are not supported here"]
        return [f"wants one of {', '.join(words)}, got {got}.{did_you_mean(str(value), words)}"]


@dataclass(frozen=True)
class Rule:
    """Any other demand, in words that stand behind "wants"."""

    wanted: str
    holds: Callable[[Any], bool]

    def faults(self, value: Any, got: str) -> list[str]:
        return [] if self.holds(value) else [f"wants {self.wanted}, got {got}"]


@dataclass(frozen=True)
class Distinct:
    """A list without an item that stands twice; a bare text stands for a list of one."""

    def faults(self, value: Any, got: str) -> list[str]:
        items = [value] if isinstance(value, str) else list(value)
        if len(set(items)) == len(items):
            return []
        again = next(item for item in items if items.count(item) > 1)
        return [f"has {again} twice, wants each name once"]


NOT_EMPTY = Rule("at least one", bool)
ASCENDING = Rule("an ascending order", lambda items: list(items) == sorted(items))

Count = Annotated[int, Range(at_least=1)]
Whole = Annotated[int, Range(at_least=0)]
NotNegative = Annotated[float, Range(at_least=0)]
Positive = Annotated[float, Range(above=0)]
Fraction = Annotated[float, Range(at_least=0, at_most=1)]
Seed = Annotated[int, Range(at_least=0, at_most=2**32 - 1)]
FolderName = Annotated[str, Rule(
    "the name of a folder, without slashes",
    lambda name: bool(re.fullmatch(r"[^/\\\0]+", name)) and name not in (".", ".."))]


class Section:
    """Base of a schema's frozen dataclasses: no object has values that the schema refuses."""

    def __post_init__(self) -> None:
        hints = hints_of(type(self))
        faults = [fault for key, value in vars(self).items()
                  for fault in range_faults(hints[key], value, key)]
        faults = faults or self.misfits()
        if faults:
            raise InputError(faults)

    @classmethod
    def prepared(cls, node: Node, path: str, base: Any, faults: list[str]) -> Node:
        """The section's node in the words of its fields, where an original has others.

        path: of the section; base: the section that the node changes, None for none; faults: gets
        what is wrong. Asked before the fields are read.
        """
        return node

    def misfits(self) -> list[str]:
        """What does not go together though each value may be: lines that begin with a key.

        Called when every value is within its own range.
        """
        return []


@functools.cache
def hints_of(schema: type) -> dict[str, Any]:
    """{field: its declared type, marks included}."""
    return typing.get_type_hints(schema, include_extras=True)


def range_faults(hint: Any, value: Any, key: str) -> list[str]:
    """One line for each part of `value` that a mark in the type `hint` refuses; sections aside."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        inner, *marks = args
        return range_faults(inner, value, key) or mark_faults(marks, value, key, shown(value))
    if origin in UNIONS:
        members = [arg for arg in args if arg is not type(None)]
        is_plain = value is None or len(members) > 1
        return [] if is_plain else range_faults(members[0], value, key)
    if origin is dict:
        parts = [(args[1], item, f"{key}.{name}") for name, item in value.items()]
    elif origin in (list, tuple):
        hints = (args[0],) * len(value) if origin is list or args[-1] is Ellipsis else args
        parts = [(inner, item, f"{key}[{i}]")
                 for i, (inner, item) in enumerate(zip(hints, value, strict=True))]
    else:
        parts = []
    return [fault for part in parts for fault in range_faults(*part)]


def mark_faults(marks: typing.Iterable[Mark], value: Any, key: str, got: str) -> list[str]:
    """One line for each fault that `marks` find in `value`."""
    return [f"{key} {fault}" for mark in marks for fault in mark.faults(value, got)]


def shown(value: Any) -> str:
    """A value in a message, with sequences as YAML has them."""
    text = repr(_listed(value))
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _listed(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_listed(item) for item in value]
    return value


def _word(value: Any) -> str:
    """A value as YAML spells it."""
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)
