"""Deformable conv in plain torch: against slow loops, a plain conv, and torchvision's operator."""

import math

import pytest
import torch
import torch.nn.functional as F

from models.yolact.deform_conv import DeformConv, deform_conv2d

# height, width, stride, padding, dilation, scale of the offsets in pixels
CASES = [(7, 9, 1, 1, 1, 3.0), (8, 5, 2, 1, 1, 1.0), (6, 6, 1, 2, 2, 2.0), (7, 9, 1, 1, 1, 0.0),
         (1, 1, 1, 1, 1, 1.0)]


def make_inputs(height, width, stride, padding, dilation, scale):
    """x, offset, weight, bias, mask in float64, with 4 channels in and 6 out."""
    generator = torch.Generator().manual_seed(height)
    out_h = (height + 2 * padding - 2 * dilation - 1) // stride + 1
    out_w = (width + 2 * padding - 2 * dilation - 1) // stride + 1

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return [draw(2, 4, height, width), draw(2, 18, out_h, out_w) * scale, draw(6, 4, 3, 3),
            draw(6), draw(2, 9, out_h, out_w).sigmoid()]


def slow(x, offset, weight, bias, stride, padding, dilation, mask):
    """The definition, pixel by pixel."""
    batch, channels, height, width = x.shape
    out_h, out_w = offset.shape[2:]
    out = torch.zeros(batch, len(weight), out_h, out_w, dtype=x.dtype)

    def pixel(b, row, column):
        inside = 0 <= row < height and 0 <= column < width
        return x[b, :, row, column] if inside else torch.zeros(channels, dtype=x.dtype)

    for b in range(batch):
        for i in range(out_h):
            for j in range(out_w):
                total = bias.clone()
                for tap in range(9):
                    y = i * stride - padding + tap // 3 * dilation + float(offset[b, 2 * tap, i, j])
                    z = j * stride - padding + tap % 3 * dilation
                    z += float(offset[b, 2 * tap + 1, i, j])
                    row, column = math.floor(y), math.floor(z)
                    value = 0
                    for dy in (0, 1):
                        for dx in (0, 1):
                            share = (1 - abs(y - row - dy)) * (1 - abs(z - column - dx))
                            value = value + share * pixel(b, row + dy, column + dx)
                    total += weight[:, :, tap // 3, tap % 3] @ (value * mask[b, tap, i, j])
                out[b, :, i, j] = total
    return out


@pytest.mark.parametrize("case", CASES)
def test_equals_the_slow_loop(case):
    x, offset, weight, bias, mask = make_inputs(*case)
    out = deform_conv2d(x, offset, weight, bias, *case[2:5], mask=mask)
    # float64 sums of 36 products in another order
    torch.testing.assert_close(out, slow(x, offset, weight, bias, *case[2:5], mask), atol=1e-12,
                               rtol=0)


def test_gradients_equal_finite_differences():
    inputs = [t.requires_grad_() for t in make_inputs(4, 3, 1, 1, 1, 0.3)]

    def call(x, offset, weight, bias, mask):
        return deform_conv2d(x, offset, weight, bias, 1, 1, 1, mask=mask)

    assert torch.autograd.gradcheck(call, inputs)


def test_unmoved_taps_feel_the_pixel_after_theirs():
    # Bilinear weights have a kink at whole pixels; the compiled operator takes the side of floor.
    # Float32 and sizes like 35 are where rounding could take the other side.
    x = torch.randn(1, 1, 35, 37, generator=torch.Generator().manual_seed(0))
    offset = torch.zeros(1, 2, 35, 37, requires_grad=True)
    deform_conv2d(x, offset, torch.ones(1, 1, 1, 1), None).sum().backward()
    after = F.pad(x, (0, 1, 0, 1))[0, 0]
    wanted = torch.stack((after[1:, :-1], after[:-1, 1:])) - x[0]
    # one float32 difference, scaled by a power of two and back
    torch.testing.assert_close(offset.grad[0], wanted, atol=1e-5, rtol=0)


@pytest.mark.operators
@pytest.mark.usefixtures("torchvision_here")
@pytest.mark.parametrize("case", CASES)
def test_equals_torchvisions_operator(case):
    from torchvision.ops import deform_conv2d as compiled

    results = []
    for function in (compiled, deform_conv2d):
        x, offset, weight, bias, mask = (t.requires_grad_() for t in make_inputs(*case))
        out = function(x, offset, weight, bias, *case[2:5], mask=mask)
        ramp = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
        grads = torch.autograd.grad((out * ramp).sum(), (x, offset, weight, bias, mask))
        results.append((out, *grads))
    for theirs, ours in zip(*results, strict=True):
        # float64 sums of up to a few hundred products in another order
        torch.testing.assert_close(ours, theirs, atol=1e-11, rtol=0)


def test_unmoved_taps_are_a_conv_at_half_strength():
    layer = DeformConv(8, 8, stride=2)
    x = torch.randn(2, 8, 23, 17, generator=torch.Generator().manual_seed(0))
    plain = F.conv2d(x, layer.weight, stride=2, padding=1)
    # float32 sums of 72 products in another order
    torch.testing.assert_close(layer(x), 0.5 * plain + layer.bias[:, None, None], atol=1e-5, rtol=0)
    assert [*layer.state_dict()] == [
        "weight", "bias", "conv_offset_mask.weight", "conv_offset_mask.bias"]


def test_autocast_changes_no_number():
    layer = DeformConv(8, 8)
    torch.nn.init.normal_(layer.conv_offset_mask.weight)
    x = torch.randn(1, 8, 9, 9, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(layer(x), layer(x.float()))
        assert layer(x.bfloat16()).dtype == torch.bfloat16
