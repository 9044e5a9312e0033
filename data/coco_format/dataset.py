"""What the data sets over COCO files do alike, whatever their family makes of a sample."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from data.coco_format.index import CocoIndex
from data.loading.bad_images import eval_sample, usable_sample
from data.loading.decode import read_bgr
from data.loading.image_names import image_path
from data.loading.loader import SampleKey, sample_rng
from runtime.errors import InputError


class IndexedImages(Dataset):
    """The images of some rows of an index: `_rows`, which the family's data set chooses.

    train:      index with `SampleKey`; else with int
    seed:       of the run; a training sample depends on it and its key only
    bad_images: "stop" raises InputError for an unreadable image; "skip" takes another one in
                training and leaves it out in evaluation, and names the file in `skipped`

    The family says in `_sample` what a sample is, in `names` and `category_ids` which classes there
    are: int64 [classes], each one's id in the annotation file, below 0 where it has none.
    Raises InputError when the index is faulty.
    """

    names: Sequence[str]
    category_ids: torch.Tensor
    _rows: Sequence[int]

    def __init__(
        self, index: CocoIndex, images_dir: str | Path, *, train: bool, seed: int, bad_images: str
    ):
        if index.faults:
            raise InputError(index.faults)
        self._index, self._images_dir = index, Path(images_dir)
        self._train, self._seed, self._skip_bad = train, seed, bad_images == "skip"

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, key: SampleKey | int) -> dict[str, Any]:
        return self._train_sample(key) if self._train else self._eval_sample(key)

    def image_id(self, position: int) -> int:
        """The COCO id of the image at `position`."""
        return int(self._index.image_ids[self._rows[position]])

    def file_name(self, image_id: int) -> str:
        """The name that the annotation file gives an image, by its COCO id."""
        return self._index.file_name(self._row_of(image_id))

    def pixels(self, image_id: int) -> np.ndarray:
        """An image as it is, uint8 [h, w, 3] RGB, by its COCO id. Raises InputError."""
        return np.ascontiguousarray(self._read(self._row_of(image_id))[..., ::-1])

    @property
    def named_categories(self) -> dict[int, str]:
        """{category id: name} of the classes that the annotation file has, in order."""
        pairs = zip(self.category_ids.tolist(), self.names, strict=True)
        return {category: name for category, name in pairs if category >= 0}

    @property
    def median_size(self) -> tuple[int, int]:
        """Median width and median height, px, as the annotation file has them."""
        height, width = np.median(self._index.image_hw[self._rows], axis=0)
        return int(width), int(height)

    def _fullest(self):
        """The position of the image with the most annotations."""
        counts = np.diff(self._index.ann_starts)[self._rows]
        return int(counts.argmax())

    def _row_of(self, image_id):
        return int(np.flatnonzero(self._index.image_ids == image_id)[0])

    def describe(self, key: SampleKey | int) -> str:
        """How a message names a sample."""
        row = self._rows[key.index if self._train else key]
        return f"image {self._index.image_ids[row]} ({self._index.file_name(row)})"

    def _sample(self, row: int, image: np.ndarray, rng: Any) -> dict[str, Any]:
        """The sample of an index's row; rng: numpy RandomState, None in evaluation."""
        raise NotImplementedError

    def _teaches(self, sample: dict[str, Any]) -> bool:
        """Whether training takes the sample; if not, another one takes its place."""
        return True

    def _train_sample(self, key):
        rng = sample_rng(self._seed, key)

        def sample_at(position):
            row = int(self._rows[position])
            sample = self._sample(row, self._read(row), rng)
            return sample if self._teaches(sample) else None

        return usable_sample(sample_at, key.index, lambda: rng.randint(len(self._rows)),
                             skip=self._skip_bad, source=self._index.path)

    def _eval_sample(self, position):
        row = int(self._rows[position])
        return eval_sample(lambda: self._sample(row, self._read(row), None),
                           skip=self._skip_bad, image_id=self.image_id(position))

    def _read(self, row):
        return read_indexed(self._index, self._images_dir, row)


def read_indexed(index: CocoIndex, images_dir: Path, row: int) -> np.ndarray:
    """The image of an index's row, uint8 [h, w, 3] BGR. Raises InputError as `read_bgr`."""
    path = image_path(images_dir, index.file_name(row))
    return read_bgr(path, tuple(index.image_hw[row].tolist()))
