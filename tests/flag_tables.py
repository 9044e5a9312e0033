"""The tables of flags on the pages of the scripts, made from what the scripts read.

    python tests/flag_tables.py         # writes them anew
"""

import importlib
import inspect
import sys
import typing
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    "train_yolact": ROOT / "docs" / "yolact.md",
    "train_seg": ROOT / "docs" / "segmentation.md",
    "train_resnest": ROOT / "docs" / "resnest.md",
    "train_queryinst": ROOT / "docs" / "queryinst.md",
}
BEGIN, END = "<!-- flags: begin -->", "<!-- flags: end -->"
WORDS = [(inspect.Parameter.empty, "required"), (False, "off"), (True, "on"), (None, "")]
VALUES = {int: "N", float: "X", Path: "PATH", str: "TEXT"}


def rows(script):
    """(the original's rows, the added ones) of a script: flag, value, default, help as cells."""
    from runtime.options.usage import common_options
    flags = importlib.import_module(script).flags
    own, added = [], []
    for parameter in inspect.signature(flags).parameters.values():
        kind, option = typing.get_args(parameter.annotation)[:2]
        panel = getattr(option, "rich_help_panel", None)
        (added if panel == "Additions" else own).append(row(parameter, kind, option))
    for option in common_options(script):
        value = "" if option.is_flag else f"`{option.metavar}`"
        added.append((f"`{option.opts[0]}`", value, "", option.help))
    return own, added


def row(parameter, kind, option):
    """The cells of one parameter of a `flags`."""
    # typer.Option takes the first name for a default, until it meets the annotation
    names = [text for text in (option.default, *(option.param_decls or ()))
             if isinstance(text, str)]
    kinds = [part for part in (kind, *typing.get_args(kind)) if part in VALUES]
    is_switch = bool in (kind, *typing.get_args(kind))
    value = option.metavar or ("" if is_switch or not kinds else VALUES[kinds[0]])
    default = parameter.default
    if not names:  # a word without a flag
        names, value = [option.metavar or parameter.name.upper()], ""
    shown = next((word for known, word in WORDS if default is known), f"`{default}`")
    return (", ".join(f"`{name}`" for name in names), f"`{value}`" if value else "", shown,
            " ".join((option.help or "").split()).replace("<", "\\<"))


def table(script):
    """Both tables as a page has them."""
    own, added = rows(script)
    lines = []
    for title, part in (("The original's:", own), ("Additions:", added)):
        lines += [title, "", "| flag | value | default | |", "|---|---|---|---|"]
        lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in each) + " |"
                  for each in part]
        lines.append("")
    return "\n".join(lines)


def written_anew(script):
    """The page of a script with the tables of today."""
    text = PAGES[script].read_text(encoding="utf-8")
    head, _, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    assert end, f"{PAGES[script]}: the marks {BEGIN} and {END} are missing"
    return f"{head}{BEGIN}\n\n{table(script)}\n{END}{tail}"


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    for name, page in PAGES.items():
        page.write_text(written_anew(name), encoding="utf-8")
