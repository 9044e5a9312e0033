"""What every update of a training loop does alike."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

Batch = TypeVar("Batch")


class Optimizers:
    """{name: optimizer}, each with parameters of its own, stepped together.

    Has what a training loop and a GradScaler ask of an optimizer; with the scaler, an overflow in
    one leaves all out. `state_dict` is {name: the optimizer's state}.
    """

    def __init__(self, optimizers: Mapping[str, torch.optim.Optimizer]):
        self.optimizers = dict(optimizers)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [group for each in self.optimizers.values() for group in each.param_groups]

    def zero_grad(self, set_to_none: bool = True) -> None:
        for each in self.optimizers.values():
            each.zero_grad(set_to_none)

    def step(self) -> None:
        for each in self.optimizers.values():
            each.step()

    def set_lr(self, lrs: Mapping[str, float]) -> None:
        """{name: rate of all groups of that optimizer}."""
        for name, lr in lrs.items():
            for group in self.optimizers[name].param_groups:
                group["lr"] = lr

    def state_dict(self) -> dict[str, dict]:
        return {name: each.state_dict() for name, each in self.optimizers.items()}

    def load_state_dict(self, states: Mapping[str, dict]) -> None:
        """Raises ValueError or KeyError when the parameters are not those of the states."""
        for name, each in self.optimizers.items():
            each.load_state_dict(states[name])


OneOrSeveral = torch.optim.Optimizer | Optimizers


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
