"""QueryInst's checkpoints, as the settings of MMDetection's CheckpointHook want them.

    epoch_N.pth, iter_N.pth, or what filename_tmpl says; best_<metric>_epoch_N.pth;
    last_checkpoint, a text file that names the newest; epoch_N-<hash>.pth, a published copy

Source: [queryinst.md: Checkpoints].
"""

import hashlib
import io
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from common.checkpoint.best import GREATER, LESS, BestCheckpoints
from common.checkpoint.files import load_any_checkpoint
from common.checkpoint.forms import SingleFile
from common.checkpoint.names import by_progress
from common.checkpoint.naming import Naming, Occasion
from common.checkpoint.series import CheckpointSeries, intervals_of
from runtime.errors import InputError, did_you_mean
from runtime.files import write_atomically, write_text
from runtime.saving.writer import BackgroundWriter

LAST_CHECKPOINT = "last_checkpoint"  # in the run folder: one line, the newest checkpoint's path
_PUBLISHED = re.compile(r".*-[0-9a-f]{8}\.pth")


@dataclass
class QueryinstNaming(Naming):
    """The newest `max_keep` of this run stay; -1: all.

    regular: (updates between the hook's checkpoints, updates when their count begins); the
             `intervals` are those of further ones
    template: the hook's names, with {} for the number; None: epoch_{}.pth, or iter_{}.pth
    kept, bridges: names of the regular ones that lie there, the oldest first, and of what a stop
                   has left between two; they travel in the checkpoints. Other runs' files stay.
    going:   names of those that the last save replaces, until they are removed: where a process
             dies before that, the next one that goes on from that save removes them
    """

    regular: tuple[int, int] = (-1, 0)
    by_epoch: bool = True
    template: str | None = None
    max_keep: int = -1
    noted_in: Path | None = None  # the run folder, which holds `last_checkpoint`
    kept: list[str] = field(default_factory=list)
    bridges: list[str] = field(default_factory=list)
    going: list[str] = field(default_factory=list)

    @property
    def run_folder(self) -> Path:
        return self.folder if self.noted_in is None else self.noted_in

    def due(self, iteration: int) -> bool:
        interval, begin = self.regular
        since = iteration - begin
        return super().due(iteration) or (interval > 0 and since >= 0 and since % interval == 0)

    def path(self, iteration: int, occasion: Occasion) -> Path:
        epoch, rest = divmod(iteration, self.per_epoch)
        if self.by_epoch and rest:
            return self.folder / f"iter_{iteration}.pth"
        template = self.template or ("epoch_{}.pth" if self.by_epoch else "iter_{}.pth")
        return self.folder / template.format(epoch if self.by_epoch else iteration)

    def record(self) -> dict[str, list[str]]:
        return {"kept": list(self.kept), "bridges": list(self.bridges), "going": list(self.going)}

    def record_after(self, iteration: int, occasion: Occasion) -> dict[str, list[str]]:
        name = self.path(iteration, occasion).name
        kept = [each for each in self.kept if each != name]
        bridges = [name]
        if self.due(iteration) or occasion is Occasion.LAST:
            kept, bridges = [*kept, name], []
            kept = kept[-self.max_keep :] if self.max_keep > 0 else kept
        going = [each for each in (*self.kept, *self.bridges, *self.going)
                 if each not in (*kept, *bridges)]
        return {"kept": kept, "bridges": bridges, "going": going}

    def replaced(self, path: Path, iteration: int, occasion: Occasion) -> list[Path]:
        return [self.folder / name for name in self.record_after(iteration, occasion)["going"]]

    def removes(self, path: Path) -> None:
        self.going = [name for name in self.going if name != path.name]

    def written(self, path: Path, iteration: int, occasion: Occasion) -> None:
        self.restore(self.record_after(iteration, occasion))
        write_last_checkpoint(self.run_folder, path)

    def restore(self, record: Mapping[str, list[str]]) -> None:
        self.kept, self.bridges = list(record["kept"]), list(record["bridges"])
        self.going = list(record.get("going", ()))  # files of before have none

    def newest_first(self, only_stopped: bool = False) -> list[Path]:
        found = super().newest_first(only_stopped)
        if self.template is not None and not (only_stopped and self.by_epoch):
            before, after = map(re.escape, self.template.split("{}"))
            own = re.compile(f"{before}[0-9]{{1,18}}{after}")
            named = [path for path in sorted(self.folder.glob("*.pth"))
                     if own.fullmatch(path.name) and path.is_file()]
            found = by_progress({*found, *named})
        first = None if only_stopped else read_last_checkpoint(self.run_folder)
        if first is None:
            return found
        return [first, *(path for path in found if path.resolve() != first.resolve())]

    def best(self) -> Path | None:
        return newest_best(self.folder)

    def iteration_in(self, path: Path, weights: Mapping[str, Any]) -> int:
        if weights.get("training"):
            return weights["training"]["iteration"]
        return int((weights.get("meta") or {}).get("iter", 0))


def queryinst_series(
    hook: Any, run_folder: str | Path, per_epoch: int, known_metrics: Sequence[str],
    save_every: int | None = None, writer: BackgroundWriter | None = None,
) -> tuple[CheckpointSeries, BestCheckpoints]:
    """The regular and the best checkpoints as a CheckpointHook's settings want them.

    hook: a CheckpointHookConfig
    known_metrics: those that an evaluation gives; save_every: updates between further ones
    writer: as `CheckpointSeries`
    Raises InputError for a metric that will never be there.
    """
    run_folder = folder = Path(run_folder)
    # differs: a trailing slash, or a relative path to the same folder, is no other folder
    # [queryinst.md: Checkpoints]. Way back: none, files went astray.
    if hook.out_dir and os.path.abspath(hook.out_dir) != os.path.abspath(run_folder):
        folder = Path(hook.out_dir) / run_folder.absolute().name
    for name in hook.watched:
        if name not in ("auto", *known_metrics) or not known_metrics:
            raise InputError(f"save_best: the evaluation has no {name}; it has "
                             f"{', '.join(known_metrics) or 'no scores'}."
                             f"{did_you_mean(name, known_metrics)}")
    unit = per_epoch if hook.by_epoch else 1
    naming = QueryinstNaming(
        folder, per_epoch, intervals_of(save_every), by_epoch=hook.by_epoch,
        regular=(hook.interval * unit, hook.save_begin * unit), template=hook.filename_tmpl,
        max_keep=hook.max_keep_ckpts, noted_in=run_folder)
    best = BestCheckpoints(folder, hook.watched, hook.rules, hook.greater_keys or GREATER,
                           hook.less_keys or LESS, writer=writer)
    return CheckpointSeries(naming, SingleFile(load_any_checkpoint), writer), best


def held_by(hook: Any, content: dict[str, Any], is_stop: bool) -> dict[str, Any]:
    """What of a checkpoint's `content` the hook's save_optimizer and save_param_scheduler leave.

    What a stop saves holds all, so that nothing is lost.
    """
    if is_stop:
        return content
    out = {"optimizer": not hook.save_optimizer, "param_schedulers": not hook.save_param_scheduler}
    return {key: value for key, value in content.items() if not out.get(key)}


def publish(
    hook: Any, last: Path, best: BestCheckpoints, warn: Callable[[str], object]
) -> list[Path]:
    """Copies of the last and the best checkpoints with the hook's published_keys alone.

    They lie beside them as <stem>-<8 digits of the hash>.pth. warn gets a line for each key that a
    checkpoint lacks. Raises InputError for one that cannot be read, SaveError for one not written.
    """
    keys = hook.published
    paths = [last, *best.files] if keys else []
    copies = []
    for path in dict.fromkeys(paths):
        content = load_any_checkpoint(path)
        for key in keys:
            if key not in content:
                warn(f"published_keys: {path} holds no {key}")
        buffer = io.BytesIO()
        torch.save({key: content[key] for key in keys if key in content}, buffer)
        digest = hashlib.sha256(buffer.getbuffer()).hexdigest()[:8]
        copies.append(path.with_name(f"{path.stem}-{digest}.pth"))
        write_atomically(copies[-1], lambda file, buffer=buffer: file.write(buffer.getbuffer()))
    return copies


def newest_best(folder: Path) -> Path | None:
    """The `best_*.pth` of the most updates that lies in the folder; times do not matter."""
    files = sorted(path for path in folder.glob("best_*.pth")
                   if path.is_file() and not _PUBLISHED.fullmatch(path.name))
    return next(iter(by_progress(files)), None)


def write_last_checkpoint(run_folder: Path, path: Path) -> None:
    """Note `path` as the newest: relative to the folder when it lies inside, else absolute."""
    run_folder, path = Path(run_folder).absolute(), Path(path).absolute()
    inside = path.is_relative_to(run_folder)
    write_text(run_folder / LAST_CHECKPOINT, str(path.relative_to(run_folder) if inside else path))


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
