"""The table of other tools' words in docs/coming_from.md, made from the scripts' own.

    python tests/word_tables.py         # writes it anew
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "coming_from.md"
BEGIN, END = "<!-- words: begin -->", "<!-- words: end -->"
SHOWN = 6  # words of a row


def cell(answer):
    """An answer of the table as the page has it."""
    if answer is None:
        return "-"
    return answer.removeprefix(":").strip().replace("|", "\\|").replace("<", "\\<")


def table():
    from runtime.other_tools.words import SCRIPTS, TABLE

    lines = [f"| other tools | {' | '.join(SCRIPTS)} |", "|---" * (len(SCRIPTS) + 1) + "|"]
    for row in TABLE:
        words = ", ".join(f"`{word}`" for word in row.words[:SHOWN])
        answers = row.answers
        lines.append(f"| {words} | {' | '.join(map(cell, answers))} |")
    return "\n".join(lines)


def written_anew():
    """The page with the table of today."""
    head, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, end, tail = rest.partition(END)
    assert end, f"{PAGE}: the marks {BEGIN} and {END} are missing"
    return f"{head}{BEGIN}\n\n{table()}\n\n{END}{tail}"


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    PAGE.write_text(written_anew(), encoding="utf-8")
