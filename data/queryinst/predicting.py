"""Images as QueryInst takes them when there are no annotations."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from data.queryinst.instances import METAS, padded_images, transformed_image


def query_photo(image: np.ndarray, dataset_cfg: Any, divisor: int) -> dict[str, Any]:
    """An image, uint8 [h, w, 3] BGR, as the `transforms` of a dataset section make it.

    divisor: what batches are padded to multiples of, px
    Returns `image` uint8 [3, h, w] RGB, `img_shape`, `ori_shape` (h, w), `scale_factor` (w, h);
    `kind`, the padded size: images of one `kind` make a batch that pads none more than it would be
    alone.
    """
    sample = transformed_image(image, dataset_cfg.transforms, None)[0]
    kind = tuple(-(-side // divisor) for side in sample["img_shape"])
    return sample | {"kind": kind}


def photo_batch(samples: Sequence[dict[str, Any]], divisor: int) -> dict[str, Any]:
    """`images` uint8 [B, 3, H, W] and `metas`, as `QueryInstDataset.collate` gives them."""
    return {"images": padded_images(samples, divisor),
            "metas": [{key: sample[key] for key in METAS} for sample in samples]}
