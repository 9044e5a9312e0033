"""Each fault of a data set gives one line that names it; sound data gives none."""

import json
import math

import pytest
from coco_maker import annotation, check_coco, crowd, document, write

from data.coco_format import CocoIndex, first_faults
from data.coco_format.check import examine_coco
from data.loading.image_names import image_path

HW = (60, 80)


def faults_of(tmp_path, content, **options):
    return check_coco(*write(tmp_path, content), **options)


def test_sound_data(tmp_path):
    content = document([annotation(1, 1), crowd(2, 3, HW, (5, 6, 7, 8)), annotation(3, 3, 2)])
    assert faults_of(tmp_path, content) == []
    assert faults_of(tmp_path, content, deep=True) == []
    assert faults_of(tmp_path, content, label_map={1: 1, 2: 2}, include_empty=True) == []


@pytest.mark.parametrize("split", ["train", "val"])
def test_real_coco_passes(datasets, split):
    folder = datasets("coco_small")
    info = folder / "annotations" / f"instances_{split}.json"
    assert check_coco(info, folder / "images", deep=True) == []


@pytest.mark.parametrize("changed, fault", [
    (annotation(7, 1, bbox=[1, 2, -3, 4]), "bbox [1.0, 2.0, -3.0, 4.0] has a negative size"),
    (annotation(7, 1, bbox=[1, 2, 0, 0]), "has no area"),
    (annotation(7, 1, bbox=[1, 2, 0, 30]), "has no area"),
    (annotation(7, 1, bbox=[1, 2, math.nan, 3]), "is not finite"),
    (annotation(7, 1, bbox=[1, 2, math.inf, 3]), "is not finite"),
    (annotation(7, 1, bbox=[50, 10, 70, 20]), "reaches out of its image (80x60)"),
    (annotation(7, 1, bbox=[-9, 10, 20, 20]), "reaches out of its image"),
    (annotation(7, 1, bbox=[10, 50, 5, 60]), "reaches out of its image"),
    (annotation(7, 1, segmentation=[[1, 2, 3, 4]]), "has 4 coordinates"),
    (annotation(7, 1, segmentation=[[1, 2], [3, 4]]), "has 2 coordinates"),
    (annotation(7, 1, segmentation=["12", "30", "34", "50", "7", "8"]), "is not a list of poly"),
    (annotation(7, 1, segmentation="[[1, 2, 3, 4, 5, 6]]"), "is the text '[[1, 2, 3, 4, 5, 6]]'"),
    (annotation(7, 1, segmentation=[[1, 2, 3, 4, 5, 6], []]), "has 0 coordinates"),
    (annotation(7, 1, segmentation=[[1, 2, 3, 4, 5, 6, 7]]), "has 7 coordinates"),
    (annotation(7, 1, segmentation=[[1, 2, 3, 4, 5, math.nan]]), "coordinate that is not finite"),
    (annotation(7, 1, segmentation={"size": [60, 80], "counts": [100, 20]}),
     "sum to 120, not to height x width = 4800"),
    (annotation(7, 1, segmentation={"size": [60, 80], "counts": [4810, -10]}), "sum to 4800"),
    (annotation(7, 1, segmentation={"size": [80, 60], "counts": [4800]}), "is of size [80, 60]"),
    (annotation(7, 99), "is of image 99, which 'images' lacks"),
    (annotation(7, 1, 5), "category_id 5 is not in 'categories' (1, 2)"),
    (annotation(7, 1, bbox="box"), "its bbox is not"),
])
def test_one_line_for_one_fault(tmp_path, changed, fault):
    others = [annotation(9, 2), crowd(10, 3, HW, (5, 6, 7, 8))]
    content = document([annotation(1, 1), changed, *others])
    found = faults_of(tmp_path, content)
    assert len(found) == 1, found
    assert "info.json: annotation 7" in found[0]
    assert fault in found[0]


@pytest.mark.parametrize("box", [
    [-0.5, -1, 20, 20], [60, 40, 21.5, 21], [5, 5, 1.03, 0.0], [0, 0, 80, 60]])
def test_slips_as_in_coco_are_tolerated(tmp_path, box):
    assert faults_of(tmp_path, document([annotation(1, 1, box=box)])) == []


def test_all_faults_in_one_report(tmp_path):
    content = document([
        annotation(1, 1, bbox=[1, 2, -3, 4]), annotation(1, 2), annotation(2, 77),
        annotation(3, 1, 9), annotation(4, 1, segmentation=[[1, 2]]), annotation(5, 1, bbox=[1])])
    content["images"].append(dict(content["images"][0]))
    info, images = write(tmp_path, content)
    (images / "2.png").unlink()
    found = check_coco(info, images)
    for part in ("negative size", "annotation 1 is there 2 times", "image 77", "category_id 9",
                 "has 2 coordinates", "annotation 5: its bbox", "image 1 is there 2 times",
                 "2.png: no such image (id 2"):
        assert sum(part in line for line in found) == 1, (part, found)
    assert all("\n" not in line for line in found)


def test_label_map_must_know_every_used_category(tmp_path):
    content = document([annotation(1, 1), annotation(2, 1, 2), annotation(3, 2, 2)])
    found, = faults_of(tmp_path, content, label_map={1: 1})
    assert "annotation 2 and 1 more: category_id 2 (class 2) is not in the label map" in found


@pytest.mark.parametrize("key", ["images", "annotations", "categories"])
def test_missing_top_level_key(tmp_path, key):
    content = document([annotation(1, 1)])
    info, images = write(tmp_path, content)
    del content[key]
    info.write_text(json.dumps(content))
    assert any(f"info.json: no '{key}'" in line for line in check_coco(info, images))


def test_images_alone_do_without_ground_truth(tmp_path):
    content = document([])
    info, images = write(tmp_path, content)
    info.write_text(json.dumps({"images": content["images"]}))
    assert check_coco(info, images, has_gt=False) == []


def test_unreadable_annotation_file(tmp_path):
    assert "no such annotation file" in check_coco(tmp_path / "none.json", tmp_path)[0]


def test_missing_image_folder_is_one_line(tmp_path):
    info, _ = write(tmp_path, document([annotation(1, 1), annotation(2, 2)]))
    found = check_coco(info, tmp_path / "nowhere")
    assert found == [f"{tmp_path / 'nowhere'}: no such image folder; check dataset.*_images"]


def test_only_used_images_must_be_there(tmp_path):
    info, images = write(tmp_path, document([annotation(1, 1)]))
    (images / "2.png").unlink()
    assert check_coco(info, images) == []
    assert "2.png: no such image" in check_coco(info, images, include_empty=True)[0]


def test_old_coco_names_and_folders(tmp_path):
    content = document([annotation(1, 1), annotation(2, 2)], num_images=2)
    info, images = write(tmp_path, content)
    (images / "deep").mkdir()
    (images / "2.png").rename(images / "deep" / "2.png")
    content["images"][0]["file_name"] = "COCO_train2014_1.png"
    content["images"][1]["file_name"] = "deep/2.png"
    info.write_text(json.dumps(content))
    assert check_coco(info, images) == []


def test_deep_opens_every_image(tmp_path):
    content = document([annotation(1, 1), annotation(2, 2), annotation(3, 3)])
    info, images = write(tmp_path, content)
    data = (images / "2.png").read_bytes()
    (images / "2.png").write_bytes(data[:len(data) // 2])
    content["images"][2]["width"] = 81
    info.write_text(json.dumps(content))
    assert check_coco(info, images) == []
    found = check_coco(info, images, deep=True)
    assert len(found) == 2
    assert "2.png: truncated" in found[0]
    assert "3.png: the image is 80x60" in found[1]


def test_index_is_taken_as_given(tmp_path):
    info, images = write(tmp_path, document([annotation(1, 1, bbox=[1, 2, -3, 4])]))
    index = CocoIndex.from_file(info)
    info.unlink()
    assert len(check_coco(info, images, index=index)) == 1


def test_long_reports_are_cut():
    lines = [str(i) for i in range(60)]
    assert first_faults(lines[:50]) == lines[:50]
    assert first_faults(lines) == [*lines[:50], "... and 10 more"]


def doubts_of(tmp_path, content):
    return examine_coco(*write(tmp_path, content))


def many(number=8, **changes):
    """Annotations that differ, with equal changes."""
    return [annotation(i, i % 3 + 1, box=(5 + 2 * i, 8, 20, 18), **changes)
            for i in range(1, number + 1)]


@pytest.mark.parametrize("segmentation, remedy", [
    ([1, 2, 3, 4, 5, 6], "must stand in a list of its own: write [[x, y, ...]]"),
    ([[[1, 2], [3, 4], [5, 6]]], "lists of points"),
    ([[1, 2], [3, 4], [5, 6]], "a list of points [x, y]"),
])
def test_the_same_fault_of_many_is_one_line(tmp_path, segmentation, remedy):
    found, = faults_of(tmp_path, document(many(segmentation=segmentation)))
    assert "annotation 1, annotation 2, annotation 3 and 5 more: its" in found
    assert remedy in found


@pytest.mark.parametrize("moved_px, fault", [
    (200, "lies outside its image (80x60): it spans x 210.0 to 230.0"),
    (60, "reaches far out of its image (80x60): it spans x 70.0 to 90.0"),
])
def test_polygons_outside_the_image(tmp_path, moved_px, fault):
    x = 10 + moved_px
    polygon = [x, 10, x + 20, 10, x + 20, 30, x, 30]
    own = annotation(7, 1, segmentation=[polygon, [10, 10, 30, 10, 30, 30]])
    box = [10, 10, min(x + 20, 80) - 10, 20]
    found, = faults_of(tmp_path, document([annotation(1, 2), own | {"bbox": box}]))
    assert "annotation 7: a polygon of its segmentation" in found
    assert fault in found


def test_polygons_a_little_outside_are_cut_off_and_said(tmp_path):
    content = document([annotation(1, 1, bbox=[60, 10, 20, 20],
                                   segmentation=[[60, 10, 83, 10, 83, 30, 60, 30]])])
    faults, doubts = doubts_of(tmp_path, content)
    assert faults == []
    assert ["1 of 1 annotations have polygons that reach a little out" in line
            for line in doubts] == [True]


def test_backslashes_and_windows_paths(tmp_path):
    content = document(many(3))
    info, images = write(tmp_path, content)
    (images / "deep").mkdir()
    for i in (1, 2):
        (images / f"{i}.png").rename(images / "deep" / f"{i}.png")
    content["images"][0]["file_name"] = "deep\\1.png"
    content["images"][1]["file_name"] = "deep\\none.png"
    content["images"][2]["file_name"] = "C:\\photos\\3.png"
    info.write_text(json.dumps(content))
    found = check_coco(info, images)
    assert len(found) == 2
    assert "deep/none.png: no such image (id 2" in found[0]
    assert "image 3: file_name is the absolute path C:\\photos\\3.png; write it" in found[1]


def test_faults_of_different_values_share_a_line(tmp_path):
    content = document(many())
    for one in content["annotations"]:
        one["id"] = f"object {one['id']}"
    fault, = faults_of(tmp_path, content)
    assert "annotation 'object 1', annotation 'object 2', annotation 'object 3' and 5 more: each " \
        "as the first: 'id' is 'object 1', not a whole number; correct it" in fault


def test_names_as_in_addresses(tmp_path):
    content = document(many(3))
    info, images = write(tmp_path, content)
    (images / "1.png").rename(images / "my 1.png")
    (images / "2.png").rename(images / "100% 2.png")
    content["images"][0]["file_name"] = "my%201.png"
    content["images"][1]["file_name"] = "100% 2.png"  # is its own name
    info.write_text(json.dumps(content))
    assert check_coco(info, images, deep=True) == []
    assert image_path(images, "my%201.png") == f"{images}/my 1.png"


@pytest.mark.parametrize("name, near", [
    ("photos/1.png", ", there is 1.png;"),
    ("1.jpg", ", there is 1.png;"), ("1", ", there is 1.png;"),
    ("7.png", "info.json); add it")])
def test_the_file_that_was_meant_is_named(tmp_path, name, near):
    content = document([annotation(1, 1), annotation(2, 2)])
    info, images = write(tmp_path, content)
    content["images"][0]["file_name"] = name
    info.write_text(json.dumps(content))
    fault, = check_coco(info, images)
    assert near in fault


@pytest.mark.parametrize("name, own", [
    ("1.PNG", "1.png"), (" 1.png ", "1.png"), ("images/1.png", "1.png"),
    ("./images/1.png", "1.png"), ("\u00e9.png", "e\u0301.png"), ("e\u0301.png", "\u00e9.png"),
    ("1.png", "1.PNG")])
def test_a_name_that_can_only_mean_one_file_is_taken_for_it(tmp_path, name, own):
    content = document([annotation(1, 1), annotation(2, 2)])
    info, images = write(tmp_path, content)
    (images / "1.png").rename(images / own)
    content["images"][0]["file_name"] = name
    info.write_text(json.dumps(content))
    assert check_coco(info, images, deep=True) == []
    assert image_path(images, name) == f"{images}/{own}"


def test_many_ids_of_one_kind_of_fault_are_one_line(tmp_path):
    lost = document([annotation(i, i + 1000) for i in range(1, 21)])
    fault, = faults_of(tmp_path, lost)
    assert "20 annotations are of images that 'images' lacks, as annotation 1 is of" in fault
    again = document([annotation(i // 2 + 1, 1, box=(i, i, 9, 9)) for i in range(20)])
    fault, = faults_of(tmp_path, again)
    assert "10 ids of annotations are there more than once, as annotation 1 is there 2" in fault


@pytest.mark.parametrize("change", [
    lambda content: content.pop("categories"), lambda content: content.pop("images"),
    lambda content: content.update(images={}), lambda content: content.update(images=[])])
def test_a_part_that_is_missing_is_one_line(tmp_path, change):
    """Not one more for each annotation that refers to it."""
    content = document([annotation(i, i) for i in range(1, 4)])
    change(content)
    assert len(faults_of(tmp_path, content, label_map={1: 1, 2: 2})) == 1


def test_damage_inside_of_an_image_is_found(tmp_path):
    """Header and end are whole, and training would stop there."""
    info, images = write(tmp_path, document([annotation(1, 1), annotation(2, 2)]))
    content = (images / "1.png").read_bytes()
    half = len(content) // 2
    (images / "1.png").write_bytes(
        content[:half] + bytes(each ^ 255 for each in content[half:half + 8]) + content[half + 8:])
    fault, = check_coco(info, images, deep=True)
    assert str(images / "1.png") in fault


def test_a_folder_with_none_of_the_images_is_one_line(tmp_path):
    content = document([annotation(i, i) for i in range(1, 8)], num_images=7)
    info, _ = write(tmp_path, content)
    (tmp_path / "other").mkdir()
    fault, = check_coco(info, tmp_path / "other")
    assert "info.json: none of its 7 images is in" in fault
    assert "such as 1.png (id 1)" in fault


def test_a_file_that_is_named_with_a_backslash_comes_first(tmp_path):
    content = document([annotation(1, 1)], num_images=1)
    content["images"][0]["file_name"] = "a\\1.png"
    info, images = write(tmp_path, content)  # on Linux that is a name like any other
    assert check_coco(info, images, deep=True) == []


@pytest.mark.parametrize("annotations, line", [
    ([annotation(1, 1), annotation(2, 1), annotation(3, 2)],
     "1 of 3 annotations repeat another one of the same image: same category, box and mask "
     "(annotation 2)"),
    ([annotation(1, 1), crowd(2, 1, HW, (5, 6, 7, 8))], "1 of 2 annotations are crowds"),
    ([annotation(1, 1), annotation(2, 2, area=0, segmentation={"size": [60, 80],
                                                               "counts": [4800]})],
     "1 of 2 annotations have an empty mask (annotation 2)"),
    ([annotation(1, 1), annotation(2, 2, area=9, segmentation={"size": [60, 80],
                                                               "counts": [4800]})],
     "1 of 2 annotations have an empty mask (annotation 2)"),
    ([annotation(1, 1, area=1e9), annotation(2, 2)],
     "1 of 2 annotations state an 'area' larger than their image"),
    ([annotation(1, 1), annotation(2, 2, box=(5, 5, 1.03, 0))],
     "1 of 2 annotations have a bbox of no width or height"),
])
def test_legal_but_odd_is_one_line(tmp_path, annotations, line):
    faults, doubts = doubts_of(tmp_path, document(annotations))
    assert faults == []
    assert any(line in doubt for doubt in doubts), doubts


def test_an_image_file_named_twice_is_said(tmp_path):
    content = document(many(3))
    info, images = write(tmp_path, content)
    content["images"][1]["file_name"] = "1.png"
    info.write_text(json.dumps(content))
    assert examine_coco(info, images) == (
        [], [f"{info}: 1 of 3 images have the file_name of another one (1.png)"])


def test_real_coco_has_nothing_odd(datasets):
    folder = datasets("coco_small")
    for split in ("train", "val"):
        info = folder / "annotations" / f"instances_{split}.json"
        assert examine_coco(info, folder / "images") == ([], [])
