"""A data worker stays as large as it is while an epoch goes through its lists."""

import os

import numpy as np
import pytest

from data.coco_format import dataset as coco_dataset
from data.imagenet import folders as class_folders


class Seen(Exception):
    pass


@pytest.fixture
def opened(monkeypatch):
    """The paths that readers of images were given; nothing is read."""
    paths = []

    def read(path, *size):
        paths.append(path)
        raise Seen

    monkeypatch.setattr(class_folders, "read_rgb", read)
    monkeypatch.setattr(coco_dataset, "read_bgr", read)
    return paths


def test_paths_of_samples_leave_nothing_interned(opened, tmp_path):
    """Parts of a Path are: 37 MB in each worker after an epoch of ImageNet."""
    for part in ("a", "b"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "1.jpg").touch()
    images = class_folders.ClassificationDataset(
        class_folders.ClassFolders(tmp_path), lambda image: image, train=False, seed=0)
    with pytest.raises(Seen):
        images[1]

    class Index:
        image_hw = np.ones((1, 2), int)

        def file_name(self, row):
            return "1.jpg"

    with pytest.raises(Seen):
        coco_dataset.read_indexed(Index(), tmp_path / "a", 0)
    assert opened == [os.path.join(tmp_path, "b", "1.jpg"), os.path.join(tmp_path, "a", "1.jpg")]
    assert [type(path) for path in opened] == [str, str]
