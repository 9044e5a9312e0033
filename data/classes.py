"""Which classes a COCO-format data set has: the config's, or those that its file lists."""

from common.config import InputError


def derive_classes(categories):
    """Class names and label map of an annotation file.

    categories: {category id: name}; ids may have gaps, start at 0, or be a single one
    Returns (names in order of id, {category id: 1-based class}); 0 is the background.
    """
    ids = sorted(categories)
    names = tuple(categories[category_id] for category_id in ids)
    return names, {category_id: i + 1 for i, category_id in enumerate(ids)}


def settle_classes(class_names, label_map, categories, info_file, own_data=False):
    """The class names and label map in force for an annotation file.

    class_names: the config's, () when it names none
    label_map:   the config's, None for {1: 1, ..., n: n}
    categories:  {category id: name} of the file
    own_data:    the file was put over the config on the command line: its classes count
    The config's classes stay when they plainly belong to the file: every category is mapped, and
    names or number agree. A config made for other data (COCO's 80 names over a file of three
    classes) gives way to the file.
    Raises InputError when the file lists no category.
    """
    if not categories:
        raise InputError(f"{info_file}: no categories, so there is nothing to detect. Add the "
                         "'categories' list of the COCO format.")
    if class_names and not own_data:
        mapping = label_map or {i + 1: i + 1 for i in range(len(class_names))}
        if set(categories) <= set(mapping):
            agree = all(class_names[mapping[i] - 1] == name for i, name in categories.items())
            if agree or len(categories) == len(class_names):
                return tuple(class_names), mapping
    return derive_classes(categories)


def unmapped_categories(label_map, categories, info_file):
    """One fault line when a validation file has categories that the training classes lack."""
    strange = [f"{i} ({name})" for i, name in sorted(categories.items()) if i not in label_map]
    if not strange:
        return []
    return [f"{info_file}: category ids {', '.join(strange)} are not among the classes trained on. "
            "Both files must list the same categories."]
