"""The index holds what the annotation file says; its cache is checked before it is used."""

import json

import numpy as np
import pytest
from coco_maker import annotation, crowd, document, write
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from data.coco_format import CocoIndex
from data.coco_format.rle import counts_from_text, rle_box, rle_mask
from runtime.errors import InputError

HW = (60, 80)


@pytest.fixture
def index(tmp_path):
    """Images 1 and 3 with objects, mentioned in the order 3, 1; image 2 without."""
    annotations = [
        crowd(10, 3, HW, (5, 6, 7, 8)),
        annotation(11, 1, 2, (1.5, 2.5, 10, 12)),
        annotation(12, 3, 1, (20, 20, 8, 9)),
        annotation(13, 1, 1, segmentation=[[0, 0, 9, 0, 9, 9], [20.5, 20, 30, 20, 30, 30, 20, 30]]),
    ]
    return CocoIndex.from_file(write(tmp_path, document(annotations))[0])


def ids_of(index, row):
    return [int(index.ann_ids[a]) for a in index.annotations_of(row)]


def test_annotations_are_grouped_crowds_last(index):
    assert [ids_of(index, row) for row in range(3)] == [[11, 13], [], [12, 10]]
    assert index.ann_crowd.tolist() == [False, False, False, True]
    assert index.boxes[0].tolist() == [1.5, 2.5, 10, 12]
    assert index.ann_categories.tolist() == [2, 1, 1, 1]
    assert (index.faults, index.missing) == ((), ())
    assert [index.file_name(row) for row in range(3)] == ["1.png", "2.png", "3.png"]
    assert index.categories == {1: "class 1", 2: "class 2"}


def test_items_come_as_annotations_first_mention_them(index):
    assert index.items().tolist() == [2, 0]
    assert index.items(include_empty=True).tolist() == [2, 0, 1]
    assert index.items(has_gt=False).tolist() == [0, 1, 2]


def test_without_annotations_all_images_are_items(tmp_path):
    index = CocoIndex.from_file(write(tmp_path, document([]))[0])
    assert index.items().tolist() == [0, 1, 2]
    assert index.annotations_of(2) == range(0)


def test_polygons_and_runs(index):
    polygons = index.polygons(1)
    assert [p.tolist() for p in polygons] == [
        [[0, 0], [9, 0], [9, 9]], [[20.5, 20], [30, 20], [30, 30], [20, 30]]]
    assert [index.is_rle(a) for a in range(4)] == [False, False, False, True]
    mask = np.zeros(HW, np.uint8)
    mask[6:14, 5:12] = 1
    np.testing.assert_array_equal(index.rle_mask(3), mask)


def test_missing_box_comes_from_the_mask(tmp_path):
    rle = crowd(2, 1, HW, (5, 6, 7, 8))
    del rle["bbox"]
    content = document([annotation(1, 1, box=(3, 4, 5.5, 6), bbox=None), rle])
    index = CocoIndex.from_file(write(tmp_path, content)[0])
    assert index.boxes.tolist() == [[3, 4, 5.5, 6], [5, 6, 7, 8]]
    assert not index.faults


@pytest.mark.parametrize("text, place", [
    ('{"images": [\n {"id": 1,}\n]}', ":2: not valid JSON"),
    ('{"images": [], "annotations": [', ":1: not valid JSON"),
    ("[1, 2]", "wants a JSON object"),
    ("[" * 100_000, "not valid JSON"),
])
def test_broken_json_is_named_with_its_line(tmp_path, text, place):
    path = tmp_path / "info.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"info\.json") as error:
        CocoIndex.from_file(path)
    assert place in str(error.value)


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"none\.json: no such annotation file"):
        CocoIndex.from_file(tmp_path / "none.json")


@pytest.mark.parametrize("change, fault", [
    ({"bbox": [1, 2, 3]}, "annotation 7: its bbox is not"),
    ({"bbox": "1 2 3 4"}, "annotation 7: its bbox is not"),
    ({"segmentation": None}, "annotation 7: it has no segmentation"),
    ({"segmentation": []}, "annotation 7: it has no segmentation"),
    ({"segmentation": [1, 2, 3, 4, 5, 6]}, "annotation 7: its segmentation is not a list of"),
    ({"segmentation": [["a", 2, 3, 4, 5, 6]]}, "annotation 7: its segmentation is not a list of"),
    ({"segmentation": {"size": [60], "counts": [1]}}, "the size of its RLE"),
    ({"segmentation": {"size": [60, 80], "counts": "\x7f"}}, "the counts of its RLE"),
    ({"segmentation": {"size": [60, 80], "counts": [1.5]}}, "the counts of its RLE"),
    ({"image_id": "one"}, "'image_id' is 'one', not a whole number"),
    ({"category_id": None}, "'category_id' is missing"),
    ({"id": None}, "annotation number 1 (from 0): 'id' is missing"),
    ({"id": 2**70}, "'id' is"),
])
def test_malformed_annotation_is_left_out_and_named(tmp_path, change, fault):
    content = document([annotation(6, 1), annotation(7, 1, **change), annotation(8, 2)])
    index = CocoIndex.from_file(write(tmp_path, content)[0])
    assert len(index.faults) == 1
    assert fault in index.faults[0]
    assert index.ann_ids.tolist() == [6, 8]


@pytest.mark.parametrize("change, fault", [
    ({"width": 0}, "its size 0x60 is not possible"),
    ({"height": "60 px"}, "'height' is '60 px', not a whole number"),
    ({"file_name": 5}, "'file_name' is 5, not a text"),
])
def test_malformed_image_is_left_out_and_named(tmp_path, change, fault):
    content = document([annotation(1, 1), annotation(2, 2)])
    info, _ = write(tmp_path, content)
    content["images"][1].update(change)
    info.write_text(json.dumps(content))
    index = CocoIndex.from_file(info)
    assert len(index.faults) == 1
    assert fault in index.faults[0]
    assert index.image_ids.tolist() == [1, 3]
    assert index.ann_ids.tolist() == [1]  # its annotations are not to blame


def same(one, other):
    return all(np.array_equal(getattr(one, name), getattr(other, name))
               for name in one.__dataclass_fields__ if name != "path")


def states(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_cache_gives_the_same_index(tmp_path):
    info, _ = write(tmp_path, document([annotation(1, 1), crowd(2, 3, HW, (5, 6, 7, 8))]))
    fresh = CocoIndex.from_file(info, tmp_path / "cache")
    stored, = (tmp_path / "cache").iterdir()
    before = states(stored)
    cached = CocoIndex.from_file(info, tmp_path / "cache")
    assert same(fresh, cached)
    assert isinstance(cached.boxes.base, np.memmap)
    assert states(stored) == before


def test_fingerprint_is_of_what_is_trained_on(tmp_path):
    def fingerprint(change=lambda content: None, cache=None):
        content = document([annotation(1, 1), crowd(2, 3, HW, (5, 6, 7, 8)), annotation(3, 3, 2)])
        change(content)
        info, _ = write(tmp_path, content)
        return CocoIndex.from_file(info, cache).fingerprint

    plain = fingerprint()
    assert len(plain) == 16
    assert int(plain, 16)
    assert fingerprint(cache=tmp_path / "cache") == plain  # parsed
    assert fingerprint(cache=tmp_path / "cache") == plain  # mapped
    same = [lambda c: c["annotations"][0].update(id=77), lambda c: c.update(info={"year": 2017})]
    assert [fingerprint(change) for change in same] == [plain] * 2
    others = [
        lambda c: c["annotations"][0].update(bbox=[10, 10, 20, 21]),
        lambda c: c["annotations"][0].update(category_id=2),
        lambda c: c["annotations"][0].update(iscrowd=1),
        lambda c: c["annotations"][0]["segmentation"][0].__setitem__(0, 11),
        lambda c: c["annotations"].pop(),
        lambda c: c["annotations"].reverse(),
        lambda c: c["annotations"][1]["segmentation"]["counts"].__setitem__(slice(0, 1), [1, 1]),
        lambda c: c["images"][1].update(height=61),
        lambda c: c["images"][1].update(file_name="another.png"),
        lambda c: c["categories"][0].update(name="renamed"),
    ]
    found = [fingerprint(change) for change in others]
    assert len({plain, *found}) == len(others) + 1


def test_cache_of_an_older_form_is_not_taken(tmp_path, monkeypatch):
    info, _ = write(tmp_path, document([annotation(1, 1)]))
    monkeypatch.setattr("data.coco_format.index_cache.FORMAT", 2)  # before areas were kept
    CocoIndex.from_file(info, tmp_path / "cache")
    old, = (tmp_path / "cache").iterdir()
    monkeypatch.undo()
    assert CocoIndex.from_file(info, tmp_path / "cache").ann_areas.tolist() == [400]
    assert not old.exists()


def test_stale_cache_is_replaced(tmp_path):
    info, _ = write(tmp_path, document([annotation(1, 1)]))
    CocoIndex.from_file(info, tmp_path / "cache")
    info.write_text(json.dumps(document([annotation(1, 1), annotation(2, 2)])))
    assert len(CocoIndex.from_file(info, tmp_path / "cache").ann_ids) == 2
    assert len(list((tmp_path / "cache").iterdir())) == 1


@pytest.mark.parametrize("name", ["boxes.npy", "coordinates.npy", "seals.json"])
@pytest.mark.parametrize("damage", [
    lambda data: None,
    lambda data: b"",
    lambda data: data[:-4],
    lambda data: data[:-4] + bytes(byte ^ 1 for byte in data[-4:]),
    lambda data: b"\xff" * 8 + data[8:],
    lambda data: data[:30] + b"}" + data[31:],
    lambda data: data[:60] + b"(" + data[61:],
    lambda data: b"x" * 1000,
    lambda data: b"{}",
    lambda data: b"7",
])
def test_damaged_cache_is_rebuilt(tmp_path, name, damage):
    info, _ = write(tmp_path, document([annotation(1, 1), crowd(2, 3, HW, (5, 6, 7, 8))]))
    fresh = CocoIndex.from_file(info, tmp_path / "cache")
    stored, = (tmp_path / "cache").iterdir()
    good = (stored / name).read_bytes()
    damaged = damage(good)
    if damaged is None:
        (stored / name).unlink()
    else:
        (stored / name).write_bytes(damaged)
    assert same(fresh, CocoIndex.from_file(info, tmp_path / "cache"))
    assert (stored / name).read_bytes() == good


def test_cache_that_cannot_be_written_only_warns(tmp_path, caplog):
    info, _ = write(tmp_path, document([annotation(1, 1)]))
    (tmp_path / "cache").write_text("a file in its place")
    assert len(CocoIndex.from_file(info, tmp_path / "cache").ann_ids) == 1
    assert "parsed again" in caplog.text


def test_faulty_file_is_not_cached(tmp_path):
    info, _ = write(tmp_path, document([annotation(1, 1, bbox=[1])]))
    CocoIndex.from_file(info, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_runs_are_pycocotools(height, width, seed, density):
    mask = (np.random.default_rng(seed).random((height, width)) < density).astype(np.uint8)
    encoded = coco_mask.encode(np.asfortranarray(mask))
    counts = counts_from_text(encoded["counts"].decode())
    np.testing.assert_array_equal(rle_mask(counts, height, width), mask)
    assert list(rle_box(counts, height)) == coco_mask.toBbox(encoded).astype(int).tolist()


def test_large_runs():
    big = {"size": [5000, 6000], "counts": [1, 29_999_999]}
    encoded = coco_mask.frPyObjects(big, 5000, 6000)
    assert counts_from_text(encoded["counts"].decode()).tolist() == big["counts"]


@pytest.mark.parametrize("text", ["P", "~~", "oooooooooo0", "\u20ac"])
def test_other_text_is_refused(text):
    with pytest.raises(ValueError, match="run"):
        counts_from_text(text)
