"""Lists of a segmentation set: `.odgt` files, or made from a folder of images and one of labels."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data.loading.image_names import rewritten
from data.loading.threads import in_threads
from data.segmentation.odgt import at_most, read_odgt
from data.segmentation.pairs import listed_header
from runtime.errors import InputError, did_you_mean
from runtime.files import write_text
from runtime.image_kinds import IMAGE_SUFFIXES

_ADE_FOLDER = "ADEChallengeData2016"  # what the data set's own archive unpacks to


class SegList(Sequence):
    """Image and label paths with image sizes, compact; item i is the odgt record, a dict.

    widths, heights: [N] int32, pixels; 0 where a list for evaluation gives none, and the record
    then has neither key. portrait: [N] bool, height > width.
    `made_from` is None for a list that was read from an .odgt file.
    `fingerprint`: hex digits that change with any record, and with nothing else.
    """

    def __init__(self, records: Iterable[dict], made_from: str | None = None):
        texts, sizes = [], []
        for record in records:
            texts += [record["fpath_img"].encode(), record["fpath_segm"].encode()]
            sizes.append((record.get("width") or 0, record.get("height") or 0))
        self._text = b"".join(texts)
        self._ends = np.cumsum([0] + [len(text) for text in texts])
        size_array = np.array(sizes, np.int32).reshape(-1, 2)
        self.widths, self.heights = size_array[:, 0].copy(), size_array[:, 1].copy()
        self.portrait = self.heights > self.widths
        self.made_from = made_from
        hasher = hashlib.sha256(self._text)
        for part in (self._ends.astype("<i8"), size_array.astype("<i4")):
            hasher.update(part.tobytes())
        self.fingerprint = hasher.hexdigest()[:16]

    def __len__(self):
        return len(self.widths)

    def __getitem__(self, i):
        i = range(len(self))[i]
        start, middle, end = (int(x) for x in self._ends[2 * i : 2 * i + 3])
        record = {
            "fpath_img": self._text[start:middle].decode(),
            "fpath_segm": self._text[middle:end].decode(),
        }
        if self.widths[i] and self.heights[i]:
            record |= {"width": int(self.widths[i]), "height": int(self.heights[i])}
        return record

    def write(self, path: str | Path) -> None:
        """Write it as an .odgt file that `read_seg_list` reads back. Raises SaveError."""
        text = "".join(json.dumps(record) + "\n" for record in self)
        write_text(path, text)


def exif_turn(dataset_cfg) -> bool:
    """DATASET.exif_turn; False for a section of the original's keys alone."""
    return getattr(dataset_cfg, "exif_turn", False)


def read_seg_list(
    list_file: str,
    root: str,
    cache_folder: str | Path | None = None,
    key: str = "DATASET.list",
    needs_sizes: bool = True,
    turn: bool = False,
) -> SegList:
    """The records of DATASET.list_train or list_val; every file that they name exists.

    list_file:    an .odgt file; or `IMAGES:LABELS`, two folders; or a folder of images whose path
                  has a part `images`, the labels then lie in `annotations`; or a missing
                  `<split>.odgt` while `images/<split>` and `annotations/<split>` lie below `root`
    root:         DATASET.root_dataset; folders and the list's paths may be relative to it
    cache_folder: where a list made from folders is kept (`cache_made_lists`) and found again while
                  the folders' files stay the same
    key:          the config key, for messages
    needs_sizes:  read the sizes that the list lacks from the images; evaluation needs none
    turn:         sizes as the images' EXIF orientations turn them, whichever the list gives

    A path with backslashes, or quoted as in an address, is read where only the plain one exists.
    Raises InputError with every fault.
    """
    if os.path.isfile(list_file):
        records = read_odgt(list_file)
        made_from = None
    else:
        images, labels = _folder_pair(list_file, root, key)
        if os.path.samefile(images, labels):
            raise InputError(f"{key}: {images}: images and labels lie in one folder, where a label "
                             "would be taken for an image; give the labels a folder of their own")
        names = _image_names(images)
        made_from = _fingerprint(images, labels, names, turn)
        cached = Path(cache_folder, made_from) if cache_folder else None
        if cached and cached.is_file():
            records = read_odgt(str(cached))
        else:
            records = _pair_records(images, labels, names, root, turn)
    if not records:
        raise InputError(f"{list_file}: the list is empty ({key})")
    _check_files_exist(records, root)
    if made_from is None and (needs_sizes or turn):
        _fill_sizes(records, root, turn)
    return SegList(records, made_from)


def data_facts(lists: Mapping[str, SegList]) -> dict[str, Any]:
    """Facts for `Run.describe` of the lists, by part."""
    return {part: {"images": len(records)} for part, records in lists.items()}


def cache_made_lists(run: Any, lists: Mapping[str, SegList]) -> None:
    """Rank 0 keeps lists made from folders in the run's folder; those of files are left alone."""
    for records in lists.values() if run.is_main else ():
        if records.made_from and not Path(run.folder, records.made_from).exists():
            records.write(Path(run.folder, records.made_from))


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


def _image_names(folder):
    # what begins with a dot, such as macOS's ._a.jpg, is a system's bookkeeping
    return sorted(entry.name for entry in os.scandir(folder)
                  if entry.is_file() and not entry.name.startswith(".")
                  and entry.name.lower().endswith(IMAGE_SUFFIXES))


def _fingerprint(images, labels, names, turn):
    """The name of the cached list: it changes when a file of either folder does."""
    hasher = hashlib.sha256(b"turned" if turn else b"")
    for folder, inside in ((images, names), (labels, _image_names(labels))):
        hasher.update(os.path.abspath(folder).encode() + b"\n")
        for name in inside:
            status = os.stat(os.path.join(folder, name))
            hasher.update(f"{name} {status.st_size} {status.st_mtime_ns}\n".encode())
    return f"list_{hasher.hexdigest()[:16]}.odgt"


def _pair_records(images, labels, names, root, turn):
    records, faults = [], []
    label_names: dict[str, str] = {}
    for name in _image_names(labels):
        stem = os.path.splitext(name)[0]
        if stem in label_names:
            faults.append(f"{os.path.join(labels, name)}: {label_names[stem]} beside it is a label "
                          f"of {stem}, too; remove one of the two")
        label_names[stem] = name
    for name in names:
        stem = os.path.splitext(name)[0]
        path = os.path.join(images, name)
        if stem not in label_names:
            faults.append(f"{path}: no label {stem}.png in {labels}")
            continue
        try:
            width, height = listed_header(path).size(turn)
        except InputError as error:
            faults += error.faults
            continue
        label = os.path.join(labels, label_names[stem])
        paths = [os.path.relpath(p, root) if root else p for p in (path, label)]
        records.append(
            {"fpath_img": paths[0], "fpath_segm": paths[1], "width": width, "height": height}
        )
    if faults:
        raise InputError(at_most(faults))
    return records


def _check_files_exist(records, root):
    """Raise InputError for paths that are not there; put those with slashes where they are."""
    folders, faults = {}, []

    def is_there(path):
        folder, file_name = os.path.split(path)
        if folder not in folders:
            is_folder = os.path.isdir(folder or ".")
            folders[folder] = set(os.listdir(folder or ".")) if is_folder else set()
        return file_name in folders[folder]

    for record in records:
        for name, what in (("fpath_img", "image"), ("fpath_segm", "label")):
            path = os.path.join(root, record[name])
            if is_there(path):
                continue
            for other in rewritten(record[name]):
                if is_there(os.path.join(root, other)):
                    record[name] = other
                    break
            else:
                faults.append(
                    f"{path}: no such {what} file. Check the list and DATASET.root_dataset"
                )
    if faults:
        raise InputError(at_most(faults))


def _fill_sizes(records, root, turn):
    """Sizes from the images' headers: those that the list lacks; with `turn` all of them.

    With `turn` a list may give the stored size or the turned one; a third one is left to be found.
    """

    def fill(record):
        listed = (record.get("width"), record.get("height"))
        try:
            header = listed_header(os.path.join(root, record["fpath_img"]))
        except InputError as error:
            return [] if None not in listed else error.faults
        if None in listed or listed == header.size(False):
            record["width"], record["height"] = header.size(turn)
        return []

    lacking = [each for each in records if turn or None in (each.get("width"), each.get("height"))]
    faults = [fault for found in in_threads(fill, lacking) for fault in found]
    if faults:
        raise InputError(at_most(faults))
