import pytest

from common.config import InputError
from data.classes import derive_classes, settle_classes, unmapped_categories

NAMES = ("cat", "dog", "cow")


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


@pytest.mark.parametrize("categories", [{1: "rose", 2: "tulip"}, {9: "cat"}])
def test_a_config_made_for_other_data_gives_way(categories):
    names, label_map = settle_classes(NAMES, None, categories, "a.json")
    assert set(names) == set(categories.values())
    assert sorted(label_map) == sorted(categories)


def test_data_from_the_command_line_brings_its_classes():
    names, _ = settle_classes(NAMES, None, {1: "x", 2: "y", 3: "z"}, "a.json", own_data=True)
    assert names == ("x", "y", "z")


def test_no_categories_and_strange_ones_are_named():
    with pytest.raises(InputError, match=r"a\.json: no categories"):
        settle_classes((), None, {}, "a.json")
    assert unmapped_categories({1: 1}, {1: "cat"}, "v.json") == []
    assert "v.json: category ids 5 (fox)" in unmapped_categories({1: 1}, {5: "fox"}, "v.json")[0]
