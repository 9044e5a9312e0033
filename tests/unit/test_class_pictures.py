"""Grids of classified images and the confusion matrix: right pixels, right places, no limits."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from PIL import Image

from data.imagenet import train_transform, val_transform
from data.imagenet.folders import ClassFolders, ClassificationDataset
from data.imagenet.pictures import (
    save_class_samples,
    save_findings,
    save_mistakes,
    shown_pixels,
)
from runtime.curves import plot_confusion

RED, BLUE = (200, 10, 20), (10, 20, 200)


@pytest.fixture
def folders(tmp_path):
    for name, colour in (("a_class_with_a_name_that_has_no_end", RED), ("blue", BLUE)):
        (tmp_path / name).mkdir()
        Image.new("RGB", (40, 40), colour).save(tmp_path / name / "0.png")
    return ClassFolders(tmp_path)


def test_normalising_is_undone(folders):
    dataset = ClassificationDataset(folders, val_transform(32), train=False, seed=0)
    pixels = shown_pixels(dataset[0]["image"])
    assert pixels.shape == (224, 224, 3)
    assert (pixels == RED).all()


def test_mistakes_show_their_images(folders, tmp_path):
    dataset = ClassificationDataset(folders, val_transform(32), train=False, seed=0)
    path = tmp_path / "mistakes.png"
    save_mistakes([(0.9, 1, 1, 0), (0.8, 0, 0, 1)], dataset, path)
    picture = cv2.imread(str(path))[..., ::-1]
    assert picture.shape[1] > 2 * 224
    assert (picture[120, 100] == BLUE).all()
    assert (picture[120, -100] == RED).all()


def test_a_perfect_network_has_no_picture_of_mistakes(folders, tmp_path):
    """Neither an empty one, nor that of an earlier validation."""
    dataset = ClassificationDataset(folders, val_transform(32), train=False, seed=0)
    (tmp_path / "mistakes.png").touch()
    found = SimpleNamespace(top=SimpleNamespace(compute=lambda: {"top1": 100.0}), matrix=None,
                            mistakes=SimpleNamespace(rows=[]))
    save_findings(SimpleNamespace(is_main=True, folder=tmp_path), found, dataset, "best")
    assert not (tmp_path / "mistakes.png").exists()


def test_samples_are_augmented_ones(folders, tmp_path):
    dataset = ClassificationDataset(folders, train_transform(32), train=True, seed=0)
    save_class_samples(dataset, tmp_path / "samples.png", 16)
    picture = cv2.imread(str(tmp_path / "samples.png"))
    assert picture.shape[1] > 2 * 224


@pytest.mark.parametrize("classes", [2, 12, 30, 60])
def test_confusion_matrices_of_any_size(tmp_path, classes):
    shares = np.eye(classes) * 0.75
    shares[0, -1] = 0.25
    plot_confusion(shares, [f"class {i}" for i in range(classes)], tmp_path / "c.png", "Top-1")
    picture = cv2.imread(str(tmp_path / "c.png"))
    assert min(picture.shape[:2]) > 300
    dark = (picture.astype(int).sum(2) < 350) & (picture[..., 0] > picture[..., 2] + 30)
    assert dark.any()  # the blue of the diagonal
