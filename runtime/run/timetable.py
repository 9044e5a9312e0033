"""When a training loop logs, saves, validates and ends. Answers yes or no; does nothing itself."""

from collections.abc import Callable
from dataclasses import dataclass


def last_iteration(start: int, total: int, max_iters: int | None, dry_run: bool = False) -> int:
    """Updates in all when this session ends.

    start:     updates that lie behind it; it never goes back behind these
    total:     what the schedule asks for
    max_iters: the flag `--max-iters`, None without it
    """
    if dry_run:
        return start + 2
    return max(start, min(max_iters or total, total))


@dataclass(frozen=True)
class Timetable:
    """The decisions of one session, from the numbers of updates alone.

    start, stop_at: updates made before the session and at its end
    per_epoch:      updates an epoch
    log_every:      updates between log lines; with `logs_by_epoch` counted anew in each epoch
    saves:          saves(iteration): whether a regular checkpoint belongs after so many updates
    validate_unit:  updates of what the numbers of validations count; 0: an epoch's
    validate_every: epochs between validations; 0: none
    validate_end:   whether the end of the session is validated, where no epoch's end has been it
    validate_after: epochs that are over when the intervals begin
    validate_from:  the first epoch, counted from 1, that may be followed by a validation
    validate_last:  the epoch, counted from 1, that is followed by one in any case; 0: none
    is_dry:         a dry run neither saves nor validates

    `step` is the 0-based index of an update, `iteration` the number of updates made.
    """

    start: int
    stop_at: int
    per_epoch: int
    log_every: int
    saves: Callable[[int], bool]
    validate_every: int = 0
    validate_end: bool = False
    validate_after: int = 0
    validate_from: int = 1
    validate_last: int = 0
    validate_unit: int = 0
    logs_by_epoch: bool = False
    is_dry: bool = False

    def logs_at(self, step: int) -> bool:
        """Whether the update `step` is written down."""
        return (step % self.per_epoch if self.logs_by_epoch else step) % self.log_every == 0

    def ends_epoch(self, iteration: int) -> bool:
        """Whether `iteration` updates are a number of whole epochs, not none."""
        return iteration > 0 and iteration % self.per_epoch == 0

    def epoch_of(self, iteration: int) -> int:
        """The 0-based epoch that the last of `iteration` updates belongs to."""
        return max(iteration - 1, 0) // self.per_epoch

    def saves_at(self, iteration: int) -> bool:
        """Whether to save now and go on; the save at the end is the script's own."""
        return not self.is_dry and iteration < self.stop_at and self.saves(iteration)

    def validates_at(self, iteration: int, validated_at: int) -> bool:
        """Whether a validated epoch ends here, and is not yet scored.

        validated_at: iteration of the last validation; -1 before the first
        """
        unit = self.validate_unit or self.per_epoch
        if self.is_dry or iteration == validated_at or iteration == 0 or iteration % unit:
            return False
        ended = iteration // unit
        is_due = (self.validate_every > 0 and ended >= self.validate_from
                  and (ended - self.validate_after) % self.validate_every == 0)
        return is_due or ended == self.validate_last

    def validates_now(self, iteration: int, validated_at: int) -> bool:
        """`validates_at` between two updates; the validation at the end is the script's own."""
        return iteration < self.stop_at and self.validates_at(iteration, validated_at)

    def validates_end(self, validated_at: int) -> bool:
        """Whether a validation belongs after the last update."""
        return self.validate_end and not self.is_dry and validated_at != self.stop_at

    def keeps_metrics_to(self, validated_at: int) -> float | None:
        """Up to where a resumed session keeps the lines of metrics.jsonl; None: it starts anew.

        Half an update before the start where a validation comes again: its line goes, too.
        """
        if self.start == 0:
            return None
        return self.start - 0.5 * self.validates_at(self.start, validated_at)
