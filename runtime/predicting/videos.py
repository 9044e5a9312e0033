"""Videos: frames read one by one, and pictures written back as a video of the same rate."""

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from runtime.errors import InputError, SaveError

USUAL_RATE = 25.0  # frames a second, where a file does not say its own
CODEC = "mp4v"


class VideoFrames:
    """The frames of a video file, [h, w, 3] uint8 BGR each, turned as the file says.

    rate:  frames a second; count: of the frames, as the file's head has it, 0 where it is unknown
    Raises InputError when OpenCV reads no frame of it.
    """

    def __init__(self, path: str | Path):
        self._video = cv2.VideoCapture(str(path))
        is_there, first = self._video.read() if self._video.isOpened() else (False, None)
        if not is_there:
            self._video.release()
            raise InputError(f"{path}: OpenCV reads no frame of this video; save it as an .mp4 "
                             "with H.264, or its frames as images")
        self._first: np.ndarray | None = first
        rate = self._video.get(cv2.CAP_PROP_FPS)
        self.rate = rate if math.isfinite(rate) and 0 < rate < 1000 else USUAL_RATE
        count = self._video.get(cv2.CAP_PROP_FRAME_COUNT)
        self.count = int(count) if math.isfinite(count) and count > 0 else 0

    def __iter__(self) -> Iterator[np.ndarray]:
        frame, self._first = self._first, None
        while frame is not None:
            yield frame
            is_there, frame = self._video.read()
            frame = frame if is_there else None

    def close(self) -> None:
        """Release the file."""
        self._video.release()


class VideoFile:
    """A video that is written frame by frame, under its name only once it is closed.

    rate: frames a second. The size is the first frame's.
    """

    def __init__(self, path: Path, rate: float):
        self.path, self._rate = path, rate
        # the container follows from the suffix
        self._temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
        self._writer: cv2.VideoWriter | None = None
        self._size_wh = 0, 0

    def write(self, picture: np.ndarray) -> None:
        """Append a [h, w, 3] uint8 RGB picture, resized where it is no more the first's size.

        Raises SaveError.
        """
        height, width = picture.shape[:2]
        if self._writer is None:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise SaveError(f"{self.path}: could not be written: {error.strerror}") from error
            code = cv2.VideoWriter.fourcc(*CODEC)
            writer = cv2.VideoWriter(str(self._temporary), code, self._rate, (width, height))
            if not writer.isOpened():
                raise SaveError(f"{self.path}: could not be written: OpenCV makes no {CODEC} video "
                                f"of {width}x{height} there")
            self._writer, self._size_wh = writer, (width, height)
        if (width, height) != self._size_wh:  # OpenCV would leave the frame out
            picture = cv2.resize(picture, self._size_wh, interpolation=cv2.INTER_AREA)
        self._writer.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))

    def close(self) -> None:
        """End the video with the frames so far and give it its name. Raises SaveError."""
        if self._writer is None:
            return
        self._writer.release()
        self._writer = None
        try:
            with open(self._temporary, "rb") as file:
                if not file.read(1):  # OpenCV says nothing of a full disk
                    raise SaveError(f"{self.path}: could not be written: nothing came on the disk")
                os.fsync(file.fileno())
            os.replace(self._temporary, self.path)
        except OSError as error:
            raise SaveError(f"{self.path}: could not be written: {error.strerror}") from error
        finally:
            with contextlib.suppress(OSError):
                self._temporary.unlink(missing_ok=True)
