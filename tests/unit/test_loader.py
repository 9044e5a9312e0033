import multiprocessing
import os
import re
import signal

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from data.loading.loader import (
    ResumableLoader,
    SampleKey,
    ordered_batches,
    sample_rng,
    whole_batches,
)
from data.loading.workers import SampleFault
from runtime.errors import Failed, InputError

SEED = 5


class Noise(Dataset):
    """Sample = its key and one random number of its own."""

    def __init__(self, length=11, bad=None, error=None):
        self.length, self.bad, self.error = length, bad, error

    def __len__(self):
        return self.length

    def __getitem__(self, key):
        if key.index == self.bad:
            raise self.error
        return torch.tensor([*key, sample_rng(SEED, key).randint(2**31)])


class State(Noise):
    """What a worker has set for itself."""

    def __getitem__(self, key):
        import cv2

        ignored = [signal.getsignal(s) == signal.SIG_IGN for s in (signal.SIGINT, signal.SIGTERM)]
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        return (os.getpid(), torch.get_num_threads(), cv2.getNumThreads(), ignored, blocked)


def loader(dataset=None, batch_size=3, **options):
    options = {"seed": SEED, "collate": list} | options
    return ResumableLoader(dataset or Noise(), batch_size, **options)


def run(loader, start, stop, accumulate=1):
    return [
        (step, epoch, [[s.tolist() for s in batch] for batch in batches])
        for step, epoch, batches in loader.steps(start, stop, accumulate)
    ]


def test_an_epoch_sees_every_sample_once_and_each_epoch_has_its_order():
    batches = run(loader(batch_size=1), 0, 22)
    indices = [batch[0][2] for _, _, (batch,) in batches]
    assert sorted(indices[:11]) == sorted(indices[11:]) == list(range(11))
    assert indices[:11] != indices[11:] != sorted(indices[11:])
    assert [epoch for _, epoch, _ in batches] == [0] * 11 + [1] * 11
    assert [batch[0][1] for _, _, (batch,) in batches] == [*range(11), *range(11)]


def test_same_batches_with_workers_and_after_a_resume():
    whole = run(loader(), 0, 8)  # 3 updates an epoch: resumes inside and at the end of epochs
    assert run(loader(workers=2), 0, 8) == whole
    for start in (2, 3, 7):
        assert run(loader(), start, 8) == whole[start:]
    assert run(loader(workers=2), 4, 8) == whole[4:]
    assert run(loader(seed=SEED + 1), 0, 8) != whole


def test_a_partial_batch_is_left_out():
    assert loader().steps_per_epoch() == 3
    positions = {s[1] for _, _, (batch,) in run(loader(), 0, 3) for s in batch}
    assert positions == set(range(9))


def test_accumulated_batches_split_the_same_samples():
    whole = run(loader(batch_size=4), 0, 4)
    split = run(loader(batch_size=2), 0, 4, accumulate=2)
    for (_, epoch, parts), (_, whole_epoch, (batch,)) in zip(split, whole, strict=True):
        assert (epoch, [*parts[0], *parts[1]]) == (whole_epoch, batch)
    assert loader(batch_size=2).steps_per_epoch(accumulate=2) == 2


@pytest.mark.parametrize("shares", [None, [1, 3]])
def test_ranks_share_the_global_batch(shares):
    whole = run(loader(batch_size=4), 0, 5)
    ranks = [run(loader(batch_size=4, rank=r, world_size=2, shares=shares), 0, 5) for r in range(2)]
    for (_, _, (batch,)), (_, _, (first,)), (_, _, (second,)) in zip(whole, *ranks, strict=True):
        assert first + second == batch
        assert len(first) == (2 if shares is None else 1)


def test_keys_name_the_samples_of_a_step():
    ((_, _, batches),) = run(loader(batch_size=2), 4, 5, accumulate=2)
    named = loader(batch_size=2).keys(4, accumulate=2)
    assert [[list(key) for key in keys] for keys in named] == [
        [sample[:3] for sample in batch] for batch in batches
    ]


def test_no_shuffle_keeps_the_order():
    batches = run(loader(shuffle=False), 0, 4)
    assert [s[2] for _, _, (batch,) in batches for s in batch] == [*range(9), 0, 1, 2]


def test_global_generators_are_left_alone():
    torch.manual_seed(0)
    np.random.seed(0)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    run(loader(), 0, 4)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]


def test_sample_rng_depends_on_every_part_of_the_key():
    keys = [SampleKey(0, 0, 0), SampleKey(1, 0, 0), SampleKey(0, 1, 0), SampleKey(0, 0, 1)]
    draws = {sample_rng(seed, key).randint(2**31) for seed in (0, 1) for key in keys}
    assert len(draws) == 8
    assert sample_rng(0, keys[0]).rand() == sample_rng(0, keys[0]).rand()


def test_workers_are_set_up_and_gone_afterwards():
    steps = loader(State(), workers=2).steps(0, 1000)
    seen = [next(steps)[2][0][0] for _ in range(4)]
    pids = {s[0] for s in seen}
    assert len(pids) == 2
    # cv2 reports 1 for "threads off"
    assert [s[1:] for s in seen] == [(1, 1, [True, True], set())] * 4
    steps.close()
    assert not pids & {p.pid for p in multiprocessing.active_children()}


@pytest.mark.parametrize("workers", [0, 2])
def test_an_input_error_arrives_as_it_was_raised(workers):
    faulty = Noise(bad=4, error=InputError(["a.jpg: damaged", "b.jpg: missing"]))
    with pytest.raises(InputError) as caught:
        run(loader(faulty, workers=workers), 0, 8)
    assert caught.value.faults == ["a.jpg: damaged", "b.jpg: missing"]
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("workers", [0, 2])
def test_other_errors_name_the_samples_keep_the_traceback_and_end_the_workers(workers):
    faulty = Noise(bad=4, error=ZeroDivisionError("boom"))
    text = r"ZeroDivisionError: boom, in preparing .*index=4"
    with pytest.raises(SampleFault, match=text) as end:
        run(loader(faulty, workers=workers), 0, 8)
    assert re.search(r"(?s)Traceback.*__getitem__.*boom", str(end.value.__cause__))
    assert not multiprocessing.active_children()


class Killed(Noise):
    """Noise whose worker is killed over sample 7."""

    def __getitem__(self, key):
        if key.index == 7:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(key)

    def describe(self, key):
        return f"picture {key.index}"


def test_a_killed_worker_is_one_line_that_names_how_and_its_samples():
    order = [key.index for step in range(3) for key in loader().keys(step)[0]]
    taken = order.index(7) // 3 * 3  # the batch with sample 7
    names = ", ".join(f"picture {i}" for i in order[taken : taken + 3])
    before = signal.getsignal(signal.SIGCHLD)
    with pytest.raises(Failed, match=f"by signal SIGKILL while it prepared {names} .*memory"):
        run(loader(Killed(), workers=2), 0, 3)
    assert not multiprocessing.active_children()
    assert signal.getsignal(signal.SIGCHLD) is before  # else torch's would raise in an update


@pytest.mark.parametrize(
    "options, text",
    [
        ({"batch_size": 12}, "batch size 12 .* only 11"),
        ({"world_size": 2}, "batch size 3 does not divide over 2"),
        ({"world_size": 2, "shares": [1, 1]}, r"\[1, 1\] .* 2 numbers that sum to .* 3"),
        ({"world_size": 2, "shares": [3]}, r"\[3\] .* 2 numbers"),
    ],
)
def test_impossible_batches_are_refused(options, text):
    with pytest.raises(InputError, match=text):
        loader(**options)
    with pytest.raises(InputError, match="4 accumulated batches of 3"):
        loader().steps_per_epoch(accumulate=4)


@pytest.mark.parametrize("workers", [0, 2])
def test_ordered_batches_leave_nothing_out(workers):
    batches = ordered_batches([10, 11, 12, 13, 14], [4, 0, 1], 2, collate=list, workers=workers)
    assert list(batches) == [[14, 10], [11]]


def test_the_rest_of_an_epoch_can_make_a_shorter_batch():
    kept = loader(batch_size=4, min_last=2)  # 11 samples: 4, 4, 3
    assert kept.steps_per_epoch() == 3
    batches = run(kept, 0, 6)
    assert [len(batch) for _, _, (batch,) in batches] == [4, 4, 3] * 2
    assert [epoch for _, epoch, _ in batches] == [0, 0, 0, 1, 1, 1]
    for first in (0, 3):
        indices = [s[2] for _, _, (batch,) in batches[first : first + 3] for s in batch]
        assert sorted(indices) == list(range(11))
    assert run(loader(batch_size=4, min_last=2, workers=2), 2, 6) == batches[2:]
    assert loader(batch_size=16, min_last=2).steps_per_epoch() == 1


def test_a_rest_of_one_sample_is_filled_up_from_the_epochs_first():
    ((_, _, (first,)), (_, _, (last,))) = run(loader(Noise(5), batch_size=4, min_last=2), 0, 2)
    assert [s[1] for s in last] == [4, 5]
    assert last[1][2] == first[0][2]
    assert last[1][3] != first[0][3]  # augmented by itself


def test_ranks_get_equal_shares_of_the_rest():
    alone = run(loader(batch_size=8, min_last=2), 1, 2)[0][2][0]  # three samples are left
    assert len(alone) == 3
    ranks = [run(loader(batch_size=8, min_last=2, rank=r, world_size=2), 1, 2) for r in range(2)]
    shares = [batch for ((_, _, (batch,)),) in ranks]
    assert [len(share) for share in shares] == [2, 2]
    assert (shares[0] + shares[1])[:3] == alone


def test_the_last_update_takes_the_batches_that_are_left():
    kept = loader(batch_size=3, min_last=2)  # 3, 3, 3, 2
    assert kept.steps_per_epoch(accumulate=3) == 2
    sizes = [[len(b) for b in batches] for _, _, batches in kept.steps(0, 4, accumulate=3)]
    assert sizes == [[3, 3, 3], [2]] * 2


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
def test_ranks_take_whole_batches_and_nothing_twice(world_size):
    shares = [whole_batches(11, 4, rank, world_size) for rank in range(world_size)]
    batches = [tuple(share[i : i + 4]) for share in shares for i in range(0, len(share), 4)]
    assert sorted(batches) == [(0, 1, 2, 3), (4, 5, 6, 7), (8, 9, 10)]
