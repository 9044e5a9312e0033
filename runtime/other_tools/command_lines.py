"""Finds out whose command line was typed, and puts it into ours: `translated`.

A pasted command may keep the original's program, with our script in front:
`python train_seg.py eval_multipro.py --gpus 0-3 --cfg FILE`. Where a flag or a second file tells
the program, its name may be left out.
"""

import importlib
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from runtime.errors import InputError
from runtime.other_tools.programs import PROGRAMS
from runtime.other_tools.tool import Part, Tool, Translation, split, translate

# Where each script's original has its programs; a script loads its own alone.
_MODULES = {"train_yolact": "yolact", "train_seg": "csail", "train_resnest": "resnest",
            "train_queryinst": "mmdetection"}


def tools_of(script: str) -> Sequence[Tool]:
    """The programs whose command lines the script takes."""
    if script not in _MODULES:
        return ()
    return importlib.import_module(f"runtime.other_tools.{_MODULES[script]}").TOOLS


def translated(script: str, words: Sequence[str], arity: Mapping[str, int]) -> Translation | None:
    """Our command line for one of an original's tools; None where it is none.

    script: the name without its ending
    arity:  {our flag with hyphens: words that belong to it}
    Raises InputError, with our command in full, where a word cannot be obeyed, and for programs
    whose work no script does.
    """
    first = words[0] if words else ""
    if first.endswith((".py", ".sh")):
        for path, why in PROGRAMS.get(script, {}).items():
            if _is_program(first, path):
                raise InputError(f"{first}: {why}")
    for tool in tools_of(script):
        named = any(_is_program(first, name) for name in tool.names)
        own = {flag: word.values for flag, word in tool.words.items()}
        parts = split(words[1:] if named else words, {**arity, **own})
        if named or tool.is_told_by(parts):
            return _checked(tool, parts)
    return None


def _checked(tool: Tool, parts: list[Part]) -> Translation:
    found = translate(tool, parts)
    if found.faults:
        raise InputError(f"{'; '.join(found.faults)}. In full: {found.command(tool.script)}")
    return found


def _is_program(typed: str, path: str) -> bool:
    """Whether `typed` is the program `path`, seen from anywhere: ./tools/test.py, scripts/x.py."""
    wanted = PurePosixPath(path).parts
    return PurePosixPath(typed).parts[-len(wanted):] == wanted
