"""A command line of an original's tool, and how its words are put into ours.

The modules beside this one hold one `Tool` for each of the originals' evaluation programs.
"""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

MANY = -1  # all words up to the next flag


@dataclass(frozen=True)
class Word:
    """A flag of the tool.

    values:  how many words belong to it
    ours:    what stands in its place, "{}" for the value; None: it is ours as well
    note:    why it changes nothing here
    refused: why it cannot be obeyed
    """

    values: int = 1
    ours: tuple[str, ...] | None = None
    note: str = ""
    refused: str = ""


SAME = Word()
SWITCH = Word(0)


def becomes(text: str, values: int = 1) -> Word:
    """text: our words, separated by blanks"""
    return Word(values, tuple(text.split()))


def nothing(why: str, values: int = 0) -> Word:
    return Word(values, (), note=why)


def refused(why: str, values: int = 0) -> Word:
    return Word(values, (), refused=why)


@dataclass(frozen=True)
class Part:
    """A flag as it was typed ("" for words without one), and the words that belong to it.

    is_joined: --flag=value; refused: why it cannot be obeyed with this value
    """

    flag: str
    values: tuple[str, ...] = ()
    is_joined: bool = False
    refused: str = ""

    @property
    def name(self) -> str:
        """The flag in the spelling of the tables, --trained-model."""
        return self.flag.replace("_", "-")

    @property
    def words(self) -> list[str]:
        if self.is_joined:
            return [f"{self.flag}={self.values[0]}"]
        return [self.flag, *self.values] if self.flag else list(self.values)


@dataclass(frozen=True)
class Tool:
    """A program of an original.

    script:  ours that does its work
    names:   its paths; one of them may stand first on our command line
    words:   {flag with hyphens: what becomes of it}; flags that are not here stay as they are
    told_by: sets of flags, each of which tells the tool without its name
    adapt:   the parts that a single word does not decide, put into ours beforehand
    """

    script: str
    names: tuple[str, ...]
    words: Mapping[str, Word]
    told_by: tuple[frozenset[str], ...] = ()
    adapt: Callable[[list[Part]], list[Part]] = field(default=lambda parts: parts)

    def is_told_by(self, parts: Sequence[Part]) -> bool:
        """Whether the command line is this tool's, though its name is not there."""
        flags = {part.name for part in parts}
        return any(told <= flags for told in self.told_by)


@dataclass(frozen=True)
class Translation:
    """words: of our command line; notes: of words that change nothing; faults: of refused ones"""

    words: list[str]
    notes: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def command(self, script: str) -> str:
        """Our command in full, to be pasted."""
        return f"python {script}.py {shlex.join(self.words)}".strip()


def split(words: Sequence[str], arity: Mapping[str, int]) -> list[Part]:
    """The command line in parts. arity: {flag with hyphens: words that belong to it}; unknown: 0"""
    parts: list[Part] = []
    i = 0
    while i < len(words):
        word = words[i]
        i += 1
        if not word.startswith("--") or word == "--":
            parts.append(Part("", (word,)))
            continue
        flag, equals, value = word.partition("=")
        if equals:
            parts.append(Part(flag, (value,), is_joined=True))
            continue
        count, end = arity.get(flag.replace("_", "-"), 0), i
        while end < len(words) and (count == MANY or end - i < count):
            if words[end].startswith("--") and not (count > 0 and end == i):
                break
            end += 1
        parts.append(Part(flag, tuple(words[i:end])))
        i = end
    return parts


def translate(tool: Tool, parts: list[Part]) -> Translation:
    """The tool's command line as ours."""
    found = Translation([])
    for part in tool.adapt(parts):
        word = tool.words.get(part.name, SAME)
        if part.refused or word.refused:
            found.faults.append(f"{part.flag}: {part.refused or word.refused}")
        elif word.ours is None:
            found.words.extend(part.words)
        else:
            if word.note:
                found.notes.append(f"{part.flag} changes nothing here: {word.note}")
            found.words.extend(ours.replace("{}", " ".join(part.values)) for ours in word.ours)
    return found


def pick(parts: Sequence[Part], name: str) -> str | None:
    """The value of the last such flag; None without one."""
    return next((" ".join(part.values) for part in reversed(parts) if part.name == name), None)


def without(parts: Sequence[Part], *names: str) -> list[Part]:
    return [part for part in parts if part.name not in names]


def ours(*words: str) -> Part:
    """Words of our own, which stay as they are."""
    return replace(Part(""), values=words)
