"""The four kinds of checkpoints, each saved as its script does it, for tests that harm them.

A training of counted updates: the weights after i updates are full of i. Each iteration is saved
twice with different contents, as a script does that puts the score into the state; and its weights
are kept as the best. `position` orders the saves: 2 i, and 2 i + 1 with the score.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from common.checkpoint.series import (
    Occasion,
    resnest_series,
    seg_series,
    yolact_series,
)
from models.queryinst.series import queryinst_series
from runtime.saving.writer import BackgroundWriter
from settings.queryinst.hooks import CheckpointHookConfig

PER_EPOCH = 3


def weights(iteration: int, size: int) -> dict:
    return {"w": torch.full((size,), float(iteration))}


def position(iteration: int, score: float) -> int:
    return 2 * iteration + (score == iteration)


class Kind:
    """One kind in `folder`; size: numbers in its weights."""

    def __init__(self, folder: Path, size: int = 500):
        self.folder, self.size = folder, size
        self.writer = BackgroundWriter()

    def train(self, start: int, stop: int, saved: Callable[[int], None]) -> None:
        """From the position `start` to iteration `stop`; calls saved(position) after each
        completed save. A score that is not in the state yet is found anew, as the scripts do.
        The saves are made behind the training; it ends when the last one is done."""
        for i in range(max(1, (start + 1) // 2), stop + 1):
            if start != 2 * i:
                self.save(i, -1.0)
                self.writer.then(partial(saved, position(i, -1.0)))
            self.save_best(i)
            self.save(i, float(i))
            self.writer.then(partial(saved, position(i, float(i))))
        self.writer.wait()

    def state(self, i, score):
        return {"iteration": i, "score": score, "momentum": torch.full((self.size,), i / 2)}

    def check(self, found_weights, state):
        """The position of a checkpoint whose parts are of one save."""
        i = state["iteration"]
        for each in found_weights:
            assert torch.equal(each["w"], torch.full((self.size,), float(i)))
        assert torch.equal(state["momentum"], torch.full((self.size,), i / 2))
        assert state["score"] in (-1.0, i)
        return position(i, state["score"])


class Single(Kind):
    """train_resnest.py's."""

    def __init__(self, folder, size=500):
        super().__init__(folder, size)
        self.series = resnest_series(folder, PER_EPOCH, writer=self.writer)

    def save(self, i, score):
        state = self.state(i, score) | {"state_dict": weights(i, self.size)}
        occasion = Occasion.STOP if score < 0 and i % 2 == 0 else Occasion.REGULAR
        self.series.save(i, state, occasion=occasion)

    def save_best(self, i):
        self.series.save_best(weights(i, self.size))

    def find(self, warn):
        found = self.series.find_start("latest", warn)
        return found and self.check([found.weights["state_dict"]], found.weights)


class Pair(Kind):
    """train_yolact.py's."""

    def __init__(self, folder, size=500):
        super().__init__(folder, size)
        self.series = yolact_series(folder, "a", 2, keep_latest=True, per_epoch=PER_EPOCH,
                                    writer=self.writer)

    def save(self, i, score):
        occasion = Occasion.STOP if score < 0 and i % 2 == 1 else Occasion.REGULAR
        self.series.save(i, weights(i, self.size), self.state(i, score), occasion)

    def save_best(self, i):
        self.series.save_best(weights(i, self.size), self.state(i, -1.0))

    def find(self, warn):
        if self.series.best_path.exists():
            _, best, state = self.series.find_start(str(self.series.best_path), warn)
            assert state is None or self.check([best], state)
        found = self.series.find_start("latest", warn)
        return found and self.check([found.weights], found.state)


class Group(Kind):
    """train_seg.py's."""

    def __init__(self, folder, size=500):
        super().__init__(folder, size)
        self.series = seg_series(folder, PER_EPOCH, writer=self.writer)

    def nets(self, i):
        return {net: weights(i, self.size) for net in ("encoder", "decoder")}

    def save(self, i, score):
        self.series.save(i, self.nets(i), self.state(i, score),
                         history={"train": {"loss": [score]}})

    def save_best(self, i):
        self.series.save_best(self.nets(i), self.state(i, -1.0))

    def find(self, warn):
        if self.series.best_path.exists():
            _, best, state = self.series.find_start(str(self.series.best_path), warn)
            assert state is None or self.check(best.values(), state)
        found = self.series.find_start("latest", warn)
        return found and self.check(found.weights.values(), found.state)


class Series(Kind):
    """train_queryinst.py's."""

    def __init__(self, folder, size=500):
        super().__init__(folder, size)
        hook = CheckpointHookConfig(interval=2, by_epoch=False, max_keep_ckpts=2, out_dir=None,
                                    save_best="mAP", rule=None)
        self.series, self.best = queryinst_series(hook, folder, PER_EPOCH, ["mAP"],
                                                  writer=self.writer)

    def save(self, i, score):
        self.series.save(i, self.content(i, score, self.series.record_after(i), self.best.scores))

    def content(self, i, score, record, scores):
        return {"meta": {"iter": i}, "state_dict": weights(i, self.size),
                "training": self.state(i, score) | {"series": record, "best": scores}}

    def save_best(self, i):
        metrics = {"mAP": float(i)}
        named = self.best.improved(metrics), metrics, f"iter_{i}"
        scores = self.best.scores_after(*named)
        self.best.save(*named, self.content(i, -1.0, {}, scores))

    def find(self, warn):
        found = self.series.find_start("latest", warn)
        if found is None:
            return None
        training = found.weights["training"]
        self.series.restore(training["series"])
        self.best.restore(training["best"])
        return self.check([found.weights["state_dict"]], training)


KINDS = {"single": Single, "pair": Pair, "group": Group, "series": Series}
