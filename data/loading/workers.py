"""Processes that fetch and collate batches: their faults arrive, and none outlives the run."""

import os
import resource
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from runtime.allocator import keep_freed_memory
from runtime.errors import Failed, InputError
from runtime.launch.signals import die_with_parent, held_back, ignore_in_worker
from runtime.saving.forks import between_writes

_KEPT_BYTES = 64 << 20


class SampleFault(Exception):
    """The code that makes samples has failed; the text names the error and the samples."""


class _BatchFetcher(Dataset):
    """Fetches and collates a whole batch; an error becomes the item, to survive the way back.

    torch re-raises a worker's exception with the worker's traceback as its text, which is no line
    to show a user, and names no sample.
    """

    def __init__(self, dataset, collate, at_work):
        self._dataset, self._collate = dataset, collate
        self._at_work = at_work  # in shared memory: the batch that each worker is making

    def __getitem__(self, numbered):
        number, keys = numbered
        worker = get_worker_info()
        if worker is not None:
            self._at_work[worker.id] = number
        try:
            return self._collate(self._samples(keys))
        except InputError as error:
            return _Fault(error.faults)
        except Exception as error:
            cause = " ".join(f"{type(error).__name__}: {error}".split())
            return _Crash(f"{cause}, in preparing {described(self._dataset, keys)}",
                          traceback.format_exc())

    def _samples(self, keys):
        if hasattr(self._dataset, "__getitems__"):  # torch's name for it
            return self._dataset.__getitems__(keys)
        return [self._dataset[key] for key in keys]


class _Fault(NamedTuple):
    faults: list[str]


class _Crash(NamedTuple):
    line: str
    trace: str


class _WorkerTrace(Exception):
    """The traceback of the process in which a sample failed, as text."""

    def __str__(self):
        return f"\n{self.args[0]}"


def described(dataset: Dataset, keys: Sequence[Any]) -> str:
    """The samples of a batch as a message names them: by `dataset.describe(key)` if it has one."""
    describe = getattr(dataset, "describe", lambda key: f"sample {key}")
    return ", ".join(describe(key) for key in keys)


def use_one_core():
    """Set this process up to compute as a worker does, with others beside it."""
    import cv2

    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    keep_freed_memory(_KEPT_BYTES)


class _WorkerSetup:
    def __init__(self, parent_pid):
        self._parent_pid = parent_pid

    def __call__(self, worker_id):
        ignore_in_worker()
        die_with_parent(signal.SIGKILL, self._parent_pid)
        use_one_core()


def fetched(dataset, collate, key_lists, workers, pin_memory=False):
    """The collated batches of `key_lists`; faults as they were raised, no worker left behind."""
    asked = _Asked(key_lists)
    at_work = torch.full((workers,), -1).share_memory_() if workers else None
    loader = DataLoader(
        _BatchFetcher(dataset, collate, at_work),
        batch_size=None,  # the sampler's items are whole batches already
        sampler=asked,
        num_workers=workers,
        collate_fn=_as_is,
        pin_memory=pin_memory,
        worker_init_fn=_WorkerSetup(os.getpid()),
        # Forked workers share the data set's memory and start in milliseconds. It is safe here
        # although torch threads run in the parent: a worker sets every library to one thread
        # before it computes, and never touches a GPU. Only Linux forks safely.
        multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
        # torch takes the workers' base seed from it; the global generator stays untouched
        generator=torch.Generator().manual_seed(0),
    )
    if workers:
        _raise_file_limit()
    on_child = signal.getsignal(signal.SIGCHLD)
    with held_back(), between_writes():
        batches = iter(loader)
    # torch's handler raises in the middle of whatever the main thread does, be it an update of
    # the weights; a dead worker is found in good time when its batch is waited for.
    if workers and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, on_child or signal.SIG_DFL)
    started = batches._workers if workers else []  # in the order in which they take batches
    try:
        while True:
            try:
                batch = next(batches)
            except StopIteration:
                return
            except RuntimeError as error:
                dead = [worker for worker in started if worker.exitcode]
                if not dead:
                    raise
                keys = asked.waiting.get(int(at_work[started.index(dead[0])]))
                raise Failed(_death(dead[0], keys and described(dataset, keys))) from error
            asked.arrived()
            if isinstance(batch, _Fault):
                raise InputError(batch.faults)
            if isinstance(batch, _Crash):
                raise SampleFault(batch.line) from _WorkerTrace(batch.trace)
            yield batch
    finally:
        if workers:
            # Explicitly: while an exception travels, its traceback keeps the iterator alive.
            batches._shutdown_workers()
        for worker in started:
            worker.kill()  # a hanging worker ignores SIGTERM and would block the exit


class _Asked:
    """A sampler that numbers the batches and remembers those that have not come yet.

    waiting: {number: keys}, in order
    """

    def __init__(self, key_lists):
        self._key_lists = key_lists
        self.waiting = {}

    def __iter__(self):
        for number, keys in enumerate(self._key_lists):
            self.waiting[number] = keys
            yield number, keys

    def __len__(self):
        return len(self._key_lists)

    def arrived(self):
        """The batch that was waited for has come."""
        del self.waiting[next(iter(self.waiting))]


def _death(worker, samples):
    """One line about a worker that has died: how, and over which samples."""
    code = worker.exitcode
    how = f"with status {code}" if code > 0 else f"by signal {signal.Signals(-code).name}"
    why = " (the system kills the largest process when memory runs out: fewer workers need less)"
    over = f" while it prepared {samples}" if samples else ""
    return (f"a process that loads data (pid {worker.pid}) was ended {how}{over}"
            f"{why if -code == signal.SIGKILL else ''}")


def _raise_file_limit():
    # Each tensor that a worker sends holds a file descriptor until it is freed, and the usual
    # limit of 1024 is soon reached with many masks in flight.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _as_is(batch):
    return batch
