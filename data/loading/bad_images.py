"""What --bad-images means for a sample: stop, or put another one in its place."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from runtime.errors import InputError

MAX_REPLACEMENTS = 100  # unusable samples in a row before the run gives up


def usable_sample(
    sample_at: Callable[[int], dict[str, Any] | None],
    position: int,
    another: Callable[[], int],
    *,
    skip: bool,
    source: str | Path,
) -> dict[str, Any]:
    """The training sample at `position`, or at others while that cannot be used.

    sample_at: the sample at a position, or None where there is nothing to learn from
    another:   another position, at random
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
        position = another()
    raise InputError([
        *skipped,
        f"{source}: {MAX_REPLACEMENTS} samples in a row could not be used; check the data with "
        "--check-data",
    ])


def eval_sample(
    make: Callable[[], dict[str, Any]], *, skip: bool, **identity: Any
) -> dict[str, Any]:
    """An evaluation's sample as `make` gives it; of an unreadable image `skipped` and `identity`.

    skip: as `usable_sample`. Collating leaves such samples out (`usable`), and so does the score.
    """
    try:
        return make() | {"skipped": []}
    except InputError as error:
        if not skip:
            raise
        return identity | {"skipped": error.faults}


def usable(samples: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of a batch's samples whose image could be read."""
    return [sample for sample in samples if "image" in sample]


def fault_lines(samples: Iterable[dict[str, Any]]) -> list[str]:
    """The fault lines of all samples of a batch."""
    return [line for sample in samples for line in sample["skipped"]]


def unusable_ids(samples: Iterable[dict[str, Any]]) -> list[int]:
    """The image ids of those whose image could not be read."""
    return [sample["image_id"] for sample in samples if "image" not in sample]
