"""The four kinds of checkpoints, each saved as its script does it, for tests that harm them.

A training of counted updates: the weights after i updates are full of i. Each iteration is saved
twice with different contents, as a script does that puts the score into the state; and its weights
are kept as the best. `position` orders the saves: 2 i, and 2 i + 1 with the score.
"""

from collections.abc import Callable
from pathlib import Path

import torch

from common.checkpoint import load_newest, load_pair, save_checkpoint, save_pair
from common.checkpoint.query_files import BestCheckpoints, CheckpointSeries, load_newest_single
from common.checkpoint.resnest_files import EpochFolder
from common.checkpoint.seg_files import BEST, NETS, NetCheckpoints
from common.checkpoint.yolact_files import CheckpointFolder

PER_EPOCH = 3


def weights(iteration: int, size: int) -> dict:
    return {"w": torch.full((size,), float(iteration))}


def position(iteration: int, score: float) -> int:
    return 2 * iteration + (score == iteration)


class Kind:
    """One kind in `folder`; size: numbers in its weights."""

    def __init__(self, folder: Path, size: int = 500):
        self.folder, self.size = folder, size

    def train(self, start: int, stop: int, saved: Callable[[int], None]) -> None:
        """From the position `start` to iteration `stop`; calls saved(position) after each
        completed save. A score that is not in the state yet is found anew, as the scripts do."""
        for i in range(max(1, (start + 1) // 2), stop + 1):
            if start != 2 * i:
                self.save(i, -1.0)
                saved(position(i, -1.0))
            self.save_best(i)
            self.save(i, float(i))
            saved(position(i, float(i)))

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

    def save(self, i, score):
        folder = EpochFolder(self.folder, PER_EPOCH)
        state = self.state(i, score) | {"state_dict": weights(i, self.size)}
        folder.save(state, i, interrupt=score < 0 and i % 2 == 0)

    def save_best(self, i):
        save_checkpoint(self.folder / "model_best.pth", weights(i, self.size))

    def find(self, warn):
        found = load_newest(self.folder, None, warn)
        return found and self.check([found[1]["state_dict"]], found[1])


class Pair(Kind):
    """train_yolact.py's."""

    @property
    def checkpoints(self):
        return CheckpointFolder(self.folder, "a", save_interval=2, keep_latest=True)

    def save(self, i, score):
        self.checkpoints.save(weights(i, self.size), self.state(i, score), i // PER_EPOCH, i,
                              interrupt=score < 0 and i % 2 == 1)

    def save_best(self, i):
        save_pair(self.checkpoints.best_path, weights(i, self.size), self.state(i, -1.0))

    def find(self, warn):
        if self.checkpoints.best_path.exists():
            best, state = load_pair(self.checkpoints.best_path)
            assert state is None or self.check([best], state)
        found = load_newest(self.folder, "a", warn)
        return found and self.check([found[1]], found[2])


class Group(Kind):
    """train_seg.py's."""

    def save(self, i, score, suffix=None):
        folder = NetCheckpoints(self.folder)
        is_epoch = i % PER_EPOCH == 0
        suffix = suffix or (f"epoch_{i // PER_EPOCH}.pth" if is_epoch else f"iter_{i}.pth")
        history = {"train": {"loss": [score]}} if is_epoch else None
        folder.save(suffix, {net: weights(i, self.size) for net in NETS}, self.state(i, score),
                    history)
        if suffix != BEST:
            folder.prune(suffix, also_previous=not is_epoch)

    def save_best(self, i):
        self.save(i, -1.0, BEST)

    def find(self, warn):
        folder = NetCheckpoints(self.folder)
        if (self.folder / f"encoder_{BEST}").exists():
            _, best, state = folder.load(BEST, warn)
            assert state is None or self.check(best.values(), state)
        found = folder.load_newest(warn)
        return found and self.check(found[1].values(), found[2])


class Series(Kind):
    """train_queryinst.py's."""

    def __init__(self, folder, size=500):
        super().__init__(folder, size)
        self.series = CheckpointSeries(folder, interval=2, by_epoch=False, max_keep=2,
                                       run_folder=folder)
        self.best = BestCheckpoints(folder, ("mAP",))

    def save(self, i, score):
        self.series.save(i, PER_EPOCH, lambda record: self.content(i, score, record))

    def content(self, i, score, record):
        return {"meta": {"iter": i}, "state_dict": weights(i, self.size),
                "training": self.state(i, score) | {"series": record, "best": self.best.scores}}

    def save_best(self, i):
        metrics = {"mAP": float(i)}
        self.best.save(self.best.improved(metrics), metrics, f"iter_{i}",
                       lambda scores: self.content(i, -1.0, {}))

    def find(self, warn):
        found = load_newest_single(self.folder, self.folder, warn)
        if found is None:
            return None
        training = found[1]["training"]
        self.series.restore(training["series"])
        self.best.restore(training["best"])
        return self.check([found[1]["state_dict"]], training)


KINDS = {"single": Single, "pair": Pair, "group": Group, "series": Series}
