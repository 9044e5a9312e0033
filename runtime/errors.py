"""The exceptions that end a script with one line instead of a traceback.

Nothing heavy is imported here: `--help` passes through this module.
"""

from collections.abc import Iterable

from runtime.spelling import nearest

__all__ = [
    "Failed",
    "InputError",
    "SaveError",
    "add_ending",
    "did_you_mean",
    "ending_of",
    "nearest",
    "one_line",
]

LONGEST = 2000  # letters of a line, whatever the input was


class InputError(Exception):
    """What the user gave cannot be used; exit status 2.

    faults: one line, or several, each naming the file, key or flag, what is wrong and what to do.
    `.faults` is always a list of printable lines; `str()` joins it with newlines.
    """

    def __init__(self, faults: str | Iterable[str]):
        faults = [faults] if isinstance(faults, str) else faults
        self.faults = [one_line(fault) for fault in faults]
        super().__init__("\n".join(self.faults))


class SaveError(Exception):
    """A file could not be written; what was there before is intact. Exit status 3."""


class Failed(Exception):
    """The run cannot go on, for a reason that one line tells. Exit status 1."""


def add_ending(error: Exception, text: str) -> None:
    """Have the last line that is printed about `error` end with `text`: where the work is."""
    error.ending = text  # type: ignore[attr-defined]  # `ending_of` reads it


def ending_of(error: Exception) -> str:
    """The text of `add_ending`, "" without one."""
    return getattr(error, "ending", "")


def one_line(text: str) -> str:
    """`text` with escapes for what is not printable (a key may hold anything), and not too long."""
    if len(text) > LONGEST:
        text = f"{text[:LONGEST]}..."
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode()
                   for c in text)


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """`" Did you mean X?"` with the option nearest to `word`, or `""` when none is near."""
    near = nearest(word, options)
    return f" Did you mean {near}?" if near else ""
