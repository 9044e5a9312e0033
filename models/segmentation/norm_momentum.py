"""How fast batch norms' running statistics follow, as the original does it on several GPUs."""

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from runtime.errors import InputError


def corrected_momentum(momentum: float, step: int) -> float:
    """Momentum of the update `step`, counted from 0, of the original's bias-corrected average.

    Over n updates its statistics are (r_0 a^n + sum a^(n-k) x_k) / (sum of the same weights) with
    a = 1 - momentum: moving quickly at first, by 1/2, 1/3, ..., and by `momentum` in the end.
    Torch's batch norm makes the same average when its momentum is 1 / (the weights' sum so far).
    parity: on several GPUs alone; on one the statistics are slow [segmentation.md: Batch norm]
    """
    keep = 1 - momentum
    weights = (1 - keep ** (step + 2)) / momentum
    return 1 / weights


def is_corrected(bn_average: str, num_devices: int, is_compiled: bool) -> bool:
    """Whether TRAIN.bn_average asks for the corrected average; "auto" does on several devices.

    A momentum that changes with each update would have each compiled anew: there "auto" is plain,
    and "corrected" raises InputError.
    """
    if is_compiled and bn_average == "corrected":
        raise InputError(
            "TRAIN.bn_average corrected changes the momentum with each update, and --compile would "
            "compile each anew; take plain"
        )
    several = num_devices > 1 and not is_compiled
    return bn_average == "corrected" or (bn_average == "auto" and several)


class NormMomentum:
    """Sets the momentum of every batch norm in `net` for each update.

    momentum:  of all norms; None leaves each its own (0.001, HRNet's encoder 0.1)
    corrected: as the original on several GPUs; False is its way, and torch's, on one
    """

    def __init__(self, net: nn.Module, momentum: float | None = None, corrected: bool = False):
        self._norms = [
            (module, module.momentum if momentum is None else momentum)
            for module in net.modules()
            if isinstance(module, _BatchNorm)
        ]
        self._corrected = corrected
        for module, base in self._norms:
            module.momentum = base

    def set(self, step: int) -> None:
        """Call before the forward pass of the update `step`, counted from 0 over the whole run."""
        if self._corrected:
            for module, base in self._norms:
                module.momentum = corrected_momentum(base, step)
