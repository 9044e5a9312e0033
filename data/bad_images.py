"""What --bad-images means for a sample: stop, or put another one in its place."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from common.errors import InputError

MAX_REPLACEMENTS = 100  # unusable samples in a row before the run gives up


def usable_sample(
    sample_at: Callable[[int], dict[str, Any] | None],
    position: int,
    draw: Callable[[], int],
    *,
    skip: bool,
    source: str | Path,
) -> dict[str, Any]:
    """The training sample at `position`, or at drawn ones while that cannot be used.

    sample_at: the sample at a position, or None where there is nothing to learn from
    draw:      another position
    skip:      an InputError of `sample_at` stands under `skipped` of the sample; else it is raised
    source:    what the samples are from, for the error's text
    Raises InputError when many in a row could not be used.
    """
    skipped = []
    for _ in range(MAX_REPLACEMENTS):
        try:
            sample = sample_at(position)
        except InputError as error:
            if not skip:
                raise
            skipped += error.faults
        else:
            if sample is not None:
                return sample | {"skipped": skipped}
        position = draw()
    raise InputError([
        *skipped,
        f"{source}: {MAX_REPLACEMENTS} samples in a row could not be used; check the data with "
        "--check-data",
    ])


def read_or_black(
    read: Callable[[], Any], black: Callable[[], Any], *, skip: bool
) -> tuple[Any, list[str]]:
    """An evaluation's image as `read` gives it, or the one of `black` if unreadable; fault lines.

    skip: as `usable_sample`. The image still counts: leaving it out would raise the score.
    """
    try:
        return read(), []
    except InputError as error:
        if not skip:
            raise
        return black(), error.faults
