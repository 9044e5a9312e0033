"""What the families call their checkpoints: when one is due, and which ones a new one ends.

    YOLACT      <name>_<epoch>_<iteration>.pth, <name>_<epoch>_<iteration>_interrupt.pth
    Seg         encoder_epoch_N.pth, encoder_iter_N.pth (and the decoder's)
    ResNeSt     checkpoint_<epoch>.pth, checkpoint_iter_N.pth

QueryInst's, whose config says what they are called, are in `models.queryinst.series`.
"""

import enum
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from common.checkpoint.names import (
    checkpoint_path,
    newest_first,
    orphans,
    parse_checkpoint_name,
    replaced_by,
)

KEEP_EVERY = 10  # the classification original's checkpoints: epochs 0, 10, 20, ...
KEEP_NEWEST = 3


class Occasion(enum.Enum):
    """Why a checkpoint is saved."""

    REGULAR = "regular"  # the schedule asks for it, and the run goes on
    LAST = "last"  # the run ends here
    STOP = "stop"  # a bridge to the next save of the run, with which it goes
    BEST = "best"  # the best score so far: a copy beside the others, over the best before


@dataclass
class Naming:
    """What the policies share: `folder`, and the words by which a run knows its own files.

    per_epoch: updates in an epoch; intervals: updates between regular checkpoints
    name:      the word before the counts in the files' names; None: any
    best_name: the best checkpoint's file; None: there are several
    """

    folder: Path
    per_epoch: int
    intervals: tuple[int, ...]
    name: str | None = None
    best_name: str | None = None
    has_states: ClassVar[bool] = False  # beside the weights, in files of their own
    owner: str = ""  # " of NAME" in messages
    advice: str = "name one with --resume FILE"

    @property
    def run_folder(self) -> Path:
        """The folder that messages name."""
        return self.folder

    def path(self, iteration: int, occasion: Occasion) -> Path:
        """The file of the weights after `iteration` updates."""
        raise NotImplementedError

    def replaced(self, path: Path, iteration: int, occasion: Occasion) -> list[Path]:
        """What goes now that `path` is on the disk, in this order."""
        raise NotImplementedError

    def debris(self) -> list[Path]:
        """States without weights, by the weights' names: a process died while it wrote or removed.

        What else lies there under the same name may be a user's, who moved one file: it stays.
        """
        return orphans(self.folder, str(self.name)) if self.has_states else []

    def due(self, iteration: int) -> bool:
        """Whether a regular checkpoint belongs after so many updates."""
        return any(iteration % interval == 0 for interval in self.intervals)

    def removes(self, path: Path) -> None:
        """`path` is about to be removed."""

    def written(self, path: Path, iteration: int, occasion: Occasion) -> None:
        """`path` is on the disk."""

    def record(self) -> dict[str, list[str]]:
        """What the last save would have `restore` know."""
        return {}

    def record_after(self, iteration: int, occasion: Occasion) -> dict[str, list[str]]:
        """What `restore` will want to know after that save."""
        return {}

    def restore(self, record: Mapping[str, list[str]]) -> None:
        """Take up the record of the checkpoint that the run goes on from."""

    def newest_first(self, only_stopped: bool = False) -> list[Path]:
        """All checkpoints, the newest first, or those that a stopped run may have left."""
        return newest_first(self.folder, self.name, only_stopped)

    def best(self) -> Path | None:
        """The best checkpoint's file, where it belongs, or None."""
        return self.folder / self.best_name if self.best_name else None

    def iteration_in(self, path: Path, weights: Mapping[str, Any]) -> int:
        """The updates that a checkpoint without training state tells of, else 0."""
        raise NotImplementedError


@dataclass
class YolactNaming(Naming):
    """Periodic saves stay, or with `keep_latest` each replaces the one before it ...

    keep_latest_interval: ... except where it falls one save_interval behind a multiple of this, so
                          that saves at the multiples stay [yolact.md: Files]; 0: none
    """

    has_states = True
    save_interval: int = 0
    keep_latest: bool = False
    keep_latest_interval: int = 0
    log: Callable[[str], object] = lambda line: None

    def path(self, iteration: int, occasion: Occasion) -> Path:
        epoch = max(iteration - 1, 0) // self.per_epoch  # of the last update, 0-based
        stopped = occasion is Occasion.STOP
        return checkpoint_path(self.folder, str(self.name), epoch, iteration, stopped)

    def replaced(self, path: Path, iteration: int, occasion: Occasion) -> list[Path]:
        stopped, previous = replaced_by(path)
        every = self.keep_latest_interval
        stays = every > 0 and iteration % every == self.save_interval
        is_regular = self.due(iteration) and occasion is not Occasion.STOP
        ends = self.keep_latest and is_regular and not stays
        return stopped + ([previous] if previous and ends else [])

    def removes(self, path: Path) -> None:
        parsed = parse_checkpoint_name(path)
        if parsed and not parsed[3] and path.exists():
            self.log("Deleting old save...")

    def iteration_in(self, path: Path, weights: Mapping[str, Any]) -> int:
        parsed = parse_checkpoint_name(path)
        return parsed[2] if parsed else 0


@dataclass
class SegNaming(Naming):
    """Epochs' files stay; those inside epochs go with an epoch's or the last ones.

    Inside an epoch the one before stays as well, to fall back on.
    """

    has_states = True

    def path(self, iteration: int, occasion: Occasion) -> Path:
        epoch, rest = divmod(iteration, self.per_epoch)
        closes = rest == 0 and epoch > 0 and occasion is not Occasion.STOP
        return self.folder / f"encoder_{f'epoch_{epoch}' if closes else f'iter_{iteration}'}.pth"

    def replaced(self, path: Path, iteration: int, occasion: Occasion) -> list[Path]:
        found = self.newest_first()
        older = found[found.index(path) + 1 :]
        if not (occasion is Occasion.LAST or path.name.startswith("encoder_epoch_")):
            older = older[1:]
        bridges = [each for each in older if each.name.startswith("encoder_iter_")]
        return bridges

    def iteration_in(self, path: Path, weights: Mapping[str, Any]) -> int:
        found = re.search(r"_(epoch|iter)_(\d{1,18})\.pth$", path.name)
        return int(found[2]) * (self.per_epoch if found[1] == "epoch" else 1) if found else 0


@dataclass
class ResnestNaming(Naming):
    """Of the epochs' files every tenth, as the original's, and the newest three stay.

    save_every: updates between saves inside epochs that stay; None: none stays
    """

    save_every: int | None = None

    def path(self, iteration: int, occasion: Occasion) -> Path:
        if occasion is Occasion.STOP or iteration % self.per_epoch:
            return self.folder / f"checkpoint_iter_{iteration}.pth"
        return self.folder / f"checkpoint_{iteration // self.per_epoch - 1}.pth"

    def replaced(self, path: Path, iteration: int, occasion: Occasion) -> list[Path]:
        old = []
        for found in self.folder.glob("checkpoint_iter_*.pth"):
            number = found.stem.rpartition("_")[2]
            is_older = number.isdecimal() and int(number) <= iteration
            stays = (is_older and self.save_every and int(number) % self.save_every == 0
                     and int(number) % self.per_epoch)  # at an epoch's end only a stop leaves one
            if is_older and not stays and found != path:
                old.append(found)
        there = [self.folder / f"checkpoint_{epoch}.pth"
                 for epoch in range(iteration // self.per_epoch)]
        there = [found for found in there if found == path or found.exists()]
        return old + [found for found in there[:-KEEP_NEWEST]
                      if int(found.stem.rpartition("_")[2]) % KEEP_EVERY]

    def iteration_in(self, path: Path, weights: Mapping[str, Any]) -> int:
        if "iteration" in weights:
            return weights["iteration"]
        epoch = weights.get("epoch")  # the original's: the last whole one
        return (epoch + 1) * self.per_epoch if isinstance(epoch, int) else 0
