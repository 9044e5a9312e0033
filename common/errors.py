"""The exceptions that end a script with one line instead of a traceback.

Nothing heavy is imported here: `--help` passes through this module.
"""

import difflib
from collections.abc import Iterable


class InputError(Exception):
    """What the user gave cannot be used; exit status 2.

    faults: one line, or several, each naming the file, key or flag, what is wrong and what to do.
    `.faults` is always a list; `str()` joins it with newlines.
    """

    def __init__(self, faults: str | Iterable[str]):
        self.faults = [faults] if isinstance(faults, str) else list(faults)
        super().__init__("\n".join(self.faults))


class SaveError(Exception):
    """A file could not be written; what was there before is intact. Exit status 3."""


def nearest(word: str, options: Iterable[str]) -> str | None:
    """The option nearest to `word` in spelling, whatever the case; None when none is near."""
    by_folded = {option.casefold(): option for option in options}
    near = difflib.get_close_matches(word.casefold(), by_folded, n=1, cutoff=0.55)
    return by_folded[near[0]] if near else None


class Failed(Exception):
    """The run cannot go on, for a reason that one line tells. Exit status 1."""


def add_ending(error: Exception, text: str) -> None:
    """Have the last line that is printed about `error` end with `text`: where the work is."""
    error.ending = text


def ending_of(error: Exception) -> str:
    """The text of `add_ending`, "" without one."""
    return getattr(error, "ending", "")


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """`" Did you mean X?"` with the option nearest to `word`, or `""` when none is near."""
    near = nearest(word, options)
    return f" Did you mean {near}?" if near else ""
