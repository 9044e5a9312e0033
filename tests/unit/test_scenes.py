import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from data.drawn import scenes as scenes_module
from data.drawn.scenes import CLASSES, SUBPIXELS, mask_to_polygons, render_scene

SIZES = ((160, 160), (120, 160), (97, 64))


def scenes(count, **options):
    states = [np.random.RandomState((1, i)) for i in range(count)]
    return [render_scene(rng, SIZES[i % 3], **options) for i, rng in enumerate(states)]


@pytest.fixture(scope="module")
def many():
    return scenes(60, crowd_chance=0.3)


def rasterised(each):
    parts = [part.astype(float).ravel().tolist() for part in each.polygons]
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(parts, *each.mask.shape))) > 0


def test_same_generator_state_gives_the_same_scene():
    first, again = scenes(3), scenes(3)
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a.image, b.image)
        assert [each.label for each in a.objects] == [each.label for each in b.objects]
        for x, y in zip(a.objects, b.objects, strict=True):
            np.testing.assert_array_equal(x.mask, y.mask)
    assert not np.array_equal(first[0].image, scenes(4)[3].image)


def test_forms(many):
    for scene, size in zip(many, SIZES * 20, strict=True):
        assert scene.image.shape == (*size, 3)
        assert scene.image.dtype == np.uint8
        plain = [each for each in scene.objects if not each.is_crowd]
        assert 1 <= len(plain) <= 5
        assert len(scene.objects) - len(plain) <= 1
        for each in scene.objects:
            assert each.mask.shape == size
            assert each.mask.dtype == bool
            assert 0 <= each.label < len(CLASSES)


def test_variety(many):
    objects = [each for scene in many for each in scene.objects]
    assert {each.label for each in objects} == set(range(len(CLASSES)))
    assert any(each.is_crowd for each in objects)
    assert any(each.has_hole and not each.is_crowd for each in objects)
    # Several parts both by nature (bows) and because something else lies in front.
    bow = CLASSES.index("bow")
    several = [each for each in objects if len(each.polygons) > 1 and not each.is_crowd]
    assert any(each.label == bow for each in several)
    assert any(each.label != bow for each in several)


def test_masks_are_disjoint(many):
    for scene in many:
        assert sum(each.mask.astype(int) for each in scene.objects).max() <= 1


def test_box_and_area_belong_to_the_mask(many):
    for scene in many:
        for each in scene.objects:
            rows, columns = np.nonzero(each.mask)
            x, y, w, h = each.box_xywh
            assert (x, y) == (columns.min(), rows.min())
            assert (x + w - 1, y + h - 1) == (columns.max(), rows.max())
            assert each.area_px == len(rows)


def test_polygons_fit_the_masks(many):
    areas = []
    for scene in many:
        height, width = scene.image.shape[:2]
        for each in scene.objects:
            points = np.concatenate(each.polygons)
            assert (points >= 0).all()
            assert (points <= (width, height)).all()
            if each.has_hole or each.is_crowd:
                continue
            found = rasterised(each)
            # Along a border at 45 degrees up to half of the pixels are ties, decided either way.
            wrong = np.count_nonzero(found != each.mask)
            border = sum(cv2.arcLength(part, closed=True) for part in each.polygons)
            assert wrong <= 0.45 * border
            areas.append((each.area_px, np.count_nonzero(found)))
    mask_px, polygon_px = np.sum(areas, axis=0)
    # No bias: outlines half a fine cell too wide all around would be 1.5 % more.
    assert abs(polygon_px / mask_px - 1) < 0.008


def test_masks_fit_the_picture():
    """Colour must change where the mask ends: measured on a single object per scene."""
    for i in range(24):
        rng = np.random.RandomState((2, i))
        scene = render_scene(rng, (96, 96), labels=(i % 6,), radius_rel=(0.3, 0.4), crowd_chance=0)
        mask = scene.objects[0].mask.astype(np.uint8)
        square = np.ones((3, 3), np.uint8)
        smooth = cv2.GaussianBlur(scene.image, (0, 0), 0.7).astype(float)
        inside = smooth[cv2.erode(mask, square) > 0].mean(0)
        ring = cv2.dilate(mask, square, iterations=3) - cv2.dilate(mask, square)
        outside = smooth[ring > 0].mean(0)
        # Each pixel near the border goes to the colour that it is nearer to.
        nearer_inside = np.linalg.norm(smooth - inside, axis=2) < np.linalg.norm(
            smooth - outside, axis=2
        )
        zone = cv2.dilate(mask, square, iterations=3) > 0
        agree = (nearer_inside == (mask > 0))[zone].mean()
        # Stripes, shading and the rim cost some pixels; a mask moved by 3 px scores below 0.85.
        assert agree > 0.9, (i, agree)


def test_front_objects_are_painted_over_those_behind(monkeypatch):
    """With flat paint of one level a layer, each mask covers exactly one level."""

    def flat(rng, image, coverage, colour):
        image[coverage > 128] = levels.pop()

    monkeypatch.setattr(scenes_module, "_paint", flat)
    for i in range(20):
        rng = np.random.RandomState((4, i))
        levels = [250, 210, 170, 130, 90, 50, 10]
        scene = render_scene(rng, (64, 64), labels=(0, 1, 2, 3, 4, 5), crowd_chance=1)
        found = []
        for each in scene.objects:
            part = scene.image[each.mask].astype(int)
            assert part.max() - part.min() < 20  # noise of +-8 on either side; levels differ by 40
            found.append(round((part.mean() - 10) / 40))
        assert len(set(found)) == len(found)


def test_nothing_nearly_hidden_is_kept():
    """The second of two equal labels always shows at least 55 % of some shape of its size."""
    for i in range(20):
        rng = np.random.RandomState((3, i))
        scene = render_scene(rng, (64, 64), labels=(0,) * 12, radius_rel=(0.3, 0.3), crowd_chance=0)
        smallest_ellipse = np.pi * (0.3 * 64) ** 2 * 0.65
        # At most 8 % of an ellipse leaves the picture; the rest of the factor is for pixels.
        assert min(each.area_px for each in scene.objects) > 0.55 * 0.85 * smallest_ellipse
        assert len(scene.objects) < 12


def test_asked_labels_and_classes():
    scene = render_scene(np.random.RandomState(0), (64, 64), ("star", "ring"), labels=(1,))
    assert [each.label for each in scene.objects if not each.is_crowd] == [1]
    assert scene.objects[0].has_hole
    for scene in scenes(5, classes=("star",)):
        assert {each.label for each in scene.objects} == {0}


def test_smallest_size_has_an_object():
    for label in range(len(CLASSES)):
        for i in range(10):
            rng = np.random.RandomState((label, i))
            scene = render_scene(rng, (32, 32), labels=(label,), crowd_chance=0)
            assert [each.label for each in scene.objects] == [label]


@pytest.mark.parametrize(
    "size, options, word",
    [
        ((31, 64), {}, "at least 32"),
        ((64, 64), {"classes": ("star", "blob")}, "blob"),
        ((64, 64), {"labels": ()}, "at least one"),
    ],
)
def test_bad_arguments(size, options, word):
    with pytest.raises(ValueError, match=word):
        render_scene(np.random.RandomState(0), size, **options)


def test_mask_to_polygons_of_a_rectangle_is_exact():
    fine = np.zeros((10 * SUBPIXELS, 20 * SUBPIXELS), np.uint8)
    fine[2 * SUBPIXELS : 7 * SUBPIXELS, 3 * SUBPIXELS : 20 * SUBPIXELS] = 255
    polygons, has_hole = mask_to_polygons(fine, SUBPIXELS)
    assert not has_hole
    assert len(polygons) == 1
    low, high = polygons[0].min(0), polygons[0].max(0)
    np.testing.assert_array_equal([low, high], [(3, 2), (20, 7)])


def test_mask_to_polygons_finds_holes_parts_and_nothing():
    fine = np.zeros((10 * SUBPIXELS, 20 * SUBPIXELS), np.uint8)
    assert mask_to_polygons(fine, SUBPIXELS) == ([], False)
    fine[4:36, 4:36] = 255
    fine[12:28, 12:28] = 0
    fine[4:36, 50:70] = 255
    fine[39, 79] = 255  # one cell: too small to count
    polygons, has_hole = mask_to_polygons(fine, SUBPIXELS)
    assert has_hole
    assert len(polygons) == 2
