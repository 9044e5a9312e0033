"""The checkpoints of one run: written, pruned and found again, in the names of their family.

A file is deleted only after its successor is on the disk and was read back.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from common.checkpoint.files import read_back, remove_checkpoint
from common.checkpoint.forms import Nets, Pair, SingleFile
from common.checkpoint.naming import (
    Naming,
    Occasion,
    ResnestNaming,
    SegNaming,
    YolactNaming,
)
from runtime.errors import InputError
from runtime.saving.writer import BackgroundWriter, write_behind

Content = Mapping[str, Any]
Warn = Callable[[str], object]


class Loaded(NamedTuple):
    """A checkpoint that was read.

    path:    of the weights (of segmentation the encoder's): what --resume takes
    weights: all that the file holds; of segmentation {"encoder": {...}, "decoder": {...}}
    state:   the training state beside the weights; None where a single file holds all, or where
             none lies there
    """

    path: Path
    weights: dict
    state: dict | None


class CheckpointSeries:
    """The checkpoints of one run; made by `yolact_series` and its like."""

    def __init__(self, naming: Naming, form: SingleFile, writer: BackgroundWriter | None = None):
        """writer: writes behind the training; None: each save is done when its call returns."""
        self._naming, self._form, self._writer = naming, form, writer

    @property
    def folder(self) -> Path:
        """Where they go."""
        return self._naming.folder

    @property
    def best_path(self) -> Path | None:
        """Where the best weights are kept. QueryInst: the newest of its best files, if any."""
        self._wait()
        return self._naming.best()

    def due(self, iteration: int) -> bool:
        """Whether a regular checkpoint belongs after so many updates."""
        return self._naming.due(iteration)

    def path(self, iteration: int, occasion: Occasion = Occasion.REGULAR) -> Path:
        """Where the weights after `iteration` updates go."""
        return self._naming.path(iteration, occasion)

    def missed(self, iteration: int, source: Path | None) -> bool:
        """Whether a stop came before a regular save: `source`, gone on from, is what it left.

        Such a run saves the regular one first, so that it ends with the files of an unbroken run.
        """
        stopped = self.path(iteration, Occasion.STOP)
        is_bridge = stopped != self.path(iteration) and self.due(iteration)
        return is_bridge and source is not None and source.absolute() == stopped.absolute()

    def save(
        self, iteration: int, weights: Content, state: Content | None = None,
        occasion: Occasion = Occasion.REGULAR, **extra: Any,
    ) -> Path:
        """Write the checkpoint after `iteration` updates, then remove what it replaces.

        weights, state: as `Loaded` has them, and as they are now where a writer writes them later
        extra: segmentation's `history`, which goes along with whole epochs
        Returns the file of the weights, by which --resume finds all, once it is written.
        Raises SaveError, with all that was there still there; of the save before with a writer.
        """
        if occasion is Occasion.BEST:
            return self.save_best(weights, state)
        path = self.path(iteration, occasion)
        write = partial(self._write, path, iteration, occasion)
        write_behind(self._writer, write, (weights, state, extra))
        return path

    def _write(self, path: Path, iteration: int, occasion: Occasion, content: Any) -> None:
        weights, state, extra = content
        self._form.save(path, weights, state, **extra)
        replaced = self._naming.replaced(path, iteration, occasion)
        self._naming.written(path, iteration, occasion)
        debris = self._naming.debris()
        if replaced or debris:
            read_back(self._form.written(path))
        for old in debris:
            remove_checkpoint(old)
        for old in replaced:
            self._naming.removes(old)
            # by its first file it is found: what is cut off here is found again
            for file in reversed(self._form.weights(old)):
                remove_checkpoint(file)

    def save_best(self, weights: Content, state: Content | None = None) -> Path:
        """Write the best weights so far over those before. Raises as `save`."""
        path = self.best_path
        assert path is not None, "several best ones are BestCheckpoints'"
        write_behind(self._writer, lambda parts: self._form.save(path, *parts), (weights, state))
        return path

    def _wait(self) -> None:
        if self._writer is not None:
            self._writer.wait()

    @property
    def record(self) -> dict[str, list[str]]:
        """What `restore` would want to know of the last save."""
        self._wait()
        return self._naming.record()

    def record_after(
        self, iteration: int, occasion: Occasion = Occasion.REGULAR
    ) -> dict[str, list[str]]:
        """What `restore` will want to know once that save is done: put it into what is saved."""
        self._wait()
        return self._naming.record_after(iteration, occasion)

    def restore(self, record: Mapping[str, list[str]]) -> None:
        """Take up the record of the checkpoint that the run goes on from."""
        self._naming.restore(record)

    def find_start(
        self, resume: str | None, warn: Warn, log: Warn | None = None, start_epoch: int = 0
    ) -> Loaded | None:
        """The checkpoint that --resume names; None without it, and when "latest" finds none.

        resume:      None, "latest", "interrupt" (what a stopped run has left) or a file
        warn:        called with a line for each damaged checkpoint that is passed over
        log:         called with a line when "latest" finds none
        start_epoch: segmentation's TRAIN.start_epoch, where --resume finds none; 0: none
        Raises InputError when a file or an interrupted state is asked for and not there, and
        naming all damaged files when no checkpoint is good.
        """
        self._wait()
        naming = self._naming
        found = None
        if resume == "latest":
            found = self._first_good(naming.newest_first(), warn)
        elif resume == "interrupt":
            found = self._first_good(naming.newest_first(only_stopped=True), warn)
            if found is None:
                raise InputError(
                    f"--resume interrupt: {self.folder} holds no interrupted state{naming.owner}. "
                    "Use --resume latest, or leave --resume out to start anew.")
        elif resume is not None:
            found = self._read(Path(resume), warn)
        if found is None and start_epoch:
            return self._read(self.path(start_epoch * naming.per_epoch), warn)
        if found is None and resume is not None and log is not None:
            log(f"Nothing to resume in {naming.run_folder}: starting from the beginning.")
        return found

    def find_trained(
        self, resume: str | None, warn: Warn, checkpoint: str = "", is_meant: bool = False
    ) -> Loaded:
        """What to evaluate, apply or export: what --resume names, else the best, else the newest.

        checkpoint: segmentation's VAL.checkpoint or TEST.checkpoint, which goes before the newest
        is_meant:   the command line names it: it goes before the best as well
        Raises InputError when there is none.
        """
        if resume is None:
            config = self.folder / checkpoint if checkpoint else None
            named = [config] if is_meant else [self.best_path, config]
            there = (path for path in named if path and (is_meant or self._exists(path)))
            resume = str(next(there, "latest"))
        found = self.find_start(resume, warn)
        if found is None:
            naming = self._naming
            raise InputError(
                f"{naming.run_folder} holds no checkpoint{naming.owner}: {naming.advice}")
        return found

    def iteration_of(self, loaded: Loaded) -> int:
        """Updates done: what the training state says, else the file, else its name, else 0."""
        if loaded.state is not None:
            return loaded.state["iteration"]
        return self._naming.iteration_in(loaded.path, loaded.weights)

    def _exists(self, path: Path) -> bool:
        return any(file.exists() for file in self._form.weights(path))

    def _read(self, path: Path, warn: Warn) -> Loaded:
        path = self._form.weights(path)[0]
        return Loaded(path, *self._form.read(path, warn))

    def _first_good(self, paths: Iterable[Path], warn: Warn) -> Loaded | None:
        faults: list[str] = []
        for path in paths:
            try:
                return self._read(path, warn)
            except InputError as error:
                warn("; ".join(error.faults) + "; trying the checkpoint before it")
                faults += error.faults
        if faults:
            raise InputError(faults)
        return None


def yolact_series(
    folder: str | Path, name: str, save_interval: int, save_every: int | None = None,
    keep_latest: bool = False, keep_latest_interval: int = 100000,
    log: Callable[[str], object] = lambda line: None, *, per_epoch: int,
    writer: BackgroundWriter | None = None,
) -> CheckpointSeries:
    """YOLACT's: <name>_<epoch>_<iteration>.pth, each with its training state beside it.

    save_interval, save_every: updates between periodic saves, the second None for no other
    keep_latest, keep_latest_interval: as `YolactNaming`
    per_epoch: updates in an epoch, for the names of new files alone: evaluation may say 1
    """
    naming = YolactNaming(
        Path(folder), per_epoch, intervals_of(save_interval, save_every), name, f"{name}_best.pth",
        f" of {name}", save_interval=save_interval, keep_latest=keep_latest,
        keep_latest_interval=keep_latest_interval, log=log)
    return CheckpointSeries(naming, Pair(), writer)


def seg_series(
    folder: str | Path, epoch_iters: int, save_every: int | None = None,
    writer: BackgroundWriter | None = None,
) -> CheckpointSeries:
    """Segmentation's: encoder, decoder and history apart, the state beside the encoder."""
    naming = SegNaming(
        Path(folder), epoch_iters, intervals_of(epoch_iters, save_every), "encoder",
        "encoder_best.pth", advice="train first, or name one with --resume FILE")
    return CheckpointSeries(naming, Nets(), writer)


def resnest_series(
    folder: str | Path, per_epoch: int, save_every: int | None = None, saves_epochs: bool = True,
    writer: BackgroundWriter | None = None,
) -> CheckpointSeries:
    """ResNeSt's: one file holds all. per_epoch: updates in an epoch, each of which is saved."""
    naming = ResnestNaming(
        Path(folder), per_epoch, intervals_of(saves_epochs * per_epoch, save_every), None,
        "model_best.pth", save_every=save_every)
    return CheckpointSeries(naming, SingleFile(), writer)


def intervals_of(*intervals: int | None) -> tuple[int, ...]:
    """Those that are intervals: not None, 0 or -1, which stand for none."""
    return tuple(interval for interval in intervals if interval and interval > 0)
