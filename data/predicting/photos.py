"""The images or frames that `--predict` names, prepared ahead of the network."""

from collections.abc import Callable, Generator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from data.loading.decode import read_bgr, read_rgb
from data.loading.loader import ordered_batches
from runtime.errors import InputError
from runtime.predicting import Plan
from runtime.predicting.videos import VideoFrames


class Reader(NamedTuple):
    """How a family reads its images, and what they are then.

    read:     path -> image, as in training; of_frame: [h, w, 3] uint8 BGR -> the same kind of image
    as_shown: such an image -> [h, w, 3] uint8 RGB
    """

    read: Callable[[str], Any]
    of_frame: Callable[[np.ndarray], Any]
    as_shown: Callable[[Any], np.ndarray]


def _as_is(frame):
    return frame


def _reversed(bgr):
    return np.ascontiguousarray(bgr[..., ::-1])


def _pil_image(frame):
    return Image.fromarray(_reversed(frame))


BGR = Reader(read_bgr, _as_is, _reversed)  # YOLACT's and QueryInst's, turned as EXIF says
RGB = Reader(read_rgb, _pil_image, np.array)  # PIL's images, as they are stored


def turned_rgb(turn: bool) -> Reader:
    """`RGB`; with `turn` as the EXIF orientation says."""
    return RGB._replace(read=partial(read_rgb, turn=turn))


class Photos(Dataset):
    """Images as the network takes them, or the frames of a video, which only `batches` gives.

    plan:    what is looked at
    reader:  how it is read
    prepare: an image of the reader's kind -> sample, a dict; `kind` in it as `predict_all` says
    rate: frames a second of the video, 0 without one; count: images, or frames as far as known
    A frame's sample has its `pixels`, uint8 RGB. One of an image that cannot be read has only
    `number` and `skipped`, its fault lines.
    Raises InputError for a video that cannot be read.
    """

    def __init__(self, plan: Plan, reader: Reader, prepare: Callable[[Any], dict[str, Any]]):
        self._paths, self._reader, self._prepare = plan.inputs.images, reader, prepare
        self._video = VideoFrames(plan.inputs.video) if plan.inputs.video else None
        self.rate = self._video.rate if self._video else 0.0
        self.count = self._video.count if self._video else len(self)

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, number: int) -> dict[str, Any]:
        try:
            return {**self._prepare(self._reader.read(self._paths[number])), "number": number}
        except InputError as error:
            return {"number": number, "skipped": error.faults}

    def describe(self, number: int) -> str:
        """How a message names an image."""
        return self._paths[number]

    def pixels(self, number: int) -> np.ndarray:
        """The image itself, [h, w, 3] uint8 RGB."""
        return self._reader.as_shown(self._reader.read(self._paths[number]))

    def batches(
        self, batch_size: int, workers: int, rank: int = 0, world_size: int = 1
    ) -> Generator[list[dict[str, Any]], None, None]:
        """A rank's samples, read ahead by `workers` processes where there are several batches."""
        if self._video:
            return self._frames(batch_size)
        own = range(rank, len(self), world_size)
        # one batch is there as soon as it is read: a process to read it ahead would only cost
        return ordered_batches(self, own, batch_size, collate=list,
                               workers=workers if len(own) > batch_size else 0)

    def _frames(self, batch_size: int) -> Generator[list[dict[str, Any]], None, None]:
        assert self._video is not None
        batch: list[dict[str, Any]] = []
        try:
            for number, frame in enumerate(self._video):
                sample = self._prepare(self._reader.of_frame(frame))
                batch.append({**sample, "number": number, "pixels": _reversed(frame)})
                if len(batch) == batch_size:
                    yield batch
                    batch = []
            if batch:
                yield batch
        finally:
            self._video.close()


def stacked(
    samples: Sequence[dict[str, Any]], device: torch.device,
    layout: torch.memory_format = torch.contiguous_format,
) -> torch.Tensor:
    """The samples' `image`s, [3, h, w] each, arrays or tensors, as [B, 3, h, w] on the device."""
    images = torch.stack([torch.as_tensor(sample["image"]) for sample in samples])
    return images.to(device, memory_format=layout)
