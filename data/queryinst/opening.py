"""Opens the annotation files of a QueryInst run: indexes, checks, and the classes in force."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from data.coco_format.check import examine_coco, first_faults
from data.coco_format.classes import ambiguous_names, match_names
from data.coco_format.index import CocoIndex
from data.coco_format.opening import compare_files, without_objects
from data.drawn.shapes import with_drawn_scenes
from runtime.errors import InputError, did_you_mean

LOADERS = {"train": "train_dataloader", "valid": "val_dataloader"}


def open_query_config(
    cfg: Any, project: Path, *, needs_training: bool = True, cache_folder: Path | None = None,
    deep: bool = False, run: Any = None,
) -> tuple[tuple[Any, tuple[str, ...]], dict[str, CocoIndex]]:
    """((config with the data's classes, class names), {"train": index, "valid": index}).

    cfg:     a QueryInst config; drawn scenes that it names are made in the folder `project`.
             Without a val_dataloader there is no "valid"
    needs_training: without it the training file may be missing: the classes are then the
             validation file's, and there is no "train"
    cache_folder: where indexes may be kept, if it is there; deep, run: as `open_query_data`
    Raises InputError with the faults of all files.
    """
    parts = {part: key for part, key in LOADERS.items() if vars(cfg)[key] is not None}
    for key in parts.values():
        loader = vars(cfg)[key]
        dataset = with_drawn_scenes(loader.dataset, project, "coco")
        cfg = replace(cfg, **{key: replace(loader, dataset=dataset)})
    datasets = {part: vars(cfg)[key].dataset for part, key in parts.items()}
    if not needs_training and "valid" in parts and not Path(datasets["train"].info_path).is_file():
        del datasets["train"]
    is_kept = cache_folder is not None and cache_folder.is_dir()
    names, indexes = open_query_data(
        datasets, cache_folder=cache_folder if is_kept else None, deep=deep, run=run)
    if "valid" in indexes and cfg.val_evaluator.ann_file:
        check_truth(cfg.val_evaluator.ann_file, indexes["valid"])
    return (replace(cfg, model=replace(cfg.model, num_classes=len(names))), names), indexes


def open_query_data(
    datasets: Mapping[str, Any], *, cache_folder: Any = None, deep: bool = False, run: Any = None
) -> tuple[tuple[str, ...], dict[str, CocoIndex]]:
    """(class names in order, {part: index}), all checked.

    datasets: {"train": dataset section, "valid": dataset section}, or one of them; a section has
              info_path, images_path, filter_cfg, metainfo
    cache_folder: where indexes are kept, None for nowhere; deep: open every image too
    run: its `log` and `warn` tell what is left out and what is odd; None: nobody is told

    The classes are those of the first part: the categories in the order of its file, of which
    metainfo.classes, when it names any, keeps some. Categories of the other part go by their names.
    Raises InputError with the faults of all files.
    """
    indexes, faults, warnings = {}, [], []
    for part, dataset in datasets.items():
        loader = f"{LOADERS[part]}.dataset"
        if not Path(dataset.info_path).is_file():
            faults.append(f"{dataset.info_path}: no such annotation file; set {loader}.data_root "
                          f"or {loader}.ann_file")
        elif not Path(dataset.images_path).is_dir():
            faults.append(f"{dataset.images_path}: no such image folder; set {loader}.data_root "
                          f"or {loader}.data_prefix.img")
        else:
            try:
                index = CocoIndex.from_file(dataset.info_path, cache_folder)
            except InputError as error:
                faults += error.faults
                continue
            indexes[part] = index
            include_empty = (part == "valid" or dataset.test_mode
                             or not dataset.filter_cfg.filter_empty_gt)
            found, odd = examine_coco(dataset.info_path, dataset.images_path, index=index,
                                      include_empty=include_empty, deep=deep)
            nothing, doubt = without_objects(index, part)
            found, odd = found + nothing, odd + doubt
            _, alike = ambiguous_names(index.categories, index.path)
            faults, warnings = faults + found, warnings + odd + alike
    if faults:
        raise InputError(first_faults(faults))
    first, *others = datasets
    names = class_names(indexes[first], datasets[first].metainfo.classes)
    for part in others:
        if not datasets[first].metainfo.classes:
            warnings += compare_files(indexes[first], indexes[part],
                                      (datasets[first].images_path, datasets[part].images_path))
    if run is not None:
        if "train" in indexes and not datasets["train"].test_mode:
            _tell_left_out(run, indexes["train"], names, datasets["train"].filter_cfg)
        for line in warnings:
            run.warn(line)
    return names, indexes


def check_truth(ann_file: str, valid: CocoIndex) -> None:
    """Whether an evaluator's own annotation file has the images that are evaluated.

    Raises InputError, naming it, when it is not there or lacks some: it is read after the training.
    """
    advice = "set the evaluator's ann_file, or set it to None for that of its images"
    path = Path(ann_file)
    if not path.is_file():
        raise InputError(f"{ann_file}: no such annotation file; {advice}")
    if not path.samefile(valid.path):
        missing = np.setdiff1d(valid.image_ids, CocoIndex.from_file(ann_file).image_ids)
        if len(missing):
            raise InputError(f"{ann_file}: lacks {len(missing)} of the {len(valid.image_ids)} "
                             f"images of {valid.path}, id {missing[0]} first; {advice}")


def _tell_left_out(run, index, names, keep):
    """How many training images are not used, and by which key."""
    empty, small = left_out(index, category_labels(index, names), keep)
    loader = "train_dataloader.dataset.filter_cfg"
    for which, what, key in (
            (empty, "have no objects", f"{loader}.filter_empty_gt=False"),
            (small, f"are less than {keep.min_size} px wide or high", f"{loader}.min_size=1")):
        number = int(which.sum())
        if number:
            run.log(f"{index.path}: {number} of {len(which)} images {what} and are left out "
                    f"({key} keeps them).")


def left_out(index: CocoIndex, labels: Mapping[int, int], keep: Any) -> tuple[Any, Any]:
    """(images that filter_cfg drops as empty, as too small), bool [N] each.

    labels: {category id: class} of the known categories; keep: a filter_cfg
    """
    small = index.image_hw.min(1) < keep.min_size
    if not keep.filter_empty_gt:
        return np.zeros(len(small), bool), small
    # parity: any annotation counts, be it a crowd's or one that is dropped later
    # [queryinst.md: Data]
    known = np.isin(index.ann_categories, list(labels))
    before = np.concatenate([[0], np.cumsum(known)])
    return before[index.ann_starts[1:]] == before[index.ann_starts[:-1]], small


def class_names(index: CocoIndex, wanted: Iterable[str] = ()) -> tuple[str, ...]:
    """Names of the categories in the order of the file; with `wanted`, those of them only.

    Raises InputError when the file lists none, one name twice, or not all that are wanted.
    """
    names = [index.categories[i] for i in index.category_ids.tolist()]
    if not names:
        raise InputError(f"{index.path}: no categories, so there is nothing to detect. Add the "
                         "'categories' list of the COCO format.")
    twice, _ = ambiguous_names(index.categories, index.path)
    if twice:
        raise InputError(twice)
    # differs: in the original a class that the file lacks makes an unused output, silently
    # [queryinst.md: Known faults]. Way back: none, metainfo.classes need not name it.
    faults = [f"{index.path}: no category named {name}, which metainfo.classes asks for."
              f"{did_you_mean(name, names)}" for name in wanted if name not in names]
    if faults:
        raise InputError(faults)
    # parity: the order is the file's, not that of the list asked for [queryinst.md: Data]
    return tuple(name for name in names if name in set(wanted) or not wanted)


def category_labels(index: CocoIndex, names: Iterable[str]) -> dict[int, int]:
    """{category id of the file: 0-based class} for the categories with these names."""
    labels = {name: label for label, name in enumerate(names)}
    same = match_names(index.categories.values(), labels)
    return {category: labels[same[name]] for category, name in index.categories.items()
            if name in same}
