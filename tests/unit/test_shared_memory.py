"""Too little /dev/shm is told in one line before anything starts."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from data.loading import ResumableLoader, ordered_batches, shared_memory
from data.queryinst import AspectRatioLoader
from runtime.errors import InputError

MB = 1 << 20


class Pictures(Dataset):
    """Samples of 10 MB; `made` counts them."""

    def __init__(self, fault=None):
        self.made, self.fault = 0, fault

    def __len__(self):
        return 12

    def __getitem__(self, key):
        self.made += 1
        if self.fault:
            raise self.fault
        return {"image": torch.zeros(8 * MB, dtype=torch.uint8), "size": (1, 2), "name": "a.jpg",
                "masks": [np.zeros(MB, np.uint8), torch.zeros(MB // 4)]}


@pytest.fixture
def free(monkeypatch):
    """free(megabytes) is what /dev/shm has left."""

    def has(megabytes):
        room = SimpleNamespace(f_bavail=megabytes * MB // 4096, f_frsize=4096)
        monkeypatch.setattr(shared_memory.os, "statvfs", lambda path: room)
        monkeypatch.setattr(shared_memory.os.path, "isdir", lambda path: True)

    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    return has


def loader(data, **how):
    return ResumableLoader(data, 4, seed=0, collate=list, **how)


LINE = (r"/dev/shm: 64 MB are free, 2 data workers with 2 batches of 40 MB each need about 160 MB: "
        r"give a container --shm-size=1g, or take fewer --workers \(train_yolact: --num_workers\)")


def test_every_loader_tells_it(free):
    free(64)
    with pytest.raises(InputError, match=LINE):
        loader(Pictures(), workers=2)
    with pytest.raises(InputError, match=LINE):
        AspectRatioLoader(Pictures(), None, 4, seed=0, workers=2, collate=list)
    with pytest.raises(InputError, match=LINE):
        ordered_batches(Pictures(), range(12), 4, collate=list, workers=2)


def test_the_processes_of_a_machine_share_it(free, monkeypatch):
    free(200)
    loader(Pictures(), workers=2)
    launch = {"RANK": 0, "WORLD_SIZE": 2, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 2,
              "MASTER_ADDR": "a", "MASTER_PORT": 1}
    for name, value in launch.items():
        monkeypatch.setenv(name, str(value))
    with pytest.raises(InputError, match=r"4 data workers .* about 320 MB"):
        loader(Pictures(), workers=2)


@pytest.mark.parametrize("megabytes, workers, made", [
    (64, 0, 0),  # nothing is handed over
    (160, 2, 1),
    (4096, 2, 0),  # plenty: no sample is made to find out
])
def test_where_it_fits_nothing_is_said(free, megabytes, workers, made):
    free(megabytes)
    data = Pictures()
    loader(data, workers=workers)
    assert data.made == made


def test_a_damaged_sample_is_left_to_its_worker(free):
    free(64)
    loader(Pictures(InputError("a.jpg: damaged")), workers=2)


def test_workers_that_are_at_work_count_already(free, monkeypatch):
    free(64)
    monkeypatch.setattr(shared_memory.multiprocessing, "active_children", lambda: [1])
    ordered_batches(Pictures(), range(12), 4, collate=list, workers=2)
