"""AdamW whose state is written as MMDetection writes it: one group for each parameter, in order."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn


class OrderedAdamW(torch.optim.AdamW):
    """AdamW with few groups to compute with, and one for each parameter in its state dict.

    groups:  parameter groups; how they are cut does not change the updates
    ordered: all their parameters, in the order of the network's `parameters()`

    `state_dict` has MMDetection's form: group i holds only parameter i of `ordered`.
    `load_state_dict` takes that form from any grouping of the same order; rates and decays stay
    those of this optimizer.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        ordered: Sequence[nn.Parameter],
        *,
        lr: float,
        betas: tuple[float, float],
    ):
        super().__init__(list(groups), lr=lr, betas=betas, fused=True)
        own = [parameter for group in self.param_groups for parameter in group["params"]]
        place = {id(parameter): i for i, parameter in enumerate(ordered)}
        # of this optimizer's n-th parameter, in the network's order
        self._places = [place.get(id(parameter), -1) for parameter in own]
        self._own = own
        if sorted(self._places) != list(range(len(ordered))):
            raise ValueError("`ordered` and the groups do not hold the same parameters")

    def state_dict(self) -> dict[str, Any]:
        """Moments and settings of each parameter, `state` {i: {...}} and `param_groups`."""
        own = super().state_dict()
        settings = [{key: value for key, value in group.items() if key != "params"}
                    for group in own["param_groups"] for _ in group["params"]]
        state, groups = {}, []
        for n, i in sorted(enumerate(self._places), key=lambda pair: pair[1]):
            groups.append(settings[n] | {"params": [i]})
            if n in own["state"]:
                state[i] = own["state"][n]
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take up the moments. Raises ValueError when they are not of these parameters."""
        keys = [key for group in state_dict["param_groups"] for key in group["params"]]
        if len(keys) != len(self._places):
            raise ValueError(f"it is of {len(keys)} parameters, the network trains "
                             f"{len(self._places)}")
        moments = {}
        for n, (i, parameter) in enumerate(zip(self._places, self._own, strict=True)):
            saved = state_dict["state"].get(keys[i])
            if saved is None:
                continue
            if saved["exp_avg"].shape != parameter.shape:
                raise ValueError(f"parameter {i} has the shape {tuple(parameter.shape)}, its state "
                                 f"{tuple(saved['exp_avg'].shape)}")
            step = torch.as_tensor(saved["step"], dtype=torch.float32)
            moments[n] = {"step": step, "exp_avg": saved["exp_avg"],
                          "exp_avg_sq": saved["exp_avg_sq"]}
        groups = torch.optim.AdamW.state_dict(self)["param_groups"]
        super().load_state_dict({"state": moments, "param_groups": groups})
