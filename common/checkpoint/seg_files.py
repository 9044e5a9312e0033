"""Checkpoint files of the segmentation original: encoder and decoder apart, a history beside them.

    encoder_epoch_N.pth  decoder_epoch_N.pth  history_epoch_N.pth   after epoch N, all kept
    encoder_iter_N.pth   decoder_iter_N.pth                         after N updates, until replaced
    encoder_best.pth     decoder_best.pth                           the best score so far

The training state of each lies in `encoder_<...>.state.pth`.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.checkpoint.files import load_group, remove_checkpoint, save_group, state_path, verify
from common.checkpoint.names import newest_first, orphans
from runtime.errors import InputError

NETS = ("encoder", "decoder")
BEST = "best.pth"

# the files' common name "FOLDER/*_SUFFIX", weights of each net, state
Loaded = tuple[str, dict[str, dict], dict | None]


@dataclass(frozen=True)
class NetCheckpoints:
    """The checkpoints in `folder`; each is named by its suffix, such as "epoch_3.pth"."""

    folder: Path

    def paths(self, suffix: str) -> list[Path]:
        """Encoder's and decoder's weights."""
        return [self.folder / f"{net}_{suffix}" for net in NETS]

    def exists(self, suffix: str) -> bool:
        """Whether weights of either net are there."""
        return any(path.exists() for path in self.paths(suffix))

    def save(
        self,
        suffix: str,
        weights: Mapping[str, Mapping[str, Any]],
        state: Mapping[str, Any],
        history: Mapping[str, Any] | None = None,
    ) -> Path:
        """Write {net: weights}, their state and, if given, the history. Raises SaveError.

        Returns the encoder's file, by which `--resume` finds all of them.
        """
        files = {self.folder / f"{net}_{suffix}": weights[net] for net in NETS}
        others = {self.folder / f"history_{suffix}": history} if history is not None else None
        encoder = self.paths(suffix)[0]
        save_group(files, state_path(encoder), state, others)
        return encoder

    def prune(self, keep: str, also_previous: bool = False) -> None:
        """Remove the `iter_N` checkpoints that are not newer than the one just written.

        keep:          suffix of that one
        also_previous: keep the one before it as well, to fall back on
        """
        found = [_suffix(path) for path in newest_first(self.folder, NETS[0])]
        older = found[found.index(keep) + 1 :]
        if also_previous:
            older = older[1:]
        for suffix in older:
            if suffix.startswith("iter_"):
                # the encoder's last: what is cut off here is found again by its name
                for path in reversed(self.paths(suffix)):
                    remove_checkpoint(path)
        for path in orphans(self.folder, NETS[0]):
            remove_checkpoint(path)

    def load(self, suffix: str, warn: Callable[[str], None]) -> Loaded:
        """Weights and state. A history that is damaged is a warning: the state has it, too.

        Raises InputError that names every damaged or missing file.
        """
        history = self.folder / f"history_{suffix}"
        faults: list[str] = []
        if history.exists():
            try:
                verify(history)
            except InputError as error:
                faults = error.faults
        paths = self.paths(suffix)
        try:
            weights, state = load_group(paths, state_path(paths[0]))
        except InputError as error:
            raise InputError([*error.faults, *faults]) from error
        for fault in faults:
            warn(fault)
        name = str(self.folder / f"*_{suffix}")
        return name, dict(zip(NETS, weights, strict=True)), state

    def load_newest(self, warn: Callable[[str], None], only: str = "") -> Loaded | None:
        """The newest good checkpoint; None when there is none.

        only: a beginning of the suffix, for example "iter_"
        warn: called with one text for each damaged checkpoint that is passed over
        Raises InputError naming all damaged files when none is good.
        """
        faults: list[str] = []
        for path in newest_first(self.folder, NETS[0]):
            if not _suffix(path).startswith(only):
                continue
            try:
                return self.load(_suffix(path), warn)
            except InputError as error:
                warn("; ".join(error.faults) + "; trying the checkpoint before it")
                faults += error.faults
        if faults:
            raise InputError(faults)
        return None


    def find_start(
        self, resume: str | None, start_epoch: int, warn: Callable[[str], None]
    ) -> Loaded | None:
        """What `--resume` names, else the checkpoint of TRAIN.start_epoch; None without either.

        resume: None, "latest" (which may find nothing), "interrupt" or a file
        Raises InputError when something is asked for and not there.
        """
        found = self._named(resume, warn) if resume else None
        if found is None and start_epoch:
            return self.load(f"epoch_{start_epoch}.pth", warn)
        return found

    def find_trained(
        self, resume: str | None, checkpoint: str, is_meant: bool, warn: Callable[[str], None]
    ) -> Loaded:
        """What to evaluate, apply or export.

        resume:     as `find_start`; it goes before all else
        checkpoint: VAL.checkpoint or TEST.checkpoint; is_meant: the command line names it
        Then comes the best, then the config's `checkpoint`, then the newest. Raises InputError
        when there is none.
        """
        if resume:
            found = self._named(resume, warn)
        elif is_meant:
            found = self.load(checkpoint, warn)
        else:
            there = [suffix for suffix in (BEST, checkpoint) if self.exists(suffix)]
            found = self.load(there[0], warn) if there else self.load_newest(warn)
        if found is None:
            raise InputError(
                f"{self.folder} holds no checkpoint: train first, or name one with --resume FILE"
            )
        return found

    def _named(self, resume, warn):
        if resume == "latest":
            return self.load_newest(warn)
        if resume == "interrupt":
            found = self.load_newest(warn, "iter_")
            if found is None:
                raise InputError(
                    f"--resume interrupt: {self.folder} holds no interrupted state. Use --resume "
                    "latest, or leave --resume out to start anew."
                )
            return found
        checkpoints, suffix = checkpoint_of(resume)
        return checkpoints.load(suffix, warn)


def checkpoint_of(path: str | Path) -> tuple[NetCheckpoints, str]:
    """(folder's checkpoints, suffix) of a file: encoder's, decoder's, or just the suffix itself."""
    path = Path(path)
    return NetCheckpoints(path.parent), _suffix(path)


def updates_of(name: str, epoch_iters: int) -> int:
    """Updates that `..._epoch_N.pth` or `..._iter_N.pth` stands for, 0 for another name."""
    found = re.search(r"_(epoch|iter)_(\d{1,18})\.pth$", name)
    if found is None:
        return 0
    return int(found[2]) * (epoch_iters if found[1] == "epoch" else 1)


def _suffix(path):
    name = path.name.replace(".state.pth", ".pth")
    return re.sub(r"^(encoder|decoder|history)_", "", name)
