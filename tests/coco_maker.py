"""Small COCO-format data sets for the tests of the data path."""

import json

import numpy as np
from PIL import Image

from data.coco_format.check import examine_coco


def annotation(annotation_id, image_id, /, category_id=1, box=(10, 10, 20, 20), **changes):
    """A rectangle; `changes` replace keys, None removes one."""
    x, y, w, h = box
    record = {
        "id": annotation_id, "image_id": image_id, "category_id": category_id, "iscrowd": 0,
        "area": w * h, "bbox": [x, y, w, h],
        "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]],
    }
    record.update(changes)
    return {key: value for key, value in record.items() if value is not None}


def crowd(annotation_id, image_id, hw, box, category_id=1):
    """A crowd rectangle as uncompressed RLE."""
    (height, width), (x, y, w, h) = hw, box
    mask = np.zeros((height, width), np.uint8)
    mask[y:y + h, x:x + w] = 1
    flat = mask.T.ravel()
    changes = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff(np.concatenate([[0], changes, [flat.size]])).tolist()
    if flat[0]:
        counts = [0, *counts]
    return annotation(annotation_id, image_id, category_id, box, iscrowd=1,
                      segmentation={"size": [height, width], "counts": counts})


def document(annotations, num_images=3, hw=(60, 80), categories=(1, 2)):
    """The annotation file's content: images 1 to num_images, named <id>.png."""
    return {
        "images": [{"id": i, "file_name": f"{i}.png", "height": hw[0], "width": hw[1]}
                   for i in range(1, num_images + 1)],
        "annotations": annotations,
        "categories": [{"id": i, "name": f"class {i}"} for i in categories],
    }


def write(folder, content):
    """Writes info.json and noisy images; returns (info path, images folder)."""
    info, images = folder / "info.json", folder / "images"
    info.write_text(json.dumps(content))
    images.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for image in content.get("images", ()):
        pixels = rng.integers(0, 256, (image["height"], image["width"], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(images / image["file_name"])
    return info, images


def check_coco(info, images, **options):
    """Only the faults of `examine_coco`."""
    return examine_coco(info, images, **options)[0]
