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
from data.loading.shared_memory import check_shared_memory
from runtime.errors import InputError


class AspectRatioLoader(UpdateLoader):
    """Shuffled batches of a map-style data set that is indexed with `SampleKey`.

    portrait:   for each sample, whether its image is higher than wide; None: batches in order
    batch_size: images of a batch of this process
    collate:    list of samples -> batch
    pin_memory: copy batches to page-locked memory (only with a GPU)
    shuffle:    else every epoch has the order of the data set
    drop_last:  leave out an epoch's batches that are not full

    Where the samples do not divide over the processes, the first ones of an epoch's order are seen
    twice. Raises InputError when there is no sample.
    """

    def __init__(
        self,
        dataset: Dataset,
        portrait: Sequence[bool] | None,
        batch_size: int,
        *,
        seed: int,
        workers: int = 0,
        rank: int = 0,
        world_size: int = 1,
        collate: Callable[[list], Any],
        pin_memory: bool = False,
        shuffle: bool = True,
        drop_last: bool = False,
    ):
        if not len(dataset):
            raise InputError("the data set has no image to train on")
        self._shuffle, self._drop_last = shuffle, drop_last
        self._dataset, self._portrait, self._batch_size = dataset, portrait, batch_size
        self._seed, self._workers, self._collate = seed, workers, collate
        self._rank, self._world_size, self._pin_memory = rank, world_size, pin_memory
        if not self._batches_per_epoch():
            raise InputError(f"drop_last leaves no batch: {len(dataset)} images over {world_size} "
                             f"processes are less than batch_size {batch_size} each")
        check_shared_memory(dataset, lambda: self.keys(0)[0], workers)

    @classmethod
    def of(cls, dataset: Any, section: Any, **process: Any) -> "AspectRatioLoader":
        """Batches of a QueryInstDataset as a config's section train_dataloader has them.

        process: seed, workers, rank, world_size, collate, pin_memory
        """
        by_shape = section.batch_sampler
        return cls(dataset, None if by_shape is None else dataset.portrait, section.batch_size,
                   shuffle=section.sampler.shuffle is not False,
                   drop_last=section.drop_last if by_shape is None else by_shape.drop_last,
                   **process)

    @property
    def identity(self) -> dict[str, Any]:
        """What another loader must share for the same batches of the same data."""
        odd = {"in the file's order": not self._shuffle,
               "upright beside wide": self._portrait is None, "full ones only": self._drop_last}
        batching = ", ".join(words for words, is_so in odd.items() if is_so)
        return {"batch_size": self._batch_size, "processes": self._world_size, "seed": self._seed,
                "num_images": len(self._dataset),
                "batching": batching or None}  # None also in older files

    def steps_per_epoch(self, accumulate: int = 1) -> int:
        """Updates in an epoch when each takes `accumulate` batches, the last one what is left."""
        return -(-self._batches_per_epoch() // accumulate)

    def epoch_keys(self, epoch: int) -> list[list[SampleKey]]:
        """This process's batches of an epoch, in order."""
        order = list(range(len(self._dataset)))
        if self._shuffle:
            generator = torch.Generator().manual_seed(self._seed + epoch)
            order = torch.randperm(len(order), generator=generator).tolist()
        total = -(-len(order) // self._world_size) * self._world_size
        order = (order * (total // len(order) + 1))[:total]
        batches, buckets = [], ([], [])
        for position in range(self._rank, total, self._world_size):
            index = order[position]
            bucket = buckets[self._portrait is not None and not self._portrait[index]]
            bucket.append(SampleKey(epoch, position, index))
            if len(bucket) == self._batch_size:
                batches.append(bucket[:])
                bucket.clear()
        rest = buckets[0] + buckets[1]
        batches += [rest[i : i + self._batch_size] for i in range(0, len(rest), self._batch_size)]
        return batches[: self._batches_per_epoch()]

    def _images_per_batch(self):
        return self._batch_size

    def _batches_per_epoch(self):
        share = -(-len(self._dataset) // self._world_size)
        return share // self._batch_size if self._drop_last else -(-share // self._batch_size)

    def _batches_of(self, step_in_epoch, accumulate):
        first = step_in_epoch * accumulate
        return range(first, min(first + accumulate, self._batches_per_epoch()))

    def _epoch_keys(self, epoch):
        return self.epoch_keys(epoch).__getitem__
