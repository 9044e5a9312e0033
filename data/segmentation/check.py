"""Segmentation lists and their files looked at before a run: faults, warnings, a summary."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from data.loading.photo_summary import PhotoCounts
from data.loading.threads import in_threads
from data.segmentation.ade20k import class_names
from data.segmentation.lists import SegList, exif_turn, read_seg_list
from data.segmentation.odgt import at_most
from data.segmentation.pairs import check_pair, inspect_label, listed_header, read_pair
from data.segmentation.summary import LabelCounts, label_names, save_sample_grid
from runtime.errors import InputError, SaveError

_EXIF_REMEDY = "DATASET.exif_turn True turns photos and labels that say so"


def open_lists(
    dataset_cfg,
    parts: Iterable[str],
    cache_folder: str | Path,
    log: Callable[[str], None],
    deep: bool = False,
    bad_images: str = "stop",
    warn: Callable[[str], None] | None = None,
) -> tuple[object, dict[str, SegList]]:
    """(dataset_cfg, {part: list}) of the parts "train" and "val", read and checked.

    deep:       decode every image and label, say what they hold (a picture, check.png, goes to
                `cache_folder`), and that all is well
    bad_images: "skip" leaves labels alone until they are read; else see `check_labels`
    warn:       gets a line for what is legal but suspicious; None: log
    Raises InputError with every fault.
    """
    lists, faults, warned = {}, [], set()
    root, turn = dataset_cfg.root_dataset, exif_turn(dataset_cfg)
    names = label_names(class_names(dataset_cfg))
    for part in parts:
        file = dataset_cfg.list_train if part == "train" else dataset_cfg.list_val
        found = read_seg_list(file, root, cache_folder, f"DATASET.list_{part}",
                              needs_sizes=part == "train", turn=turn)
        lists[part] = found
        log(f"# samples: {len(found)}")
        labels, photos = LabelCounts(), PhotoCounts(turn)
        if deep:
            faults += check_seg_files(found, root, len(names), turn=turn, labels=labels,
                                      photos=photos)
        elif bad_images == "stop":
            labels = check_labels(found, root, len(names), turn=turn, photos=photos)
        if not faults:
            _tell(file, names, labels, photos, deep, log, warn or log, warned)
    if faults:
        raise InputError(dict.fromkeys(faults))  # both lists may name a file
    if len(lists) == 2:
        known = {record["fpath_img"] for record in lists["train"]}
        same = sum(record["fpath_img"] in known for record in lists["val"])
        if same:
            (warn or log)(f"{dataset_cfg.list_val}: {same} of its {len(lists['val'])} images are "
                          f"in {dataset_cfg.list_train}, too; what is trained on should not be "
                          "validated on")
    if deep:
        _picture(lists, root, names, turn, Path(cache_folder, "check.png"), log)
        for part in lists:
            file = dataset_cfg.list_train if part == "train" else dataset_cfg.list_val
            log(f"{file}: no fault found.")
    return dataset_cfg, lists


def check_seg_files(
    records: SegList,
    root: str,
    num_class: int,
    progress: Callable[[range], Iterable[int]] = iter,
    turn: bool = False,
    labels: LabelCounts | None = None,
    photos: PhotoCounts | None = None,
) -> list[str]:
    """Decode every image and label; one fault for each that training could not use.

    progress:       wraps the range of record numbers, for a progress bar
    turn:           DATASET.exif_turn
    labels, photos: count what was read
    """
    faults = []
    labels = LabelCounts() if labels is None else labels
    photos = PhotoCounts(turn) if photos is None else photos
    for i in progress(range(len(records))):
        record = records[i]
        try:
            image, label = read_pair(record, root, num_class, turn)
            path = os.path.join(root, record["fpath_img"])
            header = listed_header(path)
        except InputError as error:
            faults += error.faults
            continue
        labels.add(label, os.path.join(root, record["fpath_segm"]))
        is_grey = header.is_16_bit_grey
        photos.add(header, path, image.getextrema()[0][1] if is_grey else None)
    return faults


def check_labels(
    records: SegList,
    root: str,
    num_class: int,
    most: int = 4000,
    turn: bool = False,
    photos: PhotoCounts | None = None,
) -> LabelCounts:
    """Decode the label maps, up to `most` evenly spread ones, and look at their images' sizes.

    A few seconds at the start instead of a fault after hours; images are not decoded. What is not
    looked at here is checked when it is read, and by `check_seg_files`.
    photos: counts the images' headers
    Returns what the labels hold. Raises InputError with every fault.
    """

    def look_at(i):
        record, counts = records[int(i)], LabelCounts()
        path = os.path.join(root, record["fpath_segm"])
        try:
            label = inspect_label(path, num_class, turn)
            image = os.path.join(root, record["fpath_img"])
            header = listed_header(image)
            check_pair(record, root, header.size(turn), label.values.shape[::-1], turn)
        except InputError as error:
            return error.faults, None
        counts.add(label, path)
        return [], ((counts.pixels, label.form, path), (header, image))

    chosen = np.unique(np.linspace(0, len(records) - 1, min(most, len(records))).astype(int))
    faults, counts = [], LabelCounts()
    for found, counted in in_threads(look_at, chosen):
        faults += found
        if counted:
            counts.add_counts(*counted[0])
            if photos is not None:
                photos.add(*counted[1])
    if faults:
        raise InputError(at_most(faults))
    return counts


def _tell(file, names, labels, photos, deep, log, warn, warned):
    """Log what the files hold and warn of doubts, each kind in the first list that has it.

    deep: False at the start of a run, when counts and classes that do not occur are no news
    """
    if not labels.maps:
        return
    if deep:
        log(f"{file}: {len(photos)} images with labels")
        for line in [*photos.lines(), *labels.lines(names)]:
            log(line)
    found = labels.warnings(file, names)
    found |= {line: line for line in photos.warnings(file, _EXIF_REMEDY)}
    if not deep:
        found.pop("absent", None)
    for line in labels.notes(file):
        log(line)
    for kind, line in found.items():
        if kind not in warned or kind == "absent":
            warn(line)
    warned |= set(found)


def _picture(lists, root, names, turn, path, log):
    part = "train" if "train" in lists else next(iter(lists))
    try:
        save_sample_grid(lists[part], root, names, turn, path)
    except SaveError as error:  # a check of read-only data is no less done
        log(f"No picture: {error}")
    else:
        log(f"Samples with their labels: {path}")
