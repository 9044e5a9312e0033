import pytest

from data.coco_format.classes import (
    ambiguous_names,
    compare_names,
    derive_classes,
    join_classes,
    match_names,
    settle_classes,
)
from runtime.errors import InputError

NAMES = ("cat", "dog", "cow")
FILES = ("train.json", "val.json")


@pytest.mark.parametrize("categories, names, label_map", [
    ({7: "dog", 3: "cat"}, ("cat", "dog"), {3: 1, 7: 2}),  # gaps, unsorted
    ({0: "cell"}, ("cell",), {0: 1}),  # one class, ids from 0
])
def test_classes_come_from_the_categories(categories, names, label_map):
    assert derive_classes(categories) == (names, label_map)


@pytest.mark.parametrize("categories", [
    {1: "cat", 3: "cow"},  # a subset, names agree
    {1: "Katze", 2: "Hund", 3: "Kuh"},  # the user's own names for the very same classes
])
def test_a_config_made_for_the_file_keeps_its_classes(categories):
    assert settle_classes(NAMES, None, categories, "a.json") == (NAMES, {1: 1, 2: 2, 3: 3})


def test_the_same_names_under_other_ids_keep_their_classes():
    categories = {1: "cow", 2: "cat", 30: "dog"}
    assert settle_classes(NAMES, None, categories, "a.json") == (NAMES, {1: 3, 2: 1, 30: 2})


@pytest.mark.parametrize("categories", [
    {1: "rose", 2: "tulip"}, {9: "cat"}, {1: "dog", 2: "cat", 3: "hen"}])
def test_a_config_made_for_other_data_gives_way(categories):
    names, label_map = settle_classes(NAMES, None, categories, "a.json")
    assert set(names) == set(categories.values())
    assert sorted(label_map) == sorted(categories)
    assert all(names[label_map[i] - 1] == name for i, name in categories.items())


def test_data_from_the_command_line_brings_its_classes():
    names, _ = settle_classes(NAMES, None, {1: "x", 2: "y", 3: "z"}, "a.json", own_data=True)
    assert names == ("x", "y", "z")


def test_no_categories_are_named():
    with pytest.raises(InputError, match=r"a\.json: no categories"):
        settle_classes((), None, {}, "a.json")


@pytest.mark.parametrize("names, known, matched", [
    (["cat", "dog"], ["dog", "cat"], {"cat": "cat", "dog": "dog"}),
    ([" Cat", "traffic  light"], ["cat", "Traffic Light"],
     {" Cat": "cat", "traffic  light": "Traffic Light"}),
    (["cat", "Cat"], ["cat"], {"cat": "cat"}),  # the equal one has it
    (["CAT"], ["cat", "Cat"], {}),  # which of the two?
    (["cats"], ["cat"], {}),
])
def test_names_that_are_the_same(names, known, matched):
    assert match_names(names, known) == matched


def test_label_maps_go_by_name():
    first = {1: "cat", 2: "dog", 5: "cow"}
    label_map = {1: 1, 2: 2, 5: 3}
    assert join_classes(label_map, first, {7: "dog", 1: "cow", 3: "hen"}) == {7: 2, 1: 3}
    assert join_classes(label_map, first, {5: "Cow "}) == {5: 3}
    twice = {1: "cat", 2: "cat"}  # the same ids tell them apart
    assert join_classes({1: 1, 2: 2}, twice, twice) == {1: 1, 2: 2}


@pytest.mark.parametrize("second, faults, warnings", [
    ({1: "cat", 2: "dog"}, [], []),
    ({2: "cat", 1: "dog"}, [], ["2 of its 2 categories have other ids"]),
    ({1: "cat", 2: "dog", 5: "fox"}, ["categories fox are not among"], []),
    ({1: "cat"}, [], ["no category dog, which train.json has"]),
    ({1: "Cat ", 2: "dog"}, [], ["only in case or blanks are taken for the same: 'Cat ' is"]),
    ({1: "cat", 2: "dog", 3: "cat"}, ["categories named cat have the ids 1, 3"],
     ["1 of its 3 categories have other ids"]),
])
def test_names_in_one_file_and_not_in_the_other_are_said(second, faults, warnings):
    found = compare_names({1: "cat", 2: "dog"}, second, FILES)
    for lines, parts in zip(found, (faults, warnings), strict=True):
        assert len(lines) == len(parts), lines
        assert all(part in line for part, line in zip(parts, lines, strict=True)), lines
        assert all(line.startswith("val.json: ") for line in lines)


def test_names_that_are_not_unique():
    assert ambiguous_names({1: "cat", 2: "dog"}, "a.json") == ([], [])
    equal, near = ambiguous_names({1: "cat", 2: "Cat", 7: "cat"}, "a.json")
    assert equal == ["a.json: categories 1 and 7 have the same name, cat; give each a name of its "
                     "own"]
    assert "a.json: categories 7 (cat) and 2 (Cat) differ only in case or blanks" in near[0]
