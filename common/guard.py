"""What happens to an update whose loss is inf or NaN: it never reaches the weights."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from common.errors import Failed

MAX_SKIPPED = 100  # losses in a row that are not finite, before "skip" gives up as well


class NonFiniteGuard:
    """Looks at each update's loss before the optimizer does.

    run:    the Run, for warnings and the metrics file
    policy: "stop" ends the run at the first loss that is not finite; "skip" leaves the update out,
            as the originals did, and ends it after MAX_SKIPPED in a row
    """

    def __init__(self, run: Any, policy: str):
        self._run = run
        self._skips = policy == "skip"
        self._in_row = 0

    def allows_update(
        self,
        losses: Mapping[str, float],
        own_losses: Mapping[str, Any],
        image_ids: Sequence[int | str],
        step: int,
    ) -> bool:
        """Whether the update may be made; all ranks get the same answer.

        losses:     {term: mean over the ranks}; one rank's NaN makes the mean NaN for all
        own_losses: this rank's terms, image_ids: the images they are of; both for the message
        step:       0-based index of the update
        Raises Failed with one line that names term, iteration, rank and images.
        """
        if all(map(math.isfinite, losses.values())):
            self._in_row = 0
            return True
        self._in_row += 1
        terms = [name for name, value in own_losses.items() if not math.isfinite(value)]
        if terms:
            what = (f"loss {', '.join(terms)} is not finite at iteration {step} on rank "
                    f"{self._run.rank}, images {', '.join(map(str, image_ids))}")
        else:
            what = f"iteration {step}: the loss of another rank than {self._run.rank} is not finite"
        self._run.record({"event": "skip", "iteration": step, "reason": what})
        if not self._skips or self._in_row > MAX_SKIPPED:
            raise Failed(f"{what}. The weights are as before it. Try a lower learning rate, "
                         "--clip-grad 10 or --amp off; --nan skip leaves such updates out.")
        self._run.warn(f"{what}: update skipped")
        return False
