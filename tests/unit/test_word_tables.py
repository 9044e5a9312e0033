"""The table of other tools' words on docs/coming_from.md is the one that the scripts answer by."""

from word_tables import PAGE, table, written_anew

from runtime.other_tools.words import TABLE


def test_the_page_has_the_words_of_today():
    assert written_anew() == PAGE.read_text(encoding="utf-8"), (
        "write it anew: python tests/word_tables.py")


def test_each_row_has_its_line():
    lines = table().splitlines()
    assert len(lines) == len(TABLE) + 2
    assert all(f"`{row.words[0]}`" in line for row, line in zip(TABLE, lines[2:], strict=True))
