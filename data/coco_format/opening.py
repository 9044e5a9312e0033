"""Opens the annotation files of a run: indexes, checks, and the classes in force."""

import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from data.coco_format.check import examine_coco, first_faults
from data.coco_format.classes import (
    ambiguous_names,
    compare_names,
    listed,
    match_names,
    settle_classes,
)
from data.coco_format.doubts import shared_images
from data.coco_format.facts import data_facts
from data.coco_format.index import CocoIndex
from runtime.errors import InputError


def open_coco(
    dataset: Any,
    parts: list[str],
    *,
    own_data: bool = False,
    cache_folder: Any = None,
    deep: bool = False,
    run: Any = None,
) -> tuple[Any, dict[str, CocoIndex]]:
    """(the dataset section with the classes in force, {part: index}), all checked.

    dataset:  a config's frozen section: train_info, train_images, valid_info, valid_images,
              has_gt, include_empty, class_names, label_map
    parts:    "train", "valid", both, or none; the classes are those of the first, the other's go
              by their names; without any they are the config's
    own_data: the files were put over the config's on the command line (see `settle_classes`)
    cache_folder: where indexes are kept if that folder is there already; None for nowhere
    deep:     open every image too
    run:      its `log` and `warn` tell what is left out and what is odd; None: nobody is told
    Raises InputError with the faults of all files.
    """
    files = {"train": (dataset.train_info, dataset.train_images),
             "valid": (dataset.valid_info, dataset.valid_images)}
    indexes, faults, warnings = {}, [], []
    cache_folder = cache_folder if cache_folder and Path(cache_folder).is_dir() else None
    for part in parts:
        info, images = files[part]
        try:
            index = CocoIndex.from_file(info, cache_folder)
        except InputError as error:
            faults += error.faults
            continue
        indexes[part] = index
        found, odd = examine_coco(info, images, index=index, has_gt=dataset.has_gt,
                                  include_empty=dataset.include_empty, deep=deep,
                                  no_truth="; without ground truth set dataset.has_gt=False")
        if dataset.has_gt:
            nothing, doubt = without_objects(index, part)
            found, odd = found + nothing, odd + doubt
        equal, alike = ambiguous_names(index.categories, index.path)
        faults, warnings = faults + found + equal, warnings + odd + alike
    if faults:
        raise InputError(first_faults(faults))

    if dataset.has_gt and indexes:
        first, *others = indexes
        names, label_map = settle_classes(dataset.class_names, dataset.label_map,
                                          indexes[first].categories, files[first][0], own_data)
        for part in others:
            warnings += compare_files(indexes[first], indexes[part],
                                      (files[first][1], files[part][1]))
        dataset = replace(dataset, class_names=names, label_map=label_map)
    if run is not None:
        for index in indexes.values():
            left = len(index.image_ids) - len(index.items(dataset.has_gt, dataset.include_empty))
            if left:
                run.log(f"{index.path}: {left} of {len(index.image_ids)} images have no objects "
                        "and are left out (dataset.include_empty=True keeps them).")
        for line in warnings:
            run.warn(line)
    return dataset, indexes


def compare_files(first: CocoIndex, second: CocoIndex, folders: tuple) -> list[str]:
    """What is odd about a training file and another one together, a line each.

    folders: where their images lie
    Raises InputError when their categories cannot be joined by name.
    """
    used = set(second.ann_categories.tolist())
    known = match_names(second.categories.values(), first.categories.values())
    needless = [name for category, name in second.categories.items()
                if name not in known and category not in used]
    own = {i: name for i, name in second.categories.items() if name not in needless}
    faults, warnings = compare_names(first.categories, own, (first.path, second.path))
    if needless:
        warnings.append(f"{second.path}: categories {listed(needless)} are not among the classes "
                        "trained on; no annotation is of them, so they are left alone")
    if faults:
        raise InputError(faults)
    one_folder = Path(folders[0]).resolve() == Path(folders[1]).resolve()
    same = shared_images(first, second) if one_folder else 0
    if same:
        warnings.append(f"{second.path}: {same} of its {len(second.image_ids)} images are in "
                        f"{first.path}, too; what is trained on should not be validated on")
    return warnings


def without_objects(index: CocoIndex, part: str) -> tuple[list[str], list[str]]:
    """(faults, warnings) of a file that has not one annotation to train on, or to score with."""
    number, crowds = len(index.image_ids), len(index.ann_ids)
    if not index.ann_crowd.all() or index.missing or index.faults or not number:
        return [], []
    but = f" but {crowds} crowds (iscrowd 1)" if crowds else ""
    line = f"{index.path}: none of its {number} images has an object{but}, so that nothing can be "
    if part == "train":
        return [f"{line}learnt; correct 'annotations'"], []
    return [], [f"{line}scored"]


def share_indexes(run: Any, dataset: Any, indexes: dict[str, CocoIndex] | None) -> dict:
    """{part: index} on every rank; the arrays exist once on a machine (all ranks).

    run:     the Run
    indexes: what `open_coco` gave rank 0, None on the others
    Rank 0 tells the run what is in them, for report.html.
    Rank 0's go into a file that its neighbours map into memory; it is removed once all have it.
    On other machines the first process parses the files for its own neighbours.
    """
    if run.is_main:
        run.describe(data=data_facts(indexes))
    parts = run.broadcast(list(indexes) if run.is_main else None)
    if run.world_size == 1:
        return indexes
    # the launcher of a machine is the parent of all its processes, so they agree on the name
    folder = Path(tempfile.gettempdir()) / f"coco-indexes-{os.getppid()}"
    files = {"train": dataset.train_info, "valid": dataset.valid_info}
    if run.is_main:
        for index in indexes.values():
            index.keep(folder)
    elif run.local_rank == 0:
        indexes = {part: CocoIndex.from_file(files[part], folder) for part in parts}
    run.barrier()
    if indexes is None:
        indexes = {part: CocoIndex.from_file(files[part], folder) for part in parts}
    run.barrier()
    if run.local_rank == 0:
        shutil.rmtree(folder, ignore_errors=True)
    return indexes


def keep_indexes(run: Any, indexes: dict[str, CocoIndex], folder: Path) -> None:
    """Rank 0 keeps the indexes in `folder`, from which the next start maps them into memory."""
    if run.is_main:
        for index in indexes.values():
            index.keep(folder)
