"""Single-file checkpoints of one run: when one is due, what it is called, which ones stay.

The rules are those of MMDetection's CheckpointHook, made safe: a file is deleted only after its
successor is on the disk and was read back, and `last_checkpoint` survives a move of its folder.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from common.checkpoint.files import load_checkpoint, save_checkpoint, verify
from common.checkpoint.names import by_progress, find_interrupt, newest_first
from runtime.errors import InputError, SaveError, did_you_mean
from runtime.files import write_atomically

LAST_CHECKPOINT = "last_checkpoint"  # in the run folder: one line, the newest checkpoint's path
# Metrics of which more, or less, is better: a name counts when it is one, else when it holds one.
GREATER = ("acc", "top", "ar@", "auc", "precision", "map", "mdice", "miou", "macc", "aacc")
LESS = ("loss",)


@dataclass
class CheckpointSeries:
    """The checkpoints of one run.

    folder:     where they go
    interval:   epochs, or without `by_epoch` updates, between regular ones; -1: none
    save_every: updates between further ones, named by their update; None: none
    max_keep:   how many regular ones stay; -1: all. Files of other runs are never touched
    epoch_name, iter_name: their names, with the number of finished epochs or updates
    run_folder: holds `last_checkpoint`; None: nothing is noted there

    kept:    names of the regular ones that lie there, oldest first
    bridges: what a stopped run has left between two regular ones; gone with the next save
    Both travel in the checkpoints' state: see `restore`.
    """

    folder: Path
    interval: int = 1
    by_epoch: bool = True
    save_every: int | None = None
    max_keep: int = -1
    epoch_name: str = "epoch_{}.pth"
    iter_name: str = "iter_{}.pth"
    run_folder: Path | None = None
    kept: list[str] = field(default_factory=list)
    bridges: list[str] = field(default_factory=list)

    def due(self, iteration: int, per_epoch: int) -> bool:
        """Whether a regular checkpoint belongs after `iteration` updates, `per_epoch` an epoch."""
        period = self.interval * (per_epoch if self.by_epoch else 1)
        by_interval = self.interval > 0 and iteration % period == 0
        return by_interval or bool(self.save_every and iteration % self.save_every == 0)

    def path(self, iteration: int, per_epoch: int) -> Path:
        """Where the checkpoint after `iteration` updates goes."""
        epoch, rest = divmod(iteration, per_epoch)
        ends_epoch = self.by_epoch and rest == 0
        name = self.epoch_name.format(epoch) if ends_epoch else self.iter_name.format(iteration)
        return self.folder / name

    def save(
        self,
        iteration: int,
        per_epoch: int,
        state: Callable[[dict[str, list[str]]], Mapping[str, Any]],
        is_last: bool = False,
    ) -> Path:
        """Write the checkpoint after `iteration` updates; then remove what it replaces.

        state:   given what `restore` will want to know, returns all that is to be written
        is_last: regular even where none is due, because the run ends here
        Raises SaveError, with all that was there still there.
        """
        path = self.path(iteration, per_epoch)
        is_regular = is_last or self.due(iteration, per_epoch)
        kept = [name for name in self.kept if name != path.name]
        surplus: list[str] = []
        if is_regular:
            kept.append(path.name)
            if self.max_keep > 0:
                kept, surplus = kept[-self.max_keep :], kept[: -self.max_keep]
        bridges = [] if is_regular else [path.name]
        save_checkpoint(path, state({"kept": kept, "bridges": bridges}))
        surplus += [name for name in self.bridges if name not in (*kept, path.name)]
        self.kept, self.bridges = kept, bridges
        if self.run_folder is not None:
            write_last_checkpoint(self.run_folder, path)
        if surplus:
            _read_back(path)
        for name in surplus:
            _remove(self.folder / name)
        return path

    def restore(self, saved: Mapping[str, list[str]]) -> None:
        """Take up the record of the checkpoint that the run goes on from."""
        self.kept, self.bridges = list(saved["kept"]), list(saved["bridges"])


@dataclass
class BestCheckpoints:
    """The best weights by each of some metrics: `best_<metric>_epoch_N.pth`.

    metrics: their names; "auto" stands for the first one that an evaluation gives
    rule:    "greater" or "less" is better; None: as the metric's name says
    scores:  {metric: [best value, name of its file]}, see `restore`
    """

    folder: Path
    metrics: tuple[str, ...] = ()
    rule: str | None = None
    scores: dict[str, list] = field(default_factory=dict)

    def improved(self, metrics: Mapping[str, float]) -> list[str]:
        """The watched metrics whose value in `metrics` is the best so far.

        Raises InputError when a watched metric is not among them.
        """
        better = []
        for name in self._watched(metrics):
            best = self.scores.get(name)
            greater = is_greater_better(name, self.rule)
            if best is None or (metrics[name] > best[0] if greater else metrics[name] < best[0]):
                better.append(name)
        return better

    def save(
        self, names: list[str], metrics: Mapping[str, float], suffix: str,
        state: Callable[[dict[str, list]], Mapping[str, Any]],
    ) -> list[Path]:
        """Write the weights as the best by each of `names`, then remove the best before them.

        suffix: "epoch_N" or "iter_N" of the file's name
        state:  given the new `scores`, returns all that is to be written
        """
        before = dict(self.scores)
        files = {name: f"best_{name.replace('/', '_')}_{suffix}.pth" for name in names}
        self.scores |= {name: [float(metrics[name]), file] for name, file in files.items()}
        for file in files.values():
            save_checkpoint(self.folder / file, state(self.scores))
        for name in names:
            old = before.get(name, [0.0, ""])[1]
            if old and old != files[name]:
                _read_back(self.folder / files[name])
                _remove(self.folder / old)
        return [self.folder / file for file in files.values()]

    def restore(self, saved: Mapping[str, list]) -> None:
        """Take up `scores` of the checkpoint that the run goes on from."""
        self.scores = {name: list(value) for name, value in saved.items()}

    def newest(self) -> Path | None:
        """The best file of the most updates that lies in the folder; times do not matter."""
        files = sorted(path for path in self.folder.glob("best_*.pth") if path.is_file())
        return next(iter(by_progress(files)), None)

    def _watched(self, metrics):
        names = [next(iter(metrics)) if name == "auto" else name for name in self.metrics]
        missing = [name for name in names if name not in metrics]
        if missing:
            raise InputError(f"save_best: the evaluation has no {', '.join(missing)}; it has "
                             f"{', '.join(metrics)}")
        return names


def checkpoint_rules(
    hook: Any, run_folder: Path, known: Sequence[str], save_every: int | None = None
) -> tuple[CheckpointSeries, BestCheckpoints]:
    """The regular and the best checkpoints of a run as a CheckpointHook's settings want them.

    hook: interval, by_epoch, max_keep_ckpts, out_dir, save_best (None, a name, several), rule
    known: the metrics that an evaluation gives; save_every: updates between further ones
    Raises InputError for a metric that will never be there.
    """
    folder = run_folder
    # differs: a trailing slash, or a relative path to the same folder, is no other folder
    # [queryinst.md: Checkpoints]. Way back: none, files went astray.
    if hook.out_dir and os.path.abspath(hook.out_dir) != os.path.abspath(run_folder):
        folder = Path(hook.out_dir) / run_folder.absolute().name
    watched = (hook.save_best,) if isinstance(hook.save_best, str) else hook.save_best or ()
    for name in watched:
        if name not in ("auto", *known):
            raise InputError(f"save_best: the evaluation has no {name}; it has "
                             f"{', '.join(known)}.{did_you_mean(name, known)}")
    series = CheckpointSeries(folder, hook.interval, hook.by_epoch, save_every,
                              hook.max_keep_ckpts, run_folder=run_folder)
    return series, BestCheckpoints(folder, tuple(watched), hook.rule)


def is_greater_better(metric: str, rule: str | None = None) -> bool:
    """Whether a greater value of `metric` is better.

    rule: "greater" or "less", when the user says so
    Raises InputError for a name that tells nothing.
    """
    if rule is not None:
        return rule == "greater"
    name = metric.casefold()
    words = {name, name.rpartition("/")[2]}
    for fits in (lambda key: key in words, lambda key: key in name):
        if any(map(fits, GREATER)):
            return True
        if any(map(fits, LESS)):
            return False
    raise InputError(f"save_best: nobody knows whether more or less of {metric} is better: set "
                     "rule to greater or less")


def write_last_checkpoint(run_folder: Path, path: Path) -> None:
    """Note `path` as the newest: relative to the folder when it lies inside, else absolute."""
    run_folder, path = Path(run_folder).absolute(), Path(path).absolute()
    inside = path.is_relative_to(run_folder)
    text = str(path.relative_to(run_folder) if inside else path)
    write_atomically(run_folder / LAST_CHECKPOINT, partial(_write_text, text))


def read_last_checkpoint(run_folder: str | Path) -> Path | None:
    """The checkpoint that `last_checkpoint` names, also MMDetection's absolute path; None without.

    Where that file is gone because the folder has moved, its namesake in the folder.
    """
    try:
        text = (Path(run_folder) / LAST_CHECKPOINT).read_text(errors="replace").strip()
    except OSError:
        return None
    candidates = [Path(run_folder) / text, Path(run_folder) / Path(text).name]
    return next((path for path in candidates if text and path.is_file()), None)


def find_single(
    wanted: str | None,
    run_folder: Path,
    folder: Path,
    warn: Callable[[str], None],
    load: Callable[[Path], dict] = load_checkpoint,
) -> tuple[Path, dict] | None:
    """(path, content) of the checkpoint that --resume names; None for None, and when "latest"
    finds none.

    wanted: "latest", "interrupt" (what a stopped run has left) or a file; others as
            `load_newest_single`
    Raises InputError for a file or an interrupted state that is not there.
    """
    if wanted is None:
        return None
    if wanted == "latest":
        return load_newest_single(run_folder, folder, warn, load)
    path = Path(wanted)
    if wanted == "interrupt":
        path = find_interrupt(folder)
        if path is None:
            raise InputError(f"--resume interrupt: {folder} holds no interrupted state. Use "
                             "--resume latest, or leave --resume out to start anew.")
    return path, load(path)


def load_newest_single(
    run_folder: str | Path,
    folder: str | Path,
    warn: Callable[[str], None],
    load: Callable[[Path], dict] = load_checkpoint,
) -> tuple[Path, dict] | None:
    """(path, content) of the newest good checkpoint; None when there is none.

    run_folder, folder: where `last_checkpoint` is, and where the checkpoints are
    warn: called with a line for each damaged file that is passed over
    Raises InputError naming all damaged files when none is good.
    """
    first = read_last_checkpoint(run_folder)
    found = newest_first(folder)
    if first is not None:
        found = [first, *(path for path in found if path.resolve() != first.resolve())]
    faults: list[str] = []
    for path in found:
        try:
            return path, load(path)
        except InputError as error:
            warn("; ".join(error.faults) + "; trying the checkpoint before it")
            faults += error.faults
    if faults:
        raise InputError(faults)
    return None


def _read_back(path):
    try:
        verify(path)
    except InputError as error:
        raise SaveError(f"{error}: it was written a moment ago; the older checkpoints stay") from (
            error
        )


def _remove(path):
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise SaveError(f"{path}: could not be removed: {error.strerror or error}") from error


def _write_text(text, file):
    file.write(text.encode())
