"""SyncBatchNorm's kernels on an accelerator: a plain norm's numbers, and no wait for the device."""

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from device_waits import device_waits

from models.sync_norm import _synced_norm

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.fixture
def group(tmp_path):
    """A group of this process alone."""
    dist.init_process_group("nccl", init_method=f"file://{tmp_path / 'store'}", rank=0,
                            world_size=1)
    yield
    dist.destroy_process_group()


def inputs(dtype, layout):
    torch.manual_seed(0)
    x = torch.randn(3, 8, 9, 7, device="cuda").to(dtype).to(memory_format=layout)
    affine = [torch.randn(8, device="cuda").requires_grad_() for _ in range(2)]
    return x.requires_grad_(), *affine, torch.zeros(8, device="cuda"), torch.ones(8, device="cuda")


@pytest.mark.parametrize("dtype, layout", [
    (torch.float32, torch.contiguous_format), (torch.float32, torch.channels_last),
    (torch.bfloat16, torch.channels_last)])
def test_one_process_has_a_plain_norms_numbers(group, dtype, layout):
    own, plain = inputs(dtype, layout), inputs(dtype, layout)
    found = _synced_norm(*own, 0.1, 1e-5)
    wanted = F.batch_norm(plain[0], plain[3], plain[4], plain[1], plain[2], True, 0.1, 1e-5)
    for out in (found, wanted):
        (out.float() * torch.arange(7, device="cuda")).sum().backward()
    exact = dtype == torch.float32
    tolerance = {"rtol": 1e-4, "atol": 1e-4} if exact else {"rtol": 2e-2, "atol": 2e-2}
    torch.testing.assert_close(found, wanted, **tolerance)
    torch.testing.assert_close(own[3:], plain[3:], **tolerance)
    for a, b in zip(own[:3], plain[:3], strict=True):
        torch.testing.assert_close(a.grad / b.grad.abs().max(), b.grad / b.grad.abs().max(),
                                   **tolerance)


def test_it_never_waits(group):
    given = inputs(torch.float32, torch.channels_last)
    _synced_norm(*given, 0.1, 1e-5).sum().backward()  # makes the communicator

    def step():
        _synced_norm(*given, 0.1, 1e-5).sum().backward()

    assert device_waits(step) == []
