"""A box that is not its mask's is named with the mistake; what public sets have passes."""

import numpy as np
import pytest
from coco_maker import annotation, crowd, document, write

from data.coco_format.check import examine_coco

HW = (120, 160)
RECTANGLES = [(12, 20, 30, 24), (70, 30, 26, 40), (20, 60, 34, 22), (100, 76, 44, 30),
              (60, 8, 28, 18), (8, 90, 24, 22), (110, 14, 30, 40), (64, 80, 22, 26)]


def scene(change, only=None):
    """Eight rectangles, the first two in one image; `change(x, y, w, h, W, H)` is their bbox."""
    annotations = []
    for i, rectangle in enumerate(RECTANGLES):
        own = annotation(i + 1, max(i, 1), box=rectangle)
        if only is None or i < only:
            own["bbox"] = [float(v) for v in change(*rectangle, HW[1], HW[0])]
        annotations.append(own)
    return document(annotations, num_images=8, hw=HW)


MISTAKES = {
    "corners": (lambda x, y, w, h, W, H: (x, y, x + w, y + h),
                "[x1, y1, x2, y2], not [x, y, width, height]"),
    "centre": (lambda x, y, w, h, W, H: (x + w / 2, y + h / 2, w, h), "[centre x, centre y, width"),
    "swapped axes": (lambda x, y, w, h, W, H: (y, x, h, w), "[y, x, height, width]"),
    "fractions": (lambda x, y, w, h, W, H: (x / W, y / H, w / W, h / H), "in fractions of the"),
    "coarse fractions": (lambda x, y, w, h, W, H: [round(v, 1) + .01 for v in
                                                   (x / W, y / H, w / W, h / H)],
                         "in fractions of the"),
    "YOLO's": (lambda x, y, w, h, W, H: ((x + w / 2) / W, (y + h / 2) / H, w / W, h / H),
               "in fractions of the image (0 to 1) and [centre x"),
    "half scale": (lambda x, y, w, h, W, H: (x / 2, y / 2, w / 2, h / 2),
                   "at 0.5 x 0.5 times the scale of the mask"),
    "double scale": (lambda x, y, w, h, W, H: (2 * x, 2 * y, 2 * w, 2 * h),
                     "at 2 x 2 times the scale of the mask"),
    "squeezed": (lambda x, y, w, h, W, H: (x / 2, y / 3, w / 2, h / 3),
                 "at 0.5 x 0.333 times the scale of the mask"),
    "half sides": (lambda x, y, w, h, W, H: (x, y, w / 2, h / 2), "half as wide and high"),
    "double sides": (lambda x, y, w, h, W, H: (x - w / 2, y - h / 2, 2 * w, 2 * h),
                     "twice as wide and high"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_systematic_mistake_is_one_line(tmp_path, name):
    change, what = MISTAKES[name]
    faults, doubts = examine_coco(*write(tmp_path, scene(change)))
    assert len(faults) == 1, faults
    assert f"are {what}" in faults[0]
    assert "of 8 bboxes" in faults[0]
    assert "annotation 1: [" in faults[0]
    assert "its mask spans [12.0, 20.0, 30.0, 24.0]" in faults[0]
    assert doubts == []


@pytest.mark.parametrize("name", MISTAKES)
def test_a_single_mistake_is_a_line_of_its_own(tmp_path, name):
    change, what = MISTAKES[name]
    faults, _ = examine_coco(*write(tmp_path, scene(change, only=1)))
    assert len(faults) == 1, faults
    assert "annotation 1: its bbox" in faults[0]
    assert f"is {what}" in faults[0]


def test_boxes_of_other_objects(tmp_path):
    content = scene(lambda x, y, w, h, W, H: (x, y, w, h))
    first, second = content["annotations"][:2]
    first["bbox"], second["bbox"] = second["bbox"], first["bbox"]
    faults, _ = examine_coco(*write(tmp_path, content))
    assert len(faults) == 2
    assert "annotation 1: its bbox [70.0, 30.0, 26.0, 40.0] does not hold its mask" in faults[0]
    assert "it is the box of annotation 2" in faults[0]


def test_exchanged_boxes_that_overlap(tmp_path):
    near = [annotation(1, 1, box=(20, 20, 40, 40)), annotation(2, 1, box=(20, 32, 44, 40))]
    near[0]["bbox"], near[1]["bbox"] = near[1]["bbox"], near[0]["bbox"]
    faults, _ = examine_coco(*write(tmp_path, document(near, hw=HW)))
    assert len(faults) == 2


def test_the_order_of_all_boxes_is_mixed_up(tmp_path):
    annotations = [annotation(i, 1, box=rectangle) for i, rectangle in enumerate(RECTANGLES)]
    boxes = [one["bbox"] for one in annotations]
    for one, box in zip(annotations, [*boxes[1:], boxes[0]], strict=True):
        one["bbox"] = box
    fault, = examine_coco(*write(tmp_path, document(annotations, hw=HW)))[0]
    assert "8 of 8 bboxes do not hold their masks but those of other objects" in fault


def test_a_box_somewhere_else(tmp_path):
    content = scene(lambda x, y, w, h, W, H: (x + 25, y + 7, w + 3, h - 2), only=1)
    fault, = examine_coco(*write(tmp_path, content))[0]
    assert "annotation 1: its bbox [37.0, 27.0, 33.0, 22.0] does not hold its mask" in fault


def test_run_lengths_and_crowds_are_compared_too(tmp_path):
    wrong = crowd(2, 1, HW, (100, 60, 30, 40)) | {"bbox": [10, 10, 30, 40]}
    content = document([annotation(1, 1), crowd(3, 2, HW, (5, 6, 7, 8)), wrong], hw=HW)
    fault, = examine_coco(*write(tmp_path, content))[0]
    assert "annotation 2: its bbox [10.0, 10.0, 30.0, 40.0] does not hold its mask" in fault


def test_polygons_in_fractions(tmp_path):
    content = scene(lambda x, y, w, h, W, H: (x, y, w, h))
    for one in content["annotations"]:
        polygon, = one["segmentation"]
        one["segmentation"] = [[v / HW[1 - i % 2] for i, v in enumerate(polygon)]]
    fault, = examine_coco(*write(tmp_path, content))[0]
    assert "8 of 8 bboxes have polygons in fractions of the image" in fault
    for one in content["annotations"]:
        one["bbox"] = [v / HW[1 - i % 2] for i, v in enumerate(one["bbox"])]
    fault, = examine_coco(*write(tmp_path, content))[0]
    assert "8 of 8 bboxes are, as their polygons, in fractions of the image" in fault


def test_a_mask_with_a_stray_pixel_is_in_its_box(tmp_path):
    """The bounds of mask and box differ, and nearly all of the mask is where it should be."""
    own = annotation(1, 1, box=(20, 20, 30, 30))
    own["segmentation"].append([150, 110, 152, 110, 152, 112, 150, 112])
    faults, doubts = examine_coco(*write(tmp_path, document([own], hw=HW)))
    assert faults == []
    assert "1 of 1 bboxes leave out a part of their mask" in doubts[0]


@pytest.mark.parametrize("name, change", {
    "rounded outwards": lambda rng, x, y, w, h: (np.floor(x), np.floor(y), np.ceil(w) + 1,
                                                 np.ceil(h) + 1),
    "two pixels larger": lambda rng, x, y, w, h: (x - 2, y - 2, w + 4, h + 4),
    "last pixel left out": lambda rng, x, y, w, h: (x, y, w - 1, h - 1),
    "hidden parts too": lambda rng, x, y, w, h: (
        x - w * rng.random(), y - h * rng.random() / 2, 2 * w, 1.5 * h + 3 * rng.random()),
}.items())
def test_other_ways_to_draw_boxes_pass(tmp_path, name, change):
    rng = np.random.default_rng(0)
    annotations = []
    for i in range(60):
        x, y = rng.uniform(100, 200, 2)
        w, h = rng.uniform(12, 60, 2)
        box = [float(v) for v in change(rng, x, y, w, h)]
        annotations.append(annotation(i, 1 + i % 3, box=(x, y, w, h)) | {"bbox": box})
    faults, _ = examine_coco(*write(tmp_path, document(annotations, hw=(400, 400))))
    assert faults == []


def test_boxes_much_larger_than_their_masks_are_said(tmp_path):
    content = scene(lambda x, y, w, h, W, H: (x - 8, y - 5, 2.3 * w + 8, 2.1 * h + 5), only=2)
    faults, doubts = examine_coco(*write(tmp_path, content))
    assert faults == []
    assert "2 of 8 bboxes are more than 2 times as large as their mask" in doubts[0]


@pytest.mark.parametrize("only, verb", [(None, "5 of 8 bboxes are"), (2, "is")])
def test_exchanged_sides(tmp_path, only, verb):
    """Three rectangles are so nearly squares that their boxes hold the masks either way."""
    content = scene(lambda x, y, w, h, W, H: (x, y, h, w), only=only)
    fault, = examine_coco(*write(tmp_path, content))[0]
    assert f"{verb} [x, y, height, width], not [x, y, width, height]" in fault


def test_a_doubled_box_that_was_cut_at_the_border_is_said(tmp_path):
    """It fits no reading any more; nine tenths of what it was are left."""
    content = scene(lambda x, y, w, h, W, H: (0, y - h / 2, 57, 2.1 * h), only=1)
    faults, doubts = examine_coco(*write(tmp_path, content))
    assert faults == []
    assert "1 of 8 bboxes are more than 2 times as large as their mask" in doubts[0]


def test_a_mistake_in_most_boxes_stands_for_what_it_makes_of_the_others(tmp_path):
    """At the image's corner a doubled box is also one of double size, or reaches out."""
    content = scene(lambda x, y, w, h, W, H: (2 * x, 2 * y, 2 * w, 2 * h))
    corner = annotation(20, 1, box=(0, 0, 20, 12)) | {"bbox": [0, 0, 40, 24]}
    edge = annotation(21, 2, box=(1, 50, 158, 20)) | {"bbox": [2, 100, 316, 40]}
    content["annotations"] += [corner, edge]
    fault, = examine_coco(*write(tmp_path, content))[0]
    assert "of 10 bboxes are at 2 x 2 times the scale" in fault


def test_one_of_many_large_boxes_may_fit_by_chance(tmp_path):
    """Where boxes hold the hidden parts of objects, one of twice the sides is no mistake."""
    rng = np.random.default_rng(0)
    annotations = []
    for i in range(30):
        x, y = rng.uniform(100, 200, 2)
        grown = rng.uniform(1.3, 3, 2) if i else (2, 2)
        annotations.append(annotation(i, 1 + i % 3, box=(x, y, 40, 30))
                           | {"bbox": [x, y, 40 * grown[0], 30 * grown[1]]})
    assert examine_coco(*write(tmp_path, document(annotations, hw=(400, 400))))[0] == []
