"""A process among the ranks: what they tell each other, when they stop, their random numbers."""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from runtime.errors import InputError
from runtime.launch.ranks import Launch
from runtime.launch.signals import STOP_NUMBERS, StopSignals, name_of
from runtime.streams import Stream

Item = TypeVar("Item")


class Group:
    """One of the ranks of a run, or the only one.

    rank, world_size, local_rank, local_world_size: of this process; is_main: rank 0
    drives_one:     it drives a single device, however many there are
    device:         where to compute
    stop_requested: name of the stop signal that the ranks agreed on, or None

    Methods named "all ranks" are collectives: every rank calls them, in the same order.
    """

    def __init__(
        self, launch: Launch, device: torch.device, seed: int, stop: StopSignals | None,
        say: Callable[[str], object],
    ):
        """say: gets a line that rank 0 is to say; the other arguments as for `start_run`"""
        self.rank = launch.rank
        self.world_size = launch.world_size
        self.local_rank, self.local_world_size = launch.local_rank, launch.local_world_size
        self.is_main = launch.rank == 0
        self.device = device
        self.drives_one = False
        self.stop_requested: str | None = None
        self._signal_read = 0  # of any rank, in the last `read_means`
        self._seed = seed
        self._stop = stop
        self._say = say

    def wrap(self, module: nn.Module, find_unused: bool = False) -> nn.Module:
        """`module` in DistributedDataParallel; alone, the module itself (all ranks).

        Buffers, such as BatchNorm's statistics, stay each rank's own until `share_buffers`; rank
        0's are saved. Every update has to give every trained parameter a gradient, unless
        `find_unused`.
        """
        if self.world_size == 1:
            return module
        wrapped = DistributedDataParallel(
            module,
            device_ids=[self.device] if self.device.type == "cuda" else None,
            gradient_as_bucket_view=True,
            find_unused_parameters=find_unused,
        )
        # `share_buffers` does it where it counts; the argument's name depends on torch's version
        wrapped.broadcast_buffers = False
        return wrapped

    def share_buffers(self, module: nn.Module) -> None:
        """Rank 0's buffers of `module` on every rank, before all of them evaluate it (all ranks).

        In training each rank's BatchNorm statistics are of its own batches.
        """
        if self.world_size > 1:
            for buffer in module.buffers():
                dist.broadcast(buffer, 0)

    def agree_on_stop(self) -> None:
        """A stop signal to one rank, or its hours' end, reaches all: one all-reduce (all ranks).

        Afterwards `stop_requested` is the same everywhere. Between two updates, so that all ranks
        leave after the same one.
        """
        number = self._own_signal()
        if self.world_size > 1:
            agreed = torch.tensor(number, dtype=torch.int32)
            dist.all_reduce(agreed, op=dist.ReduceOp.MAX)
            number = int(agreed)
        self._stop_by(number)

    def stop_as_read(self) -> None:
        """`agree_on_stop` by what travelled with the last `read_means` (all ranks).

        A signal that came to another rank since then is for the next time.
        """
        self._stop_by(self._own_signal() if self.world_size == 1 else self._signal_read)

    def _own_signal(self) -> int:
        return self._stop.number if self._stop is not None else 0

    def _stop_by(self, number: int) -> None:
        if number and self.stop_requested is None:
            self.stop_requested = name_of(number)
            if self.is_main and self._stop is not None and self._stop.requested is None:
                self._say(self._stop.message)  # the signal came to another rank only, or none did

    def read_means(
        self, terms: Mapping[str, torch.Tensor], own: torch.Tensor
    ) -> tuple[dict[str, float], float]:
        """({name: mean over the ranks}, `own`) as numbers; the host waits for the device here.

        terms: 0-d tensors (all ranks, with the same names), added up in float64
        own:   a 0-d tensor of this rank
        One all-reduce takes the terms and, for `stop_as_read`, the stop signals to all ranks.
        """
        values = torch.stack([value.detach().double() for value in (*terms.values(), own)])
        if self.world_size == 1:
            *means, number = values.tolist()
            return dict(zip(terms, means, strict=True)), number
        arrived = self._own_signal()
        signals = torch.tensor([float(each == arrived) for each in STOP_NUMBERS]).double()
        total = torch.cat((values[:-1], signals.to(values.device, non_blocking=True)))
        dist.all_reduce(total)
        means, counts = total.split((len(terms), len(signals)))
        numbers = torch.cat((means / self.world_size, counts, values[-1:])).tolist()
        counted = zip(STOP_NUMBERS, numbers[len(terms):-1], strict=True)
        self._signal_read = max((each for each, count in counted if count), default=0)
        return dict(zip(terms, numbers[:len(terms)], strict=True)), numbers[-1]

    def num_devices(self, named: str | None) -> int:
        """Processes, or the GPUs that one process drives when it was not told which one.

        named: the `--device` flag
        """
        if (self.world_size > 1 or self.device.type == "cpu" or named not in (None, "cuda")
                or self.drives_one):
            return self.world_size
        return torch.cuda.device_count()

    def own_devices(self, named: str | None) -> int:
        """GPUs that this process drives by itself; 1 where it is one of several, and on a CPU.

        named: the `--device` flag
        """
        return self.num_devices(named) if self.world_size == 1 else 1

    def gather(self, item: Item) -> list[Item] | None:
        """The ranks' items in rank order on rank 0, None elsewhere (all ranks)."""
        if self.world_size == 1:
            return [item]
        items: list[Any] | None = [None] * self.world_size if self.is_main else None
        dist.gather_object(item, items)
        return items

    def broadcast(self, item: Any) -> Any:
        """Rank 0's item, whatever the others give (all ranks)."""
        if self.world_size == 1:
            return item
        box = [item]
        dist.broadcast_object_list(box)
        return box[0]

    def from_main(self, read: Callable[[], tuple[Any, Any]]) -> tuple[Any, Any]:
        """What `read()` gives on rank 0, as a pair (all ranks).

        read: returns (what all ranks get, what rank 0 keeps to itself: None on the others)
        For what is read from shared files: an InputError there is raised on every rank.
        """
        answer, own = None, None
        if self.is_main:
            try:
                answer, own = read()
            except InputError as error:
                answer = error
        answer = self.broadcast(answer)
        if isinstance(answer, InputError):
            raise answer
        return answer, own

    def in_step(
        self, batches: Iterator[Item], total: int, batch_size: int
    ) -> Iterator[Item | None]:
        """The rank's own `batches`, with `agree_on_stop` before each (all ranks).

        total:      items that the ranks share out, so that some may have a batch less than others
        batch_size: items of a batch; every rank makes as many rounds as the busiest one has batches
        None comes in place of a batch that is not there, once a stop is agreed on.
        """
        for _ in range(math.ceil(total / (batch_size * self.world_size))):
            self.agree_on_stop()
            batch = next(batches, None)
            if batch is not None or self.stop_requested:
                yield batch

    def barrier(self) -> None:
        """Wait until every rank has come here, and agree on a stop (all ranks)."""
        self.agree_on_stop()

    def seed_step(self, step: int) -> None:
        """Seed torch's generators from (seed, step, rank); to look for GPUs would take 1 ms."""
        sequence = np.random.SeedSequence([Stream.STEP, self._seed, step, self.rank])
        seeded = torch.default_generator if self.device.type == "cpu" else torch
        seeded.manual_seed(int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1)))

    def step_rng(self, step: int, number: int = 0) -> np.random.RandomState:
        """Random numbers of (seed, step, number) alone: the same on every rank."""
        sequence = np.random.SeedSequence([Stream.SHARED, self._seed, step, number])
        return np.random.RandomState(np.random.MT19937(sequence))
