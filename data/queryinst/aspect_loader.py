"""Batches of images of one orientation, as MMDetection forms them, from any update on.

Like `ResumableLoader` the order depends on (seed, epoch) only and a resumed run skips by index;
unlike it each process batches its own share of an epoch's order, and the last batch may be short.
Source: [queryinst.md: Loader].
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils.data import Dataset

from data.loading.loader import SampleKey, UpdateLoader
from runtime.errors import InputError


class AspectRatioLoader(UpdateLoader):
    """Shuffled batches of a map-style data set that is indexed with `SampleKey`.

    portrait:   for each sample, whether its image is higher than wide
    batch_size: images of a batch of this process
    collate:    list of samples -> batch
    pin_memory: copy batches to page-locked memory (only with a GPU)

    Where the samples do not divide over the processes, the first ones of an epoch's order are seen
    twice. Raises InputError when there is no sample.
    """

    def __init__(
        self,
        dataset: Dataset,
        portrait: Sequence[bool],
        batch_size: int,
        *,
        seed: int,
        workers: int = 0,
        rank: int = 0,
        world_size: int = 1,
        collate: Callable[[list], Any],
        pin_memory: bool = False,
    ):
        if not len(dataset):
            raise InputError("the data set has no image to train on")
        self._dataset, self._portrait, self._batch_size = dataset, portrait, batch_size
        self._seed, self._workers, self._collate = seed, workers, collate
        self._rank, self._world_size, self._pin_memory = rank, world_size, pin_memory

    @property
    def identity(self) -> dict[str, int]:
        """What another loader must share for the same batches of the same data."""
        return {"batch_size": self._batch_size, "processes": self._world_size, "seed": self._seed,
                "num_images": len(self._dataset)}

    def steps_per_epoch(self, accumulate: int = 1) -> int:
        """Updates in an epoch when each takes `accumulate` batches, the last one what is left."""
        return -(-self._batches_per_epoch() // accumulate)

    def epoch_keys(self, epoch: int) -> list[list[SampleKey]]:
        """This process's batches of an epoch, in order."""
        generator = torch.Generator().manual_seed(self._seed + epoch)
        order = torch.randperm(len(self._dataset), generator=generator).tolist()
        total = -(-len(order) // self._world_size) * self._world_size
        order = (order * (total // len(order) + 1))[:total]
        batches, buckets = [], ([], [])
        for position in range(self._rank, total, self._world_size):
            index = order[position]
            bucket = buckets[not self._portrait[index]]
            bucket.append(SampleKey(epoch, position, index))
            if len(bucket) == self._batch_size:
                batches.append(bucket[:])
                bucket.clear()
        rest = buckets[0] + buckets[1]
        return batches + [rest[i : i + self._batch_size]
                          for i in range(0, len(rest), self._batch_size)]

    def _batches_per_epoch(self):
        share = -(-len(self._dataset) // self._world_size)
        return -(-share // self._batch_size)

    def _batches_of(self, step_in_epoch, accumulate):
        first = step_in_epoch * accumulate
        return range(first, min(first + accumulate, self._batches_per_epoch()))

    def _epoch_keys(self, epoch):
        return self.epoch_keys(epoch).__getitem__
