"""SGD whose update on a CPU is one pass over the memory."""

from collections.abc import Iterable
from typing import Any

import torch


class SGD(torch.optim.SGD):
    """torch's SGD with momentum, `fused` where the parameters are on a CPU; the same bits.

    params: tensors or parameter groups, as torch takes them
    torch's own fused update fails where a parameter's first gradient comes later than the others',
    and is given up with a loaded state that was not fused; this one does neither. On a GPU it is
    torch's default.
    """

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
    ):
        super().__init__(params, lr=lr, momentum=momentum, weight_decay=weight_decay)
        devices = {each.device.type for group in self.param_groups for each in group["params"]}
        self._fused = True if devices == {"cpu"} else None
        self._choose()

    def step(self, closure=None):
        if self._fused:
            self._begin_momentum()
        return super().step(closure)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._choose()  # torch takes up how the saved one computed

    def _choose(self):
        for group in self.param_groups:
            group["fused"], group["foreach"] = self._fused, None

    def _begin_momentum(self):
        # From zero the first update is the gradient, exactly as from none.
        for group in self.param_groups:
            for each in group["params"] if group["momentum"] else ():
                if each.grad is not None and self.state[each].get("momentum_buffer") is None:
                    self.state[each]["momentum_buffer"] = torch.zeros_like(each)
