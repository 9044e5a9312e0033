"""Opens the annotation files of a QueryInst run: indexes, checks, and the classes in force."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from common.errors import InputError, did_you_mean
from data.coco_check import check_coco, first_faults
from data.coco_index import CocoIndex

LOADERS = {"train": "train_dataloader", "valid": "val_dataloader"}


def open_query_data(
    datasets: Mapping[str, Any], *, cache_folder: Any = None, deep: bool = False
) -> tuple[tuple[str, ...], dict[str, CocoIndex]]:
    """(class names in order, {part: index}), all checked.

    datasets: {"train": dataset section, "valid": dataset section}, or one of them; a section has
              info_path, images_path, filter_cfg, metainfo
    cache_folder: where indexes are kept, None for nowhere; deep: open every image too

    The classes are those of the first part: the categories in the order of its file, of which
    metainfo.classes, when it names any, keeps some. Categories of the other part go by their names.
    Raises InputError with the faults of all files.
    """
    indexes, faults = {}, []
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
            include_empty = part == "valid" or not dataset.filter_cfg.filter_empty_gt
            faults += check_coco(dataset.info_path, dataset.images_path, index=index,
                                 include_empty=include_empty, deep=deep)
    if faults:
        raise InputError(first_faults(faults))
    first, *others = datasets
    names = class_names(indexes[first], datasets[first].metainfo.classes)
    for part in others:
        strange = [] if datasets[first].metainfo.classes else [
            name for name in indexes[part].categories.values() if name not in names]
        if strange:
            raise InputError(f"{indexes[part].path}: categories {', '.join(strange)} are not among "
                             f"the classes trained on; both files must list the same categories")
    return names, indexes


def class_names(index: CocoIndex, wanted: Iterable[str] = ()) -> tuple[str, ...]:
    """Names of the categories in the order of the file; with `wanted`, those of them only.

    Raises InputError when the file lists none, one name twice, or not all that are wanted.
    """
    names = [index.categories[i] for i in index.category_ids.tolist()]
    if not names:
        raise InputError(f"{index.path}: no categories, so there is nothing to detect. Add the "
                         "'categories' list of the COCO format.")
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        raise InputError(f"{index.path}: categories with equal names: {', '.join(twice)}; "
                         "names must differ")
    # differs: in the original a class that the file lacks makes an unused output, silently
    faults = [f"{index.path}: no category named {name}, which metainfo.classes asks for."
              f"{did_you_mean(name, names)}" for name in wanted if name not in names]
    if faults:
        raise InputError(faults)
    # parity: the order is the file's, not that of the list asked for (spec, section 9)
    return tuple(name for name in names if name in set(wanted) or not wanted)


def category_labels(index: CocoIndex, names: Iterable[str]) -> dict[int, int]:
    """{category id of the file: 0-based class} for the categories with these names."""
    labels = {name: label for label, name in enumerate(names)}
    return {category: labels[name] for category, name in index.categories.items() if name in labels}
