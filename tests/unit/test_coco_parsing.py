"""The quick reader of annotation files takes the usual ones, and says what the careful one says."""

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from coco_maker import annotation, crowd, document
from hypothesis import given
from hypothesis import strategies as st
from mutations import example_settings, mutated_documents, mutated_text

from data.coco_format.parsing import coco
from data.coco_format.parsing.careful import parse_carefully
from data.coco_format.parsing.number_text import read_lists
from data.coco_format.parsing.plain import parse_plain
from runtime.errors import InputError

COMPRESSED = {"size": [60, 80], "counts": "Q3d0l0h05L3N1O2N1O2N"}
USUAL = document([
    crowd(10, 3, (60, 80), (5, 6, 7, 8)),
    annotation(11, 1, 2, (1.5, 2.5, 10, 12), area=0.1 + 0.2),
    annotation(12, 3, ignore=1, area=0),
    annotation(13, 1, iscrowd=False, segmentation=[[0, 0, 9, 0, 9, 9], [1e1, 20.25, 30, -2, 3, 3]]),
    annotation(14, 99, iscrowd=None),  # of an image that is not there
    annotation(15, 2, iscrowd=1, segmentation=[[1, 1, 20, 1, 20, 20.123456789]]),
    annotation(16, 1, segmentation=COMPRESSED),
])
SPELLINGS = st.one_of(
    st.integers(-10**9, 10**12).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.decimals(0, 99999, places=2).map(str),
    st.sampled_from(("0", "0.5", "1E+2", "-0.0", "1.5e-7", "12345678", "1234.567", "123456789")),
)


def read_both(text, folder):
    """(fields by the quick reader or None, the careful one's; a InputError's text instead)."""
    path = Path(folder) / "info.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    try:
        careful = parse_carefully(path, path.read_bytes())
    except InputError as error:
        careful = str(error)
    return parse_plain(path), careful


def assert_same(plain, careful):
    assert not isinstance(careful, str), careful
    assert plain.keys() == careful.keys()
    for name, value in careful.items():
        if isinstance(value, np.ndarray):
            assert (plain[name].dtype, plain[name].shape) == (value.dtype, value.shape), name
            np.testing.assert_array_equal(plain[name], value, err_msg=name)
        else:
            assert plain[name] == value, name


def test_usual_files_are_read_by_the_quick_reader(tmp_path):
    plain, careful = read_both(json.dumps(USUAL), tmp_path)
    assert plain is not None
    assert_same(plain, careful)
    assert plain["ann_ids"].tolist() == [11, 13, 16, 15, 12, 10, 14]
    assert plain["ann_areas"][0] == np.float32(0.3)
    assert not plain["ann_area_stated"][4]


def test_more_annotations_than_are_read_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr("data.coco_format.parsing.plain._AT_ONCE", 2)
    assert_same(*read_both(json.dumps(USUAL, indent=1), tmp_path))


def test_files_without_images_or_annotations_are_equal_too(tmp_path):
    for content in (document([]), document([], num_images=0)):
        assert_same(*read_both(json.dumps(content), tmp_path))


@pytest.mark.parametrize("changes", [
    {"bbox": []}, {"bbox": [1, 2, 3]}, {"bbox": [[1, 2, 3, 4]]}, {"bbox": ["1", 2, 3, 4]},
    {"segmentation": []}, {"segmentation": [[]]}, {"segmentation": [1, 1, 2, 2, 3, 3]},
    {"segmentation": [[[1, 1], [2, 2], [3, 3]]]}, {"segmentation": [[1, 1], [2, 2], [3, 3]]},
    {"segmentation": "[[1, 1, 2, 2, 3, 3]]"}, {"segmentation": [[1, 1, None, 2, 3, 3]]},
    {"segmentation": {"size": [60, 80], "counts": "~"}}, {"segmentation": {"counts": [4800]}},
    {"iscrowd": 2}, {"iscrowd": "1"}, {"area": "12"}, {"id": "7"}, {"id": 2**70}, {"id": 2**63},
    {"category_id": None}, {"area": [1]}, {"ignore": []},
])
def test_other_forms_are_left_to_the_careful_reader(tmp_path, changes):
    record = annotation(1, 1) | changes
    plain, _ = read_both(json.dumps(document([annotation(2, 2), record])), tmp_path)
    assert plain is None


def test_faults_name_their_records_as_before(tmp_path):
    path = tmp_path / "info.json"
    path.write_text(json.dumps(document([annotation(1, 1), annotation(5, 1, iscrowd=7)])))
    faults = coco.parse_coco(path)["faults"]
    assert len(faults) == 1
    assert "annotation 5: 'iscrowd' is 7" in faults[0]


@given(st.data())
@example_settings(60)
def test_what_it_takes_it_reads_as_the_careful_reader_does(data):
    content = data.draw(mutated_documents(USUAL))
    try:
        text = json.dumps(content, indent=data.draw(st.sampled_from((None, 1))))
    except (RecursionError, ValueError):
        return
    with tempfile.TemporaryDirectory() as folder:
        plain, careful = read_both(data.draw(mutated_text(text)), folder)
    if plain is not None:
        assert_same(plain, careful)


@given(st.lists(st.lists(st.lists(SPELLINGS, min_size=1), min_size=1), min_size=1),
       st.sampled_from((",", ", ", " ,\n\t")))
@example_settings(100)
def test_numbers_are_those_of_python(values, comma):
    text = comma.join(f"[{comma.join(f'[{comma.join(one)}]' for one in lists)}]"
                      for lists in values)
    found = read_lists(text.encode())
    assert found.values.tolist() == [float(n) for lists in values for one in lists for n in one]
    assert found.numbers.tolist() == [len(one) for lists in values for one in lists]
    assert found.owners.tolist() == [i for i, lists in enumerate(values) for _ in lists]
    assert set(found.depths.tolist()) == {2}


@pytest.mark.parametrize("text", ["[[]]", "[1, [2]]", "[[1], 2]", '["1"]', "[null]", "{}", "[true]",
                                  "[[1], []]", "1", '[[1, "e"]]'])
def test_what_are_no_lists_of_numbers(text):
    assert read_lists(text.encode()) is None
