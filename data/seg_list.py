"""Lists of a segmentation set: `.odgt` files, or made from a folder of images and one of labels."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from common.config import InputError, did_you_mean
from common.files import write_atomically
from data.seg_files import check_pair, image_size, read_image, read_label

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff")
_ADE_FOLDER = "ADEChallengeData2016"  # what the data set's own archive unpacks to
_MOST_FAULTS = 20  # a wrong root_dataset makes every line wrong


class SegList(Sequence):
    """Image and label paths with image sizes, compact; item i is the odgt record, a dict.

    widths, heights: [N] int32, pixels. portrait: [N] bool, height > width.
    `made_from` is None for a list that was read from an .odgt file.
    """

    def __init__(self, records: Iterable[dict], made_from: str | None = None):
        texts, sizes = [], []
        for record in records:
            texts += [record["fpath_img"].encode(), record["fpath_segm"].encode()]
            sizes.append((record["width"], record["height"]))
        self._text = b"".join(texts)
        self._ends = np.cumsum([0] + [len(text) for text in texts])
        size_array = np.array(sizes, np.int32).reshape(-1, 2)
        self.widths, self.heights = size_array[:, 0].copy(), size_array[:, 1].copy()
        self.portrait = self.heights > self.widths
        self.made_from = made_from

    def __len__(self):
        return len(self.widths)

    def __getitem__(self, i):
        i = range(len(self))[i]
        start, middle, end = (int(x) for x in self._ends[2 * i : 2 * i + 3])
        return {
            "fpath_img": self._text[start:middle].decode(),
            "fpath_segm": self._text[middle:end].decode(),
            "width": int(self.widths[i]),
            "height": int(self.heights[i]),
        }

    def write(self, path: str | Path) -> None:
        """Write it as an .odgt file that `read_seg_list` reads back. Raises SaveError."""
        text = "".join(json.dumps(record) + "\n" for record in self)
        write_atomically(path, lambda file: file.write(text.encode()))


def read_seg_list(
    list_file: str, root: str, cache_folder: str | Path | None = None, key: str = "DATASET.list"
) -> SegList:
    """The records of DATASET.list_train or list_val; every file that they name exists.

    list_file:    an .odgt file; or `IMAGES:LABELS`, two folders; or a folder of images whose path
                  has a part `images`, the labels then lie in `annotations`; or a missing
                  `<split>.odgt` while `images/<split>` and `annotations/<split>` lie below `root`
    root:         DATASET.root_dataset; folders and the list's paths may be relative to it
    cache_folder: where a list made from folders is kept (`cache_made_list`) and found again while
                  the folders' files stay the same
    key:          the config key, for messages

    Raises InputError with every fault.
    """
    if os.path.isfile(list_file):
        records = _read_odgt(list_file)
        made_from = None
    else:
        images, labels = _folder_pair(list_file, root, key)
        names = _file_names(images)
        made_from = _fingerprint(images, labels, names)
        cached = Path(cache_folder, made_from) if cache_folder else None
        if cached and cached.is_file():
            records = _read_odgt(str(cached))
        else:
            records = _pair_records(images, labels, names, root)
    if not records:
        raise InputError(f"{list_file}: the list is empty ({key})")
    _check_files_exist(records, root)
    return SegList(records, made_from)


def cache_made_list(records: SegList, folder: str | Path) -> None:
    """Keep a list made from folders in `folder` (the run's); one read from a file is left alone."""
    if records.made_from and not Path(folder, records.made_from).exists():
        records.write(Path(folder, records.made_from))


def check_seg_files(
    records: SegList, root: str, num_class: int, progress: Callable[[range], Iterable[int]] = iter
) -> list[str]:
    """Decode every image and label; one fault for each that training could not use.

    progress: wraps the range of record numbers, for a progress bar
    """
    faults = []
    for i in progress(range(len(records))):
        record = records[i]
        try:
            image = read_image(os.path.join(root, record["fpath_img"]))
            labels = read_label(os.path.join(root, record["fpath_segm"]), num_class)
            check_pair(record, root, image.size, labels.shape[::-1])
        except InputError as error:
            faults += error.faults
    return faults


def open_lists(
    dataset_cfg,
    parts: Iterable[str],
    cache_folder: str | Path,
    log: Callable[[str], None],
    deep: bool = False,
    bad_images: str = "stop",
) -> tuple[object, dict[str, SegList]]:
    """(dataset_cfg, {part: list}) of the parts "train" and "val", read and checked.

    deep:       decode every image and label, and say that all is well
    bad_images: "skip" leaves labels alone until they are read; else see `check_labels`
    Raises InputError with every fault.
    """
    lists = {}
    root, num_class = dataset_cfg.root_dataset, dataset_cfg.num_class
    for part in parts:
        file = dataset_cfg.list_train if part == "train" else dataset_cfg.list_val
        found = read_seg_list(file, root, cache_folder, f"DATASET.list_{part}")
        log(f"# samples: {len(found)}")
        if deep:
            faults = check_seg_files(found, root, num_class)
            if faults:
                raise InputError(faults)
            log(f"{file}: no fault found.")
        elif bad_images == "stop":
            check_labels(found, root, num_class)
        lists[part] = found
    return dataset_cfg, lists


def check_labels(records: SegList, root: str, num_class: int, most: int = 4000) -> None:
    """Decode the label maps, up to `most` evenly spread ones, and look at their images' sizes.

    A few seconds at the start instead of a fault after hours; images are not decoded. What is not
    looked at here is checked when it is read, and by `check_seg_files`.
    Raises InputError with every fault.
    """

    def fault_of(i):
        record = records[int(i)]
        try:
            labels = read_label(os.path.join(root, record["fpath_segm"]), num_class)
            size = image_size(os.path.join(root, record["fpath_img"]))
            check_pair(record, root, size, labels.shape[::-1])
        except InputError as error:
            return error.faults
        return []

    chosen = np.unique(np.linspace(0, len(records) - 1, min(most, len(records))).astype(int))
    with ThreadPoolExecutor() as pool:  # decoding and file access leave Python's lock
        faults = [fault for found in pool.map(fault_of, chosen) for fault in found]
    if faults:
        raise InputError(_at_most(faults))


def _read_odgt(path):
    records, faults = [], []
    try:
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    _take_line(line, f"{path}:{number}", records, faults)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a readable list: {error}") from error
    if faults:
        raise InputError(_at_most(faults))
    return records


def _take_line(line, where, records, faults):
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        faults.append(f"{where}: not a JSON object; an .odgt file holds one on each line")
        return
    if not isinstance(record, dict):
        faults.append(f"{where}: want a JSON object with fpath_img, fpath_segm, width, height")
        return
    for name, kind, words in (
        ("fpath_img", str, "a path"),
        ("fpath_segm", str, "a path"),
        ("width", int, "pixels"),
        ("height", int, "pixels"),
    ):
        value = record.get(name)
        if name not in record:
            faults.append(f"{where}: {name} is missing.{did_you_mean(name, record)}")
        elif type(value) is not kind or (kind is int and not 0 < value < 1 << 31):
            faults.append(f"{where}: {name} wants {words}, got {value!r}")
    records.append(record)


def _folder_pair(list_file, root, key):
    """The folders of images and of labels that `list_file` stands for."""
    if ":" in list_file:
        pair = [_existing_folder(part, root) for part in list_file.split(":", 1)]
        if all(pair):
            return pair
        missing = list_file.split(":", 1)[0 if pair[0] is None else 1]
        raise InputError(f"{key}: no such folder: {missing}")
    folder = _existing_folder(list_file, root)
    if folder:
        parts = Path(folder).parts
        at = [i for i, part in enumerate(parts) if part == "images"]
        labels = Path(*parts[: at[-1]], "annotations", *parts[at[-1] + 1 :]) if at else None
        if labels and labels.is_dir():
            return folder, str(labels)
        raise InputError(
            f"{key}: {folder} has no folder of labels: want .../images/X with .../annotations/X, "
            "or name both as IMAGES:LABELS"
        )
    split = Path(list_file).stem
    for base in (Path(root), Path(root, _ADE_FOLDER)):
        images, labels = base / "images" / split, base / "annotations" / split
        if images.is_dir() and labels.is_dir():
            return str(images), str(labels)
    folder = Path(list_file).parent
    near = [str(folder / entry.name) for entry in folder.glob("*.odgt")] if folder.is_dir() else []
    raise InputError(
        f"{key}: no such list: {list_file}, and no images/{split} with annotations/{split} below "
        f"{root}.{did_you_mean(list_file, near)}"
    )


def _existing_folder(path, root):
    return next((p for p in (path, os.path.join(root, path)) if os.path.isdir(p)), None)


def _file_names(folder):
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_file())


def _fingerprint(images, labels, names):
    """The name of the cached list: it changes when a file of either folder does."""
    hasher = hashlib.sha256()
    for folder, inside in ((images, names), (labels, _file_names(labels))):
        hasher.update(os.path.abspath(folder).encode() + b"\n")
        for name in inside:
            status = os.stat(os.path.join(folder, name))
            hasher.update(f"{name} {status.st_size} {status.st_mtime_ns}\n".encode())
    return f"list_{hasher.hexdigest()[:16]}.odgt"


def _pair_records(images, labels, names, root):
    records, faults = [], []
    label_names = {os.path.splitext(name)[0]: name for name in _file_names(labels)}
    for name in names:
        stem, suffix = os.path.splitext(name)
        if suffix.lower() not in IMAGE_SUFFIXES:
            continue
        path = os.path.join(images, name)
        if stem not in label_names:
            faults.append(f"{path}: no label {stem}.png in {labels}")
            continue
        try:
            width, height = image_size(path)
        except InputError as error:
            faults += error.faults
            continue
        label = os.path.join(labels, label_names[stem])
        paths = [os.path.relpath(p, root) if root else p for p in (path, label)]
        records.append(
            {"fpath_img": paths[0], "fpath_segm": paths[1], "width": width, "height": height}
        )
    if faults:
        raise InputError(_at_most(faults))
    return records


def _check_files_exist(records, root):
    folders, faults = {}, []
    for record in records:
        for name, what in (("fpath_img", "image"), ("fpath_segm", "label")):
            path = os.path.join(root, record[name])
            folder, file_name = os.path.split(path)
            if folder not in folders:
                is_there = os.path.isdir(folder or ".")
                folders[folder] = set(os.listdir(folder or ".")) if is_there else set()
            if file_name not in folders[folder]:
                faults.append(
                    f"{path}: no such {what} file. Check the list and DATASET.root_dataset"
                )
    if faults:
        raise InputError(_at_most(faults))


def _at_most(faults):
    more = len(faults) - _MOST_FAULTS
    return faults if more <= 0 else [*faults[:_MOST_FAULTS], f"... and {more} more of this kind"]
