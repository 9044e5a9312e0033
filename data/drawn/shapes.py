"""Writes drawn scenes in the three formats of the trainers, and the embedded sample sets.

    coco     images/*.jpg, annotations/instances_{train,val}.json     polygons, RLE, crowds
    ade      {images,annotations}/{training,validation}/*, {training,validation}.odgt
    classes  {train,val}/<class>/*.jpg                                one main object each

The same arguments give the same files, byte for byte, with the same OpenCV. Each scene has its own
generator, seeded by (seed, split, number): a larger set begins with the smaller one's scenes.
"""

import functools
import json
import logging
import os
import shutil
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from data.drawn.scenes import CLASSES, Scene, SceneObject, render_scene
from runtime.errors import SaveError

log = logging.getLogger(__name__)

TRAIN, VAL = 0, 1  # the split's part of a scene's seed
JPEG_QUALITY = 95

# The embedded sets: enough to learn from, drawn in a quarter of a minute.
SAMPLE_SIZE_PX = 160
SAMPLE_TRAIN, SAMPLE_VAL = 1200, 96
# Label maps: larger objects, or four fifths of what is learnt would be the background.
LABEL_MAP_OBJECTS, LABEL_MAP_RADIUS_REL = (2, 4), (0.28, 0.45)
# Class folders: one large object, as photos of a class mostly show.
CLASS_SIZE_PX, CLASS_RADIUS_REL = 64, (0.35, 0.45)
CLASS_TRAIN, CLASS_VAL = 1000, 60  # per class
SAMPLE_SEED = 7
RECIPE = "recipe.json"  # in a drawn set, what it was drawn from


@dataclass(frozen=True)
class CocoPaths:
    """Folders of images and annotation files; the two image folders are one and the same."""

    train_images: Path
    train_info: Path
    valid_images: Path
    valid_info: Path


@dataclass(frozen=True)
class AdePaths:
    """Folder that the lists' paths are relative to, and the two lists."""

    root: Path
    train_list: Path
    val_list: Path


@dataclass(frozen=True)
class ClassPaths:
    """Folders with one sub-folder per class."""

    train: Path
    val: Path


def coco_paths(folder: str | Path) -> CocoPaths:
    """Where `write_coco` puts things."""
    folder = Path(folder)
    images, infos = folder / "images", folder / "annotations"
    return CocoPaths(images, infos / "instances_train.json", images, infos / "instances_val.json")


def ade_paths(folder: str | Path) -> AdePaths:
    """Where `write_ade` puts things."""
    folder = Path(folder)
    return AdePaths(folder, folder / "training.odgt", folder / "validation.odgt")


def class_paths(folder: str | Path) -> ClassPaths:
    """Where `write_class_folders` puts things."""
    folder = Path(folder)
    return ClassPaths(folder / "train", folder / "val")


def ensure_shapes(root: str | Path, kind: str) -> CocoPaths | AdePaths | ClassPaths:
    """Paths of the embedded sample set `root/kind`, which is drawn when that folder is absent.

    kind: "coco", "ade" or "classes"
    Whatever stands at `root/kind` is left as it is, with a warning unless this version's recipe
    drew it. Several processes may call this at once: each draws into a folder of its own, the first
    to finish renames it, the others discard theirs.
    Raises SaveError when the folder cannot be written, ValueError for another kind.
    """
    write, paths, recipe = _sample_set(kind)
    final = Path(root) / kind
    if final.exists():
        _warn_of_another_recipe(final, json.dumps(recipe))
    else:
        _draw_once(final, write, recipe)
    return paths(final)


def _sample_set(kind):
    """(what writes it, where its parts are, the arguments of the former by name)."""
    scenes = {"num_train": SAMPLE_TRAIN, "num_val": SAMPLE_VAL, "size": SAMPLE_SIZE_PX,
              "seed": SAMPLE_SEED}
    if kind == "coco":
        return write_coco, coco_paths, scenes
    if kind == "ade":
        large = {"num_objects": LABEL_MAP_OBJECTS, "radius_rel": LABEL_MAP_RADIUS_REL}
        return write_ade, ade_paths, scenes | large
    if kind == "classes":
        return write_class_folders, class_paths, {
            "train_per_class": CLASS_TRAIN, "val_per_class": CLASS_VAL, "size": CLASS_SIZE_PX,
            "seed": SAMPLE_SEED, "radius_rel": CLASS_RADIUS_REL}
    raise ValueError(f"no sample set of kind {kind!r}: wanted coco, ade or classes")


@functools.cache  # one warning is enough, however many parts of the set are opened
def _warn_of_another_recipe(folder, recipe):
    try:
        drawn_by = (folder / RECIPE).read_text()
    except OSError:
        drawn_by = None  # before there were recipes, or not drawn at all
    if drawn_by != recipe:
        log.warning("%s: not the scenes that this version draws, which its configs are made for; "
                    "delete the folder to have them drawn", folder)


def with_drawn_scenes(section: Any, project: Path, kind: str) -> Any:
    """A config's frozen section whose paths below data/shapes/ are the project's own folder's.

    project: the folder of the scripts, which the sample sets belong to wherever one stands
    kind:    as `ensure_shapes`, which is called when there is such a path
    """
    drawn = {key: str(project / value) for key, value in vars(section).items()
             if str(value).startswith("data/shapes/")}
    if not drawn:
        return section
    ensure_shapes(project / "data" / "shapes", kind)
    return replace(section, **drawn)


def write_coco(
    folder: str | Path,
    num_train: int,
    num_val: int,
    size: int,
    seed: int,
    category_ids: Sequence[int] | None = None,
    classes: Sequence[str] = CLASSES,
) -> CocoPaths:
    """Write a COCO instance set: JPEG files and two annotation files.

    size:          longer side in pixels; portrait, square and landscape scenes take turns
    category_ids:  one per class, any distinct integers (None: 1, 2, ...)
    Objects with a hole and crowds are stored as uncompressed RLE, the others as polygons; `area`
    is the mask's pixel count and `bbox` the tight box of the mask.
    """
    paths = coco_paths(folder)
    if category_ids is None:
        category_ids = range(1, len(classes) + 1)
    categories = [
        {"id": int(i), "name": name, "supercategory": "shape"}
        for i, name in zip(category_ids, classes, strict=True)
    ]
    paths.train_images.mkdir(parents=True, exist_ok=True)
    paths.train_info.parent.mkdir(parents=True, exist_ok=True)
    first_image_id = 1
    for split, count, stem in ((TRAIN, num_train, "train"), (VAL, num_val, "val")):
        images, annotations = [], []
        for number in range(count):
            scene = _scene(seed, split, number, size, classes)
            image_id, name = first_image_id + number, f"{stem}_{number + 1:06d}.jpg"
            _write_jpeg(paths.train_images / name, scene.image)
            height, width = scene.image.shape[:2]
            images.append({"id": image_id, "file_name": name, "width": width, "height": height})
            for each in scene.objects:
                record = _coco_object(each)
                record["id"] = len(annotations) + 1
                record["image_id"] = image_id
                record["category_id"] = categories[each.label]["id"]
                annotations.append(record)
        content = {
            "info": {"description": f"drawn shapes, {stem}"},
            "images": images,
            "annotations": annotations,
            "categories": categories,
        }
        info = paths.train_info if split == TRAIN else paths.valid_info
        info.write_text(json.dumps(content, separators=(",", ":")) + "\n")
        first_image_id += count
    return paths


def write_ade(
    folder: str | Path,
    num_train: int,
    num_val: int,
    size: int,
    seed: int,
    classes: Sequence[str] = CLASSES,
    **scene: Any,
) -> AdePaths:
    """Write a set in ADE20K's layout: JPEG images, 8-bit label PNGs, odgt lists.

    scene: options of `data.drawn.scenes.render_scene`
    Labels: 1 background, 2, 3, ... the classes in their order, 0 (unlabelled) for crowds. Without
    options the scenes are those of `write_coco` with the same arguments.
    """
    paths = ade_paths(folder)
    splits = (
        (TRAIN, num_train, "training", "ADE_train", paths.train_list),
        (VAL, num_val, "validation", "ADE_val", paths.val_list),
    )
    for split, count, part, stem, odgt in splits:
        for content in ("images", "annotations"):
            (paths.root / content / part).mkdir(parents=True, exist_ok=True)
        lines = []
        for number in range(count):
            drawn = _scene(seed, split, number, size, classes, **scene)
            height, width = drawn.image.shape[:2]
            name = f"{stem}_{number + 1:08d}"
            image, label = f"images/{part}/{name}.jpg", f"annotations/{part}/{name}.png"
            _write_jpeg(paths.root / image, drawn.image)
            _write_encoded(paths.root / label, ".png", semantic_labels(drawn))
            record = {"fpath_img": image, "fpath_segm": label, "width": width, "height": height}
            lines.append(json.dumps(record) + "\n")
        odgt.write_text("".join(lines))
    return paths


def write_class_folders(
    folder: str | Path,
    train_per_class: int,
    val_per_class: int,
    size: int,
    seed: int,
    classes: Sequence[str] = CLASSES,
    radius_rel: tuple[float, float] = CLASS_RADIUS_REL,
) -> ClassPaths:
    """Write class folders: `train/<class>/*.jpg`, `val/<class>/*.jpg`, size x size pixels each.

    radius_rel: range of the object's radius, as `data.drawn.scenes.render_scene`
    """
    paths = class_paths(folder)
    splits = ((TRAIN, train_per_class, paths.train), (VAL, val_per_class, paths.val))
    for split, count, part in splits:
        for label, name in enumerate(classes):
            (part / name).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                rng = np.random.RandomState((seed, split, number, label))
                scene = render_scene(
                    rng,
                    (size, size),
                    tuple(classes),
                    labels=(label,),
                    radius_rel=radius_rel,
                    crowd_chance=0.0,
                )
                _write_jpeg(part / name / f"{name}_{number + 1:04d}.jpg", scene.image)
    return paths


def semantic_labels(scene: Scene) -> np.ndarray:
    """[h, w] uint8 label map as `write_ade` writes it."""
    labels = np.ones(scene.image.shape[:2], np.uint8)
    for each in scene.objects:
        labels[each.mask] = 0 if each.is_crowd else 2 + each.label
    return labels


def mask_to_rle(mask: np.ndarray) -> dict:
    """COCO's uncompressed RLE of a [h, w] bool mask: run lengths down the columns, 0s first."""
    flat = np.concatenate(([False], mask.ravel(order="F")))
    starts = np.flatnonzero(flat[1:] != flat[:-1])
    counts = np.diff(np.concatenate(([0], starts, [mask.size])))
    return {"size": list(mask.shape), "counts": counts.tolist()}


def _scene(seed, split, number, size, classes, **options):
    short = size * 3 // 4
    height, width = ((size, size), (size, short), (short, size))[number % 3]
    rng = np.random.RandomState((seed, split, number))
    return render_scene(rng, (height, width), tuple(classes), **options)


def _coco_object(each: SceneObject):
    if each.is_crowd or each.has_hole:
        segmentation = mask_to_rle(each.mask)
    else:
        # Two decimals: finer than the outlines themselves are.
        segmentation = [np.round(part.astype(float), 2).ravel().tolist() for part in each.polygons]
    return {
        "segmentation": segmentation,
        "area": each.area_px,
        "bbox": list(each.box_xywh),
        "iscrowd": int(each.is_crowd),
    }


def _write_jpeg(path, image):
    quality = (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY)
    _write_encoded(path, ".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), quality)


def _write_encoded(path, suffix, pixels, options=()):
    # Not cv2.imwrite, which reports a full disk as False or not at all.
    _, encoded = cv2.imencode(suffix, pixels, options)
    path.write_bytes(encoded.tobytes())


def _draw_once(final: Path, write: Callable[..., object], recipe: dict[str, Any]):
    temporary = final.with_name(f".{final.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        temporary.mkdir(parents=True)
        write(temporary, **recipe)
        (temporary / RECIPE).write_text(json.dumps(recipe))
        try:
            os.rename(temporary, final)
        except OSError:
            if not final.exists():
                raise
    except OSError as error:
        raise SaveError(f"{final}: could not be drawn: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
