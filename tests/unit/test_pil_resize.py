"""resize_planes equals PIL's bilinear resize in every value, on the fast way and beside it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data.segmentation.pil_resize import _blends, resize_planes


def check(pixels, width, height):
    image = Image.fromarray(pixels)
    wanted = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
    found = np.stack(resize_planes(image, width, height), axis=-1)
    assert np.array_equal(found, wanted)


@pytest.mark.parametrize(
    "sizes",
    [
        ((480, 360), (500, 375)),
        ((480, 360), (600, 450)),
        ((480, 360), (700, 525)),
        ((480, 360), (800, 600)),
        ((500, 375), (800, 600)),
        ((256, 256), (300, 300)),
        ((64, 64), (128, 128)),  # doubling: weights of a quarter, ties always upwards
        ((50, 40), (50, 120)),  # one side stays
    ],
)
def test_fast_way(sizes):
    (width, height), (new_width, new_height) = sizes
    assert _blends(width, new_width) is not None
    assert _blends(height, new_height) is not None
    rng = np.random.RandomState(0)
    check(rng.randint(0, 256, (height, width, 3)).astype(np.uint8), new_width, new_height)
    # only black and white: the largest differences, so the most exact ties
    check(rng.choice([0, 255], (height, width, 3)).astype(np.uint8), new_width, new_height)


def test_shrinking_and_odd_ratios_are_left_to_pil():
    assert _blends(480, 400) is None
    assert _blends(683, 800) is None
    rng = np.random.RandomState(1)
    check(rng.randint(0, 256, (37, 53, 3)).astype(np.uint8), 41, 61)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 40), st.integers(1, 40), st.integers(1, 9), st.integers(1, 9),
    st.integers(1, 9), st.integers(0, 1000),
)
def test_any_ratio(width, height, up, down, extra, seed):
    pixels = np.random.RandomState(seed).randint(0, 256, (height, width, 3)).astype(np.uint8)
    check(pixels, max(1, width * up // down), max(1, height * extra // down))
