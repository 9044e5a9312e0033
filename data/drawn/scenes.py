"""Draws scenes of simple shapes with exact instance masks; everything follows from one generator.

A scene is a textured background with a few objects, partly in front of each other. What an object
is (ellipse, star, ...) shows in its shape alone: size, colour, texture and rotation are random.
Masks and polygons describe what is visible: parts that another object covers belong to that other.

Coordinates: x right, y down, in pixels; pixel i covers [i, i + 1), as in COCO.
"""

import colorsys
from dataclasses import dataclass

import cv2
import numpy as np

# "ring" has a hole, "bow" has two separate parts, the others are one piece.
CLASSES = ("ellipse", "rectangle", "triangle", "star", "ring", "bow")

MIN_SIZE_PX = 32
RADIUS_REL = (0.2, 0.34)  # of the shorter side
CROWD_CHANCE = 0.05
NUM_OBJECTS = (1, 3)

SUBPIXELS = 4  # shapes are filled on a grid this much finer: 17 levels of edge coverage
MIN_RADIUS_PX = 6.0
MIN_VISIBLE = 0.92  # an object must show this share of itself: half a bow would be a triangle
MAX_TRIES = 12
MIN_PART_PX = 1.0  # smaller polygons and holes are left out
MIN_COLOUR_STEP = 75.0  # wanted RGB distance between objects and to the background


@dataclass(frozen=True)
class SceneObject:
    """One object, or one crowd of tiny shapes of a class, as far as it is visible.

    label:     index into the scene's classes
    mask:      [h, w] bool, pixels that it covers by more than half; disjoint from all others
    polygons:  outer outlines, each [n, 2] float32 x y, n >= 3; holes are not in them
    has_hole:  whether the outlines enclose pixels that are not its own
    is_crowd:  whether it is a crowd
    """

    label: int
    mask: np.ndarray
    polygons: tuple[np.ndarray, ...]
    has_hole: bool
    is_crowd: bool

    @property
    def area_px(self) -> int:
        return int(np.count_nonzero(self.mask))

    @property
    def box_xywh(self) -> tuple[int, int, int, int]:
        """Tight box round the mask, in pixels."""
        return tuple(cv2.boundingRect(self.mask.view(np.uint8)))


@dataclass(frozen=True)
class Scene:
    """image: [h, w, 3] uint8 RGB; objects: front to back, at least one that is no crowd."""

    image: np.ndarray
    objects: tuple[SceneObject, ...]


def render_scene(
    rng: np.random.RandomState,
    size: tuple[int, int],
    classes: tuple[str, ...] = CLASSES,
    *,
    labels: tuple[int, ...] | None = None,
    num_objects: tuple[int, int] = NUM_OBJECTS,
    radius_rel: tuple[float, float] = RADIUS_REL,
    crowd_chance: float = CROWD_CHANCE,
) -> Scene:
    """Scene that follows from the state of `rng` and the arguments alone.

    size:          (h, w) in pixels, each at least 32
    classes:       names out of CLASSES; labels are indices into them
    labels:        what to place, front first (None: random ones); an object that finds no place
                   where enough of it shows is left out, never the first one
    num_objects:   fewest and most random ones
    radius_rel:    range of the objects' outer radius as a fraction of the shorter side
    crowd_chance:  probability of one crowd behind the objects
    Raises ValueError for smaller sizes, unknown classes and an empty list of labels.
    """
    height, width = size
    if min(size) < MIN_SIZE_PX:
        raise ValueError(f"a scene of {height}x{width} px: wanted at least {MIN_SIZE_PX} a side")
    unknown = set(classes) - set(CLASSES)
    if unknown:
        raise ValueError(f"unknown shapes {sorted(unknown)}; known: {', '.join(CLASSES)}")
    if labels is None:
        labels = rng.randint(len(classes), size=rng.randint(num_objects[0], num_objects[1] + 1))
    if len(labels) == 0:
        raise ValueError("a scene needs at least one object")
    wanted = [(int(label), False) for label in labels]
    if rng.random_sample() < crowd_chance:
        wanted.append((int(rng.randint(len(classes))), True))
    placed = _arrange(rng, size, classes, wanted, radius_rel)

    image, used_colours = _background(rng, size)
    for _, _, whole, _ in reversed(placed):
        colour = _new_colour(rng, used_colours)
        used_colours.append(colour)
        _paint(rng, image, _shrink(whole), colour)
    image += _bytes(rng, image.shape) * 0.06  # the sensor's noise: uniform within +-8 levels

    objects = (_as_object(label, crowd, visible) for label, crowd, _, visible in placed)
    return Scene(
        image=np.clip(image, 0, 255).astype(np.uint8),
        objects=tuple(each for each in objects if each.polygons and each.area_px),
    )


def mask_to_polygons(fine_mask: np.ndarray, subpixels: int) -> tuple[list[np.ndarray], bool]:
    """Outer outlines of a mask, and whether they enclose a hole.

    fine_mask:  [h * subpixels, w * subpixels] uint8, 0 or 255
    Returns ([n, 2] float32 x y in pixels, one per separate part), bool. Parts and holes under
    1 px are left out.
    """
    # OpenCV traces the centres of border cells, which would shrink the outline by half a cell.
    # So trace the lattice of cell corners instead: a corner is set where two cells at it are,
    # which is exact along straight borders and goes through the middle of slanted stairs.
    padded = cv2.copyMakeBorder(fine_mask, 0, 1, 0, 1, cv2.BORDER_CONSTANT, value=0)
    corners = cv2.blur(padded, (2, 2), anchor=(1, 1), borderType=cv2.BORDER_CONSTANT)
    corners = (corners > 100).view(np.uint8)
    contours, hierarchy = cv2.findContours(corners, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    polygons, has_hole = [], False
    for i, contour in enumerate(contours):
        if cv2.contourArea(contour) < MIN_PART_PX * subpixels**2:
            continue
        if hierarchy[0, i, 3] >= 0:  # has a parent: the border of a hole
            has_hole = True
            continue
        # Smooths the stairs of the fine grid; moves no point by more than a quarter of a pixel.
        smooth = cv2.approxPolyDP(contour, 0.25 * subpixels, closed=True)[:, 0]
        if len(smooth) >= 3:
            polygons.append(smooth.astype(np.float32) / subpixels)
    return polygons, has_hole


def _arrange(rng, size, classes, wanted, radius_rel):
    """Find places, front to back, for (label, is_crowd) pairs.

    Returns (label, is_crowd, whole fine mask, visible fine mask) of each that found one.
    """
    placed = []
    covered = np.zeros((size[0] * SUBPIXELS, size[1] * SUBPIXELS), np.uint8)
    for label, is_crowd in wanted:
        draw = _cluster if is_crowd else _single
        for _ in range(MAX_TRIES):
            whole = _fill(draw(rng, classes[label], size, radius_rel), size)
            visible = cv2.bitwise_and(whole, cv2.bitwise_not(covered))
            if cv2.countNonZero(visible) >= MIN_VISIBLE * cv2.countNonZero(whole):
                placed.append((label, is_crowd, whole, visible))
                cv2.bitwise_or(covered, whole, dst=covered)
                break
    return placed


def _as_object(label, is_crowd, visible):
    polygons, has_hole = mask_to_polygons(visible, SUBPIXELS)
    # Strictly more than half (255 / 2 rounds to 128), so that no pixel has two owners.
    mask = _shrink(visible) > 128
    return SceneObject(label, mask, tuple(polygons), has_hole, is_crowd)


# Shapes: outlines within the unit circle, each a list of [n, 2] contours filled by even-odd rule.


def _unit_outlines(rng, name):
    aspect = rng.uniform(0.65, 1.0)
    match name:
        case "ellipse":
            return [_ellipse(aspect)]
        case "rectangle":
            aspect = rng.uniform(0.4, 1.0)
            corners = np.array([(1, aspect), (-1, aspect), (-1, -aspect), (1, -aspect)])
            return [corners / np.hypot(1, aspect)]
        case "triangle":
            return [_on_circle(np.array([0, 120, 240]) + rng.uniform(-14, 14, 3))]
        case "star":
            points = _on_circle(np.arange(10) * 36.0)
            points[1::2] *= rng.uniform(0.38, 0.5)
            return [points]
        case "ring":
            return [_ellipse(aspect), _ellipse(aspect) * rng.uniform(0.45, 0.62)]
        case "bow":
            # Two triangles tip to tip, with a gap between the blunt tips.
            half, tip, gap = rng.uniform(0.5, 0.7), rng.uniform(0.1, 0.16), 0.06
            side = np.sqrt(1 - half**2)
            wing = np.array([(gap, tip), (side, half), (side, -half), (gap, -tip)])
            return [wing, wing * (-1, 1)]
    raise ValueError(f"no shape {name!r}")


def _on_circle(degrees):
    angle = np.deg2rad(degrees)
    return np.stack((np.cos(angle), np.sin(angle)), axis=1)


def _ellipse(aspect):
    return _on_circle(np.arange(0, 360, 5.0)) * (1, aspect)


def _turned(rng, outlines, radius, center):
    angle = rng.uniform(0, 2 * np.pi)
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.array([(cos, sin), (-sin, cos)])
    return [points @ turn * radius + center for points in outlines]


def _place_for(rng, radius, size):
    """A centre (x, y) that lets at most a small part of the circle leave the picture."""
    margin = 0.8 * radius
    height, width = size
    return np.array([rng.uniform(margin, width - margin), rng.uniform(margin, height - margin)])


def _single(rng, name, size, radius_rel):
    """One shape: [outlines]."""
    radius = max(rng.uniform(*radius_rel) * min(size), MIN_RADIUS_PX)
    center = _place_for(rng, radius, size)
    return [_turned(rng, _unit_outlines(rng, name), radius, center)]


def _cluster(rng, name, size, radius_rel):
    """Tiny shapes of one kind, close together: a list of outlines."""
    radius = max(radius_rel[1] * min(size), MIN_RADIUS_PX)
    center = _place_for(rng, radius, size)
    shapes = []
    for _ in range(rng.randint(9, 16)):
        angle, away = rng.uniform(0, 2 * np.pi), radius * np.sqrt(rng.uniform(0, 1))
        spot = center + away * np.array([np.cos(angle), np.sin(angle)])
        tiny = radius * rng.uniform(0.16, 0.22)
        shapes.append(_turned(rng, _unit_outlines(rng, name), tiny, spot))
    return shapes


def _fill(shapes, size):
    """Fine mask [h * SUBPIXELS, w * SUBPIXELS] uint8, 0 or 255, of all shapes together."""
    height, width = size
    fine = np.zeros((height * SUBPIXELS, width * SUBPIXELS), np.uint8)
    fraction_bits = 4
    for outlines in shapes:
        # OpenCV's integer coordinates are cell centres, ours are cell corners.
        cells = [(points * SUBPIXELS - 0.5) * 2**fraction_bits for points in outlines]
        whole_numbers = [np.round(points).astype(np.int32) for points in cells]
        cv2.fillPoly(fine, whole_numbers, 255, shift=fraction_bits)
    return fine


def _shrink(fine):
    """Coverage of each pixel, [h, w] uint8 0..255."""
    size_wh = (fine.shape[1] // SUBPIXELS, fine.shape[0] // SUBPIXELS)
    return cv2.resize(fine, size_wh, interpolation=cv2.INTER_AREA)


# Paint


def _bytes(rng, shape):
    return np.frombuffer(rng.bytes(int(np.prod(shape))), np.int8).reshape(shape)


def _colour(rng, saturation, value):
    hsv = rng.random_sample(), rng.uniform(*saturation), rng.uniform(*value)
    return 255 * np.array(colorsys.hsv_to_rgb(*hsv), np.float32)


def _new_colour(rng, used):
    """A colour unlike the used ones, or the most different of some."""
    best, best_step = None, -1.0
    for _ in range(20):
        colour = _colour(rng, (0.25, 0.95), (0.3, 1.0))
        step = min(float(np.linalg.norm(colour - other)) for other in used)
        if step > best_step:
            best, best_step = colour, step
        if step >= MIN_COLOUR_STEP:
            break
    return best


def _ramp(rng, height, width):
    """[h, w] float32 in [-1, 1], linear in a random direction."""
    angle = rng.uniform(0, 2 * np.pi)
    x = np.linspace(-1, 1, width, dtype=np.float32)[None] * np.float32(np.cos(angle))
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None] * np.float32(np.sin(angle))
    return (x + y) / np.float32(abs(np.cos(angle)) + abs(np.sin(angle)))


def _background(rng, size):
    """[h, w, 3] float32 picture, and its two main colours."""
    height, width = size
    start = _colour(rng, (0.05, 0.45), (0.3, 0.9))
    end = np.clip(start + rng.uniform(-70, 70, 3), 20, 235).astype(np.float32)
    share = (_ramp(rng, height, width)[..., None] + 1) / 2
    image = start + (end - start) * share
    # Clouds, and a finer grain that differs from scene to scene.
    for cells, strength in ((4, rng.uniform(5, 20)), (24, rng.uniform(0, 14))):
        coarse = _bytes(rng, (cells, cells)).astype(np.float32) / 128
        clouds = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        image += clouds[..., None] * np.float32(strength)
    return image, [start, end]


def _paint(rng, image, coverage, colour):
    """Lay one shape over the float32 picture, in place."""
    x, y, width, height = cv2.boundingRect(coverage)
    part = np.ascontiguousarray(coverage[y : y + height, x : x + width])
    light = 1 + 0.16 * _ramp(rng, height, width)
    if rng.random_sample() < 0.3:
        waves = _ramp(rng, height, width) * (max(height, width) * rng.uniform(0.2, 0.5))
        light += 0.13 * np.sign(np.sin(waves))
    # A darker rim one pixel wide makes the edge clear between similar colours.
    inside = cv2.erode(part, np.ones((3, 3), np.uint8)).astype(np.float32) / 255
    light *= 0.78 + 0.22 * inside
    alpha = (part.astype(np.float32) / 255)[..., None]
    target = image[y : y + height, x : x + width]
    target += alpha * (light[..., None] * colour - target)
