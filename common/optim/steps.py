"""What every update of a training loop does alike."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import TypeVar

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from common.optim.optimizers import OneOrSeveral
from runtime.run.run import Run

Batch = TypeVar("Batch")


def set_lr(optimizer: OneOrSeveral, lr: float) -> None:
    """The same rate for all parameter groups."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def accumulated(module: nn.Module, batches: Sequence[Batch]) -> Iterator[Batch]:
    """The batches of one update; gradients travel between processes with the last one only.

    module: the network as `Run.wrap` returned it; forward and backward belong into the loop's body
    """
    for batch in batches[:-1]:
        with module.no_sync() if isinstance(module, DistributedDataParallel) else nullcontext():
            yield batch
    yield batches[-1]


def add_terms(sums: dict[str, torch.Tensor], terms: Mapping[str, torch.Tensor]) -> None:
    """Add 0-d tensors, detached, to those of the same names in `sums`; in place."""
    for name, value in terms.items():
        sums[name] = sums.get(name, 0) + value.detach()


def mean_floats(
    run: Run, terms: Mapping[str, torch.Tensor], grad_norm: torch.Tensor
) -> tuple[dict[str, float], float]:
    """({name: mean over the ranks}, norm) as numbers: the one time that an update waits.

    terms: 0-d tensors of this rank (all ranks, with the same names)
    A loss and a gradient are so known before the weights change.
    """
    means = run.mean(terms)
    together = [value.double() for value in (*means.values(), grad_norm)]
    *numbers, norm = torch.stack(together).tolist()
    return dict(zip(means, numbers, strict=True)), norm
