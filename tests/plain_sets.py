"""Small data sets in the trainers' three formats, the same on every machine.

Written as PNG files with whole-number arithmetic alone: no decoder, no drawing routine and no
resizing of another version can change a pixel of them.
"""

import json
from dataclasses import dataclass

import numpy as np
from PIL import Image

SIDE = 64  # pixels, of every picture
NAMES = ("box", "wedge")  # an object of label i is a NAMES[i]
NOISE = 48  # grey levels
COLOURS = ((200, 40, 30), (20, 120, 210))


@dataclass(frozen=True)
class Shape:
    """One object. polygon: [(x, y), ...] in pixels; mask: [SIDE, SIDE] bool, the same pixels."""

    label: int
    polygon: list
    mask: np.ndarray


def picture(number, labels, least=12, most=36):
    """(image [SIDE, SIDE, 3] uint8, [Shape]): one shape for each label, later ones on top.

    number: seeds it
    least, most: range of a shape's side in pixels
    """
    rng = np.random.RandomState(number)
    image = rng.randint(0, NOISE, (SIDE, SIDE, 3)) + rng.randint(0, 100, 3)
    rows, columns = np.indices((SIDE, SIDE))
    shapes = []
    for label in labels:
        width, height = rng.randint(least, most, 2)
        x, y = rng.randint(0, SIDE - width), rng.randint(0, SIDE - height)
        inside = (columns >= x) & (columns < x + width) & (rows >= y) & (rows < y + height)
        polygon = [(x, y), (x + width, y), (x + width, y + height), (x, y + height)]
        if label == 1:  # the half below the falling diagonal
            inside &= (rows - y + 1) * width > (columns - x) * height
            polygon = [(x, y), (x + width, y + height), (x, y + height)]
        image[inside] = (image[inside] // 4 + COLOURS[label]).clip(0, 255)
        for shape in shapes:
            shape.mask[inside] = False
        shapes.append(Shape(label, [(int(a), int(b)) for a, b in polygon], inside))
    return image.astype(np.uint8), shapes


def objects_of(number):
    """Labels of a picture's objects: one to three."""
    return [(number + i) % 2 for i in range(1 + number % 3)]


def write_instances(folder, num_train, num_valid):
    """{"train": file, "valid": file} of COCO's format; the pictures are in `folder`/images."""
    (folder / "images").mkdir(parents=True)
    infos, first = {}, 0
    for part, count in (("train", num_train), ("valid", num_valid)):
        images, annotations = [], []
        for number in range(first, first + count):
            pixels, shapes = picture(number, objects_of(number))
            name = f"{number:03d}.png"
            Image.fromarray(pixels).save(folder / "images" / name)
            images.append({"id": number + 1, "file_name": name, "width": SIDE, "height": SIDE})
            for shape in shapes:
                xs, ys = zip(*shape.polygon, strict=True)
                box = [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
                halves = 2 if len(shape.polygon) == 3 else 1
                annotations.append({
                    "id": len(annotations) + 1, "image_id": number + 1, "iscrowd": 0,
                    "category_id": shape.label + 1, "bbox": box, "area": box[2] * box[3] / halves,
                    "segmentation": [[value for point in shape.polygon for value in point]]})
        first += count
        categories = [{"id": i + 1, "name": name} for i, name in enumerate(NAMES)]
        infos[part] = folder / f"{part}.json"
        infos[part].write_text(json.dumps(
            {"images": images, "annotations": annotations, "categories": categories}))
    return infos


def write_label_maps(folder, num_train, num_valid):
    """{"train": list, "valid": list} of ADE20K's layout: labels 1 background, 2 and 3 the shapes,
    0 (unlabelled) in the lowest rows."""
    lists, first = {}, 0
    for part, count in (("train", num_train), ("valid", num_valid)):
        lines = []
        for number in range(first, first + count):
            pixels, shapes = picture(number, objects_of(number))
            labels = np.ones((SIDE, SIDE), np.uint8)
            for shape in shapes:
                labels[shape.mask] = 2 + shape.label
            labels[-8:] = 0
            paths = {kind: f"{kind}/{number:03d}.png" for kind in ("images", "annotations")}
            for path, content in zip(paths.values(), (pixels, labels), strict=True):
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(content).save(folder / path)
            lines.append(json.dumps({"fpath_img": paths["images"], "width": SIDE, "height": SIDE,
                                     "fpath_segm": paths["annotations"]}))
        first += count
        lists[part] = folder / f"{part}.odgt"
        lists[part].write_text("\n".join(lines) + "\n")
    return lists


def write_class_folders(folder, num_train, num_valid):
    """`folder`/{train,val}/<class>: so many pictures of each class, one object each."""
    first = 0
    for part, count in (("train", num_train), ("val", num_valid)):
        for label, name in enumerate(NAMES):
            (folder / part / name).mkdir(parents=True)
            for number in range(first, first + count):
                pixels, _ = picture(2 * number + label, [label], 36, 56)
                Image.fromarray(pixels).save(folder / part / name / f"{number:03d}.png")
        first += count
    return folder
