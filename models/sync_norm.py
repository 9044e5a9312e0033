"""Batch statistics over all processes: a SyncBatchNorm that never waits, and one for CPUs."""

from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn

Net = TypeVar("Net", bound=nn.Module)
NO_VALUES = 1e-30  # the count of a process without any: with 0 the kernel would divide by it


def synchronise_norms(net: Net, device: torch.device) -> Net:
    """`net` with every batch norm's statistics taken over all processes; keys stay as they are.

    Call it in every process of the group, before wrappers and optimizers see the network.
    """
    if device.type != "cpu":
        net = nn.SyncBatchNorm.convert_sync_batchnorm(net)
    # neither has a state of its own: only `forward` differs
    kinds = {nn.BatchNorm2d: CpuSyncBatchNorm, nn.SyncBatchNorm: GatheredSyncBatchNorm}
    for module in net.modules():
        if type(module) in kinds:
            module.__class__ = kinds[type(module)]
    return net


class GatheredSyncBatchNorm(nn.SyncBatchNorm):
    """torch's SyncBatchNorm, its numbers and its kernels, without a wait for the device.

    That one looks for processes without input, whose statistics it leaves out: three waits for each
    norm of each forward pass. Here they count next to nothing, 1e-30 of a value.
    """

    def forward(self, x):
        """x: [B, C, H, W] on a GPU; B, which may be 0, H and W may differ between processes."""
        if not self.training or self.momentum is None or dist.get_world_size() == 1:
            return super().forward(x)
        self.num_batches_tracked += 1
        return _synced_norm(x, self.weight, self.bias, self.running_mean, self.running_var,
                            self.momentum, self.eps)


@torch.compiler.disable  # collectives do not belong into a compiled graph
def _synced_norm(*args: Any) -> torch.Tensor:
    return _SyncedNorm.apply(*args)


class _SyncedNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, running_mean, running_var, momentum, eps):
        """x [B, C, H, W], the others [C]: x normalised; the running ones change in place."""
        x, channels = _dense(x), x.shape[1]
        if len(x):
            mean, invstd = torch.batch_norm_stats(x, eps)
        else:
            mean, invstd = torch.zeros_like(running_mean), torch.ones_like(running_mean)
        count = x.numel() // channels or NO_VALUES
        own = torch.cat((mean, invstd, mean.new_full((1,), count)))
        everyones = own.new_empty(dist.get_world_size() * len(own))
        dist.all_gather_into_tensor(everyones, own)
        means, invstds, counts = everyones.view(-1, len(own)).split((channels, channels, 1), 1)
        counts = counts.flatten().contiguous()
        mean, invstd = torch.batch_norm_gather_stats_with_counts(
            x, means, invstds, running_mean, running_var, momentum, eps, counts)
        ctx.save_for_backward(x, weight, mean, invstd, counts.int())
        if not len(x):
            return torch.empty_like(x)
        return torch.batch_norm_elemt(x, weight, bias, mean, invstd, eps)

    @staticmethod
    def backward(ctx, gradient):
        x, weight, mean, invstd, counts = ctx.saved_tensors
        gradient = _dense(gradient)
        of_x, of_weight, of_bias = ctx.needs_input_grad[:3]
        if len(x):
            total, product, weight_grad, bias_grad = torch.batch_norm_backward_reduce(
                gradient, x, mean, invstd, weight, of_x, of_weight, of_bias)
        else:
            total = product = torch.zeros_like(mean)
            weight_grad, bias_grad = torch.zeros_like(weight), torch.zeros_like(weight)
        x_grad = None
        if of_x:
            sums = torch.stack((total, product))
            dist.all_reduce(sums)
            x_grad = torch.zeros_like(x) if not len(x) else torch.batch_norm_backward_elemt(
                gradient, x, mean, invstd, weight, *sums.unbind(), counts)
        # those of weight and bias are this process's own: DistributedDataParallel averages them
        return (x_grad, weight_grad if of_weight else None, bias_grad if of_bias else None,
                None, None, None, None)


def _dense(x: torch.Tensor) -> torch.Tensor:
    is_dense = x.is_contiguous(memory_format=torch.channels_last)
    return x if is_dense else x.contiguous()


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
