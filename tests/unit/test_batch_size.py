"""--batch-size: a number over the config's key, and `auto`, which finds what fits."""

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from runtime.errors import InputError
from runtime.sizing import batch
from runtime.sizing.batch import (
    Fit,
    extrapolated,
    foretold,
    free_memory,
    kept_random_state,
    largest_that_fits,
    with_batch_size,
)

KEY = "TRAIN.batch_size_per_gpu"


@pytest.mark.parametrize("options, flag, kept, after", [
    (["a=1"], None, ["a=1"], None),
    (["a=1"], 4, ["a=1", (KEY, 4)], 4),
    ([f"{KEY}=auto", "a=1"], None, ["a=1"], "auto"),
    ([f"{KEY}=auto"], 4, [(KEY, 4)], 4),  # the flag goes before the key
    ([(KEY, "auto"), ("a", "1")], None, [("a", "1")], "auto"),
    ([f"{KEY}=2"], "auto", [f"{KEY}=2"], "auto"),
    (["no pair"], None, ["no pair"], None),  # the config's reader says what is wrong
])
def test_the_flag_and_the_key_are_one(options, flag, kept, after):
    flags = SimpleNamespace(batch_size=flag)
    assert with_batch_size(options, KEY, flags) == kept
    assert flags.batch_size == after


class Device:
    """Memory in which an update takes 10 and 3 for each image; some sizes run out of it."""

    def __init__(self, holds):
        self.holds, self.tried = holds, []

    def measure(self, count):
        self.tried.append(count)
        peak = 10.0 + 3 * count
        return None if peak > self.holds else peak


@pytest.mark.parametrize("holds, limit, most, tried, images", [
    (1000, 120, 1024, [1, 2, 4, 8, 16, 32, 64], 32),  # 36 fit: the multiple of 8 below
    (1000, 170, 1024, [1, 2, 4, 8, 16, 32, 64, 48], 48),  # 53 fit
    (100, 1000, 1024, [1, 2, 4, 8, 16, 32, 24], 24),  # memory runs out before the limit
    (1000, 900, 20, [1, 2, 4, 8, 16, 20], 20),  # as many as are wanted
    (1000, 16.5, 1024, [1, 2, 4], 2),
    (1000, 13, 1024, [1, 2], 1),
])
def test_the_search_ends_at_what_fits(holds, limit, most, tried, images):
    device = Device(holds)
    assert largest_that_fits(device.measure, limit, 1, most) == Fit(images, 10 + 3 * images, limit)
    assert device.tried == tried


def test_what_does_not_fit_at_all_is_one_line():
    with pytest.raises(InputError, match=r"--batch-size auto: an update of 2 images does not fit"):
        largest_that_fits(Device(1).measure, 1000, 2, 64)
    with pytest.raises(InputError, match="does not fit into the"):
        extrapolated(Device(1000).measure, 5, 2, 64, 1.0)


def test_main_memory_is_never_filled():
    device = Device(10**9)
    fit = extrapolated(device.measure, 10_000, 2, 4096, 1.0)
    assert device.tried == [2, 4]
    assert 3000 < fit.images <= 3330
    assert fit.images % 8 == 0
    assert fit.peak <= 10_000
    # where a second image seems to take nothing, its pixels do
    assert extrapolated(lambda count: 10.0, 100.0, 2, 4096, 5.0).images == 16  # 20 would
    assert extrapolated(device.measure, 10_000, 2, 3, 1.0).images == 3


def test_a_line_through_the_last_two():
    assert foretold([(4, 22.0), (8, 34.0)], 100.0) == 30
    assert foretold([(4, 20.0)], 100.0) == 20


def test_random_numbers_are_given_back():
    def drawn():
        return random.random(), np.random.rand(), torch.rand(1).item()

    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    expected = drawn()
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.set_rng_state(states[2])
    with kept_random_state():
        drawn()
    assert drawn() == expected


def test_a_containers_limit_counts(tmp_path, monkeypatch):
    info, most, used = (tmp_path / name for name in ("meminfo", "max", "current"))
    info.write_text("MemTotal: 9000 kB\nMemAvailable:    4000 kB\n")
    monkeypatch.setattr(batch, "MEMORY_INFO", info)
    monkeypatch.setattr(batch, "CGROUPS", ((most, used),))
    assert free_memory() == 4000 * 1024
    most.write_text("max\n")
    used.write_text("1000\n")
    assert free_memory() == 4000 * 1024
    most.write_text("3000\n")
    assert free_memory(2) == 1000
    info.unlink()
    with pytest.raises(InputError, match="give a number of images"):
        free_memory()


def test_the_smallest_of_the_ranks_counts_and_a_fault_is_everyones():
    fits = [Fit(12, 1.0, 2.0), Fit(8, 1.5, 2.0)]
    run = SimpleNamespace(gather=lambda own: [own, fits[1]], broadcast=lambda item: item)
    assert batch._agreed(run, lambda: fits[0]) == fits[1]
    run.gather = lambda own: [own, InputError("too small")]
    with pytest.raises(InputError, match="too small"):
        batch._agreed(run, lambda: fits[0])


def test_memory_of_this_process_is_measured():
    """An update that holds 64 MB for each image is seen to take about as much."""
    memory = batch._Cpu(1)
    peaks = [memory.peak(lambda count: torch.ones(count * 2**24).sum().item(), count)
             for count in (1, 3)]
    assert peaks[1] - peaks[0] == pytest.approx(2 * 2**26, rel=0.2)
