"""What every update of a training loop does alike."""

from collections.abc import Mapping

import torch


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """The same rate for all parameter groups."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def to_floats(
    values: Mapping[str, torch.Tensor], grad_norm: torch.Tensor
) -> tuple[dict[str, float], float]:
    """({name: number}, norm) of 0-d tensors: the one time that an update waits for the device.

    A loss and a gradient are so known before the weights change.
    """
    together = [value.double() for value in (*values.values(), grad_norm)]
    *numbers, norm = torch.stack(together).tolist()
    return dict(zip(values, numbers, strict=True)), norm
