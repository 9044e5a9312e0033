"""Which checkpoint a run starts from: `--resume`, and what evaluation and export take."""

from collections.abc import Callable
from pathlib import Path

from common.checkpoint.files import find_interrupt, load_newest, load_pair, parse_checkpoint_name
from runtime.errors import InputError

Found = tuple[Path, dict, dict | None]  # path, weights, training state if it lies there


def find_start(
    folder: str | Path,
    name: str | None,
    resume: str | None,
    warn: Callable[[str], None],
) -> Found | None:
    """The checkpoint that `--resume` names; None without it, and for "latest" when there is none.

    folder, name: where the run's checkpoints lie, and the config's name in their file names, None
                  when those have none
    resume:       None, "latest", "interrupt" or a file
    warn:         called with a line for each damaged checkpoint that "latest" passes over
    Raises InputError when a file or an interrupted state is asked for and not there.
    """
    if resume is None:
        return None
    if resume == "latest":
        return load_newest(folder, name, warn)
    if resume == "interrupt":
        path = find_interrupt(folder, name)
        if path is None:
            of_whom = f" of {name}" if name else ""
            raise InputError(f"--resume interrupt: {folder} holds no interrupted state{of_whom}. "
                             "Use --resume latest, or leave --resume out to start anew.")
        return path, *load_pair(path)
    return Path(resume), *load_pair(resume)


def find_trained(
    folder: str | Path,
    name: str | None,
    resume: str | None,
    best: Path,
    warn: Callable[[str], None],
) -> Found:
    """What to evaluate or export: the file that `--resume` names, else the best, else the newest.

    Raises InputError when there is none.
    """
    if resume is None:
        resume = str(best) if best.exists() else "latest"
    found = find_start(folder, name, resume, warn)
    if found is None:
        of_whom = f" of {name}" if name else ""
        raise InputError(f"{folder} holds no checkpoint{of_whom}: name one with --resume FILE")
    return found


def iteration_of(path: str | Path, state: dict | None) -> int:
    """Updates done by a checkpoint: its training state's, else its YOLACT-form name's, else 0."""
    if state is not None:
        return state["iteration"]
    parsed = parse_checkpoint_name(path)
    return parsed[2] if parsed else 0
