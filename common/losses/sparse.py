"""Pieces of losses that look at few rows of a large tensor, so that the rest costs nothing."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

Context = Any  # of a Function; torch declares neither what is kept in it nor `saved_tensors`


def at_least_float32(x: Tensor) -> Tensor:
    """Half precisions as float32; soft-max and box decoding lose too much below it."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


class TakeRows(torch.autograd.Function):
    """rows.index_select(0, index), whose gradient is zero elsewhere."""

    @staticmethod
    def forward(ctx: Context, rows: Tensor, index: Tensor) -> Tensor:
        ctx.shape = rows.shape
        ctx.save_for_backward(index)
        return rows.index_select(0, index)

    @staticmethod
    @once_differentiable
    def backward(ctx: Context, grad: Tensor) -> tuple[Tensor, None]:
        (index,) = ctx.saved_tensors
        return grad.new_zeros(ctx.shape).index_add_(0, index, grad), None


class SparseTargetBCE(torch.autograd.Function):
    """Sum of binary cross-entropy with logits where few rows of the targets are not zero.

    logits [N, pixels]; row i of `target` is added to row `index[i]` of N rows of zeros. Equals
    F.binary_cross_entropy_with_logits(..., reduction="sum") without writing those zeros out.
    """

    @staticmethod
    def forward(ctx: Context, logits: Tensor, index: Tensor, target: Tensor) -> Tensor:
        ctx.save_for_backward(logits, index, target)
        costs = [F.softplus(part).sum() for part in logits.chunk(8)]  # parts that fit into caches
        return torch.stack(costs).sum() - (logits.index_select(0, index) * target).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Context, grad: Tensor) -> tuple[Tensor, None, None]:
        logits, index, target = ctx.saved_tensors
        return logits.sigmoid().index_add_(0, index, target, alpha=-1).mul_(grad), None, None
