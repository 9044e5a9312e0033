"""The pyramid head's convolution against the plain form, which enlarges first."""

import pytest
import torch
from torch.nn import functional as F

from models.segmentation import build_decoder
from models.segmentation.pyramid import pyramid_conv


def plain(x, pooled, weight):
    size = x.shape[-2:]
    enlarged = [F.interpolate(p, size=size, mode="bilinear", align_corners=False) for p in pooled]
    return F.conv2d(torch.cat([x, *enlarged], 1), weight, padding=1)


def inputs(height, width, dtype, channels=5, pool_channels=4, out_channels=7):
    generator = torch.Generator().manual_seed(height * 100 + width)

    def normal(*shape):
        return torch.randn(*shape, generator=generator).to(dtype).requires_grad_()

    x = normal(2, channels, height, width)
    pooled = [normal(2, pool_channels, s, s) for s in (1, 2, 3, 6)]
    weight = normal(out_channels, channels + 4 * pool_channels, 3, 3)
    return x, pooled, weight


def outputs_and_gradients(function, x, pooled, weight):
    leaves = [x, *pooled, weight]
    out = function(x, pooled, weight)
    direction = torch.cos(torch.arange(out.numel(), dtype=out.dtype)).view_as(out)
    return out, *torch.autograd.grad((out * direction).sum(), leaves)


# sizes below the pools', at their size, long, and single rows: each sees borders differently
@pytest.mark.parametrize("size", [(50, 63), (6, 6), (1, 1), (2, 5), (1, 9), (7, 1)])
def test_equals_plain_form(size):
    arguments = inputs(*size, torch.float64)
    ours = outputs_and_gradients(pyramid_conv, *arguments)
    wanted = outputs_and_gradients(plain, *arguments)
    for a, b in zip(ours, wanted, strict=True):
        assert a.shape == b.shape
        # the same sums in another order: 1e-12 of the largest value is float64's rounding
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12 * (b.abs().max().item() + 1))


def test_float32_is_within_rounding():
    arguments = inputs(20, 24, torch.float32, channels=64, pool_channels=64)
    in_double = [
        [p.detach().double().requires_grad_() for p in a] if isinstance(a, list)
        else a.detach().double().requires_grad_()
        for a in arguments
    ]
    exact = outputs_and_gradients(plain, *in_double)
    ours = outputs_and_gradients(pyramid_conv, *arguments)
    reference = outputs_and_gradients(plain, *arguments)
    for a, b, c in zip(ours, reference, exact, strict=True):
        error, plain_error = ((t.double() - c).abs().max() for t in (a, b))
        # both are float32 sums of some thousand terms, in different orders
        assert error <= 4 * plain_error + 1e-6 * c.abs().max()


def test_bfloat16_stays_near():
    arguments = inputs(12, 10, torch.bfloat16)
    out = pyramid_conv(*arguments)
    assert out.dtype == torch.bfloat16
    # 8 bits of mantissa over sums of about 200 terms
    wanted = plain(*arguments).detach().float()
    torch.testing.assert_close(out.float(), wanted, rtol=0, atol=0.03 * wanted.abs().max().item())


def test_the_decoder_uses_it():
    torch.manual_seed(0)
    decoder = build_decoder("ppm", 8, 3).double().eval()
    last = torch.randn(2, 8, 9, 7, dtype=torch.float64)
    with torch.no_grad():
        first, *others = decoder.conv_last
        scores = plain(last, [branch(last) for branch in decoder.ppm], first.weight)
        for layer in others:
            scores = layer(scores)
        torch.testing.assert_close(
            decoder([last]), scores.log_softmax(1), rtol=1e-11, atol=1e-11
        )
