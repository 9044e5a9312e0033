"""docs/commands.md: every command of the originals' documents, and what becomes of it."""

import pytest
from command_table import outcome, rows

ROWS = rows()
SCRIPTS = ("train_yolact", "train_seg", "train_resnest", "train_queryinst")


def test_the_page_has_all_commands_once():
    commands = [(script, command) for script, command, _ in ROWS]
    assert len(set(commands)) == len(commands) >= 96
    assert {script for script, _ in commands} == set(SCRIPTS)


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_scripts_make_of_each_command_what_the_page_says(script, capsys):
    for _, command, cell in (row for row in ROWS if row[0] == script):
        assert outcome(script, command) == cell, "write it anew: python tests/command_table.py"
        assert "--help lists them" not in cell  # an unknown word


@pytest.mark.parametrize("script", SCRIPTS)
def test_what_the_page_gives_can_be_pasted(script, capsys):
    for _, _, cell in (row for row in ROWS if row[0] == script):
        for ours in cell.split("`")[1::2]:
            program = "tools/train.py" if script == "train_queryinst" else "train.py"
            again = outcome(script, ours.replace(f"{script}.py", program, 1))
            assert again == f"`{ours}`"
