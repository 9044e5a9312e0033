"""The table of docs/commands.md: the commands of the originals, and what ours make of each.

    python tests/command_table.py       # writes the second column anew
"""

import importlib
import re
import shlex
import sys
from pathlib import Path

import typer

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "commands.md"
SHELL_SCRIPTS = ("dist_train.sh", "dist_test.sh", "slurm_train.sh", "slurm_test.sh")
_HEADING = re.compile(r"## .*: (train_\w+)\.py")
_ROW = re.compile(r"\| `(.*?)` \| (.*) \|")


def rows():
    """[(script, the original's command, what the page says of it)]"""
    found, script = [], ""
    for line in PAGE.read_text().splitlines():
        heading, row = _HEADING.fullmatch(line), _ROW.fullmatch(line)
        script = heading[1] if heading else script
        if row:
            found.append((script, row[1], row[2]))
    return found


def program_of(command):
    """(the environment in front, program, its words) of a command."""
    words = shlex.split(command)
    before = []
    while re.match(r"[A-Z_]+=|(python3?|bash|sh|-u)$", words[0]):
        before.append(words.pop(0))
    return before, words[0], words[1:]


def outcome(script, command):
    """What the second column says of a command."""
    from runtime.errors import InputError
    from runtime.options.usage import parse
    from runtime.other_tools import MANY, translated

    _, program, words = program_of(command)
    if Path(program).name in SHELL_SCRIPTS:
        return "as it stands"
    if "--help" in words:
        return f"`python {script}.py --help`"
    flags = importlib.import_module(script).flags
    try:
        parse(flags, script, [program, *words])
        found = translated(script, [program, *words], arity_of(flags, MANY))
    except InputError as error:
        reason, _, instead = "; ".join(error.faults).partition(" In full: ")
        reason = reason.removeprefix(f"{program}: ").rstrip(".")
        return f"refused: {reason}" + (f"; what can be done: `{instead}`" if instead else "")
    notes = "".join(f"; {note}" for note in found.notes)
    return f"`{found.command(script)}`{notes}"


def arity_of(flags, many):
    app = typer.Typer(add_completion=False)
    app.command()(flags)
    params = typer.main.get_command(app).params
    arity = {name.replace("_", "-"): 0 if param.is_flag else 1 for param in params
             for name in param.opts if param.param_type_name == "option"}
    return {**arity, "--cfg-options": many}


def written_anew():
    """The page with the second column as the readers have it now."""
    text = PAGE.read_text()
    for script, command, cell in rows():
        text = text.replace(f"| `{command}` | {cell} |",
                            f"| `{command}` | {outcome(script, command)} |")
    return text


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    PAGE.write_text(written_anew())
