"""Several optimizers handled as one."""

from collections.abc import Mapping
from typing import Any

import torch


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
