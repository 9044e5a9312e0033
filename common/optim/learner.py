"""What an update changes, and so what a checkpoint holds: network, optimizers, average."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar, cast

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from common.checkpoint.state import check_same_run, pack_state, restore_state
from common.optim.precision import Precision

Net = TypeVar("Net", bound=nn.Module)


@dataclass(frozen=True)
class Learner(Generic[Net]):
    """A network in training.

    net:       the bare network, without wrappers
    optimizer: of its parameters, or `Optimizers`
    precision: autocast and loss scaler
    ema:       the moving average of the weights, None without `--ema`
    """

    net: Net
    optimizer: Any  # each script knows which of the two is its own
    precision: Precision
    ema: AveragedModel | None = None

    @property
    def scored(self) -> Net:
        """What is validated: the average of the weights where there is one."""
        return cast(Net, self.ema.module) if self.ema is not None else self.net

    def averaging(self, decay: float | None) -> "Learner[Net]":
        """With an average that begins at the present weights; `decay` None: without one."""
        return self if decay is None else replace(self, ema=MovingAverage(self.net, decay))

    def update(
        self, clip_grad: float | None, grad_norm: torch.Tensor, norm_read: float = math.nan
    ) -> None:
        """Clip the gradients, change the weights and follow them with the average.

        clip_grad: the largest norm, None for any; grad_norm: `Precision.grad_norm` of this update
        norm_read: the same as a number, where that is known
        """
        self.precision.step(self.optimizer, clip_grad, grad_norm, math.isfinite(norm_read))
        if self.ema is not None:
            self.ema.update_parameters(self.net)

    def state(
        self,
        iteration: int,
        per_epoch: int,
        *,
        world_size: int,
        identity: Mapping[str, Any],
        config: str,
        **extra: Any,
    ) -> dict[str, Any]:
        """The training state after `iteration` updates: see `pack_state`."""
        return pack_state(
            iteration=iteration, per_epoch=per_epoch, optimizer=self.optimizer,
            scaler=self.precision.scaler, ema=self.ema, world_size=world_size, identity=identity,
            config=config, extra=extra)

    def resume(
        self, state: Mapping[str, Any], identity: Mapping[str, Any], force: bool,
        warn: Callable[[str], object],
    ) -> None:
        """Put optimizer, scaler and average of a checkpoint's `state` back; in place.

        identity: of the present run, which must be the checkpoint's: see `check_same_run`
        Raises InputError when it is another one (unless `force`), or of other parameters.
        """
        check_same_run(state["identity"], identity, force, warn)
        restore_state(state, self.optimizer, self.precision.scaler, self.ema)


class MovingAverage(AveragedModel):
    """average = decay * average + (1 - decay) * weight at each `update_parameters(net)`.

    The first one takes the weights as they are then; buffers (BatchNorm's statistics) are averaged,
    too. The averaged network itself is `.module`. Numbers and state are those of torch's own, which
    has the host wait for the device: it sends it the count of updates. Here that stays on the host.
    """

    def __init__(self, net: nn.Module, decay: float):
        super().__init__(net, use_buffers=True)
        self._decay = decay

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        own, new = ([*m.parameters(), *m.buffers()] for m in (self.module, model))
        floats, counts = ([pair for pair in zip(own, new, strict=True)
                           if pair[0].is_floating_point() is kind] for kind in (True, False))
        if not self.n_averaged:
            torch._foreach_copy_(own, new)
        else:
            own, new = map(list, zip(*floats, strict=True))
            torch._foreach_lerp_(own, new, 1 - self._decay)
            for average, value in counts:
                average.copy_(average * self._decay + value * (1 - self._decay))
        self.n_averaged += 1


def trained_average(net: Net, saved: Mapping[str, Any] | None) -> Net:
    """What a checkpoint's training scored: its averaged weights, else `net` itself.

    saved: the checkpoint's training state, or None
    """
    if not saved or not saved.get("ema"):
        return net
    average = MovingAverage(net, decay=0.0)
    average.load_state_dict(saved["ema"])
    return cast(Net, average.module)
