"""AdamW and SGD whose state is written as MMDetection writes it: a group for each parameter.

They compute with few groups, which is faster, and number their parameters in the network's order.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

Groups = Iterable[dict[str, Any]]
_KINDS = {"exp_avg": "AdamW", "momentum_buffer": "SGD"}  # the moment that tells an optimizer


class OrderedAdamW(torch.optim.AdamW):
    """AdamW with few groups to compute with, and one for each parameter in its state dict.

    groups:  parameter groups; how they are cut does not change the updates
    ordered: all their parameters, in the order of the network's `parameters()`
    options: torch's own, `lr` among them

    `state_dict` has MMDetection's form: group i holds only parameter i of `ordered`.
    `load_state_dict` takes that form from any grouping of the same order; rates and decays stay
    those of this optimizer.
    """

    def __init__(self, groups: Groups, ordered: Sequence[nn.Parameter], **options: Any):
        super().__init__(list(groups), fused=True, **options)
        self._order = _Order(self, ordered)

    def state_dict(self) -> dict[str, Any]:
        """Moments and settings of each parameter, `state` {i: {...}} and `param_groups`."""
        return self._order.in_order(super().state_dict())

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take up the moments. Raises ValueError when they are not of these parameters."""
        own = torch.optim.AdamW.state_dict(self)["param_groups"]
        moments = self._order.of_own(state_dict, "exp_avg")
        keys = ["exp_avg", "exp_avg_sq"] + ["max_exp_avg_sq"] * bool(own and own[0]["amsgrad"])
        state = {}
        for n, saved in moments.items():
            state[n] = {"step": torch.as_tensor(saved["step"], dtype=torch.float32)}
            for key in keys:  # what another run has not kept begins at zero
                state[n][key] = saved.get(key, torch.zeros_like(saved["exp_avg"]))
        super().load_state_dict({"state": state, "param_groups": own})


class OrderedSGD(torch.optim.SGD):
    """SGD in the same form as `OrderedAdamW`."""

    def __init__(self, groups: Groups, ordered: Sequence[nn.Parameter], **options: Any):
        super().__init__(list(groups), **options)
        self._order = _Order(self, ordered)

    def state_dict(self) -> dict[str, Any]:
        """Moments and settings of each parameter, `state` {i: {...}} and `param_groups`."""
        return self._order.in_order(super().state_dict())

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take up the moments. Raises ValueError when they are not of these parameters."""
        moments = self._order.of_own(state_dict, "momentum_buffer")
        state = {n: {"momentum_buffer": saved["momentum_buffer"]} for n, saved in moments.items()}
        own = torch.optim.SGD.state_dict(self)["param_groups"]
        super().load_state_dict({"state": state, "param_groups": own})


class _Order:
    """Which of an optimizer's parameters is the network's n-th.

    Raises ValueError when `ordered` are not the optimizer's parameters.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, ordered: Sequence[nn.Parameter]):
        own = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        place = {id(parameter): i for i, parameter in enumerate(ordered)}
        # of this optimizer's n-th parameter, in the network's order
        self._places = [place.get(id(parameter), -1) for parameter in own]
        self._own = own
        if sorted(self._places) != list(range(len(ordered))):
            raise ValueError("`ordered` and the groups do not hold the same parameters")

    def in_order(self, own: dict[str, Any]) -> dict[str, Any]:
        """An optimizer's state dict, `own`, with a group for each parameter."""
        settings = [{key: value for key, value in group.items() if key != "params"}
                    for group in own["param_groups"] for _ in group["params"]]
        state, groups = {}, []
        for n, i in sorted(enumerate(self._places), key=lambda pair: pair[1]):
            groups.append(settings[n] | {"params": [i]})
            if n in own["state"]:
                state[i] = own["state"][n]
        return {"state": state, "param_groups": groups}

    def of_own(self, saved: Mapping[str, Any], moment: str) -> dict[int, Mapping[str, Any]]:
        """{n: the saved state of this optimizer's n-th parameter}, those that have `moment`.

        Raises ValueError when it is of other parameters, or of another kind of optimizer.
        """
        keys = [key for group in saved["param_groups"] for key in group["params"]]
        if len(saved["param_groups"]) == 1 and len(keys) > len(self._places):
            # MMEngine's one group without rules for single parameters holds the frozen ones too
            keys = [key for key in keys if key in saved["state"]]
        if len(keys) != len(self._places):
            raise ValueError(f"it is of {len(keys)} parameters, the network trains "
                             f"{len(self._places)}")
        found = {}
        for n, (i, parameter) in enumerate(zip(self._places, self._own, strict=True)):
            state = saved["state"].get(keys[i]) or {}
            value = state.get(moment)
            foreign = next((key for key in _KINDS if key != moment and key in state), None)
            if foreign is not None:
                raise ValueError(f"it is {_KINDS[foreign]}'s, the config asks for {_KINDS[moment]}")
            if value is None:
                continue
            if value.shape != parameter.shape:
                raise ValueError(f"parameter {i} has the shape {tuple(parameter.shape)}, its state "
                                 f"{tuple(value.shape)}")
            found[n] = state
        return found
