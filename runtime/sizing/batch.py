"""--batch-size auto: the largest batch whose update fits into memory.

An update is really made, forward, backward and step, with a network of its own and images of the
largest size. What training begins with is as if nothing had been tried.
"""

import copy
import ctypes
import gc
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch

from runtime.errors import InputError
from runtime.launch.ranks import by_itself
from runtime.options.values import AUTO
from runtime.out_of_memory import memory_text
from runtime.run.run import Run
from runtime.sizing.summary import bytes_text
from runtime.spelling import plural

GPU_SHARE, CPU_SHARE = 0.9, 0.5  # of the free memory: a CPU's is the data workers', too
FEWEST_UPDATES = 8  # an epoch: a batch of the whole data set would learn next to nothing
MOST, MOST_ON_CPU = 1024, 64  # images on a device; a CPU is no faster with more
SEARCHED = 2  # further trials between a batch that fits and one that does not
MEMORY_INFO, STATUS, RESET_PEAK = (Path("/proc") / name for name in (
    "meminfo", "self/status", "self/clear_refs"))
CGROUPS = ((Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
           (Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
            Path("/sys/fs/cgroup/memory/memory.usage_in_bytes")))

Built = tuple[Any, ...]  # a `Learner`, and what else the script's own function gives with it


class Fit(NamedTuple):
    """images: of a device's batch; peak, limit: bytes that they take and that they may."""

    images: int
    peak: float
    limit: float


def with_batch_size(
    options: Iterable[str | tuple[str, Any]], key: str, flags: SimpleNamespace
) -> list[str | tuple[str, Any]]:
    """The overrides of a config with --batch-size N as the last of them.

    key: the config's own for the batch size; its value `auto` is taken out and becomes the flag's
    flags.batch_size: None, a number, or AUTO; the flag goes before the key
    """
    kept: list[str | tuple[str, Any]] = []
    for option in options:
        pair = option if isinstance(option, tuple) else option.partition("=")[::2]
        if tuple(str(each).strip() for each in pair) == (key, AUTO):
            flags.batch_size = flags.batch_size or AUTO
        else:
            kept.append(option)
    return kept if flags.batch_size in (None, AUTO) else [*kept, (key, flags.batch_size)]


@dataclass(frozen=True)
class Trial:
    """What a script's update is made of.

    dataset:  the images to train on; has `largest_batch(count)` and `largest_size`
    build:    build(flags, run) gives (the learner, what else an update needs, ...)
    backward: backward(flags, run, built, batches), the script's own
    least:    images that a device needs
    """

    dataset: Any
    build: Callable[[SimpleNamespace, Run], Built]
    backward: Callable[[SimpleNamespace, Run, Any, list[Any]], object]
    least: int = 1


def settled_batch(
    run: Run, flags: SimpleNamespace, trial: Trial, checkpoints: Any, *, key: str, shown: str,
    devices: int, counted: int = 1, ranks: int = 1, rates: str = "",
) -> int:
    """What --batch-size auto stands for, in the script's own count; said in a line (all ranks).

    It is the batch of the checkpoint that --resume names, else what fits on every rank.

    checkpoints: the series in which --resume looks
    key:         of a checkpoint's identity; it counts `ranks` times the script's own number
    shown:       the flag or key, with {} for the number; rates: what becomes of the learning rate
    devices:     that share an update; counted: those whose images the script's number counts
    """
    resumed = run.from_main(lambda: (_resumed(checkpoints, flags.resume, key), None))[0]
    if resumed is not None:
        run.log(f"--batch-size auto: {resumed // ranks}, as in the checkpoint to go on from.")
        return resumed // ranks
    enough = len(trial.dataset) // (FEWEST_UPDATES * devices * flags.accumulate)
    most = min(MOST if run.device.type == "cuda" else MOST_ON_CPU, max(trial.least, enough))
    fit = _agreed(run, lambda: _tried(run, flags, trial, most))
    _release(run.device)  # what the trial has left
    number = fit.images * counted
    why = ""
    if fit.images == most:
        why = (f"; with more an epoch of {len(trial.dataset)} images would have fewer than "
               f"{FEWEST_UPDATES} updates" if enough <= most else "; more are not tried")
    run.log(f"--batch-size auto: {plural(fit.images, 'image')} on each device, "
            f"{bytes_text(fit.peak)} of the {bytes_text(fit.limit)} that may be used{why}. "
            f"The same again: {shown.format(number)}.{rates and ' '}{rates}")
    return number


def largest_that_fits(measure: Callable[[int], float | None], limit: float, least: int, most: int
                      ) -> Fit:
    """The largest batch found whose update takes at most `limit` bytes.

    measure: bytes at the peak of an update of so many images; None where memory ran out
    Powers of two until one does not fit; then what a line through the last two foretells.
    Raises InputError when not even `least` images fit.
    """
    fits: list[tuple[int, float]] = []
    count, too_many = least, most + 1
    while count < too_many:
        peak = measure(count)
        if peak is None or peak > limit:
            too_many = count
        else:
            fits.append((count, peak))
            count = min(2 * count, most) if count < most else too_many
    if not fits:
        raise _too_large(least, limit)
    for _ in range(SEARCHED if too_many <= most else 0):
        count = _rounded(min(foretold(fits, limit), too_many - 1), fits[-1][0])
        if count <= fits[-1][0]:
            break
        peak = measure(count)
        if peak is None or peak > limit:
            too_many = count
        else:
            fits.append((count, peak))
    return Fit(*fits[-1], limit)


def extrapolated(measure: Callable[[int], float | None], limit: float, least: int, most: int,
                 smallest: float) -> Fit:
    """The same without filling the memory: from updates of `least` and of twice as many images.

    smallest: bytes that an image takes in any case
    """
    peak = measure(least)
    if peak is None or peak > limit:
        raise _too_large(least, limit)
    twice = None if 2 * least > most else measure(2 * least)
    each = max(((peak if twice is None else twice) - peak) / least, smallest)
    images = _rounded(min(most, least + int((limit - peak) / each)), least)
    return Fit(images, peak + (images - least) * each, limit)


def _too_large(least: int, limit: float) -> InputError:
    return InputError(
        f"--batch-size auto: an update of {plural(least, 'image')} does not fit into the "
        f"{bytes_text(limit)} that may be used: lower the image size, take a smaller network, or "
        "try --amp bf16")


def foretold(fits: Sequence[tuple[int, float]], limit: float) -> int:
    """Images whose peak is `limit`, on the line through the last two of (images, peak)."""
    if len(fits) < 2:
        return int(fits[0][0] * limit / fits[0][1])
    (a, low), (b, high) = fits[-2:]
    return b + int((limit - high) * (b - a) / max(high - low, 1.0))


def _rounded(count: int, least: int) -> int:
    """Down to a multiple of 8 from 16 on, to an even number below: batches that devices like."""
    step = 8 if count >= 16 else 2 if count >= 4 else 1
    return max(count // step * step, least)


@contextmanager
def kept_random_state() -> Iterator[None]:
    """In it random numbers may be drawn that nobody misses afterwards."""
    python, array, torchs = random.getstate(), np.random.get_state(), torch.get_rng_state()
    gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(array)
        torch.set_rng_state(torchs)
        if gpus:
            torch.cuda.set_rng_state_all(gpus)


def free_memory(processes: int = 1) -> float:
    """Bytes of main memory that this process may still take, of `processes` on this machine.

    What the system calls available, or what the container's limit leaves. Raises InputError where
    neither is known.
    """
    try:
        text = MEMORY_INFO.read_text()
    except OSError as error:
        raise InputError("--batch-size auto: this system does not say how much memory is free; "
                         "give a number of images") from error
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    free = float(fields["MemAvailable"].split()[0]) * 1024
    for limit, usage in CGROUPS:
        try:
            free = min(free, float(limit.read_text()) - float(usage.read_text()))
        except (OSError, ValueError):
            continue  # no such file, or "max"
    return free / max(processes, 1)


def _resumed(checkpoints: Any, resume: str | None, key: str) -> int | None:
    """The batch size of the checkpoint to go on from; None where there is none, or it has none."""
    found = None if resume is None else checkpoints.find_start(resume, lambda line: None)
    if found is None:
        return None
    state = found.state or found.weights.get("training") or found.weights
    number = (state.get("identity") or {}).get(key)
    return number if isinstance(number, int) else None


def _agreed(run: Run, find: Callable[[], Fit]) -> Fit:
    """The smallest of what the ranks find; a fault of one is everyone's (all ranks)."""
    own: Fit | InputError
    try:
        own = find()
    except InputError as error:
        own = error
    found = run.gather(own)
    answer = None
    if found is not None:
        fits = [each for each in found if isinstance(each, Fit)]
        answer = min(fits) if len(fits) == len(found) else next(
            each for each in found if isinstance(each, InputError))
    answer = run.broadcast(answer)
    if isinstance(answer, InputError):
        raise answer
    return answer


def _tried(run: Run, flags: SimpleNamespace, trial: Trial, most: int) -> Fit:
    """What fits on this process's device."""
    alone, dataset = _alone(run), trial.dataset
    # each size would be compiled anew; segmentation's flags have the numbers of its GPUs
    flags = SimpleNamespace(**vars(flags) | {
        "compile": False, "gpu_numbers": vars(flags).get("gpu_numbers", [])[:1]})
    with kept_random_state(), by_itself():
        memory: Any = (_Gpu(run.device) if run.device.type == "cuda"
                       else _Cpu(run.local_world_size))
        built = trial.build(flags, alone)
        learner = built[0].averaging(flags.ema)
        learner.net.train()
        for group in learner.optimizer.param_groups:
            group["lr"] = 0.0  # what is not finite would end in another way

        def update(count: int) -> None:
            trial.backward(flags, alone, built, [dataset.largest_batch(count)])
            learner.update(flags.clip_grad, learner.precision.grad_norm(learner.optimizer))

        def peak(count: int) -> float | None:
            found: float | None = memory.peak(update, count)
            return found

        if run.device.type == "cuda":
            return largest_that_fits(peak, memory.limit, trial.least, most)
        height, width = dataset.largest_size
        update(trial.least)  # the optimizer's state is there from here on
        return extrapolated(peak, memory.limit, trial.least, most, 4.0 * 3 * height * width)


def _alone(run: Run) -> Run:
    """This process as the only one, on one device, and silent."""
    run = copy.copy(run)
    run.world_size, run.drives_one = 1, True
    vars(run).update(log=_say_nothing, warn=_say_nothing)
    return run


def _say_nothing(text: str) -> None:
    """In place of `Run.log`."""


def _release(device: torch.device) -> None:
    """Give back what nobody uses any more."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        return
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # the allocator keeps what is freed
    if trim is not None:
        trim(0)


class _Gpu:
    """Memory of a GPU. limit: bytes that may be in use at once."""

    def __init__(self, device: torch.device):
        self._device = device
        _release(self._device)
        free, _ = torch.cuda.mem_get_info(device)
        self.limit = GPU_SHARE * (free + torch.cuda.memory_reserved(device))

    def peak(self, update: Callable[[int], None], count: int) -> float | None:
        _release(self._device)
        torch.cuda.reset_peak_memory_stats(self._device)
        try:
            update(count)
            torch.cuda.synchronize(self._device)
        except Exception as error:
            if memory_text(error, "") is None:
                raise
            return None
        return float(torch.cuda.max_memory_reserved(self._device))


class _Cpu:
    """Main memory. limit: bytes that may be taken beyond what is taken now, a share of the free."""

    def __init__(self, processes: int):
        self.limit = CPU_SHARE * free_memory(processes)
        _release(torch.device("cpu"))
        self._before = self._read("VmRSS")

    def peak(self, update: Callable[[int], None], count: int) -> float:
        _release(torch.device("cpu"))
        try:
            RESET_PEAK.write_text("5")  # the peak counts from here on
        except OSError as error:
            raise InputError("--batch-size auto: this system does not let a process measure its "
                             "own memory; give a number of images") from error
        update(count)
        return max(self._read("VmHWM") - self._before, 1.0)

    @staticmethod
    def _read(field: str) -> float:
        line = next(line for line in STATUS.read_text().splitlines() if line.startswith(field))
        return float(line.split()[1]) * 1024
