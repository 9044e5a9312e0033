"""Batches that depend on (seed, step) only: the same with any number of workers, after any resume.

One DataLoader serves the whole run, so there is no stall where an epoch ends and no restart cost:
its sampler begins at the wanted step and computes the order of an epoch when it gets there.
"""

import contextlib
from collections.abc import Callable, Generator, Sequence
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import Dataset

from data.loading.shared_memory import check_shared_memory
from data.loading.workers import fetched
from runtime.errors import InputError
from runtime.streams import Stream


class SampleKey(NamedTuple):
    """What a training sample's randomness may depend on, besides the run's seed."""

    epoch: int
    position: int  # in the epoch's order over all ranks
    index: int  # of the sample in the data set


class UpdateLoader:
    """Batches of a map-style data set for the updates of a run, from any update on.

    A subclass says how an epoch is cut: `steps_per_epoch`; `_batches_of`, the numbers of the
    batches, counted in the epoch, that make an update; `_epoch_keys`, which gives for an epoch a
    function from such a number to the batch's keys.
    """

    _dataset: Dataset
    _collate: Callable[[list], Any]
    _workers: int
    _pin_memory: bool

    @property
    def largest_shape(self) -> tuple[int, int, int, int]:
        """Images, channels, height and width, px, of this process's largest batch."""
        height, width = self._dataset.largest_size  # type: ignore[attr-defined]  # each family's
        return self._images_per_batch(), 3, height, width

    @property
    def median_size(self) -> tuple[int, int]:
        """Median width and median height of the photos as they are stored, px; 0, 0: not known."""
        return self._dataset.median_size  # type: ignore[attr-defined]  # each family's

    def _images_per_batch(self) -> int:
        raise NotImplementedError

    def steps_per_epoch(self, accumulate: int = 1) -> int:
        """Updates in an epoch when each takes `accumulate` batches, the last one what is left."""
        raise NotImplementedError

    def steps(
        self, start: int, stop: int, accumulate: int = 1
    ) -> Generator[tuple[int, int, list[Any]], None, None]:
        """(step, epoch, its 1 to `accumulate` batches) for the updates `start` to `stop` - 1.

        `step` counts updates from 0 over the whole run. An InputError raised for a sample arrives
        here as it was raised, also from a worker. Closing the iterator ends the workers.
        """
        per_epoch = self.steps_per_epoch(accumulate)
        if start >= stop:
            return
        key_lists = _KeyLists(self, start, stop, accumulate)
        batches = fetched(self._dataset, self._collate, key_lists, self._workers, self._pin_memory)
        with contextlib.closing(batches):
            for step in range(start, stop):
                count = len(self._batches_of(step % per_epoch, accumulate))
                yield step, step // per_epoch, [next(batches) for _ in range(count)]

    def keys(self, step: int, accumulate: int = 1) -> list[list[SampleKey]]:
        """This rank's samples of the update `step`, one list for each accumulated batch."""
        epoch, step_in_epoch = divmod(step, self.steps_per_epoch(accumulate))
        return list(map(self._epoch_keys(epoch), self._batches_of(step_in_epoch, accumulate)))

    def _batches_of(self, step_in_epoch: int, accumulate: int) -> range:
        raise NotImplementedError

    def _epoch_keys(self, epoch: int) -> Callable[[int], list[SampleKey]]:
        raise NotImplementedError


class ResumableLoader(UpdateLoader):
    """Shuffled global batches of a map-style data set that is indexed with `SampleKey`.

    batch_size: samples in a batch over all ranks; a rank gets a contiguous slice of each batch
    shares:     samples of each rank, in rank order, when the slices are not equal
    collate:    list of samples -> batch
    pin_memory: copy batches to page-locked memory (only with a GPU)
    min_last:   samples of a rank, at least, in the shorter batch that an epoch then ends with; it
                is filled up from the epoch's first samples, also to as many for each rank.
                differs: one sample ended ResNeSt's original [resnest.md: Known faults]. Way back:
                none, only failures change.

    Without `min_last`, what does not fill a batch at an epoch's end is left out. Raises InputError
    when the batch does not divide over the ranks or the data set is smaller than a batch.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        *,
        seed: int,
        workers: int = 0,
        rank: int = 0,
        world_size: int = 1,
        shares: Sequence[int] | None = None,
        collate: Callable[[list], Any],
        shuffle: bool = True,
        pin_memory: bool = False,
        min_last: int | None = None,
    ):
        if min_last is None and len(dataset) < batch_size:
            raise InputError(
                f"batch size {batch_size} needs as many training samples, there are only "
                f"{len(dataset)}: lower the batch size or add data"
            )
        self._dataset = dataset
        self._collate = collate
        self._batch_size = batch_size
        self._seed = seed
        self._workers = workers
        self._shuffle = shuffle
        self._pin_memory = pin_memory
        self._slice = _rank_slice(batch_size, rank, world_size, shares)
        self._rank, self._world_size, self._min_last = rank, world_size, min_last
        check_shared_memory(dataset, lambda: self.keys(0)[0], workers)

    def steps_per_epoch(self, accumulate: int = 1) -> int:
        """Updates in an epoch when each takes `accumulate` batches, the last one what is left."""
        if self._min_last is not None:
            return -(-len(self._dataset) // (self._batch_size * accumulate))
        steps = len(self._dataset) // (self._batch_size * accumulate)
        if steps == 0:
            raise InputError(
                f"{accumulate} accumulated batches of {self._batch_size} need as many training "
                f"samples, there are only {len(self._dataset)}: lower one of the two"
            )
        return steps

    def _images_per_batch(self):
        own = self._slice.stop - self._slice.start
        return own * getattr(self._dataset, "images_per_item", 1)

    def _batches_of(self, step_in_epoch, accumulate):
        first = step_in_epoch * accumulate
        if self._min_last is None:
            return range(first, first + accumulate)
        return range(first, min(first + accumulate, self.steps_per_epoch()))

    def _epoch_keys(self, epoch):
        order = self._order(epoch)

        def keys_of(i_batch):
            first = i_batch * self._batch_size
            rest, own = len(order) - first, self._slice
            if rest < self._batch_size:
                share = max(-(-rest // self._world_size), self._min_last)
                own = slice(self._rank * share, (self._rank + 1) * share)
            positions = range(first, first + self._batch_size)[own]
            # what lies beyond the order are its first samples again, at positions of their own
            return [SampleKey(epoch, p, int(order[p % len(order)])) for p in positions]

        return keys_of

    def _order(self, epoch):
        if not self._shuffle:
            return np.arange(len(self._dataset))
        sequence = np.random.SeedSequence([Stream.ORDER, self._seed, epoch])
        return _random_state(sequence).permutation(len(self._dataset))


def sample_rng(seed: int, key: SampleKey) -> np.random.RandomState:
    """The random numbers of one training sample, a function of the arguments alone."""
    return _random_state(np.random.SeedSequence([Stream.SAMPLE, seed, *key]))


def ordered_batches(
    dataset: Dataset,
    indices: Sequence[int],
    batch_size: int,
    *,
    collate: Callable[[list], Any],
    workers: int = 0,
) -> Generator[Any, None, None]:
    """Batches of `dataset[i]` for the `indices`, in order, the last one as short as it comes.

    For evaluation: no shuffling, nothing left out. Errors and workers as in `ResumableLoader`;
    closing the iterator ends the workers.
    """
    lists = [list(indices[i : i + batch_size]) for i in range(0, len(indices), batch_size)]
    workers = min(workers, len(lists))
    check_shared_memory(dataset, lambda: lists[0], workers)
    return fetched(dataset, collate, lists, workers)


def whole_batches(count: int, batch_size: int, rank: int, world_size: int) -> list[int]:
    """A rank's indices of 0 to `count` - 1 when the ranks take whole batches in turn.

    With `ordered_batches` the batches, and with them the scores of a network, are then the same
    over any number of ranks.
    """
    starts = range(rank * batch_size, count, world_size * batch_size)
    return [i for start in starts for i in range(start, min(start + batch_size, count))]


class _KeyLists:
    """The sampler: what to fetch, batch by batch, from one update to another."""

    def __init__(self, owner, start, stop, accumulate):
        self._owner, self._start, self._stop = owner, start, stop
        self._accumulate = accumulate

    def __iter__(self):
        per_epoch = self._owner.steps_per_epoch(self._accumulate)
        keys_epoch, keys_of = None, None
        for step in range(self._start, self._stop):
            epoch, step_in_epoch = divmod(step, per_epoch)
            if epoch != keys_epoch:
                keys_epoch, keys_of = epoch, self._owner._epoch_keys(epoch)
            yield from map(keys_of, self._owner._batches_of(step_in_epoch, self._accumulate))

    def __len__(self):
        per_epoch = self._owner.steps_per_epoch(self._accumulate)
        steps = range(self._start, self._stop)
        return sum(len(self._owner._batches_of(i % per_epoch, self._accumulate)) for i in steps)


def _random_state(sequence):
    # RandomState's streams are frozen by numpy; those of the newer Generator may change.
    return np.random.RandomState(np.random.MT19937(sequence))


def _rank_slice(batch_size, rank, world_size, shares):
    if shares is None:
        if batch_size % world_size:
            raise InputError(
                f"batch size {batch_size} does not divide over {world_size} processes: "
                f"take a multiple of {world_size}"
            )
        shares = [batch_size // world_size] * world_size
    if len(shares) != world_size or sum(shares) != batch_size:
        raise InputError(
            f"the images per process {list(shares)} must be {world_size} numbers that sum to the "
            f"batch size {batch_size}"
        )
    first = sum(shares[:rank])
    return slice(first, first + shares[rank])
