"""Batch statistics over all processes: torch's SyncBatchNorm on GPUs, the same sums on CPUs."""

from typing import TypeVar

import torch
import torch.distributed as dist
from torch import nn

Net = TypeVar("Net", bound=nn.Module)

def synchronise_norms(net: Net, device: torch.device) -> Net:
    """`net` with every batch norm's statistics taken over all processes; keys stay as they are.

    Call it in every process of the group, before wrappers and optimizers see the network.
    """
    if device.type != "cpu":
        return nn.SyncBatchNorm.convert_sync_batchnorm(net)
    for module in net.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = CpuSyncBatchNorm  # no state of its own: only `forward` differs
    return net


class CpuSyncBatchNorm(nn.BatchNorm2d):
    """What torch's SyncBatchNorm computes; that one refuses tensors on a CPU."""

    def forward(self, x):
        """x: [B, C, H, W], B, H and W may differ between processes."""
        if not self.training:
            return super().forward(x)
        values = x.to(torch.promote_types(x.dtype, torch.float32))  # bf16 cannot count that far
        channels = x.shape[1]
        count = values.new_full((1,), x.numel() / channels)
        sums = torch.cat([values.sum((0, 2, 3)), values.square().sum((0, 2, 3)), count])
        total, square, count = _AllReduceSum.apply(sums).split([channels, channels, 1])
        if count.item() < 2:
            raise ValueError("batch norm needs more than one value per channel in all processes")
        mean = total / count
        # differs: var + eps as in torch; the original takes max(var, eps)
        # [segmentation.md: Batch norm]. Way back: none, one norm for GPUs and CPUs; 5e-6 at var 1.
        var = (square / count - mean.square()).clamp(min=0)
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var * count / (count - 1), self.momentum)
        scale = self.weight * torch.rsqrt(var + self.eps)
        shift = self.bias - mean * scale
        return (values * scale[:, None, None] + shift[:, None, None]).to(x.dtype)


class _AllReduceSum(torch.autograd.Function):
    """The sum over the processes; each one's gradient is the sum of all processes' gradients."""

    @staticmethod
    def forward(ctx, values):
        """values [n] float of this process to their sums over all processes, [n]."""
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, gradient):
        gradient = gradient.clone()
        dist.all_reduce(gradient)
        return gradient
