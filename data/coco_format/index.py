"""A COCO annotation file as a few flat arrays.

No Python object is kept per image or annotation, so forked workers share the pages, and a cache
file that is mapped into memory is shared by all processes of a machine.
"""

import hashlib
import logging
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

import numpy as np

from data.coco_format.index_cache import cache_path, read_cache, write_cache
from data.coco_format.parsing import parse_coco
from data.coco_format.rle import rle_mask
from runtime.errors import InputError, SaveError

log = logging.getLogger(__name__)

# what `CocoIndex.fingerprint` is of
_TRAINED_ON = (
    "image_hw", "name_bytes", "name_ends", "first_mention", "ann_starts", "ann_categories",
    "ann_crowd", "ann_ignored", "ann_areas", "boxes", "coordinates", "polygon_ends",
    "ann_polygon_ends", "rle_counts", "ann_rle_ends", "ann_rle_hw", "category_ids",
    "category_bytes", "category_ends")


@dataclass(frozen=True, eq=False)
class CocoIndex:
    """Images and annotations of a COCO-format file.

    Rows of images are in the file's order; rows of annotations are grouped by image row, in each
    group crowds last and else in the file's order. Annotations of unknown images come at the end.

    path:            the annotation file
    image_ids:       int64 [N]
    image_hw:        int32 [N, 2], height and width in pixels
    name_bytes, name_ends: file names in UTF-8, one after the other; where each ends, int64 [N]
    first_mention:   int32, rows of the images with annotations, as annotations first mention them
    ann_starts:      int64 [N + 1], annotation rows of image r are ann_starts[r]:ann_starts[r + 1]
    ann_ids, ann_image_ids, ann_categories: int64 [M]; category ids as in the file
    ann_crowd:       bool [M]
    ann_ignored:     bool [M], the file says `ignore`; only QueryInst looks at it
    ann_areas:       float32 [M], square pixels as the file states them; where it states none that
                     is usable, the mask's, so that 0 is an empty mask
    ann_area_stated: bool [M]
    boxes:           float32 [M, 4], x, y, width, height in pixels
    coordinates:     float32, all polygons' x, y, x, y ... in pixels
    polygon_ends:    int64 [P], where each polygon's coordinates end
    ann_polygon_ends: int64 [M], where each annotation's polygons end
    rle_counts:      int32, run lengths (zeros first, column by column) of all RLE masks
    ann_rle_ends:    int64 [M], where each annotation's run lengths end
    ann_rle_hw:      int32 [M, 2], size that the RLE states, -1 for polygons
    category_ids:    int64 [C]; category_bytes, category_ends: their names
    missing:         top-level keys that the file lacks
    faults:          what could not be put into the arrays, a line each; such rows are left out
    """

    path: str
    image_ids: np.ndarray
    image_hw: np.ndarray
    name_bytes: np.ndarray
    name_ends: np.ndarray
    first_mention: np.ndarray
    ann_starts: np.ndarray
    ann_ids: np.ndarray
    ann_image_ids: np.ndarray
    ann_categories: np.ndarray
    ann_crowd: np.ndarray
    ann_ignored: np.ndarray
    ann_areas: np.ndarray
    ann_area_stated: np.ndarray
    boxes: np.ndarray
    coordinates: np.ndarray
    polygon_ends: np.ndarray
    ann_polygon_ends: np.ndarray
    rle_counts: np.ndarray
    ann_rle_ends: np.ndarray
    ann_rle_hw: np.ndarray
    category_ids: np.ndarray
    category_bytes: np.ndarray
    category_ends: np.ndarray
    missing: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()

    @classmethod
    def from_file(
        cls, info_path: str | Path, cache_folder: str | Path | None = None
    ) -> "CocoIndex":
        """The index of the annotation file `info_path`.

        cache_folder: where a file with the arrays is kept; it is mapped into memory when it fits
        the annotation file's path, size and time, else written anew. A faulty annotation file is
        never cached.
        Raises InputError when the file is missing or no JSON object; other faults are collected
        in `faults` and `missing`.
        """
        path = Path(info_path)
        if not path.is_file():
            raise InputError(f"{path}: no such annotation file; put it there or correct the path")
        cache = cache_path(path, Path(cache_folder)) if cache_folder is not None else None
        arrays = read_cache(cache) if cache is not None else None
        if arrays is not None:
            return cls(path=str(path), **arrays)
        index = cls(path=str(path), **parse_coco(path))
        if cache_folder is not None:
            index.keep(cache_folder)
        return index

    def keep(self, cache_folder: str | Path) -> None:
        """Put the arrays into `cache_folder`, for `from_file`; not those of a faulty file."""
        cache = cache_path(Path(self.path), Path(cache_folder))
        if self.faults or self.missing or read_cache(cache) is not None:
            return
        try:
            write_cache(cache, {f.name: getattr(self, f.name) for f in fields(self)[1:-2]})
        except SaveError as error:
            log.warning("%s; the annotations are parsed again at each start", error)

    @cached_property
    def categories(self) -> dict[int, str]:
        """{category id: name}, sorted by id."""
        names = (_text(self.category_bytes, self.category_ends, i)
                 for i in range(len(self.category_ids)))
        return dict(sorted(zip(self.category_ids.tolist(), names, strict=True)))

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits over everything that training depends on; equal whether parsed or cached.

        That is names and sizes of images, annotations and categories in their order, but no ids
        of images and annotations, which name things only.
        """
        digest = hashlib.blake2b(digest_size=8)
        for name in _TRAINED_ON:
            values = np.ascontiguousarray(getattr(self, name))
            digest.update(f"{name} {values.dtype.str} {values.shape} ".encode())
            digest.update(values.reshape(-1).view(np.uint8))
        return digest.hexdigest()

    def file_name(self, row: int) -> str:
        """The name that the file gives the image `row`."""
        return _text(self.name_bytes, self.name_ends, row)

    def file_names(self) -> list[bytes]:
        """The names of all images in UTF-8, quicker than one by one."""
        blob, ends = self.name_bytes.tobytes(), self.name_ends.tolist()
        return [blob[start:end] for start, end in zip([0, *ends], ends, strict=False)]

    def items(self, has_gt: bool = True, include_empty: bool = False) -> np.ndarray:
        """Image rows, int32, that a data set visits, in its order.

        include_empty: images without annotations follow behind the others; all images when there
        are no annotations at all or has_gt is False.
        """
        everything = np.arange(len(self.image_ids), dtype=np.int32)
        if not has_gt or not len(self.ann_ids):
            return everything
        # parity: the order of first mention, and images without annotations left out
        # [yolact.md: Data]
        if not include_empty:
            return self.first_mention
        return np.concatenate([self.first_mention, np.setdiff1d(everything, self.first_mention)])

    def annotations_of(self, row: int) -> range:
        """Annotation rows of the image `row`, crowds last."""
        return range(int(self.ann_starts[row]), int(self.ann_starts[row + 1]))

    def polygons(self, annotation: int) -> list[np.ndarray]:
        """The polygons of an annotation row, each float32 [k, 2] in pixels; [] for RLE."""
        first, last = _span(self.ann_polygon_ends, annotation)
        return [self.coordinates[slice(*_span(self.polygon_ends, p))].reshape(-1, 2)
                for p in range(first, last)]

    def is_rle(self, annotation: int) -> bool:
        return bool(self.ann_rle_hw[annotation, 0] >= 0)

    def rle_mask(self, annotation: int) -> np.ndarray:
        """The mask of an RLE annotation row, uint8 [h, w] of 0 and 1."""
        counts = self.rle_counts[slice(*_span(self.ann_rle_ends, annotation))]
        return rle_mask(counts, *self.ann_rle_hw[annotation].tolist())


def _span(ends, i):
    return int(ends[i - 1]) if i else 0, int(ends[i])


def _text(blob, ends, i):
    return blob[slice(*_span(ends, i))].tobytes().decode()
