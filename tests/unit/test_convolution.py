"""models.cpu_convolution: torch's gradients, whichever way they are computed."""

import pytest
import torch
from torch import nn

from models import cpu_convolution as convolution
from models.cpu_convolution import Conv2d


@pytest.fixture(params=[True, False], ids=["avx2", "avx512"])
def lacks_avx512(request, monkeypatch):
    monkeypatch.setattr(convolution, "_lacks_avx512", lambda: request.param)
    return request.param


@pytest.fixture
def any_size(monkeypatch):
    monkeypatch.setattr(convolution, "MIN_MACS", 0)
    monkeypatch.setattr(convolution, "MIN_WIDTH", 0)


def channels_last(*shape):
    return torch.randn(shape).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("height, width", [(14, 9), (30, 41)])
@pytest.mark.parametrize("kernel, stride, groups", [
    (1, 1, 1), (1, 2, 1), (1, 1, 2), (3, 1, 1), (3, 2, 1), (3, 1, 2), (5, 1, 4)])
def test_gradients_are_torchs(any_size, lacks_avx512, kernel, stride, groups, height, width):
    torch.manual_seed(0)
    conv = Conv2d(32, 48, kernel, stride, kernel // 2, groups=groups, bias=False)
    torchs = nn.Conv2d(32, 48, kernel, stride, kernel // 2, groups=groups, bias=False)
    torchs.load_state_dict(conv.state_dict())
    x = channels_last(3, 32, height, width)
    results = []
    for net in (conv, torchs):
        net.to(memory_format=torch.channels_last)
        own = x.clone().requires_grad_()
        out = net(own)
        results.append((out, *torch.autograd.grad(out.square().sum(), (own, net.weight))))
    for found, wanted in zip(*results, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4 * wanted.abs().max().item())


@pytest.mark.parametrize("own_product_pixels", [0, 10**6], ids=["an image each", "all images"])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("kernel, padding, dilation, side", [
    (1, 0, 1, 5), (1, 1, 1, 5), (3, 0, 1, 5), (3, 1, 1, 5), (3, 2, 1, 5), (3, 2, 2, 5),
    (3, 4, 4, 3), (2, 0, 3, 5), ((3, 1), (0, 2), 1, 5), ((1, 3), (1, 0), (1, 2), 5)])
def test_products_are_torchs_gradient(
    monkeypatch, own_product_pixels, groups, kernel, padding, dilation, side
):
    monkeypatch.setattr(convolution, "OWN_PRODUCT_PIXELS", own_product_pixels)
    torch.manual_seed(0)
    conv = Conv2d(
        4, 6, kernel, padding=padding, dilation=dilation, groups=groups, bias=False).double()
    x = torch.randn(3, 4, side, side + 2, dtype=torch.float64)
    out = conv(x)
    grad = torch.randn_like(out)
    (wanted,) = torch.autograd.grad(out, conv.weight, grad)
    for layout in (torch.channels_last, torch.contiguous_format):
        found = convolution.weight_gradient(
            conv, x.contiguous(memory_format=layout), grad.contiguous(memory_format=layout))
        torch.testing.assert_close(found, wanted)


def test_more_threads_than_images(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    monkeypatch.setattr(torch, "bmm", None)  # would leave threads without a product
    conv = Conv2d(2, 2, 3, padding=1, bias=False)
    x = channels_last(2, 2, 28, 28)
    out = conv(x)
    (wanted,) = torch.autograd.grad(out.sum(), conv.weight)
    found = convolution.weight_gradient(conv, x, torch.ones_like(out))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("kernel, groups, side, with_avx512", [
    (1, 1, 28, True), (1, 1, 29, False), (3, 1, 28, False), (3, 2, 56, False)])
def test_what_takes_products(lacks_avx512, kernel, groups, side, with_avx512):
    conv = Conv2d(128, 256, kernel, padding=kernel // 2, groups=groups, bias=False)
    assert conv.takes_products(channels_last(1, 128, side, side)) == (lacks_avx512 or with_avx512)


def test_everything_else_is_torchs_own(any_size, monkeypatch):
    monkeypatch.setattr(convolution, "_lacks_avx512", lambda: True)
    x = channels_last(2, 16, 8, 8)
    conv = Conv2d(16, 8, 3, bias=False)
    assert conv.takes_products(x)
    assert not conv.takes_products(x.contiguous())
    assert not conv.takes_products(x.double())
    assert not conv.takes_products(x.to("meta"))
    assert not Conv2d(16, 8, 3).takes_products(x)
    assert not Conv2d(16, 8, 3, stride=2, bias=False).takes_products(x)
    with torch.no_grad():
        assert not conv.takes_products(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert not conv.takes_products(x)
    assert not conv.requires_grad_(False).takes_products(x)


def test_an_expanded_gradient(any_size):
    conv = Conv2d(16, 8, 1, bias=False)
    conv(channels_last(2, 16, 4, 4)).sum().backward()  # its gradient has no strides
    assert conv.weight.grad.shape == conv.weight.shape
    assert torch.allclose(conv.weight.grad, conv.weight.grad[:1].expand_as(conv.weight))


def test_small_ones_are_torchs_own(monkeypatch):
    monkeypatch.setattr(convolution, "_lacks_avx512", lambda: True)
    for sizes, kernel, side, gains in (
        ((64, 64), 1, 56, False), ((64, 256), 1, 56, True), ((64, 64), 3, 7, False),
        ((64, 64), 3, 56, True), ((64, 31), 3, 56, False), ((64, 64), 5, 56, False),
    ):
        conv = Conv2d(*sizes, kernel, padding=kernel // 2, bias=False)
        assert conv.takes_products(channels_last(1, sizes[0], side, side)) == gains
