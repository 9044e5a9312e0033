"""What every family's batches go through: decoding, the sample order, worker processes."""

from data.loading.decode import read_bgr, read_rgb
from data.loading.loader import (
    ResumableLoader,
    SampleKey,
    ordered_batches,
    sample_rng,
    whole_batches,
)

__all__ = [
    "ResumableLoader",
    "SampleKey",
    "ordered_batches",
    "read_bgr",
    "read_rgb",
    "sample_rng",
    "whole_batches",
]
