"""The one reader of pictures: for OpenCV's numbers or PIL's, with one rule for each form.

`read_bgr` gives OpenCV's BGR (YOLACT, QueryInst), `read_rgb` PIL's RGB (segmentation, ResNeSt),
each the bits that its original trains on. Both keep these rules:

    grey, 1 bit, palette    the colours shown; grey in all three channels
    alpha, transparency     left out; the colours below it stay
    16 bit                  the higher byte, as OpenCV does; by its own maximum in a PNM file
    CMYK                    JPEG's are inverted ones, as Adobe writes them
    32-bit integer, float   refused: what their black and white are is not known
    EXIF orientation        `size` or `turn` says whether it counts
    truncated, damaged, too large: refused
"""

import io
import struct
from pathlib import Path
from typing import BinaryIO, NamedTuple

import cv2
import numpy as np
from PIL import Image

from runtime.errors import InputError

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
# Pillow's modes that `convert("RGB")` reads as they look.
_SHOWN_AS_THEY_ARE = frozenset(
    ("RGB", "L", "P", "RGBA", "CMYK", "LA", "1", "YCbCr", "RGBX", "RGBa", "La", "PA")
)
_TURNS = {  # what an EXIF orientation asks for
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class Header(NamedTuple):
    """What stands at the top of an image file; the size is the stored one, before any turning.

    kind: Pillow's name of the format; mode: Pillow's of the pixels; orientation: EXIF's, 1 to 8
    """

    kind: str
    height: int
    width: int
    orientation: int
    mode: str

    def size(self, turn: bool) -> tuple[int, int]:
        """(width, height), as stored or as the EXIF orientation turns it."""
        is_turned = turn and self.orientation in TURNED_BY_90
        return (self.height, self.width) if is_turned else (self.width, self.height)

    @property
    def is_16_bit_grey(self) -> bool:
        return self.mode.startswith("I")


def read_bgr(path: str | Path, size: tuple[int, int] | None = None) -> np.ndarray:
    """The image as [h, w, 3] uint8, BGR, by OpenCV; the module says how each form is read.

    size: (h, w) that the annotations were made for. A photo with an EXIF orientation is turned or
    left as stored, whichever fits it; without `size` it is turned, as OpenCV does.
    Raises InputError when the file is missing, damaged, truncated, larger than MAX_PIXELS, of a
    form that has no certain colours, or of another size.
    """
    data = _content(path)
    stream = io.BytesIO(data)
    opened = _open(path, stream)
    header = _header_of(opened)
    orientation = _fitting_orientation(path, header, size)
    if header.kind == "PPM":  # OpenCV does not scale by the file's maximum
        return _turned(np.ascontiguousarray(np.asarray(_as_rgb(path, opened))[..., ::-1]),
                       orientation)
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


def read_rgb(path: str | Path, turn: bool = False) -> Image.Image:
    """The image in mode RGB, by PIL; the module says how each form is read.

    turn: as the EXIF orientation says. The originals that read by PIL take a photo as stored.
    Raises InputError as `read_bgr`.
    """
    image = _open(path, io.BytesIO(_content(path)))
    orientation = _orientation(image) if turn else 1
    rgb = _as_rgb(path, image)
    return rgb.transpose(_TURNS[orientation]) if orientation in _TURNS else rgb


def turned_as_exif_says(pixels: np.ndarray, image: Image.Image) -> np.ndarray:
    """`pixels` [h, w] or [h, w, c] of the opened `image`, as its EXIF orientation turns them."""
    return _turned(pixels, _orientation(image))


def read_header(path: str | Path) -> Header:
    """The header of an image file; nothing is decoded. Raises InputError as `read_bgr`."""
    try:
        with open(path, "rb") as file:
            return _header_of(_open(path, file))
    except OSError as error:
        raise InputError(_cannot_read(path, error)) from error


def _content(path):
    try:
        # At once, unbuffered: PIL reads a file in many small pieces.
        with open(path, "rb", buffering=0) as file:
            return file.read()
    except OSError as error:
        raise InputError(_cannot_read(path, error)) from error


def _open(path: str | Path, stream: BinaryIO) -> Image.Image:
    """The image in `stream`, its header read. Raises InputError as read_bgr."""
    try:
        image = Image.open(stream)
        width, height = image.size
    except Image.DecompressionBombError as error:
        raise InputError(f"{path}: {_TOO_LARGE}") from error
    except _DAMAGED as error:
        raise InputError(f"{path}: {_no_image(stream)}; replace the file") from error
    if width * height > MAX_PIXELS:  # Pillow's own bound can be switched off
        raise InputError(f"{path}: {width}x{height}: {_TOO_LARGE}")
    if image.mode not in _SHOWN_AS_THEY_ARE:
        _require_16_bit(path, image)
    return image


def _header_of(image):
    width, height = image.size
    return Header(image.format, height, width, _orientation(image), image.mode)


def _no_image(stream):
    stream.seek(0)
    if stream.read(4) in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        # Pillow knows no TIFF with several channels of floats, for one
        return ("damaged, or a TIFF of a form that cannot be read (wanted are 8 or 16 bits a "
                "channel, no floats)")
    return "damaged or not an image"


def _require_16_bit(path, image):
    """Raise InputError unless the values are certainly 16-bit ones."""
    # Pillow opens 16-bit PNM files, and before version 11.3 16-bit PNG files, in mode I.
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        return
    kind = {"F": "float", "I": "32-bit integer"}.get(image.mode[:1])
    if kind is None:
        raise InputError(f"{path}: {image.mode} pixels cannot be read; save the picture as RGB")
    raise InputError(
        f"{path}: {kind} pixels, of which it is not known what is black and what is white; scale "
        "them to 0 ... 255 and save the picture with 8 bits"
    )


def _as_rgb(path, image):
    """The opened image, decoded, in mode RGB."""
    try:
        image.load()
        if image.mode == "RGB":
            return image  # `convert` would copy it
        if image.mode in _SHOWN_AS_THEY_ARE:
            if image.mode == "P":  # which convert would leave out as well, with a warning
                image.info.pop("transparency", None)
            return image.convert("RGB")
        # Clipped by `convert`, 16-bit values would nearly all be white.
        grey = (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    except Image.DecompressionBombError as error:
        raise InputError(f"{path}: {_TOO_LARGE}") from error
    except _DAMAGED as error:
        raise InputError(
            f"{path}: damaged or not an image ({error}); replace the file") from error


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
