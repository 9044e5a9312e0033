"""Image files to BGR arrays, with every fault named: missing, truncated, turned, too large."""

import io
import struct
from pathlib import Path
from typing import BinaryIO, NamedTuple

import cv2
import numpy as np
from PIL import Image

from common.errors import InputError

MAX_PIXELS = 178_956_970  # Pillow's bound against decompression bombs, 2 * 1024^3 / 4 / 3
EXIF_ORIENTATION = 274
TURNED_BY_90 = (5, 6, 7, 8)  # EXIF orientations that exchange height and width
END_OF_FILE = {  # what a complete file ends with
    "JPEG": b"\xff\xd9",
    "MPO": b"\xff\xd9",
    "PNG": b"\x00\x00\x00\x00IEND\xaeB`\x82",
}
# What Pillow raises on damaged headers and data, beside OSError.
_DAMAGED = (OSError, SyntaxError, ValueError, struct.error, IndexError, OverflowError)


class Header(NamedTuple):
    """What stands at the top of an image file; the size is the stored one, before any turning."""

    kind: str
    height: int
    width: int
    orientation: int


def read_image(path: str | Path, size: tuple[int, int] | None = None) -> np.ndarray:
    """The image as [h, w, 3] uint8, BGR; grey, palette, alpha, CMYK and 16 bit are converted.

    size: (h, w) that the annotations were made for. A photo with an EXIF orientation is turned or
    left as stored, whichever fits it; without `size` it is turned, as OpenCV does.
    Raises InputError when the file is missing, damaged, truncated, larger than MAX_PIXELS or of
    another size.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InputError(_cannot_read(path, error)) from error
    stream = io.BytesIO(data)
    header = _read_header(path, stream)
    orientation = _fitting_orientation(path, header, size)
    # OpenCV fills what a truncated file lacks with grey and says nothing.
    _require_complete(path, header, stream, data[-16:])
    try:
        flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise InputError(f"{path}: cannot be decoded ({error.err}); replace the file") from error
    if image is None or image.shape[:2] != (header.height, header.width):
        raise InputError(f"{path}: damaged, cannot be decoded; replace the file")
    return _turned(image, orientation)


def check_image(path: str | Path, size: tuple[int, int] | None = None) -> None:
    """Raise what `read_image` would raise, from the header and the end of the file alone.

    Kinds without a known end marker are decoded after all.
    """
    try:
        with Path(path).open("rb") as file:
            header = _read_header(path, file)
            _fitting_orientation(path, header, size)
            file.seek(max(0, file.seek(0, io.SEEK_END) - 16))
            _require_complete(path, header, file, file.read())
    except OSError as error:
        raise InputError(_cannot_read(path, error)) from error


def _read_header(path: str | Path, stream: BinaryIO) -> Header:
    """The header of the image in `stream`; nothing is decoded. Raises InputError as read_image."""
    try:
        image = Image.open(stream)
        width, height = image.size
        orientation = _orientation(image)
    except Image.DecompressionBombError as error:
        raise InputError(f"{path}: {_TOO_LARGE}") from error
    except _DAMAGED as error:
        raise InputError(f"{path}: not an image or damaged; replace the file") from error
    if width * height > MAX_PIXELS:  # Pillow's own bound can be switched off
        raise InputError(f"{path}: {width}x{height}: {_TOO_LARGE}")
    return Header(image.format, height, width, orientation)


def _fitting_orientation(path: str | Path, header: Header, size: tuple[int, int] | None) -> int:
    """The EXIF orientation to apply so that the image has `size` (h, w); 1 = as stored.

    Raises InputError when neither the stored nor the turned image has that size.
    """
    stored = (header.height, header.width)
    shown = stored[::-1] if header.orientation in TURNED_BY_90 else stored
    if size is None or shown == tuple(size):
        return header.orientation
    if stored == tuple(size):
        return 1
    turned = f" ({shown[1]}x{shown[0]} as its EXIF orientation turns it)" if shown != stored else ""
    raise InputError(
        f"{path}: the image is {stored[1]}x{stored[0]}{turned}, its annotations are for "
        f"{size[1]}x{size[0]}; correct width and height in the annotation file or replace the image"
    )


def _require_complete(path: str | Path, header: Header, stream: BinaryIO, end: bytes) -> None:
    """Raise InputError when the image in `stream`, whose last bytes are `end`, is cut off."""
    marker = END_OF_FILE.get(header.kind)
    if marker is not None and end.endswith(marker):
        return
    # Other kinds, or bytes after the end marker: only decoding tells, and Pillow is strict.
    stream.seek(0)
    try:
        with Image.open(stream) as image:
            image.load()
    except _DAMAGED as error:
        raise InputError(f"{path}: truncated or damaged ({error}); replace the file") from error


_TOO_LARGE = f"more than {MAX_PIXELS // 10**6} million pixels; scale the image down"


def _cannot_read(path: str | Path, error: OSError) -> str:
    return f"{path}: cannot be read ({error.strerror or error}); put the image there"


def _orientation(image: Image.Image) -> int:
    if "exif" not in image.info:  # asking a PNG without EXIF would decode it
        return 1
    try:
        orientation = image.getexif().get(EXIF_ORIENTATION, 1)
    except _DAMAGED:
        return 1  # damaged EXIF: OpenCV, and so the original, shows the image as stored
    return orientation if orientation in range(1, 9) else 1


def _turned(image: np.ndarray, orientation: int) -> np.ndarray:
    if orientation in TURNED_BY_90:
        image = cv2.transpose(image)
    # After the transposition above, 6 and 8 are quarter turns and 5 is complete.
    flip = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}.get(orientation)
    return image if flip is None else cv2.flip(image, flip)
