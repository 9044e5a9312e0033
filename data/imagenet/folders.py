"""Class folders as ImageNet has them: root/{train,val}/<class>/*.jpg, indexed, checked, sampled."""

import contextlib
import functools
import hashlib
import os
import random
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from data.imagenet.summary import tell
from data.loading.bad_images import eval_sample, fault_lines, usable, usable_sample
from data.loading.decode import read_header, read_rgb
from data.loading.loader import SampleKey
from data.loading.photo_summary import PhotoCounts, absent_classes
from data.loading.threads import in_threads
from runtime.errors import InputError, did_you_mean
from runtime.image_kinds import IMAGE_SUFFIXES, left_pictures
from runtime.spelling import plural
from runtime.streams import Stream

MOST_HEADERS = 32  # photos that tell how large they all are
# What systems and archives leave behind, besides everything whose name begins with a dot.
_NO_CLASSES = frozenset(("__MACOSX", "@eaDir", "lost+found", "$RECYCLE.BIN",
                         "System Volume Information"))
# What else the folders of the two parts are called.
_ALSO_CALLED = {"train": ("train", "training"),
                "val": ("val", "valid", "validation", "test")}


class ClassFolders:
    """The images of one split: `classes`, `labels` [n] int32, `path(i)`; torchvision's order.

    folder:  its sub-folders are the classes, in order of name; images may lie deeper
    classes: the classes in force when another split settled them; labels count in these
    The names lie in one block of bytes, which worker processes share. Names that begin with a dot
    are left alone, and so are links that lead back to a folder above them: `remarks` has a line
    for each of these. `fingerprint`: hex digits that change with the names of images or classes.
    Raises InputError with one line for each fault: no folder, no classes, a class without images,
    a class that `classes` lacks.
    """

    def __init__(self, folder: str | Path, classes: Sequence[str] | None = None):
        self.folder = Path(folder)
        self.remarks: list[str] = []
        own = _class_names(self.folder, self.remarks)
        faults = []
        if classes is not None:
            faults = [
                f"{self.folder / name}: the class {name} is not among the classes trained on; "
                f"add it to train/ or remove it.{did_you_mean(name, classes)}"
                for name in own
                if _composed(name) not in set(map(_composed, classes))
            ]
        self.classes = tuple(own if classes is None else classes)
        text, counts, left = bytearray(), [], Counter()
        for name in own:
            count, others = 0, Counter()
            for below, files in _files(self.folder, name, self.remarks):
                found = [file for file in files if file.lower().endswith(IMAGE_SUFFIXES)]
                count += len(found)
                text += os.fsencode("".join([f"{below}{os.sep}{file}\0" for file in found]))
                if len(found) < len(files):
                    others.update(os.path.splitext(file)[1].lower() or "no suffix"
                                  for file in set(files).difference(found))
            if not count:
                there = ", ".join(f"{number} with {suffix}" for suffix, number in others.items())
                faults.append(f"{self.folder / name}: no images in it; put some there "
                              f"({', '.join(IMAGE_SUFFIXES)}) or remove the folder"
                              + (f"; it holds {there}" if there else ""))
            left += others
            counts.append(count)
        if faults:
            raise InputError(faults)
        self.remarks += filter(None, [left_pictures(self.folder, left)])
        block = np.frombuffer(text, np.uint8)
        ends = np.flatnonzero(block == 0)
        self._names = block[block != 0]
        self._ends = ends - np.arange(len(ends))
        label_of = {_composed(name): i for i, name in enumerate(self.classes)}
        label_of |= {name: i for i, name in enumerate(self.classes)}
        own_labels = np.array([label_of.get(name, label_of.get(_composed(name), -1))
                               for name in own], np.int32)
        self.labels = np.repeat(own_labels, counts)
        hasher = hashlib.sha256("\0".join(self.classes).encode(errors="surrogateescape"))
        for part in (self._names, self._ends.astype("<i8"), self.labels.astype("<i4")):
            hasher.update(part.tobytes())
        self.fingerprint = hasher.hexdigest()[:16]

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, i: int) -> str:
        """The path of image `i` relative to the folder."""
        start = self._ends[i - 1] if i else 0
        return os.fsdecode(self._names[start : self._ends[i]].tobytes())

    def file(self, i: int) -> str:
        """The path of image `i` as text: a Path would leave its parts behind in each worker."""
        return os.path.join(self.folder, self.name(i))

    def path(self, i: int) -> Path:
        return Path(self.file(i))

    def take_outputs(self, names: Sequence[str]) -> None:
        """Label the images by a network's outputs `names`, all of `classes` among them."""
        numbers = np.array([names.index(name) for name in self.classes], np.int32)
        self.labels, self.classes = numbers[self.labels], tuple(names)

    def counts(self) -> np.ndarray:
        """Images of each class, [number of classes] int64."""
        return np.bincount(self.labels, minlength=len(self.classes))


def data_facts(folders: Sequence[ClassFolders]) -> dict[str, Any]:
    """Facts for `Run.describe` of the images to train and to validate on, by part."""
    facts = {}
    for part, each in zip(("train", "val"), folders, strict=True):
        counts = dict(zip(each.classes, each.counts().tolist(), strict=True))
        facts[part] = {"source": str(each.folder), "images": len(each), "unit": "images",
                       "num_classes": len(each.classes), "classes": counts}
    return facts


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

    @functools.cached_property
    def median_size(self) -> tuple[int, int]:
        """Median width and median height, px, of a few photos, whose headers are read for it."""
        spread = np.linspace(0, len(self) - 1, min(len(self), MOST_HEADERS)).astype(int).tolist()
        sizes = []
        for i in dict.fromkeys(spread):
            with contextlib.suppress(InputError):  # training says what is wrong with it
                sizes.append(read_header(self.folders.path(i)).size(turn=False))
        width, height = np.median(sizes, axis=0).astype(int).tolist() if sizes else (0, 0)
        return width, height

    @functools.cached_property
    def largest_size(self) -> tuple[int, int]:
        """(h, w) of the images of a training batch, px."""
        return tuple(self[SampleKey(0, 0, 0)]["image"].shape[1:])

    def largest_batch(self, count: int) -> dict[str, Any]:
        """A training batch of `count` images, all alike."""
        return collate_classes([self[SampleKey(0, 0, 0)]] * count)

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
            [sample["image"] for sample in samples], [sampled for sampled, _, _ in streams])
        return [sample | {"image": image} for sample, image in zip(samples, images, strict=True)]

    def _streams(self, key):
        """(what the transform sampled, rng, seed of np_rng), functions of (seed, key) alone."""
        sequence = np.random.SeedSequence([Stream.CLASS_SAMPLE, self._seed, *key])
        for_rng, for_numpy, for_torch = sequence.generate_state(3).tolist()
        sampled = self.transform.sample(torch.Generator().manual_seed(for_torch))
        return sampled, random.Random(for_rng), for_numpy

    def _cropped(self, index, sampled, rng, for_numpy):
        def sample_at(index):
            image = read_rgb(self.folders.file(index))
            self._np_rng.seed(for_numpy)
            return self._sample(self.transform.crop(image, sampled, rng, self._np_rng), index)

        return usable_sample(sample_at, index, lambda: rng.randrange(len(self)),
                             skip=self._skip_bad, source=self.folders.folder)

    def _eval_sample(self, index):
        return eval_sample(
            lambda: self._sample(self.transform(read_rgb(self.folders.file(index))), index),
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
    root: str | Path,
    deep: bool = False,
    log: Callable[[str], None] | None = None,
    warn: Callable[[str], None] | None = None,
    run_folder: str | Path | None = None,
) -> tuple[ClassFolders, ClassFolders]:
    """(train, val) below `root`; val is labelled by train's classes and may lack some of them.

    deep:       open every image too; say to `log` what there is, with a picture, check.png, in
                `run_folder`
    warn:       gets a line for what is legal but suspicious
    Raises InputError with every fault of both.
    """
    root, faults, opened, classes = Path(root), [], [], None
    log, warn = log or (lambda line: None), warn or (lambda line: None)
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
    photos = [PhotoCounts() for _ in opened]
    if deep and not faults:
        faults = [line for folders, counts in zip(opened, photos, strict=True)
                  for line in check_images(folders, photos=counts)]
    if faults:
        raise InputError(faults)
    train, val = opened
    for line in [*train.remarks, *val.remarks]:
        warn(line)
    if len(train.classes) == 1:
        warn(f"{train.folder}: one class only, {train.classes[0]}: there is nothing to tell apart, "
             "and every image will be right")
    absent = absent_classes(val.classes, val.counts())
    if absent:
        warn(f"{val.folder}: no images of {absent}, which training has: their accuracy is unknown")
    if deep:
        tell(train, val, photos, log, warn, run_folder)
    return train, val


def folder_names(root: str | Path) -> list[str]:
    """The classes that the folders below `root`/train are, in order; none where there are none."""
    try:
        return _class_names(Path(root) / "train")
    except InputError:
        return []


def check_images(
    folders: ClassFolders,
    rows: Iterable[int] | None = None,
    photos: PhotoCounts | None = None,
) -> list[str]:
    """One fault line for each image that cannot be decoded.

    photos: counts what was read
    """
    def look_at(i):
        path = folders.path(i)
        try:
            header, image = read_header(path), read_rgb(path)
        except InputError as error:
            return error.faults, None
        return [], (header, path, image.getextrema()[0][1] if header.is_16_bit_grey else None)

    faults: list[str] = []
    for found, seen in in_threads(look_at, range(len(folders)) if rows is None else rows):
        faults += found
        if seen and photos is not None:
            photos.add(*seen)
    return faults


def _class_names(folder, remarks=None):
    """Names of the class folders; `remarks` gets a line for links to a folder above them."""
    try:
        with os.scandir(folder) as entries:
            inside = [entry for entry in entries if not entry.name.startswith(".")]
            names = sorted(entry.name for entry in inside
                           if entry.is_dir() and entry.name not in _NO_CLASSES)
            loose = [entry.name for entry in inside if entry.is_file()
                     and entry.name.lower().endswith(IMAGE_SUFFIXES)]
        own = os.path.join(os.path.realpath(folder), "")
        for name in list(names):
            real = os.path.realpath(os.path.join(folder, name))
            if own.startswith(os.path.join(real, "")):  # it would hold all the other classes
                names.remove(name)
                if remarks is not None:
                    remarks.append(_link_above(os.path.join(folder, name), real))
    except OSError as error:
        raise InputError(
            f"{folder}: no such folder. Put one folder of images for every class there"
            + _near_folder(folder)
        ) from error
    if loose and names and remarks is not None:
        remarks.append(f"{folder}: {plural(len(loose), 'image')} beside the class folders, such as "
                       f"{min(loose)}, {'are' if len(loose) > 1 else 'is'} left out")
    if not names:
        raise InputError(f"{folder}: no class folders in it, each with the images of a class")
    return names


def _composed(name):
    """The name with its accents as letters have them: archives of macOS take the two apart."""
    return unicodedata.normalize("NFC", name)


def _near_folder(folder):
    """A hint at the folder beside it that is meant: valid/ for val/."""
    folder = Path(folder)
    try:
        beside = [entry.name for entry in os.scandir(folder.parent) if entry.is_dir()]
    except OSError:
        return ""
    others = [name for name in beside if name.casefold() in _ALSO_CALLED.get(folder.name, ())]
    return f". There is {others[0]}: rename it" if len(others) == 1 else ""


def _link_above(path, real):
    return f"{path}: a link to {real}, a folder above it, is left alone; remove it"


def _files(folder, class_name, remarks) -> Iterator[tuple[str, list[str]]]:
    """(folder below `folder`, names of its files) of a class, in torchvision's order."""
    top = os.path.join(folder, class_name)
    for where, names in sorted(_walk(top, remarks)):
        yield os.path.relpath(where, folder), sorted(n for n in names if not n.startswith("."))


def _walk(top, remarks):
    """(folder, names of files) of `top` and all below it, through links but in no circle."""
    above = {top: (os.path.realpath(top),)}  # the real folders on the way to each
    for where, below, names in os.walk(top, followlinks=True):
        yield where, names
        kept = []
        for name in below:
            path = os.path.join(where, name)
            real = os.path.join(above[where][-1], name)
            if os.path.islink(path):
                real = os.path.realpath(path)
            if any(os.path.join(each, "").startswith(os.path.join(real, ""))
                   for each in above[where]):
                remarks.append(_link_above(path, real))
            elif not name.startswith(".") and name not in _NO_CLASSES:
                above[path] = (*above[where], real)
                kept.append(name)
        below[:] = kept
