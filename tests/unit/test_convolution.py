"""models.convolution: torch's gradients, whichever way they are computed."""

import pytest
import torch
from torch import nn

from models import convolution
from models.convolution import Conv2d


@pytest.fixture(params=[True, False], ids=["avx2", "avx512"])
def lacks_avx512(request, monkeypatch):
    monkeypatch.setattr(convolution, "_lacks_avx512", lambda: request.param)
    return request.param


@pytest.fixture
def any_size(monkeypatch):
    monkeypatch.setattr(convolution, "MIN_PRODUCT_MACS", 0)
    monkeypatch.setattr(convolution, "MIN_PLANES_MACS", 0)


def channels_last(*shape):
    return torch.randn(shape).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("side", [14, 40])
@pytest.mark.parametrize("kernel, stride, groups", [
    (1, 1, 1), (1, 2, 1), (1, 1, 2), (3, 1, 1), (3, 2, 1), (3, 1, 2), (5, 1, 4)])
def test_gradients_are_torchs(any_size, lacks_avx512, kernel, stride, groups, side):
    torch.manual_seed(0)
    conv = Conv2d(32, 48, kernel, stride, kernel // 2, groups=groups, bias=False)
    torchs = nn.Conv2d(32, 48, kernel, stride, kernel // 2, groups=groups, bias=False)
    torchs.load_state_dict(conv.state_dict())
    x = channels_last(3, 32, side, side)
    results = []
    for net in (conv, torchs):
        net.to(memory_format=torch.channels_last)
        own = x.clone().requires_grad_()
        out = net(own)
        results.append((out, *torch.autograd.grad(out.square().sum(), (own, net.weight))))
    for found, wanted in zip(*results, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4 * wanted.abs().max().item())


@pytest.mark.parametrize("kernel, side, ways", [
    (1, 28, ("_by_product", "_by_product")), (1, 29, (None, None)),
    (3, 28, ("_from_planes", None)), (3, 56, ("_from_planes", None))])
def test_each_case_goes_its_way(any_size, lacks_avx512, kernel, side, ways):
    wanted = ways[0] if lacks_avx512 else ways[1]
    conv = Conv2d(16, 8, kernel, padding=kernel // 2, bias=False)
    way = conv._gradient_way(channels_last(2, 16, side, side))
    assert (way.__name__ if way else None) == wanted


def test_everything_else_is_torchs_own(any_size, monkeypatch):
    monkeypatch.setattr(convolution, "_lacks_avx512", lambda: True)
    x = channels_last(2, 16, 8, 8)
    conv = Conv2d(16, 8, 3, bias=False)
    assert conv._gradient_way(x)
    assert not conv._gradient_way(x.contiguous())
    assert not conv._gradient_way(x.double())
    assert not conv._gradient_way(x.to("meta"))
    assert not Conv2d(16, 8, 3)._gradient_way(x)
    assert not Conv2d(16, 8, 3, stride=2, bias=False)._gradient_way(x)
    with torch.no_grad():
        assert not conv._gradient_way(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert not conv._gradient_way(x)
    assert not conv.requires_grad_(False)._gradient_way(x)


def test_an_expanded_gradient(any_size):
    conv = Conv2d(16, 8, 1, bias=False)
    conv(channels_last(2, 16, 4, 4)).sum().backward()  # its gradient has no strides
    assert conv.weight.grad.shape == conv.weight.shape
    assert torch.allclose(conv.weight.grad, conv.weight.grad[:1].expand_as(conv.weight))


def test_small_ones_are_torchs_own(monkeypatch):
    monkeypatch.setattr(convolution, "_lacks_avx512", lambda: True)
    for kernel, sizes in ((1, (64, 256)), (3, (64, 512))):
        small, large = (Conv2d(size, size, kernel, padding=kernel // 2, bias=False)
                        ._gradient_way(channels_last(1, size, 28, 28)) for size in sizes)
        assert small is None
        assert large is not None
