"""The objects of a COCO file, in the form in which both ways of counting read them.

Records are read by data.coco_format.records, as those that are trained on are.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from pycocotools import mask as rle_codec

from data.coco_format import records
from runtime.errors import InputError


class GroundTruth:
    """Images, objects and categories of COCO ground truth; the source itself is never changed.

    source: a COCO dict, the path of a COCO JSON file, or an object with a COCO dict as `.dataset`.
    iou_types: with "segm" every object needs a segmentation, with "bbox" a box or a segmentation.

    sizes:        {image id: (h, w)}; None where the source gives no size.
    objects:      {image id: [annotation, ...]}: every image has its list, crowds are in it. An
                  annotation has `id` (from 1), `image_id`, `category_id`, `bbox` (x, y, w, h in
                  pixels), `area` (square pixels), `iscrowd` (0 or 1) and, for "segm",
                  `segmentation`.
    category_ids: sorted; those that objects use when the source lists none.

    Raises InputError for a file that cannot be read and for what is wrong in its records, all in
    one.
    """

    def __init__(self, source: str | Path | Mapping | object, iou_types: Iterable[str]):
        name, dataset = _dataset(source)
        self._name, self._faults = name, []
        self.sizes = {}
        for number, image in enumerate(_listed(name, dataset, "images")):
            with self._blamed("image", image, number):
                self.sizes[records.whole_number(image, "id")] = _size(image)
        self.objects = {image_id: [] for image_id in self.sizes}
        # differs: pycocotools takes an object with id 0 for "no match"; ours are numbered from 1,
        # whatever the source says, and ids given twice do no harm either
        # [queryinst.md: Known faults]. Way back: none, it loses matches.
        for number, source_object in enumerate(
                _listed(name, dataset, "annotations"), start=1):
            with self._blamed("annotation", source_object, number - 1):
                image_id = records.whole_number(source_object, "image_id")
                if image_id in self.objects:  # else as pycocotools, which asks by image
                    found = self._object(number, image_id, source_object, "segm" in iou_types)
                    self.objects[image_id].append(found)
        listed = set()
        for number, category in enumerate(_listed(name, dataset, "categories")):
            with self._blamed("category", category, number):
                listed.add(records.whole_number(category, "id"))
        if self._faults:
            raise InputError(self._faults)
        used = {found["category_id"] for group in self.objects.values() for found in group}
        self.category_ids = sorted(listed or used)

    @contextmanager
    def _blamed(self, kind, record, place):
        """What is wrong in the block becomes a fault of the record."""
        try:
            yield
        except ValueError as error:
            called = record.get("id", f"number {place} (from 0)")
            self._faults.append(f"{self._name}: {kind} {called}: {error}")

    def _object(self, number, image_id, source, keep_segmentation):
        segmentation = source.get("segmentation")
        if not segmentation:
            if keep_segmentation:
                raise ValueError("it has no segmentation; add it, or score boxes only")
            if records.stated_box(source) is None:
                raise ValueError("it has no bbox; add it")
        found = {
            "id": number,
            "image_id": image_id,
            "category_id": records.whole_number(source, "category_id"),
            "iscrowd": int(records.is_crowd(source)),
        }
        if isinstance(segmentation, Mapping):
            found["segmentation"] = _readable_rle(segmentation)
        elif segmentation:
            found["segmentation"] = [each.tolist() for each in records.polygons(segmentation)]
        box = records.stated_box(source)
        found["bbox"] = (rle_codec.toBbox(self.to_rle(found)) if box is None else box).tolist()
        area = records.stated_area(source)
        if area is None and "segmentation" in found and self.sizes[image_id]:
            area = float(rle_codec.area(self.to_rle(found)))
        found["area"] = found["bbox"][2] * found["bbox"][3] if area is None else area
        if not keep_segmentation:
            found.pop("segmentation", None)
        return found

    def to_rle(self, found: dict) -> dict:
        """The object's mask as compressed RLE, which replaces polygons in the object: made once."""
        segmentation = found["segmentation"]
        if isinstance(segmentation, Mapping) and not isinstance(segmentation["counts"], list):
            return segmentation
        size = self.sizes[found["image_id"]]
        if size is None:
            raise InputError(f"ground truth: image {found['image_id']} has no height and width, "
                             "which its masks need")
        rle = rle_codec.frPyObjects(segmentation, *size)
        found["segmentation"] = rle_codec.merge(rle) if isinstance(rle, list) else rle
        return found["segmentation"]

    def annotations(self, image_ids: Iterable[int], segm: bool) -> list[dict]:
        """Objects of those images, each a fresh dict; with `segm` their masks are RLEs."""
        found = [one for image_id in image_ids for one in self.objects[image_id]]
        if segm:
            for one in found:
                self.to_rle(one)
        return [dict(one) for one in found]


def _listed(name, dataset, key):
    """The records under `key`; () where there is no such key."""
    found = dataset.get(key, ())
    if not isinstance(found, Sequence) or not all(isinstance(each, Mapping) for each in found):
        raise InputError(f"{name}: '{key}' is not a list of objects; see the COCO format")
    return found


def _size(image):
    if image.get("height") is None or image.get("width") is None:
        return None
    return records.whole_number(image, "height"), records.whole_number(image, "width")


def _readable_rle(segmentation):
    """An RLE as pycocotools wants it; the compressed form is taken as it is."""
    if not isinstance(segmentation.get("counts"), list):
        return segmentation
    counts, size = records.runs(segmentation)
    return {"size": list(size), "counts": counts.tolist()}


def _dataset(source):
    """(name for messages, COCO dict) of whatever form the ground truth was given in."""
    if isinstance(source, str | Path):
        try:
            dataset = json.loads(Path(source).read_bytes())
        except OSError as error:
            raise InputError(f"{source}: cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise InputError(f"{source}: not a JSON file: {error}") from error
        name = str(source)
    else:
        name, dataset = "ground truth", source if isinstance(source, Mapping) else source.dataset
    if not isinstance(dataset, Mapping) or "images" not in dataset:
        raise InputError(f"{name}: not a COCO file: the list `images` is missing")
    return name, dataset
