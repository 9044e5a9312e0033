"""One image or label file of a segmentation set, checked; every fault names the file."""

import io
import os
import struct
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from common.config import InputError

_PNG_START = b"\x89PNG\r\n\x1a\n"
_GREY_8_BIT = (8, 0)  # bit depth and colour type of a PNG that PIL opens in mode "L"
_PNG_MODES = {0: "grey", 2: "RGB", 3: "palette", 4: "grey with alpha", 6: "RGB with alpha"}
_UNREADABLE = (OSError, ValueError, SyntaxError, struct.error, Image.DecompressionBombError)


def read_image(path: str | Path) -> Image.Image:
    """The picture in mode RGB, EXIF rotation ignored as in the original.

    Raises InputError naming the file when it is missing, damaged or no picture.
    """
    try:
        image = Image.open(io.BytesIO(_read(path, "image")))
        image.load()
    except _UNREADABLE as error:
        raise InputError(f"{path}: not a readable image: {error}") from error
    return image if image.mode == "RGB" else image.convert("RGB")


def image_size(path: str | Path) -> tuple[int, int]:
    """(width, height) from the picture's header alone. Raises InputError as `read_image`."""
    try:
        with Image.open(path) as image:
            return image.size
    except FileNotFoundError:
        raise InputError(_missing(path, "image")) from None
    except _UNREADABLE as error:
        raise InputError(f"{path}: not a readable image: {error}") from error


def read_label(path: str | Path, num_class: int) -> np.ndarray:
    """[h, w] uint8 label map as stored: 0 unlabelled, 1 ... num_class the classes.

    Raises InputError naming the file when it is missing, damaged, not 8-bit grey, or holds a value
    above `num_class`.
    """
    content = _read(path, "label")
    if content[:8] == _PNG_START and len(content) > 26:
        if (content[24], content[25]) != _GREY_8_BIT:
            kind = f"{_PNG_MODES.get(content[25], 'unknown')} PNG with {content[24]} bits"
            raise InputError(_wrong_mode(path, kind))
        # Faster than PIL, same values. Where it is not a plain map (a grey value declared
        # transparent brings an alpha channel) PIL is asked.
        labels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
        if labels is None or labels.ndim != 2 or labels.dtype != np.uint8:
            labels = _pil_label(content, path)
    else:
        labels = _pil_label(content, path)
    highest = int(labels.max())
    if highest > num_class:
        raise InputError(
            f"{path}: label value {highest} is above DATASET.num_class {num_class}: want 0 for "
            f"unlabelled and 1 to {num_class} for the classes"
        )
    return labels


def check_pair(
    record: dict, root: str, size: tuple[int, int], label_size: tuple[int, int]
) -> None:
    """Raise InputError when image, label and list disagree on the size; sizes are (w, h)."""
    image = os.path.join(root, record["fpath_img"])
    if size != label_size:
        raise InputError(
            f"{os.path.join(root, record['fpath_segm'])}: the label is "
            f"{label_size[0]}x{label_size[1]}, its image {image} is {size[0]}x{size[1]}: both must "
            "have the same size"
        )
    if "width" in record and size != (record["width"], record["height"]):
        raise InputError(
            f"{image}: the image is {size[0]}x{size[1]}, the list says "
            f"{record['width']}x{record['height']}: correct width and height in the list"
        )


def _pil_label(content, path):
    try:
        image = Image.open(io.BytesIO(content))
        if image.mode == "L":
            return np.asarray(image)
    except _UNREADABLE as error:
        raise InputError(f"{path}: not a readable label: {error}") from error
    raise InputError(_wrong_mode(path, f"PIL mode {image.mode}"))


def _wrong_mode(path, kind):
    return (
        f"{path}: a label must be an 8-bit grey picture (PIL mode L) whose values are the "
        f"classes, this is a {kind}: store the class numbers themselves"
    )


def _read(path, what):
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        raise InputError(_missing(path, what)) from None
    except OSError as error:
        raise InputError(f"{path}: the {what} cannot be read: {error.strerror}") from error


def _missing(path, what):
    return f"{path}: no such {what} file. Check the list and DATASET.root_dataset"
