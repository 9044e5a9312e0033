"""Opens the annotation files of a run: indexes, checks, and the classes in force."""

import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from common.errors import InputError
from data.classes import settle_classes, unmapped_categories
from data.coco_check import check_coco, first_faults
from data.coco_index import CocoIndex


def open_coco(
    dataset: Any,
    parts: list[str],
    *,
    own_data: bool = False,
    cache_folder: Any = None,
    deep: bool = False,
) -> tuple[Any, dict[str, CocoIndex]]:
    """(the dataset section with the classes in force, {part: index}), all checked.

    dataset:  a config's frozen section: train_info, train_images, valid_info, valid_images,
              has_gt, include_empty, class_names, label_map
    parts:    "train", "valid", both, or none; the classes are those of the first, the other must
              agree; without any they are the config's
    own_data: the files were put over the config's on the command line (see `settle_classes`)
    cache_folder: where indexes are kept, None for nowhere
    deep:     open every image too
    Raises InputError with the faults of all files.
    """
    files = {"train": (dataset.train_info, dataset.train_images),
             "valid": (dataset.valid_info, dataset.valid_images)}
    indexes, faults = {}, []
    for part in parts:
        info, images = files[part]
        try:
            index = CocoIndex.from_file(info, cache_folder)
        except InputError as error:
            faults += error.faults
            continue
        indexes[part] = index
        faults += check_coco(info, images, index=index, has_gt=dataset.has_gt,
                             include_empty=dataset.include_empty, deep=deep)
    if faults:
        raise InputError(first_faults(faults))

    if dataset.has_gt and indexes:
        first, *others = indexes
        names, label_map = settle_classes(dataset.class_names, dataset.label_map,
                                          indexes[first].categories, files[first][0], own_data)
        for part in others:
            faults += unmapped_categories(label_map, indexes[part].categories, files[part][0])
        if faults:
            raise InputError(faults)
        dataset = replace(dataset, class_names=names, label_map=label_map)
    return dataset, indexes


def share_indexes(run: Any, dataset: Any, indexes: dict[str, CocoIndex] | None) -> dict:
    """{part: index} on every rank; the arrays exist once on a machine (all ranks).

    run:     the Run
    indexes: what `open_coco` gave rank 0, None on the others
    Rank 0's go into a file that its neighbours map into memory; it is removed once all have it.
    On other machines the first process parses the files for its own neighbours.
    """
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
