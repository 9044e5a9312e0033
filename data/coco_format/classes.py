"""Which classes a COCO-format data set has: the config's, or those that its file lists.

Files are joined by the names of their categories; ids may differ from file to file.
"""

import unicodedata
from collections.abc import Iterable, Mapping

from runtime.errors import InputError


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
    names or number agree. The same names under other ids keep their classes. A config made for
    other data (COCO's 80 names over a file of three classes) gives way to the file.
    Raises InputError when the file lists no category.
    """
    if not categories:
        raise InputError(f"{info_file}: no categories, so there is nothing to detect. Add the "
                         "'categories' list of the COCO format.")
    if class_names and not own_data:
        mapping = label_map or {i + 1: i + 1 for i in range(len(class_names))}
        mapped = set(categories) <= set(mapping)
        if mapped and all(class_names[mapping[i] - 1] == name for i, name in categories.items()):
            return tuple(class_names), mapping
        if sorted(categories.values()) == sorted(class_names) == sorted(set(class_names)):
            return tuple(class_names), {i: class_names.index(name) + 1
                                        for i, name in sorted(categories.items())}
        # the user's own names for the very same classes
        strangers = not set(categories.values()) & set(class_names)
        if mapped and strangers and len(categories) == len(class_names):
            return tuple(class_names), mapping
    return derive_classes(categories)


def match_names(names: Iterable[str], known: Iterable[str]) -> dict[str, str]:
    """{name: the known one that it is}, for those that are one of `known`.

    Where no known name is equal, one that differs only in case or blanks is, if it is the only one
    and no other of `names` has it.
    """
    names, known = list(dict.fromkeys(names)), list(dict.fromkeys(known))
    found = {name: name for name in names if name in set(known)}
    folded = {}
    for name in known:
        if name not in found:
            folded.setdefault(fold(name), []).append(name)
    for name in names:
        if name not in found and len(folded.get(fold(name), ())) == 1:
            found[name] = folded.pop(fold(name))[0]
    return found


def fold(name: str) -> str:
    """The name without case, with single blanks, and with its accents as letters have them."""
    return " ".join(unicodedata.normalize("NFC", name).split()).casefold()


def join_classes(
    label_map: Mapping[int, int],
    categories: Mapping[int, str],
    others: Mapping[int, str],
) -> dict[int, int]:
    """The label map of a second file, {category id: 1-based class}, for the names it shares.

    label_map, categories: of the first file; others: {category id: name} of the second
    Of several categories with one name the one with the same id counts.
    """
    known = {}
    for category, name in categories.items():
        known.setdefault(name, []).append(category)
    joined = {}
    for name, same in match_names(others.values(), categories.values()).items():
        for category in [i for i, other in others.items() if other == name]:
            partner = category if category in known[same] else known[same][0]
            if partner in label_map:
                joined[category] = label_map[partner]
    return joined


def compare_names(
    first: Mapping[int, str], second: Mapping[int, str], files: tuple[str, str]
) -> tuple[list[str], list[str]]:
    """(faults, warnings) of two files' category names, a line each.

    first, second: {category id: name} of the file trained on and of the other
    files:         their paths
    """
    matched = match_names(second.values(), first.values())
    strange = [name for name in dict.fromkeys(second.values()) if name not in matched]
    faults = [f"{files[1]}: categories {listed(strange)} are not among the classes trained on; "
              f"files are joined by name, both must list the same ones ({files[0]} lists "
              f"{listed(first.values())})"] if strange else []
    for name, same in matched.items():
        own, partners = ({i for i, other in side.items() if other == each}
                         for side, each in ((second, name), (first, same)))
        if max(len(own), len(partners)) > 1 and not own <= partners:
            faults.append(f"{files[1]}: categories named {name} have the ids {listed(own)}, in "
                          f"{files[0]} {listed(partners)}: files are joined by name; give each "
                          "category a name of its own")
    warnings = []
    missing = [name for name in first.values() if name not in matched.values()]
    if missing:
        warnings.append(f"{files[1]}: no category {listed(missing)}, which {files[0]} has; it is "
                        "trained and not scored")
    ids = {name: {i for i, other in first.items() if other == same} for name, same in
           matched.items()}
    moved = sum(i not in ids[name] for i, name in second.items() if name in matched)
    if moved:
        warnings.append(f"{files[1]}: {moved} of its {len(second)} categories have other ids than "
                        f"in {files[0]}; they are joined by name")
    respelt = [f"{name!r} is {same!r}" for name, same in matched.items() if name != same]
    if respelt:
        warnings.append(f"{files[1]}: names that differ from those of {files[0]} only in case or "
                        f"blanks are taken for the same: {listed(respelt)}")
    return faults, warnings


def ambiguous_names(categories: Mapping[int, str], file: str) -> tuple[list[str], list[str]]:
    """(names that several categories of a file have, those that nearly are one); a line each."""
    equal, near = {}, {}
    for category, name in sorted(categories.items()):
        equal.setdefault(name, []).append(str(category))
        near.setdefault(fold(name), {})[name] = str(category)
    twice = [f"{file}: categories {' and '.join(ids)} have the same name, {name}; give each a "
             "name of its own" for name, ids in equal.items() if len(ids) > 1]
    alike = [f"{file}: categories " + " and ".join(f"{i} ({name})" for name, i in names.items())
             + " differ only in case or blanks; they are trained as separate classes"
             for names in near.values() if len(names) > 1]
    return twice, alike


def listed(names: Iterable[object], limit: int = 10) -> str:
    """The first names with commas, and how many there are more."""
    names = [str(name) for name in names]
    rest = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + rest
