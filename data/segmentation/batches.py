"""Semantic segmentation sets: training batches as the original forms them, evaluation items.

A record is a dict with `fpath_img`, `fpath_segm` (relative to DATASET.root_dataset), `width` and
`height` in pixels. Images are RGB, normalised by ImageNet's mean and deviation; labels are shifted
by -1, so that -1 is ignored. Resizing is PIL's, pixel by pixel: a network's scores depend on it.
"""

import functools
import itertools
import math
import os
from collections.abc import Iterable, Iterator, Sequence

import cv2
import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from data.loading.loader import SampleKey, sample_rng
from data.segmentation.lists import SegList, exif_turn
from data.segmentation.pairs import read_listed, read_pair
from data.segmentation.pil_resize import resize_planes
from runtime.errors import InputError
from runtime.streams import Stream
from settings.datasets import IMAGENET_MEAN, IMAGENET_STD

IGNORED = -1
_MOST_SKIPS = 20  # bad images in a row that --bad-images skip passes over


def resized_size(width: int, height: int, short_size: int, max_size: int) -> tuple[int, int]:
    """(w, h) with the short side at `short_size`, or the long one at `max_size` if that is less.

    Of a strip one pixel is left at least.
    """
    scale = min(short_size / min(height, width), max_size / max(height, width))
    # parity: truncation; 281 * (300 / 281) gives 299 [segmentation.md: Training batches]
    return max(1, int(width * scale)), max(1, int(height * scale))


def orientation_batches(
    order: Iterable[int], portrait: Sequence[bool], batch_size: int
) -> Iterator[list[int]]:
    """Batches of record numbers, each of portrait or of other images only, in `order`'s order.

    portrait: for each record whether height > width; squares count as landscape
    An image waits until its kind fills a batch; what does not fill one is not given out.
    """
    waiting: dict[bool, list[int]] = {True: [], False: []}
    for i in order:
        kind = bool(portrait[i])
        waiting[kind].append(i)
        if len(waiting[kind]) == batch_size:
            yield waiting[kind]
            waiting[kind] = []


def train_batch(
    records: Sequence[dict], dataset_cfg, short_size: int, flips: Sequence[int]
) -> dict[str, torch.Tensor]:
    """One batch of the original's form: each image at its own scale, at the canvas's top left.

    dataset_cfg: root_dataset, num_class, imgMaxSize, padding_constant, segm_downsampling_rate and
                 pad_label of the DATASET section
    flips:       for each record whether it is mirrored left to right
    Returns `img_data` [B, 3, H, W] float32, padded with 0, and `seg_label` [B, H/r, W/r] int64 at
    the downsampling rate r; cells that only pad are `pad_label` (the original's: 0, a class).
    Raises InputError naming a file that cannot be used.
    """
    rate, padding = dataset_cfg.segm_downsampling_rate, dataset_cfg.padding_constant
    sizes = [
        resized_size(record["width"], record["height"], short_size, dataset_cfg.imgMaxSize)
        for record in records
    ]
    width, height = (_round_up(max(sides), padding) for sides in zip(*sizes, strict=True))
    images = torch.empty(len(records), 3, height, width)
    labels = torch.full((len(records), height // rate, width // rate), dataset_cfg.pad_label)
    for i, (record, (w, h), flip) in enumerate(zip(records, sizes, flips, strict=True)):
        image, label = _read_pair(record, dataset_cfg)
        if flip:
            image, label = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), label[:, ::-1]
        canvas = images[i].numpy()
        canvas[:, h:] = 0
        canvas[:, :, w:] = 0
        _normalise(resize_planes(image, w, h), canvas)
        cells = _label_cells(label, w, h, rate)
        labels[i, : cells.shape[0], : cells.shape[1]] = torch.from_numpy(cells)
    return {"img_data": images, "seg_label": labels}


def eval_item(record: dict, dataset_cfg) -> dict:
    """One image at every scale of imgSizes, with its label at full size.

    record: without `fpath_segm` there is no label, and an `fpath_img` that exists is used as given
    Returns `img_ori` [h, w, 3] uint8, `img_data` a list of [1, 3, H, W] float32, `seg_label`
    [1, h, w] int64 and `info`, the record's image path.
    Raises InputError naming a file that cannot be used.
    """
    item = {}
    if "fpath_segm" in record:
        image, label = _read_pair(record, dataset_cfg)
        item["seg_label"] = torch.from_numpy(label.astype(np.int64) - 1)[None]
    else:
        given = record["fpath_img"]
        path = given if os.path.exists(given) else os.path.join(dataset_cfg.root_dataset, given)
        image = read_listed(path, exif_turn(dataset_cfg))
    item["img_ori"] = np.array(image)
    item["img_data"] = scaled_images(image, dataset_cfg)
    item["info"] = record["fpath_img"]
    return item


def scaled_images(image: Image.Image, dataset_cfg) -> list[torch.Tensor]:
    """An RGB image at every scale of imgSizes, normalised, [1, 3, H, W] float32 each."""
    scaled = []
    for short_size in dataset_cfg.imgSizes:
        # parity: both sides are rounded up, which distorts a little; no padding here
        # [segmentation.md: Evaluation items]
        w, h = (
            _round_up(side, dataset_cfg.padding_constant)
            for side in resized_size(*image.size, short_size, dataset_cfg.imgMaxSize)
        )
        tensor = torch.empty(1, 3, h, w)
        _normalise(resize_planes(image, w, h), tensor[0].numpy())
        scaled.append(tensor)
    return scaled


def image_names(batches: Sequence[Sequence[dict]]) -> list[str]:
    """The images of an update's batches (one for each device, each accumulated pass)."""
    return [name for batch in batches for piece in batch for name in piece["info"]]


class TrainBatches(Dataset):
    """The endless stream of training batches, cut into epochs; an item is one device's batch.

    Images follow a new permutation each pass over the list, from the seed; those waiting for
    their orientation's batch stay over to the next pass. Everything depends on (seed, number of
    the batch) only, so that any number of workers and any resume give the same stream.
    differs: the original's stream depends on workers and GPUs, not on the seed, and begins anew
    when resumed [segmentation.md: Order and seeds]. Way back: none, it was chance.

    records:           SegList
    dataset_cfg:       the DATASET section
    batch_size:        images in a batch, TRAIN.batch_size_per_gpu
    batches_per_epoch: len(self); iterations of an epoch x devices
    bad_images:        "stop" raises InputError; "skip" puts another image of the same orientation
                       in the place of one that cannot be used
    """

    def __init__(
        self,
        records: SegList,
        dataset_cfg,
        *,
        batch_size: int,
        batches_per_epoch: int,
        seed: int,
        bad_images: str = "stop",
    ):
        self._records = records
        self._cfg = dataset_cfg
        self._batch_size = batch_size
        self._batches_per_epoch = batches_per_epoch
        self._seed = seed
        self._skips = bad_images == "skip"
        self._stream, self._next_number = iter(()), 0
        self._restart()

    @classmethod
    def one_by_one(cls, records: SegList, dataset_cfg) -> "TrainBatches":
        """An epoch that has each record once, in a batch of its own."""
        return cls(records, dataset_cfg, batch_size=1, batches_per_epoch=len(records), seed=0)

    def __len__(self):
        return self._batches_per_epoch

    def __getitem__(self, key: SampleKey) -> dict:
        """`train_batch`'s dict with `info` (image paths) and `skipped` (faults of bad images)."""
        numbers = self.record_numbers(key.epoch * len(self) + key.position)
        rng = sample_rng(self._seed, key)
        short_size = int(rng.choice(self._cfg.imgSizes))
        flips = [int(rng.choice([0, 1])) for _ in numbers]
        if not self._cfg.random_flip:
            # differs: the original never reads the key [segmentation.md: Config keys]
            # Way back: DATASET.random_flip True, the default.
            flips = [0] * len(numbers)
        skipped: list[str] = []
        while True:
            records = [self._records[i] for i in numbers]
            try:
                batch = train_batch(records, self._cfg, short_size, flips)
                break
            except InputError as error:
                skipped += error.faults
                if not self._skips or len(skipped) > _MOST_SKIPS:
                    raise
                numbers = self._usable(numbers, rng)
        info = [record["fpath_img"] for record in records]
        return {**batch, "info": info, "skipped": skipped}

    @property
    def median_size(self) -> tuple[int, int]:
        """Median width and median height of the photos, px, as the list has them."""
        return int(np.median(self._records.widths)), int(np.median(self._records.heights))

    @property
    def images_per_item(self) -> int:
        """Images of an item, which is one device's batch."""
        return self._batch_size

    @functools.cached_property
    def largest_size(self) -> tuple[int, int]:
        """(h, w) of the largest image that a batch holds, padding included, px."""
        cfg, short_size = self._cfg, max(self._cfg.imgSizes)
        sides = np.unique(np.stack([self._records.widths, self._records.heights]), axis=1)
        sizes = [resized_size(int(w), int(h), short_size, cfg.imgMaxSize) for w, h in sides.T]
        # images of a batch are all upright or all wide, and share a canvas
        wide = [size for size in sizes if size[0] >= size[1]]
        upright = [size for size in sizes if size[0] < size[1]]
        canvases = [tuple(_round_up(max(each), cfg.padding_constant)
                          for each in zip(*part, strict=True)) for part in (wide, upright) if part]
        width, height = max(canvases, key=math.prod)
        return height, width

    def largest_batch(self, count: int) -> dict:
        """A batch of `count` images of `largest_size`, black, with cells of the first class."""
        height, width = self.largest_size
        rate = self._cfg.segm_downsampling_rate
        return {"img_data": torch.zeros(count, 3, height, width),
                "seg_label": torch.zeros(count, height // rate, width // rate, dtype=torch.int64),
                "info": ["the largest size"] * count, "skipped": []}

    def describe(self, key: SampleKey) -> str:
        """How a message names a sample, which is a batch."""
        numbers = self.record_numbers(key.epoch * len(self) + key.position)
        return ", ".join(self._records[i]["fpath_img"] for i in numbers)

    def record_numbers(self, batch_number: int) -> list[int]:
        """The records of the stream's batch of that number, counted from 0."""
        if batch_number < self._next_number:
            self._restart()
        skipping = batch_number - self._next_number
        self._next_number = batch_number + 1
        return next(itertools.islice(self._stream, skipping, None))

    def _restart(self):
        self._next_number = 0
        portrait = self._records.portrait.tolist()
        self._stream = orientation_batches(self._passes(), portrait, self._batch_size)

    def _passes(self):
        for number in itertools.count():
            sequence = np.random.SeedSequence([Stream.PASS, self._seed, number])
            rng = np.random.RandomState(np.random.MT19937(sequence))
            yield from rng.permutation(len(self._records)).tolist()

    def _usable(self, numbers, rng):
        """`numbers` with another record of the same orientation for each that cannot be read."""
        usable = []
        for i in numbers:
            try:
                _read_pair(self._records[i], self._cfg)
            except InputError:
                alike = np.flatnonzero(self._records.portrait == self._records.portrait[i])
                i = int(rng.choice(alike))
            usable.append(i)
        return usable


class EvalItems(Dataset):
    """`eval_item` of each record, for a loader over a list of images.

    bad_images: "stop" raises InputError; "skip" gives {"info", "skipped": [fault]} instead
    """

    def __init__(self, records: Sequence[dict], dataset_cfg, bad_images: str = "stop"):
        self._records = records
        self._cfg = dataset_cfg
        self._skips = bad_images == "skip"

    def __len__(self):
        return len(self._records)

    def describe(self, i: int) -> str:
        """How a message names an item."""
        return self._records[i]["fpath_img"]

    def __getitem__(self, i: int | SampleKey) -> dict:
        record = self._records[i.index if isinstance(i, SampleKey) else i]
        try:
            return eval_item(record, self._cfg)
        except InputError as error:
            if not self._skips:
                raise
            return {"info": record["fpath_img"], "skipped": error.faults}


def _round_up(length, multiple):
    return (length + multiple - 1) // multiple * multiple


def _read_pair(record, dataset_cfg):
    """(PIL image, [h, w] uint8 label map), checked."""
    image, label = read_pair(record, dataset_cfg.root_dataset, dataset_cfg.num_class,
                             exif_turn(dataset_cfg))
    return image, label.values


def _normalise(planes, canvas):
    """Write R, G and B, [h, w] uint8, normalised to the top left of `canvas` [3, H, W] float32."""
    for plane, target, table in zip(planes, canvas, _tables(), strict=True):
        h, w = plane.shape
        # OpenCV's table look-up: a third of the time of the arithmetic, the same numbers
        cv2.LUT(plane, table, dst=target[:h, :w])


@functools.cache
def _tables():
    """[3, 1, 256] float32: what each 8-bit value becomes in each channel."""
    values = np.arange(256, dtype=np.float32) / 255
    mean, std = (np.array(x, np.float32)[:, None, None] for x in (IMAGENET_MEAN, IMAGENET_STD))
    return (values - mean) / std


def _label_cells(label, w, h, rate):
    """The cells that the label map covers, [ceil(h / rate), ceil(w / rate)] int64, shifted by -1.

    label: [h0, w0] uint8. Stands for PIL's nearest resize to w x h, a border of 0 up to multiples
    of `rate`, and every rate-th pixel from rate // 2 on; only the pixels that stay are computed.
    """
    rows = _nearest_sources(label.shape[0], h)[rate // 2 :: rate]
    columns = _nearest_sources(label.shape[1], w)[rate // 2 :: rate]
    cells = np.full((-(-h // rate), -(-w // rate)), IGNORED, np.int64)
    cells[: len(rows), : len(columns)] = label[rows[:, None], columns].astype(np.int64) - 1
    return cells


@functools.lru_cache(maxsize=4096)
def _nearest_sources(length, new_length):
    """The source index of each pixel after PIL's nearest resize of a row, asked of PIL itself."""
    row = Image.fromarray(np.arange(length, dtype=np.int32)[None])
    return np.asarray(row.resize((new_length, 1), Image.Resampling.NEAREST))[0]
