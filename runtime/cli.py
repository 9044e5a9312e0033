"""The command line that all scripts share: common options, and the way from errors to exit status.

Light on purpose: `--help` and a misspelt flag are answered before torch is imported.
"""

import contextlib
import importlib.util
import inspect
import math
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, NoReturn, TypeVar

import typer
from typer.models import OptionInfo

from runtime.console import fold_warnings, open_standard_streams
from runtime.errors import Failed, InputError, SaveError, ending_of
from runtime.launch import collector
from runtime.launch.environment import is_first, own_rank
from runtime.launch.exits import leave
from runtime.launch.peers import leave_note, peer_fault, say_failed, say_goodbye
from runtime.launch.signals import Stopped
from runtime.options.usage import AMP_CHOICES, AMP_SYNONYMS, NUMBER, parse
from runtime.options.values import batch_size, between, check_device, check_seed, one_of
from runtime.out_of_memory import memory_text

ADDITIONS = "Additions"  # the help panel of what the original scripts do not have
# what torch.distributed says when a peer does not answer any more
_CONNECTION = re.compile(r"gloo|NCCL|Connection (?:closed|reset|refused)|Broken pipe")

Flags = SimpleNamespace  # what a script's `flags` returns: a value by each parameter's name
Answer = TypeVar("Answer")

RESUME = "[latest|interrupt|FILE]"  # a bare --resume is --resume latest
EXPORT_FORMATS = ("onnx", "pt2", "safetensors", "pth")
TRUE_TEXTS = ("yes", "true", "t", "1")


def bool_text(text: str) -> bool:
    """True for yes, true, t and 1 in any case, False for anything else."""
    return text.lower() in TRUE_TEXTS


def bool_option(*names: str, help: str) -> OptionInfo:
    """An option whose value is a truth in words, `--cuda=False`; the script receives a bool.

    The parameter is annotated `str` and its default is text, because Typer makes a switch without
    value of every bool.
    """
    return typer.Option(*names, metavar="BOOL", callback=bool_text, help=help)


def flag(names: str, help: str, **settings: Any) -> OptionInfo:
    """An option of the original's: its names in one text, "--lr --learning_rate", and its help."""
    return typer.Option(*names.split(), help=help, **settings)


def _addition(*names: str, **settings: Any) -> OptionInfo:
    return typer.Option(*names, rich_help_panel=ADDITIONS, **settings)


Device = Annotated[
    str | None,
    _addition(
        "--device",
        metavar="cpu|cuda|cuda:N",
        callback=check_device,
        help="Where to compute; cuda when there is one, else cpu.",
    ),
]
Amp = Annotated[
    str | None,
    _addition(
        "--amp",
        metavar="[off|bf16|fp16]",
        callback=one_of(*AMP_CHOICES, synonyms=AMP_SYNONYMS),
        help="Mixed precision; fp16 without a value.",
    ),
]
Compile = Annotated[bool, _addition("--compile", help="Run the network through torch.compile.")]
ChannelsLast = Annotated[
    bool,
    _addition("--channels-last/--no-channels-last", help="Memory layout of images and features."),
]
Tf32 = Annotated[
    bool | None,
    _addition("--tf32/--no-tf32", help="On a GPU: float32 products in TF32, faster and less exact; "
              "without either, convolutions only."),
]
BatchSize = Annotated[
    str | None,
    _addition("--batch-size", metavar="N|auto", callback=batch_size, help="Images a batch on each "
              "device, over the config's; auto: as many as fit into memory."),
]
Accumulate = Annotated[
    int | None, _addition("--accumulate", min=1, help="Batches whose gradients make one update.")
]
ClipGrad = Annotated[
    float | None,
    _addition("--clip-grad", callback=between(0, math.inf), help="Largest gradient norm."),
]
Ema = Annotated[
    float | None,
    _addition(
        "--ema",
        metavar="DECAY",
        callback=between(0, 1),
        help="Keep a moving average of the weights with this decay.",
    ),
]
Seed = Annotated[
    int | None,
    _addition("--seed", callback=check_seed, help="All randomness comes from this number."),
]
Workers = Annotated[
    int | None, _addition("--workers", min=0, help="Processes that prepare samples; 0: this one.")
]
MaxIters = Annotated[
    int | None,
    _addition("--max-iters", min=1, help="End after this many updates in all; schedules stay."),
]
Epochs = Annotated[
    int | None,
    _addition("--epochs", min=1, help="Length of the training, over the config's; the schedule is "
              "stretched with it."),
]
ImageSize = Annotated[
    int | None,
    _addition("--image-size", min=1, metavar="PIXELS", help="Side of the input, where the sides "
              "differ the shorter one, over the config's."),
]
Mirror = Annotated[
    bool | None,
    _addition("--mirror/--no-mirror", help="Mirror training images at random; not for data where "
              "left and right mean something."),
]
Patience = Annotated[
    int | None,
    _addition("--patience", min=1, help="End after this many validations without a better score."),
]
MaxHours = Annotated[
    float | None,
    _addition("--max-hours", metavar="HOURS", callback=between(0, math.inf), help="Stop this "
              "session after so long as a stop signal does: saved, status 75."),
]
LogEvery = Annotated[int | None, _addition("--log-every", min=1, help="Updates between log lines.")]
SaveEvery = Annotated[
    int | None, _addition("--save-every", min=1, help="Updates between checkpoints.")
]
ForceResume = Annotated[
    bool,
    _addition("--force-resume", help="Resume although the config or data differ from the file's."),
]
EvalOnly = Annotated[
    bool,
    _addition("--eval-only", help="Evaluate what --resume, else --pretrained names, else the "
              "best, else the newest."),
]
Export = Annotated[
    Path | None, _addition("--export", metavar="PATH", help="Write the trained network there.")
]
Predict = Annotated[
    str | None,
    _addition("--predict", metavar="PATH", help="Image, folder, 'pattern*', video, or - for a list "
              "on stdin: what the network finds there, as pictures and data."),
]
PredictTo = Annotated[
    Path | None,
    _addition("--predict-to", metavar="DIR", help="Where these go; else predictions/ in the run "
              "folder."),
]
ScoreThreshold = Annotated[
    float,
    _addition("--score-threshold", min=0, help="Leave out predictions up to this score; 0: all are "
              "in the data, instances from 0.3 on in the pictures."),
]
TopK = Annotated[
    int | None,
    _addition("--top-k", min=1, help="Surest predictions of an image, at most; of classes else 5."),
]
Benchmark = Annotated[
    bool,
    _addition("--benchmark", help="With --predict: only times, of the model alone and with "
              "postprocessing."),
]
ExportFormat = Annotated[
    str | None,
    _addition("--export-format", metavar="|".join(EXPORT_FORMATS),
              callback=one_of(*EXPORT_FORMATS), help="Its format, else as PATH's suffix says."),
]
ExportDetections = Annotated[
    bool, _addition("--export-detections",
                    help="Export boxes, scores, labels and masks instead of the heads' outputs."),
]
DryRun = Annotated[bool, _addition("--dry-run", help="Check everything, train 2 updates, stop.")]
CheckData = Annotated[
    bool, _addition("--check-data", help="Check annotations and images, report all faults, stop.")
]
BadImages = Annotated[
    str,
    _addition(
        "--bad-images",
        metavar="stop|skip",
        callback=one_of("stop", "skip"),
        help="What an unreadable image does.",
    ),
]
Nan = Annotated[
    str,
    _addition(
        "--nan",
        metavar="stop|skip",
        callback=one_of("stop", "skip"),
        help="What a loss that is not finite does.",
    ),
]
CfgOptions = Annotated[
    list[str] | None,
    _addition("--cfg-options", metavar="KEY=VALUE", help="Override a config key; repeatable."),
]
Pairs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY VALUE]...",
        callback=lambda words: [word.removeprefix(NUMBER) for word in words or []],
        help="Config keys and their values, after or between the flags.",
    ),
]
Tensorboard = Annotated[bool, _addition("--tensorboard", help="Write TensorBoard events too.")]
Wandb = Annotated[
    bool, _addition("--wandb", help="Log to Weights & Biases too, offline without a login.")
]
Pretrained = Annotated[
    str | None, _addition("--pretrained", metavar="FILE", help="Weights to start from.")
]
Timeout = Annotated[
    float,
    _addition("--dist-timeout", metavar="SECONDS", callback=between(0, 1e6),
              help="How long a process waits for another one that does not answer."),
]
Debug = Annotated[bool, _addition("--debug", help="Show the traceback of input errors too.")]


# The options of all scripts, in the order of --help: type, and default where a script says none.
SHARED: dict[str, tuple[object, object]] = {
    "device": (Device, None), "amp": (Amp, "off"), "compile": (Compile, False),
    "channels_last": (ChannelsLast, False), "tf32": (Tf32, None), "batch_size": (BatchSize, None),
    "accumulate": (Accumulate, 1),
    "clip_grad": (ClipGrad, None), "ema": (Ema, None), "seed": (Seed, None),
    "workers": (Workers, None), "epochs": (Epochs, None), "image_size": (ImageSize, None),
    "mirror": (Mirror, None), "patience": (Patience, None), "max_hours": (MaxHours, None),
    "max_iters": (MaxIters, None), "log_every": (LogEvery, None),
    "save_every": (SaveEvery, None), "force_resume": (ForceResume, False),
    "pretrained": (Pretrained, None), "eval_only": (EvalOnly, False), "export": (Export, None),
    "export_format": (ExportFormat, None), "export_detections": (ExportDetections, False),
    "predict": (Predict, None), "predict_to": (PredictTo, None),
    "score_threshold": (ScoreThreshold, 0.0), "top_k": (TopK, None),
    "benchmark": (Benchmark, False), "dry_run": (DryRun, False), "check_data": (CheckData, False),
    "bad_images": (BadImages, "stop"), "nan": (Nan, "stop"), "cfg_options": (CfgOptions, None),
    "tensorboard": (Tensorboard, False), "wandb": (Wandb, False),
    "dist_timeout": (Timeout, 600), "debug": (Debug, False),
}


def with_shared(
    *without: str, **defaults: object
) -> Callable[[Callable[..., None]], Callable[..., Flags]]:
    """Makes a function whose parameters are a script's own flags return them and the shared ones.

    without:  those of `SHARED` that the script has under another name
    defaults: those that the script has with another default
    """

    def decorate(own: Callable[..., None]) -> Callable[..., Flags]:
        def flags(**given: object) -> Flags:
            return Flags(**given)

        signature = inspect.signature(own)
        shared = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=kind,
                                    default=defaults.get(name, default))
                  for name, (kind, default) in SHARED.items() if name not in without]
        parameters = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY)
                      for each in signature.parameters.values()] + shared
        flags.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        flags.__annotations__ = {each.name: each.annotation for each in parameters}
        flags.__doc__ = own.__doc__
        return flags

    return decorate


def paired(words: Sequence[str] | None) -> list[str]:
    """KEY=VALUE texts of the trailing words KEY VALUE KEY VALUE ... (`Pairs`).

    Raises InputError when one is left over.
    """
    words = list(words or [])
    if len(words) % 2:
        joined = next((word for word in words if "=" in word), None)
        remedy = (f"write {joined.replace('=', ' ', 1)}" if joined
                  else f"{words[-1]} has no value")
        raise InputError(f"{' '.join(words)}: config keys and values come in pairs, KEY VALUE; "
                         f"{remedy}")
    return [f"{key}={value}" for key, value in zip(words[::2], words[1::2], strict=True)]


def read_flags(
    flags: Callable[..., Answer], script_name: str, argv: Sequence[str] | None = None
) -> Answer:
    """What `flags` returns for the command line; its signature says which options there are.

    Long flags are accepted with `-` and `_`; a bare `--resume` means `--resume latest`, a bare
    `--amp` fp16; several KEY=VALUE may follow one `--cfg-options`. After --help, or a wrong
    command line, the process ends; so call it before the imports that take long.
    """
    open_standard_streams()
    fold_warnings()
    # OpenCV's warnings about a picture stand beside our one line about it, and say less.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")
    with _exit_status(script_name):
        answer = parse(flags, script_name, list(sys.argv[1:] if argv is None else argv))
        if isinstance(answer, Flags):
            check_predicting(vars(answer))
            trackers(answer)
        if argv is None:  # a script's own; its imports follow, and then `run`
            collector.pause()
        return answer


def check_predicting(given: Mapping[str, Any]) -> None:
    """Raise InputError for flags that need --predict, or are another job.

    given: {a flag's name: its value}
    """
    if given.get("predict") is None:
        for name in ("predict_to", "benchmark", "top_k"):
            if given.get(name):
                raise InputError(f"--{name.replace('_', '-')} only goes with --predict PATH")
        return
    for name in ("eval_only", "export", "check_data", "dry_run"):
        if given.get(name):
            raise InputError(f"--predict and --{name.replace('_', '-')} are two different jobs; "
                             "leave one of them out")


def trackers(flags: Flags) -> list[str]:
    """Those of --tensorboard and --wandb that are given.

    Raises InputError when the package is not installed; none is imported.
    """
    wanted = [name for name in ("tensorboard", "wandb") if vars(flags).get(name)]
    for name in wanted:
        if importlib.util.find_spec(name) is None:
            raise InputError(f"--{name}: the package is not installed; pip install {name}")
    return wanted


def say_notes(flags: Flags, log: Callable[[str], object]) -> None:
    """Log the lines of `flags.notes`: what the flags have changed beyond their own keys."""
    for line in flags.notes:
        log(line)


def run(
    main: Callable[..., None],
    script_name: str,
    *arguments: object,
    memory_keys: str = "the batch size",
) -> NoReturn:
    """Call `main(*arguments)` and leave with the project's exit status.

    memory_keys: the flag or key to lower where memory runs out
    0 done, 2 bad input, 3 could not write, 75 or 130 stopped by a signal, 1 anything else.
    """
    collector.resume()
    with _exit_status(script_name, memory_keys):
        main(*arguments)
    leave(0)


@contextlib.contextmanager
def _exit_status(script_name: str, memory_keys: str = "") -> Iterator[None]:
    """Ends the process for whatever is raised inside, with what the user should read of it."""
    status = 1
    try:
        yield
        say_goodbye()
        return
    except typer.Exit as stop:  # --help
        status = stop.exit_code
    except KeyboardInterrupt:  # before the stop signals were taken over
        status = 130
    except InputError as error:
        if "--debug" in sys.argv:
            traceback.print_exc()
        _let_rank_zero_speak()
        status = 2
        _say(script_name, _with_ending(error.faults, error), status)
    except SaveError as error:
        status = 3
        _say(script_name, _with_ending([str(error)], error), status)
    except Failed as error:
        if "--debug" in sys.argv:
            traceback.print_exc()
        _say(script_name, _with_ending([str(error)], error), status)
    except Stopped as stop:
        status = stop.status
        say_goodbye()
        leave_note(status, [])
    except Exception as error:
        _unexpected(script_name, error, status, memory_keys)
    leave(status)


def _unexpected(script_name: str, error: Exception, status: int, memory_keys: str) -> None:
    """The traceback, and a last line that tells the cause and where the work is."""
    line = memory_text(error, memory_keys)
    if line is not None:  # the traceback would say where memory ran out, not what took it
        if "--debug" in sys.argv:
            traceback.print_exc()
        _say(script_name, _with_ending([line], error), status)
        return
    line = " ".join(f"{type(error).__name__}: {error}".split())
    # a connection that breaks because a peer has ended is no fault of this process
    is_secondary = isinstance(error, RuntimeError) and bool(_CONNECTION.search(line))
    fault = peer_fault(wait=is_secondary)
    if fault is not None:
        line, is_secondary = fault.text, fault.is_told
    else:
        traceback.print_exc()
    _say(script_name, _with_ending([line], error), status, is_secondary)


def _with_ending(lines: list[str], error: Exception) -> list[str]:
    """The lines, the last one with where the work is (`runtime.errors.add_ending`)."""
    ending = ending_of(error)
    if not ending:
        return lines
    *before, last = lines
    last = last if last.endswith((".", "!", "?")) else f"{last}."
    return [*before, f"{last} {ending}"]


def _let_rank_zero_speak() -> None:
    """Wait on the other ranks: a fault of the common input is met by all, and rank 0 says it.

    The launcher ends the others as soon as rank 0 has failed; who is still alive after two seconds
    has a fault of its own.
    """
    if not is_first(os.environ):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(2)


def _say(script_name: str, lines: list[str], status: int, secondary: bool = False) -> None:
    """Print one line each on stderr, with the rank under a launcher; `dist_train.sh` does it later.

    secondary: this rank ends only because another one did
    """
    say_failed(lines[-1], secondary)
    rank = own_rank(os.environ)
    prefix = f"{script_name}: " if rank is None else f"{script_name}: rank {rank}: "
    if leave_note(status, [prefix + line for line in lines], secondary):
        return
    print("\n".join(prefix + line for line in lines), file=sys.stderr, flush=True)
