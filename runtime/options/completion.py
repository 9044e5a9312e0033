"""What a shell offers on Tab behind a script's name: its flags, their values, configs by name.

`install` leaves a few lines of shell in the user's own files. They ask the script on the line, with
ASK in the environment, whatever starts it: `python`, `torchrun` or `dist_train.sh`.
"""

import os
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from runtime.errors import InputError, SaveError
from runtime.files import write_text
from runtime.spelling import dashed

ASK = "TRAINERS_COMPLETE"
INSTALL = "--install-completion"
SHELLS = ("bash", "zsh", "fish")
HERE = Path(__file__).resolve().parent
CONFIGS = HERE.parents[1] / "configs"  # a folder for each script
CONFIG_NAMES = ("config", "cfg", "config_file")  # parameters that take a config

Candidate = tuple[str, str]  # a word, and what is said of it


def candidates(script_name: str, params: Sequence[Any], words: Sequence[str]) -> list[Candidate]:
    """What may stand in place of the last of `words`; nothing where a file or a number is wanted.

    params: the options, as `typer.main.get_command` has them
    words:  behind the script's name, up to the cursor; bash makes three of `--amp=bf16`
    """
    by_flag = {dashed(name): param for param in params for name in _flags(param)}
    *before, part = words or [""]
    if part == "=":
        before, part = [*before, part], ""
    if before[-1:] == ["="]:
        param = by_flag.get(dashed("".join(before[-2:-1])))
        return _beginning(part, [] if param is None else _values(script_name, param))
    before = _joined(before)
    flag, equals, value = part.partition("=")
    if equals and dashed(flag) in by_flag:
        found = _beginning(value, _values(script_name, by_flag[dashed(flag)]))
        return [(f"{flag}={word}", said) for word, said in found]
    last = by_flag.get(dashed(before[-1])) if before else None
    if last is not None and not last.is_flag and not part.startswith("-"):
        return _beginning(part, _values(script_name, last))
    if part.startswith("-"):
        return list(_matching(params, part))
    words_wanted = [param for param in params if param.param_type_name == "argument"]
    if words_wanted and not _bare_words(before, by_flag):
        return _beginning(part, _values(script_name, words_wanted[0]))
    return []


def install(shell: str) -> str:
    """Have the user's shell complete from its next start on; the line that says so.

    shell: one of SHELLS; "" is that of the variable SHELL
    Raises InputError for another shell, SaveError when a file cannot be written.
    """
    shell = shell or Path(os.environ.get("SHELL", "")).name
    if shell not in SHELLS:
        raise InputError(f"{INSTALL}: {shell or 'the variable SHELL is not set'}: want one of "
                         f"{', '.join(SHELLS)}, for example {INSTALL} bash")
    code, start = _places(shell, os.environ)
    text = (HERE / f"completion.{shell}").read_text(encoding="utf-8")
    write_text(code, text.replace("@PYTHON@", shlex.quote(sys.executable)))
    if start is None:
        return f"{code} is written: Tab completes in the next {shell}"
    line = f"source {shlex.quote(str(code))}"
    try:
        had = start.read_text(encoding="utf-8", errors="replace") if start.exists() else ""
        if line not in had.splitlines():
            before = "\n" if had and not had.endswith("\n") else ""
            with start.open("a", encoding="utf-8") as file:  # at the end; a link stays one
                file.write(f"{before}{line}\n")
    except OSError as error:
        raise SaveError(f"{start}: could not be written: {error.strerror}") from error
    return f"{code} is written, {start} reads it: Tab completes in the next {shell}"


def _places(shell: str, env: Mapping[str, str]) -> tuple[Path, Path | None]:
    """(the file of code, the start-up file that has to read it)."""
    home = Path.home()
    if shell == "fish":  # reads the whole folder
        config = Path(env.get("XDG_CONFIG_HOME") or home / ".config")
        return config / "fish" / "conf.d" / "trainers.fish", None
    data = Path(env.get("XDG_DATA_HOME") or home / ".local" / "share")
    start = home / ".bashrc" if shell == "bash" else Path(env.get("ZDOTDIR") or home) / ".zshrc"
    return data / "trainers" / f"completion.{shell}", start


def _joined(words: Sequence[str]) -> list[str]:
    """The words with `--amp`, `=`, `bf16` put together again, as they are typed."""
    joined: list[str] = []
    for word in words:
        if joined and (word == "=" or joined[-1].endswith("=")):
            joined[-1] += word
        else:
            joined.append(word)
    return joined


def _beginning(part: str, words: Sequence[str]) -> list[Candidate]:
    return [(word, "") for word in words if word.startswith(part)]


def _matching(params: Sequence[Any], part: str) -> Iterator[Candidate]:
    """The flags that begin with `part`, with `-` or `_` as it is typed there."""
    for param in params:
        for name in _flags(param):
            if dashed(name).startswith(dashed(part)):
                said = " ".join((param.help or "").split())
                yield part + name[len(part):], said
    if "--help".startswith(part):
        yield "--help", "Show this message and exit."


def _values(script_name: str, param: Any) -> list[str]:
    """The words that an option takes, as far as they can be told."""
    metavar = param.metavar or ""
    if param.name in CONFIG_NAMES:
        folder = CONFIGS / script_name.removeprefix("train_")
        return sorted(path.stem for path in folder.glob("*.yaml"))
    if metavar == "BOOL":
        return ["True", "False"]
    words = metavar.strip("[]").split("|")
    return [word for word in words if re.fullmatch(r"[a-z][a-z0-9]*", word)]


def _bare_words(words: Sequence[str], by_flag: Mapping[str, Any]) -> list[str]:
    """Those that are neither flags nor their values, nor the number of GPUs of dist_train.sh."""
    found: list[str] = []
    takes_value = False
    for word in words:
        param = by_flag.get(dashed(word))
        if not word.startswith("-") and not takes_value and not word.isdecimal():
            found.append(word)
        takes_value = param is not None and not param.is_flag
    return found


def _flags(param: Any) -> list[str]:
    names = [*param.opts, *param.secondary_opts]
    return [name for name in names if name.startswith("--")]
