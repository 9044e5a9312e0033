"""HTML in which everything is escaped that was not made here."""

import html
import math
import re
from collections.abc import Iterable, Sequence

# control letters, halves of letters, and those that turn the direction of what follows
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"
                          "\ud800-\udfff\u202a-\u202e\u2066-\u2069]")
_EMPTY = ("meta", "img", "link", "br")  # elements without an end
NOTHING = "\u2013"  # a dash
MOST_ITEMS = 20  # of a list
MOST_LETTERS = 4000  # of one text


class Markup(str):
    """HTML that is safe as it stands."""


def escaped(value: object) -> Markup:
    """A value as text: escaped, without letters that would confuse a page, and not too long."""
    if isinstance(value, Markup):
        return value
    text = value if isinstance(value, str) else shown(value)
    if len(text) > MOST_LETTERS:
        text = text[:MOST_LETTERS] + "..."
    return Markup(html.escape(_UNPRINTABLE.sub("\ufffd", text)))


def element(name: str, /, *children: object, **attributes: object) -> Markup:
    """An element; children are escaped unless they are Markup, None ones are left out.

    attributes: `_` in a name stands for `-`, `class_` is class; True is one without a value, None
    and False are left out
    """
    pairs = []
    for key, value in attributes.items():
        key = key.rstrip("_").replace("_", "-")
        if value is True:
            pairs.append(f" {key}")
        elif value is not None and value is not False:
            pairs.append(f' {key}="{escaped(value)}"')
    start = f"<{name}{''.join(pairs)}>"
    if name in _EMPTY:
        return Markup(start)
    return Markup(f"{start}{joined(children)}</{name}>")


def joined(parts: Iterable[object]) -> Markup:
    return Markup("".join(escaped(part) for part in parts if part is not None))


def table(
    head: Sequence[str], rows: Iterable[Sequence[object]], caption: str = "", sorts: bool = False
) -> Markup:
    """A table; the first cell of a row is its heading. Numbers stand at the right.

    sorts: a click on a heading sorts by it
    """
    rows = [list(row) for row in rows]
    columns = [all(_is_number(row[i]) for row in rows if i < len(row)) for i in range(len(head))]
    heads = [element("th", element("button", text, type="button") if sorts else text,
                     scope="col", class_="number" if columns[i] else None)
             for i, text in enumerate(head)]
    body = [element("tr", *(_cell(value, i) for i, value in enumerate(row))) for row in rows]
    content = element(
        "table", element("caption", caption) if caption else None,
        element("thead", element("tr", *heads)), element("tbody", *body),
        class_="sorts" if sorts else None)
    return element("div", content, class_="wide", tabindex=0, role="region",
                   aria_label=caption or head[0] or "table")


def _cell(value: object, i: int) -> Markup:
    number = _is_number(value)
    name = "th" if i == 0 else "td"
    # in the order of the whole number, not of the digits that are shown
    key = repr(value) if number and value is not None else None
    return element(name, shown(value) if number else value, scope="row" if i == 0 else None,
                   class_="number" if number else None, data_value=key)


def _is_number(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def shown(value: object) -> str:
    """A plain value as short text: numbers with four digits, nothing as a dash."""
    if value is None:
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}".replace(",", " ") if abs(value) < 10**15 else f"{value:.3e}"
    if isinstance(value, float):
        if not math.isfinite(value):
            return str(value)
        return f"{value:.4g}" if abs(value) < 1e4 or abs(value) >= 1e15 else shown(round(value))
    if isinstance(value, list | tuple):
        more = f", ... {len(value)} in all" if len(value) > MOST_ITEMS else ""
        return "[" + ", ".join(map(shown, value[:MOST_ITEMS])) + f"{more}]"
    return str(value)


def duration(seconds: object) -> str:
    """1 h 02 min, 3 min 20 s, 4.2 s; a dash for what is no number."""
    if not isinstance(seconds, int | float) or not math.isfinite(seconds) or seconds < 0:
        return NOTHING
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def size(num_bytes: float) -> str:
    """A file's size: 812 B, 3.4 MB."""
    for divisor, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if num_bytes >= divisor:
            return f"{num_bytes / divisor:.1f} {unit}"
    return f"{num_bytes:.0f} B"
