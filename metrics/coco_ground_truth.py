"""The objects of a COCO file, in the form in which both ways of counting read them."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from pycocotools import mask as rle_codec

from common.errors import InputError


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

    Raises InputError for a file that cannot be read and for objects without a shape, all in one.
    """

    def __init__(self, source: str | Path | Mapping | object, iou_types: Iterable[str]):
        name, dataset = _dataset(source)
        images = dataset["images"]
        self.sizes = {
            image["id"]: (image["height"], image["width"]) if "height" in image else None
            for image in images
        }
        self.objects = {image["id"]: [] for image in images}
        faults = []
        # differs: pycocotools takes an object with id 0 for "no match"; ours are numbered from 1,
        # whatever the source says, and ids given twice do no harm either.
        for number, source_object in enumerate(dataset.get("annotations", ()), start=1):
            if source_object["image_id"] not in self.objects:
                continue  # as pycocotools: it asks for the objects of the images it knows
            if "segm" in iou_types and not source_object.get("segmentation"):
                faults.append(f"{name}: annotation {source_object.get('id')} has no segmentation; "
                              "add it, or score boxes only")
            elif not source_object.get("segmentation") and not source_object.get("bbox"):
                faults.append(f"{name}: annotation {source_object.get('id')} has no bbox")
            else:
                found = self._object(number, source_object, "segm" in iou_types)
                self.objects[found["image_id"]].append(found)
        if faults:
            raise InputError(faults)
        listed = {category["id"] for category in dataset.get("categories", ())}
        used = {found["category_id"] for group in self.objects.values() for found in group}
        self.category_ids = sorted(listed or used)

    def _object(self, number, source, keep_segmentation):
        found = {
            "id": number,
            "image_id": source["image_id"],
            "category_id": source["category_id"],
            "iscrowd": int(source.get("iscrowd", 0)),
        }
        if source.get("segmentation"):
            found["segmentation"] = source["segmentation"]
        if source.get("bbox"):
            found["bbox"] = [float(x) for x in source["bbox"]]
        else:
            found["bbox"] = rle_codec.toBbox(self.to_rle(found)).tolist()
        if "area" in source:
            found["area"] = float(source["area"])
        elif "segmentation" in found:
            found["area"] = float(rle_codec.area(self.to_rle(found)))
        else:
            found["area"] = found["bbox"][2] * found["bbox"][3]
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
