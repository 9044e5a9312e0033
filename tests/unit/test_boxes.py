import math

import pytest
import torch

from common.losses.boxes import (
    center_to_corner,
    crop_masks,
    crop_window,
    decode,
    encode,
    pairwise_iou,
)


def test_center_to_corner():
    corners = center_to_corner(torch.tensor([[0.5, 0.4, 0.2, 0.6]]))
    torch.testing.assert_close(corners, torch.tensor([[0.4, 0.1, 0.6, 0.7]]))


def test_encode_by_hand():
    prior = torch.tensor([[0.5, 0.5, 0.2, 0.4]])
    box = torch.tensor([[0.5, 0.4, 0.7, 0.8]])  # centre (0.6, 0.6), size (0.2, 0.4)
    expected = torch.tensor([[0.1 / (0.1 * 0.2), 0.1 / (0.1 * 0.4), 0.0, 0.0]])
    torch.testing.assert_close(encode(box, prior), expected, atol=1e-5, rtol=0)  # float32 of 5.0
    wide = torch.tensor([[0.3, 0.3, 0.7, 0.7]])
    torch.testing.assert_close(encode(wide, prior)[0, 2].item(), math.log(2) / 0.2)


def test_decode_inverts_encode():
    generator = torch.Generator().manual_seed(0)
    priors = torch.rand(50, 4, generator=generator, dtype=torch.float64) + 0.1
    boxes = center_to_corner(torch.rand(50, 4, generator=generator, dtype=torch.float64) + 0.1)
    torch.testing.assert_close(decode(encode(boxes, priors), priors), boxes)


def test_decode_takes_a_batch():
    loc = torch.randn(3, 7, 4, generator=torch.Generator().manual_seed(1))
    priors = torch.rand(7, 4, generator=torch.Generator().manual_seed(2))
    assert torch.equal(decode(loc, priors)[1], decode(loc[1], priors))


def test_encode_of_a_box_without_area_is_finite():
    target = encode(torch.tensor([[0.3, 0.3, 0.3, 0.5]]), torch.tensor([[0.3, 0.4, 0.1, 0.1]]))
    assert target.isfinite().all()


def test_pairwise_iou():
    a = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 1.0, 1.0]])
    b = torch.tensor([[1.0, 1.0, 3.0, 3.0], [0.0, 0.0, 2.0, 2.0], [5.0, 5.0, 6.0, 6.0]])
    expected = torch.tensor([[1 / 7, 1.0, 0.0], [0.0, 0.25, 0.0]])
    torch.testing.assert_close(pairwise_iou(a, b), expected)
    batched = pairwise_iou(torch.stack((a, a.flip(0))), torch.stack((b, b)))
    torch.testing.assert_close(batched, torch.stack((expected, expected.flip(0))))


def test_pairwise_iou_edges():
    point = torch.tensor([[0.5, 0.5, 0.5, 0.5]])
    assert pairwise_iou(point, point).item() == 0
    assert pairwise_iou(torch.zeros(0, 4), point).shape == (0, 1)


def test_crop_window_is_padded_clipped_and_not_rounded():
    boxes = torch.tensor([[0.25, 0.1, 0.5, 0.9], [-0.2, 0.0, 1.4, 1.0]], dtype=torch.float64)
    left, right, top, bottom = crop_window(boxes, h=10, w=30)
    torch.testing.assert_close(left, torch.tensor([6.5, 0.0], dtype=torch.float64))
    torch.testing.assert_close(right, torch.tensor([16.0, 30.0], dtype=torch.float64))
    torch.testing.assert_close(top, torch.tensor([0.0, 0.0], dtype=torch.float64))
    torch.testing.assert_close(bottom, torch.tensor([10.0, 10.0], dtype=torch.float64))


def test_crop_masks_keeps_columns_from_left_up_to_right():
    masks = torch.ones(1, 10, 30)
    cropped = crop_masks(masks, torch.tensor([[0.25, 0.31, 0.5, 0.5]]))
    # columns 6.5 <= c < 16, rows 2.1 <= r < 6
    expected = torch.zeros(1, 10, 30)
    expected[0, 3:6, 7:16] = 1
    assert torch.equal(cropped, expected)
    assert masks.min() == 1  # the input is left alone


def test_crop_masks_takes_corners_in_either_order():
    masks = torch.ones(1, 10, 30, dtype=torch.bool)
    swapped = crop_masks(masks, torch.tensor([[0.5, 0.5, 0.25, 0.31]]))
    assert swapped.dtype == torch.bool
    assert torch.equal(swapped, crop_masks(masks, torch.tensor([[0.25, 0.31, 0.5, 0.5]])))


def test_crop_masks_edges():
    assert crop_masks(torch.zeros(0, 5, 6), torch.zeros(0, 4)).shape == (0, 5, 6)
    with pytest.raises(ValueError, match="2 masks but 1 boxes"):
        crop_masks(torch.zeros(2, 5, 6), torch.zeros(1, 4))
