"""Words in messages: which known name a misspelt one means (`nearest`), and one or several.

The limits are chosen by tests/unit/test_spelling.py: a word with one slip finds its name, and a
word that merely looks like one (`--resize` and `--resume`) finds none.
"""

from collections.abc import Iterable

# (length of the longer word, slips allowed up to it); longer words may have _MOST
_ALLOWED = ((7, 1), (12, 2))
_MOST = 3
_LEAST_PREFIX = 3  # letters that may stand for a whole name, as argparse has it
_SEPARATORS = str.maketrans("", "", "-_ \u2010\u2011\u2012\u2013\u2014\u2212")  # all kinds of dash


def plural(number: int, noun: str) -> str:
    """"1 core", "2 cores"."""
    return f"{number} {noun}{'s' * (number != 1)}"


def dashed(flag: str) -> str:
    """A flag in the one spelling that the parser knows."""
    return flag.replace("_", "-")


def nearest(word: str, options: Iterable[str]) -> str | None:
    """The option that `word` means, or None when none is near.

    Case, `-` and `_` do not count. Otherwise few letters may be missing, doubled, swapped or
    wrong, the fewer the shorter the word is; or the word is how exactly one option begins.
    """
    plain = _plain(word)
    near: list[tuple[int, bool, bool, int, str]] = []
    begun: list[str] = []
    for option in options:
        known = _plain(option)
        slips = count_slips(plain, known, _allowed(max(len(plain), len(known))))
        if slips is not None:
            has_same_letters = sorted(plain) == sorted(known)
            near.append((slips, not has_same_letters, plain[:1] != known[:1], len(near), option))
        elif len(plain) >= _LEAST_PREFIX and known.startswith(plain):
            begun.append(option)
    if near:
        return min(near)[-1]
    return begun[0] if len(begun) == 1 else None


def same_name(word: str, option: str) -> bool:
    """Whether the two differ in case, `-` and `_` at most."""
    return _plain(word) == _plain(option)


def count_slips(word: str, known: str, most: int) -> int | None:
    """Letters missing, too many, wrong, or swapped with their neighbour; None: more than `most`.

    This is the distance of optimal string alignment.
    """
    if abs(len(word) - len(known)) > most or not (word and known):
        return None
    before_last: list[int] = []
    last = list(range(len(known) + 1))
    for i, letter in enumerate(word, 1):
        row = [i]
        for j, wanted in enumerate(known, 1):
            slips = min(last[j] + 1, row[-1] + 1, last[j - 1] + (letter != wanted))
            if i > 1 and j > 1 and letter == known[j - 2] and word[i - 2] == wanted:
                slips = min(slips, before_last[j - 2] + 1)
            row.append(slips)
        if min(row) > most:
            return None
        before_last, last = last, row
    return last[-1] if last[-1] <= most else None


def _plain(word: str) -> str:
    return word.casefold().translate(_SEPARATORS)


def _allowed(length: int) -> int:
    return next((slips for longest, slips in _ALLOWED if length <= longest), _MOST)
