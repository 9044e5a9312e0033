"""The best weights by each of several metrics, as MMDetection's CheckpointHook keeps them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.checkpoint.files import read_back, remove_checkpoint, save_checkpoint
from runtime.errors import InputError
from runtime.saving.writer import BackgroundWriter, write_behind

# Metrics of which more, or less, is better: a name counts when it is one, else when it holds one.
GREATER = ("acc", "top", "ar@", "auc", "precision", "map", "mdice", "miou", "macc", "aacc")
LESS = ("loss",)

Scores = dict[str, list]  # {metric: [best value, name of its file]}


@dataclass
class BestCheckpoints:
    """The best weights by each of some metrics: `best_<metric>_epoch_N.pth`.

    metrics: their names; "auto" stands for the first one that an evaluation gives
    rules:   {name: "greater" or "less" is better}; for others as the metric's name says:
    greater, less: words in it that say that
    scores:  travel in the checkpoints, see `restore`
    writer:  writes behind the training; None: each save is done when its call returns
    """

    folder: Path
    metrics: tuple[str, ...] = ()
    rules: Mapping[str, str] = field(default_factory=dict)
    greater: Sequence[str] = GREATER
    less: Sequence[str] = LESS
    scores: Scores = field(default_factory=dict)
    writer: BackgroundWriter | None = None

    @property
    def files(self) -> list[Path]:
        """Those that lie there."""
        if self.writer is not None:
            self.writer.wait()
        return [self.folder / name for _, name in self.scores.values()]

    def improved(self, metrics: Mapping[str, float]) -> list[str]:
        """The watched metrics whose value in `metrics` is the best so far.

        Raises InputError when a watched metric is not among them.
        """
        better = []
        for asked, name in zip(self.metrics, self._watched(metrics), strict=True):
            best = self.scores.get(name)
            greater = is_greater_better(name, self.rules.get(asked), self.greater, self.less)
            if math.isnan(metrics[name]):  # of a class without an object
                continue
            if best is None or (metrics[name] > best[0] if greater else metrics[name] < best[0]):
                better.append(name)
        return better

    def scores_after(
        self, names: Sequence[str], metrics: Mapping[str, float], suffix: str
    ) -> Scores:
        """The `scores` once `save` is done with these: put them into what is saved.

        suffix: "epoch_N" or "iter_N" of the files' names
        """
        new = {name: [float(metrics[name]), f"best_{name.replace('/', '_')}_{suffix}.pth"]
               for name in names}
        return {**self.scores, **new}

    def save(
        self, names: Sequence[str], metrics: Mapping[str, float], suffix: str,
        content: Mapping[str, Any],
    ) -> list[Path]:
        """Write `content` as the best by each of `names`, then remove the best before them.

        Takes up the new scores. Raises as `CheckpointSeries.save`.
        """
        before, self.scores = self.scores, self.scores_after(names, metrics, suffix)
        files = [self.folder / self.scores[name][1] for name in names]

        def write(content: Mapping[str, Any]) -> None:
            for file in files:
                save_checkpoint(file, content)
            for name, file in zip(names, files, strict=True):
                old = before.get(name, [0.0, ""])[1]
                if old and old != file.name:
                    read_back([file])
                    remove_checkpoint(self.folder / old)

        write_behind(self.writer, write, content)
        return files

    def restore(self, saved: Mapping[str, list]) -> None:
        """Take up `scores` of the checkpoint that the run goes on from."""
        self.scores = {name: list(value) for name, value in saved.items()}

    def _watched(self, metrics: Mapping[str, float]) -> list[str]:
        names = [next(iter(metrics)) if name == "auto" else name for name in self.metrics]
        missing = [name for name in names if name not in metrics]
        if missing:
            raise InputError(f"save_best: the evaluation has no {', '.join(missing)}; it has "
                             f"{', '.join(metrics)}")
        return names


def is_greater_better(
    metric: str, rule: str | None = None, greater: Sequence[str] = GREATER,
    less: Sequence[str] = LESS,
) -> bool:
    """Whether a greater value of `metric` is better.

    rule: "greater" or "less", when the user says so; greater, less: words in a name that say it
    Raises InputError for a name that tells nothing.
    """
    if rule is not None:
        return rule == "greater"
    name = metric.casefold()
    words = {name, name.rpartition("/")[2]}
    for fits in (lambda key: key in words, lambda key: key in name):
        if any(fits(key.casefold()) for key in greater):
            return True
        if any(fits(key.casefold()) for key in less):
            return False
    raise InputError(f"save_best: nobody knows whether more or less of {metric} is better: set "
                     "rule to greater or less")
