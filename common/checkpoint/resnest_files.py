"""Checkpoint files named after epochs: which one a save writes, and which ones go then."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.checkpoint.files import remove_checkpoint, save_checkpoint

KEEP_EVERY = 10  # the classification original's checkpoints: epochs 0, 10, 20, ...
KEEP_NEWEST = 3


@dataclass(frozen=True)
class EpochFolder:
    """`folder`/checkpoint_<epoch>.pth after whole epochs, checkpoint_iter_<iteration>.pth inside.

    per_epoch:  updates in an epoch
    save_every: updates between saves inside epochs that stay; None: none stays

    Of the epochs' files the original's, every tenth, and the newest three stay. A state from inside
    an epoch bridges the gap to the next save of its run, and goes with that.
    """

    folder: Path
    per_epoch: int
    save_every: int | None = None

    def path(self, iteration: int, interrupt: bool = False) -> Path:
        """The file for the state after `iteration` updates; interrupt: it is not yet closed."""
        if interrupt or iteration % self.per_epoch:
            return self.folder / f"checkpoint_iter_{iteration}.pth"
        return self.folder / f"checkpoint_{iteration // self.per_epoch - 1}.pth"

    def save(self, state: Mapping[str, Any], iteration: int, interrupt: bool = False) -> Path:
        """Write a checkpoint; only when it is whole, remove what it replaces. Returns its file.

        Raises SaveError, with all that was there still there.
        """
        path = self.path(iteration, interrupt)
        save_checkpoint(path, state)
        for old in self._replaced_by(path, iteration):
            remove_checkpoint(old)
        return path

    def _replaced_by(self, path, iteration):
        old = []
        for found in self.folder.glob("checkpoint_iter_*.pth"):
            number = found.stem.rpartition("_")[2]
            is_older = number.isdecimal() and int(number) <= iteration
            stays = is_older and self.save_every and int(number) % self.save_every == 0
            if is_older and not stays and found != path:
                old.append(found)
        newest = iteration // self.per_epoch - 1
        past = (self.folder / f"checkpoint_{epoch}.pth"
                for epoch in range(newest - KEEP_NEWEST + 1) if epoch % KEEP_EVERY)
        return old + [found for found in past if found.exists()]
