"""Lines that go on with a run, made from the command line that it was started with."""

import shlex
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

# flags that say what else to do than to train on; the values that stand behind them go as well
_GOES = {"--resume": "optional", "--eval-only": "none", "--export": "one", "--predict": "one",
         "--imgs": "one", "--predict-to": "one", "--benchmark": "none", "--dry-run": "none",
         "--check-data": "none", "--force-resume": "none"}
_LENGTHS = {"--max-iters": "one"}
_START = {"--pretrained": "one"}  # where the run began; what is applied is what it trained
PHOTOS = "photos/"  # stands for the user's own


class Line(NamedTuple):
    """A command line to copy, and what it is for."""

    purpose: str
    text: str


def command_lines(
    command: Sequence[str], starter: Sequence[str], is_done: bool
) -> list[Line]:
    """How to resume, evaluate, apply and export the run.

    command: its words, the script first; starter: those before it that start as many processes
    is_done: it came to its end; then going on is without --max-iters, or needs a longer schedule
    """
    if not command:
        return []
    script, words = command[0], command[1:]
    base, rest = _split(without(words, _GOES))
    trained, _ = _split(without(words, _GOES | _LENGTHS if is_done else _GOES))
    alone = ["python", script, *without(base, _START)]

    def line(purpose: str, before: Sequence[str], *added: str) -> Line:
        return Line(purpose, shlex.join([*before, *added, *rest]))

    what = "Go on with the training"
    if is_done:
        is_whole = trained == base
        what += (" (it is at its end: raise its number of epochs or iterations)" if is_whole
                 else " to the end of its schedule")
    return [
        line(what, [*(starter or ["python"]), script, *trained], "--resume", "latest"),
        line("Evaluate the best checkpoint", alone, "--eval-only"),
        line("Predict on photos of your own", alone, "--predict", PHOTOS),
        line("Export it", alone, "--export", "trained.pt2"),
    ]


def without(words: Sequence[str], flags: dict[str, str]) -> list[str]:
    """The words but for these flags, in either spelling, and their values."""
    return list(_kept(words, flags))


def _kept(words: Sequence[str], flags: dict[str, str]) -> Iterator[str]:
    following = iter(enumerate(words))
    for i, word in following:
        if word == "--":
            yield from words[i:]
            return
        name, equals, _ = word.partition("=")
        takes = flags.get(name.replace("_", "-")) if name.startswith("--") else None
        if takes is None:
            yield word
        elif not equals and (takes == "one" or (takes == "optional" and _is_value(words, i + 1))):
            next(following, None)


def _is_value(words: Sequence[str], i: int) -> bool:
    return i < len(words) and not words[i].startswith("--")


def _split(words: Iterable[str]) -> tuple[list[str], list[str]]:
    """What stands before `--`, and the rest from it on: flags go between the two."""
    words = list(words)
    at = words.index("--") if "--" in words else len(words)
    return words[:at], words[at:]
