"""Reads a command line and says what is wrong with it: `parse`.

Light: it is imported before torch.
"""

import inspect
import math
import os
import platform
import re
import shutil
import typing
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, TypeVar

import typer

from runtime.errors import InputError, nearest
from runtime.launch.environment import is_first
from runtime.options import completion
from runtime.spelling import dashed, same_name

AMP_CHOICES = ("off", "bf16", "fp16")
AMP_SYNONYMS = {"float16": "fp16", "half": "fp16", "16": "fp16", "true": "fp16", "on": "fp16",
                "bfloat16": "bf16", "float32": "off", "fp32": "off", "32": "off", "none": "off",
                "false": "off", "no": "off"}
NUMBER = "\0"  # stands before a negative value of a KEY VALUE pair, which is no flag
_KEY = re.compile(r"[A-Z]")  # how the config keys of KEY VALUE pairs begin
_VALUES: tuple[tuple[object, str], ...] = ((int, "INT"), (float, "FLOAT"), (str, "TEXT"),
                                           (Path, "PATH"))
_DASHES = ("\u2010", "\u2011", "\u2012", "\u2013", "\u2014", "\u2212")  # of pasted command lines
BOXES_FROM = 100  # columns of a terminal
_PYPROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"

_PLAINER = (("should be a valid number", "is no number"),  # a parser's words, ours
            ("should be a valid integer", "is no whole number"),
            ("should be greater than or equal to", "is less than"))

# Newer Typer carries its own click, older Typer imports the package: Any stands for either's types.
Parameter = Any
UsageError: Any = typer.BadParameter.__base__
Answer = TypeVar("Answer")


def parse(function: Callable[..., Answer], script_name: str, words: list[str]) -> Answer:
    """What `function` returns for the words of a command line; its signature is the options.

    A namespace gets `given`, the names of the values that the command line says itself.
    Raises InputError with what is wrong, and typer.Exit after --help, --version, a shell's question
    for candidates and --install-completion.
    """
    settings = {"help_option_names": ["-h", "--help"], "token_normalize_func": dashed}
    # in narrower boxes names of flags would be cut, and such a name cannot be typed
    boxes: Any = "rich" if shutil.get_terminal_size().columns >= BOXES_FROM else None
    app = typer.Typer(add_completion=False, rich_markup_mode=boxes)
    app.command(context_settings=settings)(function)
    command = typer.main.get_command(app)
    command.params += common_options(script_name)
    _name_values(function, command)
    if completion.ASK in os.environ:
        for candidate in completion.candidates(script_name, command.params, words):
            print("\t".join(candidate))
        raise typer.Exit
    line = _Line(script_name, command.params, _ours(script_name, command.params, words))
    try:
        context = command.make_context(f"{script_name}.py", line.spread())
    except UsageError as error:
        raise InputError(line.fault(error)) from error
    faults = [*line.odd_numbers(context.params), *line.undashed_flags(context.params)]
    if faults:
        raise InputError(faults)
    with context:
        answer = command.invoke(context)
    if isinstance(answer, SimpleNamespace):  # a value that is the default may be meant
        sources = {name: context.get_parameter_source(name) for name in context.params}
        answer.given = frozenset(name for name, source in sources.items()
                                 if source is not None and source.name == "COMMANDLINE")
    return answer


def _ours(script_name: str, params: Sequence[Parameter], words: list[str]) -> list[str]:
    """The words, of a command line of an original's other tools put into ours, which is said."""
    if not {"--help", "-h"}.isdisjoint(words):
        return words  # at once, without the tables
    from runtime.other_tools import MANY, translated

    arity = {dashed(name): 0 if param.is_flag else 1 for param in params for name in param.opts
             if param.param_type_name == "option"}
    found = translated(script_name, words, {**arity, "--cfg-options": MANY})
    if found is None:
        return words
    if is_first(os.environ):
        print("; ".join([f"Read as: {found.command(script_name)}", *found.notes]), flush=True)
    return found.words


def versions(script_name: str) -> str:
    """The project's version and those of what it computes with, without importing them."""
    from importlib import metadata  # a tenth of a second that --help would wait for

    found = re.search(r'^version = "(.+)"', _PYPROJECT.read_text(encoding="utf-8"), re.MULTILINE)
    parts = [f"{script_name} {found.group(1) if found else 'of unknown version'}"]
    for package in ("torch", "torchvision"):
        try:
            parts.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            parts.append(f"{package} not installed")
    return ", ".join([*parts, f"Python {platform.python_version()}"])


def common_options(script_name: str) -> list[Parameter]:
    """--version and --install-completion, which every script has beside its own.

    They are made as those are, whatever Typer's version. Either ends the process, wherever it
    stands on the line.
    """

    def tell_versions(is_asked: bool) -> None:
        if is_asked:
            print(versions(script_name))
            raise typer.Exit

    def install(shell: str | None) -> None:
        if shell is not None:
            print(completion.install(shell))
            raise typer.Exit

    def only_these(
        version: Annotated[bool, typer.Option(
            "--version", is_eager=True, callback=tell_versions, help="Show the versions and exit.",
        )] = False,
        install_completion: Annotated[str | None, typer.Option(
            completion.INSTALL, is_eager=True, callback=install,
            metavar=f"[{'|'.join(completion.SHELLS)}]",
            help="Have Tab complete flags, values and configs in this shell, else that of SHELL.",
        )] = None,
    ) -> None:
        """Never called: Typer makes the options of its signature."""

    app = typer.Typer(add_completion=False)
    app.command()(only_these)
    options = typer.main.get_command(app).params[:2]
    for option in options:
        option.expose_value = False
    return options


def _name_values(function: Callable[..., Any], command: Any) -> None:
    """Have --help show what a flag takes: TEXT, INT, FLOAT, or nothing behind a switch.

    Newer Typer would print <str>, <int range> and <bool>, also for switches, which take no value.
    """
    signature = inspect.signature(function)
    for param in command.params:
        if getattr(param, "is_flag", False):
            param.metavar = ""
        elif param.param_type_name == "option" and param.metavar is None:
            kind = signature.parameters[param.name].annotation
            named = [name for each, name in _VALUES if each in _kinds(kind)]
            param.metavar = named[0] if named else None
        elif param.param_type_name == "argument" and hasattr(param, "display_type"):
            param.display_type = lambda context: ""  # newer Typer's <str> says nothing
    ask_help = command.get_help_option

    def help_option(context: Any) -> Any:
        option = ask_help(context)
        if option is not None:
            option.metavar = ""
        return option

    command.get_help_option = help_option


def _kinds(annotation: Any) -> list[Any]:
    """The type behind Annotated, and those of a union."""
    if hasattr(annotation, "__metadata__"):
        annotation = annotation.__origin__
    return [annotation, *typing.get_args(annotation)]


class _Line:
    """One command line of a script, and the options that the script has."""

    def __init__(self, script: str, params: Sequence[Parameter], words: list[str]):
        self.script = script
        self.params = params
        self.words = words
        names = [name for param in params for name in (*param.opts, *param.secondary_opts)]
        self.flags = [name for name in names if name.startswith("-")] + ["--help"]
        self.takes_words = any(param.param_type_name == "argument" for param in params)
        self.takes_pairs = any(param.nargs == -1 for param in params
                               if param.param_type_name == "argument")

    def spread(self) -> list[str]:
        """The words with optional values filled in and lists of values given one flag each.

        Where KEY VALUE pairs are taken, a negative number behind a word is a value and no flag.
        """
        words, known = self.words, {dashed(flag) for flag in self.flags}
        spread: list[str] = []
        in_options = False
        for i, word in enumerate(words):
            if word == "--":
                return spread + words[i:]
            if word.startswith(_DASHES):
                raise InputError(f"{word}: begins with a dash that is no hyphen; "
                                 f"write --{word.strip(''.join(_DASHES) + '-')}")
            name, equals, _ = word.partition("=")
            name = dashed(name)
            following = words[i + 1] if i + 1 < len(words) else "--"
            follows_word = i > 0 and not words[i - 1].startswith("-")
            if self.takes_pairs and follows_word and re.match(r"-\.?\d", word):
                spread.append(NUMBER + word)
            elif name == "--resume" and name in known and following.startswith("--") and not equals:
                spread.append("--resume=latest")
            elif name == completion.INSTALL and following.startswith("--") and not equals:
                spread.append(f"{name}=")
            elif (name == "--amp" and name in known and not equals
                  and not self.is_amp_value(following)):
                spread.append("--amp=fp16")
            elif in_options and equals and not word.startswith("-"):
                follows_flag = dashed(spread[-1]) == "--cfg-options"
                spread += [word] if follows_flag else ["--cfg-options", word]
            else:
                in_options = name == "--cfg-options" and name in known
                spread.append(word)
        return spread

    def is_amp_value(self, word: str) -> bool:
        """Whether the word behind --amp is meant as its value, be it a wrong one."""
        if word.startswith("--"):
            return False
        if not self.takes_words or word.casefold() in AMP_SYNONYMS or nearest(word, AMP_CHOICES):
            return True
        # else a config key, or the config's own name or file
        return self.takes_pairs and not _KEY.match(word)

    def fault(self, error: UsageError) -> str:
        """What is wrong with the command line, in one line."""
        if type(error).__name__ == "NoSuchOption":
            return self.no_such_option(error.option_name)
        param = getattr(error, "param", None)
        if type(error).__name__ == "MissingParameter" and param is not None:
            return self.missing(param)
        if isinstance(error, typer.BadParameter) and param is not None and error.message:
            return f"{param.opts[0]}: {self.with_value(error.message, param)}"
        text = " ".join(error.format_message().split())
        return self.stray_words(text) if "unexpected extra argument" in text else text

    def with_value(self, message: str, param: Parameter) -> str:
        """A parser's message that does not show the value, with the value as it was typed."""
        wanted = re.fullmatch(r"Input (should be .*?)(?:, unable to parse .*)?", message)
        names = {dashed(name) for name in param.opts}
        given = [text if equals else following
                 for word, following in zip(self.words, [*self.words[1:], ""], strict=True)
                 for name, equals, text in (word.partition("="),) if dashed(name) in names]
        if not wanted or not given:
            return message
        said = wanted.group(1)
        for theirs, ours in _PLAINER:
            said = said.replace(theirs, ours)
        return f"{given[-1]!r} {said}"

    def missing(self, param: Parameter) -> str:
        if param.opts[0] == "config":
            return ("the first word must be a config, for example: "
                    f"python {self.script}.py queryinst_shapes")
        return f"{param.opts[0]} is missing"

    def no_such_option(self, name: str) -> str:
        typed = [word.partition("=")[0] for word in self.words if word.startswith(("-", "_"))]
        wrong = next((word for word in typed if dashed(word) == name), None)
        if wrong is None:  # of -batch_size the parser looked at -b, or at another letter, alone
            letter = name.lstrip("-")[:1]
            wrong = next((word for word in typed if letter and letter in word[1:]
                          and not word.startswith("--")), name)
        return f"no such option {wrong}{self.remedy(wrong)}"

    def remedy(self, wrong: str) -> str:
        """What to write in place of a flag that does not exist."""
        by_spelling = {dashed(flag): flag for flag in self.flags if flag.startswith("--")}
        same = next((flag for flag in self.flags if same_name(flag, wrong)), None)
        if same:
            return f". Did you mean {same}?"
        from runtime.other_tools import answer_for  # only a faulty line needs the table

        answer = answer_for(self.script, wrong)
        if answer:
            return answer
        near = nearest(wrong, by_spelling) if len(wrong.strip("-_")) > 1 else None
        return f". Did you mean {by_spelling[near]}?" if near else ". --help lists them."

    def stray_words(self, text: str) -> str:
        """A word that belongs to no flag: one whose dashes are missing, an override, a file."""
        for word in self.words:
            flag = self.undashed(word)
            if flag:
                return f"{word} stands without dashes. Did you mean {flag}?"
        found = re.search(r"argument\S* \((.*)\)$", text)
        stray = found.group(1) if found else text
        for word in (word for word in stray.split() if not word.startswith("-")):
            key, equals, value = word.partition("=")
            if equals and self.undashed(key):
                return f"{word} stands without dashes. Did you mean {self.undashed(key)}={value}?"
            if equals:
                return f"{word} belongs to no flag. Did you mean --cfg-options {word}?"
            if word.endswith((".pth", ".pt", ".safetensors")):
                return (f"{word} belongs to no flag. To evaluate it: --eval-only --resume {word}; "
                        f"to start from its weights: --pretrained {word}")
        return f"{stray} belongs to no flag; a value with blanks in it needs quotes"

    def undashed(self, word: str) -> str | None:
        """The flag that the word is, but for its dashes."""
        bare = word.replace("_", "-")
        return next((flag for flag in self.flags if dashed(flag).lstrip("-") == bare
                     and len(bare) > 1), None)

    def undashed_flags(self, values: dict[str, Any]) -> Iterator[str]:
        """Keys of KEY VALUE pairs that are flags without their dashes; config keys have capitals.

        A flag without dashes would else be reported as an unknown config key.
        """
        for param in self.params:
            if param.param_type_name == "argument" and param.nargs == -1:
                words = values.get(param.name) or []
                for word in words[::2]:
                    flag = self.undashed(word)
                    if flag:
                        yield f"{word} stands without dashes. Did you mean {flag}?"

    def odd_numbers(self, values: dict[str, object]) -> Iterator[str]:
        """Numbers that no computer computes with."""
        for param in self.params:
            value = values.get(param.name)
            if isinstance(value, float) and not math.isfinite(value):
                yield f"{param.opts[0]}: {value} is not a finite number"
            elif isinstance(value, int) and abs(value) >= 2**63:
                yield f"{param.opts[0]}: {value} is too large"
