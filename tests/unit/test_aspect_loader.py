"""Batches of one orientation: the same after any resume, with any number of workers."""

import pytest
import torch
from torch.utils.data import Dataset

from data.queryinst import AspectRatioLoader
from runtime.errors import InputError


class Keys(Dataset):
    def __init__(self, n):
        self.n = n

    def __len__(self):
        return self.n

    def __getitem__(self, key):
        return tuple(key)


def portrait(n):
    return [i % 3 == 0 for i in range(n)]


def loader(n=11, batch_size=2, **options):
    return AspectRatioLoader(Keys(n), portrait(n), batch_size, seed=5, collate=list, **options)


def steps(source, *span):
    return [(step, epoch, batches) for step, epoch, batches in source.steps(*span)]


def test_an_epoch_holds_every_sample_once_and_orientations_apart():
    batches = loader().epoch_keys(3)
    assert len(batches) == loader().steps_per_epoch() == 6
    assert sorted(key.index for batch in batches for key in batch) == list(range(11))
    mixed = [len({portrait(11)[key.index] for key in batch}) for batch in batches]
    # 4 upright and 7 wide images: three wide pairs and two upright ones, one is left
    assert mixed == [1] * 6
    assert [len(batch) for batch in batches] == [2, 2, 2, 2, 2, 1]


def test_leftovers_of_both_orientations_share_a_batch():
    batches = AspectRatioLoader(Keys(4), [True, True, True, False], 2, seed=0,
                                collate=list).epoch_keys(0)
    assert [len(batch) for batch in batches] == [2, 2]
    assert len({key.index == 3 for key in batches[1]}) == 2


def test_the_order_is_the_originals():
    order = torch.randperm(11, generator=torch.Generator().manual_seed(5 + 3)).tolist()
    by_position = {key.position: key.index for batch in loader().epoch_keys(3) for key in batch}
    assert [by_position[i] for i in range(11)] == order


def test_ranks_share_an_epoch_and_the_first_are_seen_twice():
    parts = [loader(rank=rank, world_size=3).epoch_keys(1) for rank in range(3)]
    assert [sum(map(len, part)) for part in parts] == [4, 4, 4]
    assert {len(part) for part in parts} == {loader(world_size=3).steps_per_epoch()}
    keys = [key for part in parts for batch in part for key in batch]
    assert sorted(key.position for key in keys) == list(range(12))
    by_position = {key.position: key.index for key in keys}
    assert by_position[11] == by_position[0]
    assert set(by_position.values()) == set(range(11))


def test_more_ranks_than_samples():
    parts = [loader(n=2, rank=rank, world_size=5).epoch_keys(0) for rank in range(5)]
    assert [len(part) for part in parts] == [1] * 5


@pytest.mark.parametrize("accumulate", [1, 2, 4])
@pytest.mark.parametrize("workers", [0, 2])
def test_any_start_gives_the_same_batches(accumulate, workers):
    whole = steps(loader(), 0, 15, accumulate)
    for start in (1, 6, 14):
        assert steps(loader(workers=workers), start, 15, accumulate) == whole[start:]
    per_epoch = loader().steps_per_epoch(accumulate)
    assert per_epoch == -(-6 // accumulate)
    assert [epoch for _, epoch, _ in whole] == [i // per_epoch for i in range(15)]
    first = [batch for _, epoch, batches in whole if epoch == 0 for batch in batches]
    assert first == [[tuple(key) for key in batch] for batch in loader().epoch_keys(0)]


def test_nothing_to_load():
    with pytest.raises(InputError, match="no image"):
        loader(n=0)
