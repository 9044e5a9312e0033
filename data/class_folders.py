"""Class folders as ImageNet has them: root/{train,val}/<class>/*.jpg, indexed, checked, sampled."""

import io
import os
import random
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from common.errors import InputError, did_you_mean
from common.streams import Stream
from data.bad_images import eval_sample, fault_lines, usable, usable_sample
from data.decode import MAX_PIXELS, check_image
from data.loader import SampleKey

SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


class ClassFolders:
    """The images of one split: `classes`, `labels` [n] int32, `path(i)`; torchvision's order.

    folder:  its sub-folders are the classes, in order of name; images may lie deeper
    classes: the classes in force when another split settled them; labels count in these
    The names lie in one block of bytes, which worker processes share.
    Raises InputError with one line for each fault: no folder, no classes, a class without images,
    a class that `classes` lacks.
    """

    def __init__(self, folder: str | Path, classes: Sequence[str] | None = None):
        self.folder = Path(folder)
        own = _class_names(self.folder)
        faults = []
        if classes is not None:
            faults = [
                f"{self.folder / name}: the class {name} is not among the classes trained on."
                f"{did_you_mean(name, classes)}"
                for name in own
                if name not in set(classes)
            ]
        self.classes = tuple(own if classes is None else classes)
        label_of = {name: i for i, name in enumerate(self.classes)}
        names, labels = [], []
        for name in own:
            found = list(_images(self.folder, name))
            if not found:
                wanted = ", ".join(SUFFIXES)
                faults.append(f"{self.folder / name}: no images in it; wanted {wanted}")
            names += found
            labels += [label_of.get(name, -1)] * len(found)
        if faults:
            raise InputError(faults)
        encoded = [os.fsencode(name) for name in names]
        self._names = np.frombuffer(b"".join(encoded), np.uint8)
        self._ends = np.cumsum([len(name) for name in encoded], dtype=np.int64)
        self.labels = np.array(labels, np.int32)

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, i: int) -> str:
        """The path of image `i` relative to the folder."""
        start = self._ends[i - 1] if i else 0
        return os.fsdecode(self._names[start : self._ends[i]].tobytes())

    def path(self, i: int) -> Path:
        return self.folder / self.name(i)

    def counts(self) -> np.ndarray:
        """Images of each class, [number of classes] int64."""
        return np.bincount(self.labels, minlength=len(self.classes))


class ClassificationDataset(Dataset):
    """Images of `folders` with their labels, put through `transform`.

    train:      index with `SampleKey`, and the transform gets random streams; else index with int
    seed:       of the run; a training sample depends on it and its key only
    bad_images: "stop" raises InputError for an unreadable image; "skip" takes another one in
                training and leaves it out in evaluation, and names the file in `skipped`

    A sample is a dict: image, what the transform returns; label; index; skipped, fault lines.
    """

    def __init__(
        self,
        folders: ClassFolders,
        transform: Any,
        *,
        train: bool,
        seed: int,
        bad_images: str = "stop",
    ):
        self.folders, self.transform = folders, transform
        self._train, self._seed = train, seed
        self._skip_bad = bad_images == "skip"
        self._np_rng = np.random.RandomState(0)  # seeded for each sample: a new one costs 80 us

    def __len__(self) -> int:
        return len(self.folders)

    def __getitem__(self, key: SampleKey | int) -> dict[str, Any]:
        return self.__getitems__([key])[0]

    def __getitems__(self, keys: Sequence[SampleKey | int]) -> list[dict[str, Any]]:
        """The samples of a batch, in a fifth less time than one by one.

        Each stage goes through the whole batch: after decoding an image, the code of the others
        would come back from memory instead of the processor's caches.
        """
        if not self._train:
            return [self._eval_sample(key) for key in keys]
        streams = [self._streams(key) for key in keys]
        samples = [self._cropped(key.index, *each) for key, each in zip(keys, streams, strict=True)]
        images = self.transform.finish(
            [sample["image"] for sample in samples], [drawn for drawn, _, _ in streams])
        return [sample | {"image": image} for sample, image in zip(samples, images, strict=True)]

    def _streams(self, key):
        """(what the transform drew ahead, rng, seed of np_rng), functions of (seed, key) alone."""
        sequence = np.random.SeedSequence([Stream.CLASS_SAMPLE, self._seed, *key])
        for_rng, for_numpy, for_torch = sequence.generate_state(3).tolist()
        drawn = self.transform.draw(torch.Generator().manual_seed(for_torch))
        return drawn, random.Random(for_rng), for_numpy

    def _cropped(self, index, drawn, rng, for_numpy):
        def sample_at(index):
            image = read_rgb(self.folders.path(index))
            self._np_rng.seed(for_numpy)
            return self._sample(self.transform.crop(image, drawn, rng, self._np_rng), index)

        return usable_sample(sample_at, index, lambda: rng.randrange(len(self)),
                             skip=self._skip_bad, source=self.folders.folder)

    def _eval_sample(self, index):
        return eval_sample(
            lambda: self._sample(self.transform(read_rgb(self.folders.path(index))), index),
            skip=self._skip_bad)

    def describe(self, key: SampleKey | int) -> str:
        """How a message names a sample."""
        return self.folders.name(key.index if self._train else key)

    def _sample(self, image, index):
        return {"image": image, "label": int(self.folders.labels[index]), "index": index}


def collate_classes(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """A batch: images [B, 3, n, n] float32; labels and indices [B] int64; skipped, fault lines.

    An evaluation's batch lacks the samples that could not be read; B may be 0, then images are [0].
    """
    faults, samples = fault_lines(samples), usable(samples)
    images = [sample["image"] for sample in samples]
    return {
        "images": torch.stack(images) if images else torch.empty(0),
        "labels": torch.tensor([sample["label"] for sample in samples], dtype=torch.int64),
        "indices": torch.tensor([sample["index"] for sample in samples], dtype=torch.int64),
        "skipped": faults,
    }


def open_class_folders(
    root: str | Path, deep: bool = False
) -> tuple[ClassFolders, ClassFolders]:
    """(train, val) below `root`; val is labelled by train's classes and may lack some of them.

    deep: open every image too
    Raises InputError with every fault of both.
    """
    root, faults, opened, classes = Path(root), [], [], None
    if not root.is_dir():
        raise InputError(
            f"{root}: no such folder. Put train/ and val/ there, each with a folder of images for "
            "every class, or name another folder with DATA.ROOT"
        )
    for part in ("train", "val"):
        try:
            opened.append(ClassFolders(root / part, classes))
        except InputError as error:
            faults += error.faults
        if part == "train" and (root / part).is_dir():
            classes = _class_names(root / part) if not opened else opened[0].classes
    if deep and not faults:
        faults = [line for folders in opened for line in check_images(folders)]
    if faults:
        raise InputError(faults)
    return opened[0], opened[1]


def check_images(folders: ClassFolders, rows: Iterable[int] | None = None) -> list[str]:
    """One fault line for each unreadable image; headers and ends of files are looked at."""
    faults = []
    for i in range(len(folders)) if rows is None else rows:
        try:
            check_image(folders.path(i))
        except InputError as error:
            faults += error.faults
    return faults


def read_rgb(path: str | Path) -> Image.Image:
    """The image as PIL's RGB, as stored: an EXIF orientation turns nothing, as in the original.

    Raises InputError when the file is missing, damaged, truncated or has too many pixels.
    """
    try:
        # At once, unbuffered: PIL reads a file in many small pieces.
        with open(path, "rb", buffering=0) as file:
            stream = io.BytesIO(file.read())
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{path}: cannot be read ({reason}); put the image there") from error
    try:
        image = Image.open(stream)
        if image.width * image.height > MAX_PIXELS:
            raise Image.DecompressionBombError
        image.load()
        return image if image.mode == "RGB" else image.convert("RGB")  # which would copy
    except Image.DecompressionBombError as error:
        million = MAX_PIXELS // 10**6
        raise InputError(f"{path}: more than {million} million pixels; scale it down") from error
    except (OSError, SyntaxError, ValueError, struct.error, IndexError, OverflowError) as error:
        raise InputError(f"{path}: damaged or not an image ({error}); replace it") from error


def _class_names(folder):
    try:
        with os.scandir(folder) as entries:
            names = sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))
    except OSError as error:
        raise InputError(
            f"{folder}: no such folder. Put one folder of images for every class there"
        ) from error
    if not names:
        raise InputError(f"{folder}: no class folders in it, each with the images of a class")
    return names


def _images(folder, class_name):
    """Relative paths of a class's images: torchvision's order."""
    top = os.path.join(folder, class_name)
    for where, _, names in sorted(os.walk(top, followlinks=True)):
        below = os.path.relpath(where, folder)
        for name in sorted(names):
            if name.lower().endswith(SUFFIXES):
                yield os.path.join(below, name)
