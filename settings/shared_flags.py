"""What the flags that all scripts share do to a config: sizes, the data workers, the patience.

Each family's own keys are changed where its schema is; here is what they have in common.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from runtime.errors import InputError
from runtime.launch.environment import cores
from runtime.spelling import plural

Say = Callable[[str], object]


def usable_workers(asked: int, given: int | None, key: str, say: Say, flag: str = "--workers"
                   ) -> int:
    """Data workers: `given`, what the command line says, or `asked`, at most one for each core.

    key: what asks for them, a config's key; say: gets a line where there are fewer than asked for
    flag: what takes more all the same
    """
    if given is not None:
        return given
    usable = min(asked, cores())
    if usable < asked:
        say(f"{key} asks for {asked} data workers; with {plural(usable, 'core')} here there are "
            f"{usable}. {flag} {asked} makes as many all the same.")
    return usable


def check_patience(patience: int | None, validates: bool, why_not: str) -> None:
    """Raise InputError for --patience in a run without scores.

    validates: whether there are validations; why_not: why there are none, and what to do
    """
    if patience is not None and not validates:
        raise InputError(f"--patience {patience} counts validations, and there are none: {why_not}")


def check_size(size: int, least: int, why: str) -> None:
    """Raise InputError for an --image-size below `least`, in pixels; why: the reason for it."""
    if size < least:
        raise InputError(f"--image-size {size}: wants at least {least}, {why}")


def say_changes(say: Say, flag: str, changes: dict[str, tuple[object, object]]) -> None:
    """Say in a line what `flag` has changed, if anything; changes: {key: (before, after)}."""
    changed = [f"{key} {_plain(before)} becomes {_plain(after)}"
               for key, (before, after) in changes.items() if before != after]
    if changed:
        say(f"{flag}: {', '.join(changed)}.")


@contextmanager
def named_in_faults(flag: str) -> Iterator[None]:
    """In it, what a schema refuses is said of the flag that has brought it about."""
    try:
        yield
    except InputError as error:
        raise InputError([f"{flag}: {fault}" for fault in error.faults]) from None


def longest_warmup(warmup: int, length: int) -> int:
    """A warm-up keeps its length, but takes at most half of a training; one unit for both."""
    return min(warmup, length // 2)


def _plain(value: object) -> str:
    """A value in a line, with sequences as YAML has them."""
    return str(_listed(value))


def _listed(value: object) -> object:
    return [_listed(item) for item in value] if isinstance(value, (tuple, list)) else value
