"""Keys of an original's config that have no field here, and what becomes of each.

A section of a schema names them in its class attribute FOREIGN, beside its fields:

    FOREIGN = ForeignKeys(
        same={"num_stages": 4},                     # its value here, and the only one
        ignored={"plugins": "there are none"},      # any value is accepted; a note says that it
                                                    # changes nothing
        refused={"conv_cfg": "the convolutions are plain ones"},
    )

`settings.schema` asks them when it meets a key that is no field.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

PER_LINE = 12  # keys that one note names


@dataclass(frozen=True)
class ForeignKeys:
    """same:    {key: the value that it has here, mappings and lists included}; a config may name
             it or any part of it, with that value only
    ignored: {key: why it changes nothing}
    refused: {key: why no value of it can be obeyed}
    """

    same: Mapping[str, Any] = field(default_factory=dict)
    ignored: Mapping[str, str] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)


NONE = ForeignKeys()


@dataclass(frozen=True)
class ForeignTypes:
    """Mark on a union of sections that are told by `type`: types that only the original has.

    owner: the original; names: of the types, with spaces between them
    """

    owner: str
    names: str

    def faults(self, value: Any, got: str) -> list[str]:
        return []


@dataclass(frozen=True)
class Note:
    """A key that is accepted and changes nothing. key: dotted; why: the reason, in words"""

    key: str
    why: str


def note_lines(notes: Iterable[Note]) -> list[str]:
    """One line for each reason, with all keys that have it."""
    by_reason: dict[str, list[str]] = {}
    for note in notes:
        keys = by_reason.setdefault(note.why, [])
        if note.key not in keys:
            keys.append(note.key)
    lines = []
    for why, keys in by_reason.items():
        more = f" and {len(keys) - PER_LINE} more" if len(keys) > PER_LINE else ""
        verb = "changes" if len(keys) == 1 else "change"
        lines.append(f"{', '.join(keys[:PER_LINE])}{more} {verb} nothing here: {why}.")
    return lines
