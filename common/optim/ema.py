"""The moving average of the weights that `--ema` asks for."""

from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


def average_of(net: nn.Module, decay: float) -> AveragedModel:
    """average = decay * average + (1 - decay) * weight at each `update_parameters(net)`.

    The first one takes the weights as they are then. Buffers (BatchNorm's statistics) are averaged
    as well.
    The averaged network itself is `.module`.
    """
    return AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
