"""Whether the shared memory holds what data workers hand over: a bus error names nothing."""

import multiprocessing
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from runtime.errors import InputError
from runtime.launch.ranks import read_launch
from runtime.spelling import plural

FOLDER = "/dev/shm"
PREFETCHED = 2  # batches that each worker makes ahead: torch's default
AMPLE_BYTES = 1 << 30  # for a worker: nobody's batches are near it
MB = 1 << 20


def check_shared_memory(
    dataset: Dataset, first_batch: Callable[[], Sequence[Any]], workers: int
) -> None:
    """Raise InputError when the batches of the workers will not fit into /dev/shm.

    first_batch: gives the keys of a batch. Its first sample is made here, which tells the size of
                 a batch; not where there is plenty of room, or where workers are at work already

    Containers have 64 MB unless told otherwise. The size is an estimate: a sample may differ.
    """
    if not workers or not os.path.isdir(FOLDER) or multiprocessing.active_children():
        return
    memory = os.statvfs(FOLDER)
    free = memory.f_bavail * memory.f_frsize
    processes = read_launch(os.environ).local_world_size
    if free >= workers * processes * AMPLE_BYTES:
        return
    keys = first_batch()
    try:
        batch = len(keys) * _bytes_of(dataset[keys[0]])
    except Exception:  # the worker that meets it names the sample
        return
    needed = workers * PREFETCHED * batch * processes
    if needed > free:
        raise InputError(
            f"{FOLDER}: {free // MB} MB are free, {plural(workers * processes, 'data worker')} "
            f"with {PREFETCHED} batches of {_rounded_mb(batch)} MB each need about "
            f"{_rounded_mb(needed)} MB: give a container --shm-size={-(-needed // (1 << 30))}g, or "
            f"take fewer --workers (train_yolact: --num_workers); 0 need none")


def _bytes_of(value: Any) -> int:
    if isinstance(value, torch.Tensor | np.ndarray):
        return value.nbytes
    parts = value.values() if isinstance(value, dict) else value
    return sum(map(_bytes_of, parts)) if isinstance(value, dict | list | tuple) else 0


def _rounded_mb(size: int) -> int:
    return -(-size // MB)
