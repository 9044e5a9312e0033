"""What happens to an update whose loss or gradient is inf or NaN: it never reaches the weights."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, SupportsFloat

from runtime.errors import Failed

if TYPE_CHECKING:
    from runtime.run.run import Run

MAX_SKIPPED = 100  # updates in a row that are not finite, before "skip" gives up as well


class NonFiniteGuard:
    """Looks at each update's loss and gradient before the optimizer does.

    run:    the Run, for warnings and the metrics file
    policy: "stop" ends the run at the first one that is not finite; "skip" leaves the update out,
            as the originals did, and ends it after MAX_SKIPPED in a row
    scaled: a loss scaler is at work, which leaves out a gradient that overflowed, and lowers its
            scale, by itself

    skipped: updates left out so far
    """

    def __init__(self, run: "Run", policy: str, scaled: bool = False):
        self._run = run
        self._skips = policy == "skip"
        self._scaled = scaled
        self._in_row = 0
        self.skipped = 0

    def allows_update(
        self,
        losses: Mapping[str, float],
        own_losses: Mapping[str, SupportsFloat],
        image_ids: Iterable[int | str],
        step: int,
        grad_norm: float = 0.0,
    ) -> bool:
        """Whether the update may be made; all ranks get the same answer.

        losses:     {term: mean over the ranks}; one rank's NaN makes the mean NaN for all
        own_losses: this rank's terms, image_ids: the images they are of; both for the message
        step:       0-based index of the update
        grad_norm:  of the gradient, the same on all ranks
        Raises Failed with one line that names term, iteration, rank and images.
        """
        is_finite = all(map(math.isfinite, losses.values()))
        if is_finite and math.isfinite(grad_norm):
            self._in_row = 0
            return True
        self._in_row += 1
        if is_finite and self._scaled and self._in_row <= MAX_SKIPPED:
            return True
        what = self._what(is_finite, own_losses, list(image_ids), step)
        if not self._skips or self._in_row > MAX_SKIPPED:
            raise Failed(f"{what}. The weights are as before it. Try a lower learning rate, "
                         "--clip-grad 10 or --amp off; --nan skip leaves such updates out.")
        self.skipped += 1
        self._run.record({"event": "skip", "iteration": step, "reason": what})
        self._run.warn(f"{what}: update skipped")
        return False

    def _what(
        self,
        is_finite: bool,
        own_losses: Mapping[str, SupportsFloat],
        image_ids: Sequence[int | str],
        step: int,
    ) -> str:
        rank, images = self._run.rank, ", ".join(map(str, image_ids))
        if is_finite:
            return (f"the gradient is not finite at iteration {step}, although every loss is; "
                    f"on rank {rank} images {images}")
        terms = [name for name, value in own_losses.items() if not math.isfinite(value)]
        if terms:
            return (f"loss {', '.join(terms)} is not finite at iteration {step} on rank {rank}, "
                    f"images {images}")
        return f"iteration {step}: the loss of another rank than {rank} is not finite"


class SkippedImages:
    """Says and counts the images that `--bad-images skip` did without.

    run: the Run, for warnings and the metrics file
    """

    def __init__(self, run: "Run"):
        self._run = run
        self.trained, self.validated = 0, 0

    def in_training(self, step: int, batches: Iterable[Mapping[str, Any]]) -> None:
        """Say what the batches of update `step` had to do without.

        batches: under "skipped" each has a fault line for every image that another one stood in for
        """
        for fault in (fault for batch in batches for fault in batch["skipped"]):
            self.trained += 1
            self._run.warn(f"skipped: {fault}")
            self._run.record({"event": "skip", "iteration": step, "reason": fault})

    def in_validation(self, faults: Iterable[str]) -> None:
        """The fault lines of images that an evaluation leaves out of its score."""
        for fault in faults:
            self.validated += 1
            self._run.warn(f"left out: {fault}")


def skips_text(guard: NonFiniteGuard, images: SkippedImages) -> list[str]:
    """Lines for a run's end: what this session left out. Empty where that is nothing."""
    counts = {
        "Updates left out because their loss or gradient was not finite": guard.skipped,
        "Unreadable images in whose place another one was trained on": images.trained,
        "Unreadable images left out of validations": images.validated,
    }
    return [f"{what}: {count}" for what, count in counts.items() if count]
