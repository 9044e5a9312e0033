"""YOLACT's checkpoint files of one run: how they are named, and which ones a new one replaces."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.checkpoint.files import checkpoint_path, remove_checkpoint, replaced_by, save_pair
from common.checkpoint.names import orphans


@dataclass(frozen=True)
class CheckpointFolder:
    """`folder`/<name>_<epoch>_<iteration>.pth, each with its training state beside it.

    save_interval, save_every: updates between periodic saves, the second None for no other
    keep_latest:          each periodic save replaces the one before it,
    keep_latest_interval: ... except where it falls one save_interval behind a multiple of this, so
                          that saves at the multiples stay [yolact.md: Files]; 0: none
    """

    folder: Path
    name: str
    save_interval: int
    save_every: int | None = None
    keep_latest: bool = False
    keep_latest_interval: int = 100000

    @property
    def best_path(self) -> Path:
        """Where the best weights are kept."""
        return self.folder / f"{self.name}_best.pth"

    def due(self, iteration: int) -> bool:
        """Whether one of the two intervals ends with `iteration` updates."""
        intervals = (self.save_interval, self.save_every or self.save_interval)
        return any(iteration % interval == 0 for interval in intervals)

    def save(
        self,
        weights: Mapping[str, Any],
        state: Mapping[str, Any],
        epoch: int,
        iteration: int,
        interrupt: bool = False,
        log: Callable[[str], None] = lambda line: None,
    ) -> Path:
        """Write a checkpoint; only when it is whole, remove what it replaces. Returns its file.

        An interrupted state bridges the gap to the next save of its run, and goes with that.
        Raises SaveError, with all that was there still there.
        """
        path = checkpoint_path(self.folder, self.name, epoch, iteration, interrupt)
        interrupts, previous = replaced_by(path)
        save_pair(path, weights, state)
        for old in (*interrupts, *orphans(self.folder, self.name)):
            remove_checkpoint(old)
        every = self.keep_latest_interval
        stays = every > 0 and iteration % every == self.save_interval
        if self.keep_latest and previous and self.due(iteration) and not (interrupt or stays):
            log("Deleting old save...")
            remove_checkpoint(previous)
        return path
