"""host_waits finds what would make a GPU's host wait, and passes what would not."""

import numpy as np
import pytest
import torch
from host_waits import HostWaits, on_host

CPU = torch.device("cpu")


def waits(work, *inputs):
    with HostWaits() as seen:
        work(*inputs)
    return [wait.rpartition(": ")[2] for wait in seen.found]


def backward_that_reads(x):
    class Reading(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient * gradient.sum().item()

    Reading.apply(x.requires_grad_()).sum().backward()


@pytest.mark.parametrize("work, found", [
    (lambda x: x.sum().item(), "_local_scalar_dense"),
    (lambda x: bool(x.any()), "_local_scalar_dense"),
    (lambda x: int(x[0]), "_local_scalar_dense"),
    (lambda x: x.tolist(), "tolist"),
    (lambda x: x.numpy(), "numpy"),
    (lambda x: np.asarray(x), "__array__"),
    (lambda x: x.cpu(), "cpu"),
    (lambda x: x.nonzero(), "nonzero"),
    (lambda x: x[x > 0], "index with a mask"),
    (lambda x: x.index_put_((x > 0,), x.clone()), "index_put_ with a mask"),
    (lambda x: x.masked_select(x > 0), "masked_select"),
    (lambda x: x.unique(), "_unique2"),
    (lambda x: x.repeat_interleave(x.long()), "repeat_interleave"),
    (lambda x: torch.tensor([1.0], device=CPU), "tensor"),
    (lambda x: torch.as_tensor(torch.from_numpy(np.ones(2)), device=CPU), "as_tensor"),
    (lambda x: torch.ones(2).to(CPU), "to"),
    (lambda x: torch.ones(2).to(x), "to"),
    (lambda x: torch.ones(2)[:1].mul(3).to(x), "to"),
    (lambda x: x.new_tensor([1.0]), "new_tensor"),
    (backward_that_reads, "_local_scalar_dense"),
])
def test_what_waits_is_found(work, found):
    assert waits(work, torch.ones(3)) == [found]


@pytest.mark.parametrize("work", [
    lambda x: x.sum() + 1,
    lambda x: torch.tensor([1.0]).to(CPU, non_blocking=True),
    lambda x: torch.ones(2).numpy(),
    lambda x: torch.ones(2, device=CPU).to(torch.float64),
    lambda x: x.masked_fill_(x > 0, 0.0),
    lambda x: x.index_put_((x > 0,), torch.tensor(1.0)),
    lambda x: torch.nonzero_static(x, size=3),
    lambda x: x[torch.arange(2, device=CPU)],
    lambda x: (x * x.requires_grad_()).sum().backward(),
])
def test_what_does_not_wait_passes(work):
    assert waits(work, torch.ones(3)) == []


def test_what_a_loader_gives_lies_on_the_host():
    batch = on_host({"images": torch.ones(1, 3, 4, 4)})
    assert waits(lambda: batch["images"].to(CPU)) == ["to"]
    assert waits(lambda: batch["images"].to(CPU, non_blocking=True)) == []
    assert waits(lambda: batch["images"].to(memory_format=torch.channels_last)) == [
        "to with a layout, on the host"]
    assert waits(lambda: batch["images"].to(CPU, non_blocking=True).tolist()) == ["tolist"]


def test_the_line_of_the_project_is_named(make_run):
    run = make_run()
    loss = torch.ones(())
    with HostWaits() as seen:
        run.read_means({"B": loss}, loss)
    (wait,) = seen.found
    assert wait.startswith("runtime/launch/group.py:")
    assert wait.endswith(" read_means: tolist")
