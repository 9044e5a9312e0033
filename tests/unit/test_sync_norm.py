"""SyncBatchNorm without waits: two processes have the numbers of one with both batches.

Its kernels are a GPU's; here plain operations stand in for them, with the same arguments.
"""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from host_waits import HostWaits
from torch import nn

from models.sync_norm import GatheredSyncBatchNorm, synchronise_norms

EPS = 1e-5
SIGNATURES = {
    "batch_norm_stats": "input eps",
    "batch_norm_gather_stats_with_counts":
        "input mean invstd running_mean running_var momentum eps counts",
    "batch_norm_elemt": "input weight bias mean invstd eps",
    "batch_norm_backward_reduce": "grad_out input mean invstd weight input_g weight_g bias_g",
    "batch_norm_backward_elemt": "grad_out input mean invstd weight sum_dy sum_dy_xmu count",
}


def wide(values):
    return values[:, None, None]


def batch_norm_stats(input, eps):
    assert input.numel()
    var, mean = torch.var_mean(input, (0, 2, 3), correction=0)
    return mean, torch.rsqrt(var + eps)


def batch_norm_gather_stats_with_counts(
    input, mean, invstd, running_mean, running_var, momentum, eps, counts
):
    assert mean.shape == invstd.shape == (len(counts), input.shape[1])
    # one process after the other, as the kernel does: a first one without values divides by 0
    whole = summed = torch.zeros_like(mean[0])
    before = torch.zeros_like(counts[0])
    for own, inverse, count in zip(mean, invstd, counts, strict=True):
        total = before + count
        summed = summed + (inverse**-2 - eps) * count + (
            (own - whole) ** 2 * before * count * (1 / total))
        whole = before * (1 / total) * whole + count * (1 / total) * own
        before = total
    var = summed / before
    running_mean.lerp_(whole, momentum)
    running_var.lerp_(summed / (before - 1), momentum)
    return whole, torch.rsqrt(var + eps)


def batch_norm_elemt(input, weight, bias, mean, invstd, eps):
    return (input - wide(mean)) * wide(invstd * weight) + wide(bias)


def batch_norm_backward_reduce(
    grad_out, input, mean, invstd, weight, input_g, weight_g, bias_g
):
    total = grad_out.sum((0, 2, 3))
    product = (grad_out * (input - wide(mean))).sum((0, 2, 3))
    return total, product, product * invstd, total.clone()


def batch_norm_backward_elemt(grad_out, input, mean, invstd, weight, sum_dy, sum_dy_xmu, count):
    assert count.dtype == torch.int32
    n = count.sum()
    slope = wide(sum_dy_xmu / n * invstd**2) * (input - wide(mean))
    return (grad_out - wide(sum_dy / n) - slope) * wide(invstd * weight)


def case(counts):
    torch.manual_seed(3)
    norm = nn.BatchNorm2d(4, momentum=0.1, eps=EPS).double()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    # the processes have images of other sizes, and other numbers of them; a single value, or none
    sizes = {0: (0, 4, 6, 7), 1: (1, 4, 1, 1), 2: (2, 4, 6, 7)}
    parts = [torch.randn(sizes[count]).double() for count in counts]
    return norm, parts, [torch.randn_like(part) for part in parts]


def work(rank, store, folder, counts):
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    torch.set_num_threads(1)
    for name in SIGNATURES:
        setattr(torch, name, globals()[name])
    norm, parts, targets = case(counts)
    synced = synchronise_norms(nn.Sequential(norm), torch.device("cuda"))
    assert isinstance(synced[0], GatheredSyncBatchNorm)
    x, target = parts[rank].requires_grad_(), targets[rank]
    with HostWaits() as seen:
        out = synced(x)
        (out * target).sum().backward()
    torch.save({"out": out.detach(), "x": x.grad, "weight": synced[0].weight.grad,
                "bias": synced[0].bias.grad, "state": synced.state_dict(), "waits": seen.found},
               f"{folder}/{rank}.pth")
    dist.destroy_process_group()


def as_rows(maps):
    return maps.flatten(2).transpose(1, 2).reshape(-1, maps.shape[1])


@pytest.mark.parametrize("counts", [(2, 1), (0, 2), (2, 0)])
def test_two_processes_have_the_numbers_of_one(tmp_path, counts):
    mp.start_processes(work, (str(tmp_path / "store"), str(tmp_path), counts), 2,
                       start_method="fork")
    found = [torch.load(tmp_path / f"{rank}.pth", weights_only=True) for rank in range(2)]
    norm, parts, targets = case(counts)
    one = nn.BatchNorm1d(4, momentum=0.1, eps=EPS).double()
    one.load_state_dict(norm.state_dict())
    rows = torch.cat([as_rows(part) for part in parts]).requires_grad_()
    out = one(rows)
    (out * torch.cat([as_rows(target) for target in targets])).sum().backward()
    close = torch.testing.assert_close
    close(torch.cat([as_rows(each["out"]) for each in found]), out.detach())
    close(torch.cat([as_rows(each["x"]) for each in found]), rows.grad)
    close(sum(each["weight"] for each in found), one.weight.grad)
    close(sum(each["bias"] for each in found), one.bias.grad)
    for each in found:
        assert each["waits"] == []
        for name, value in one.state_dict().items():
            close(each["state"][f"0.{name}"], value)


@pytest.mark.parametrize("name", SIGNATURES)
def test_the_kernels_take_what_they_are_given(name):
    schema = getattr(torch.ops.aten, name).default._schema
    assert " ".join(argument.name for argument in schema.arguments) == SIGNATURES[name]


def test_in_eval_mode_it_is_a_plain_norm():
    norm, parts, _ = case((2, 1))
    wanted = norm.eval()(parts[0])
    synced = synchronise_norms(nn.Sequential(norm), torch.device("cuda")).eval()
    assert torch.equal(synced(parts[0]), wanted)
