"""One image or label file of a segmentation set, checked; every fault names the file."""

import contextlib
import io
import os
import struct
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from data.loading.decode import MAX_PIXELS, Header, read_header, read_rgb, turned_as_exif_says
from runtime.errors import InputError

_PNG_START = b"\x89PNG\r\n\x1a\n"
_GREY_8_BIT = (8, 0)  # bit depth and colour type of a PNG that PIL opens in mode "L"
_PNG_MODES = {0: "grey", 2: "RGB", 3: "palette", 4: "grey with alpha", 6: "RGB with alpha"}
_UNREADABLE = (OSError, ValueError, SyntaxError, struct.error, Image.DecompressionBombError)
JPEG, PALETTE = "JPEG", "palette"  # forms of labels that a check speaks about
_VOID = 255  # what other data sets call "ignore"


class Label(NamedTuple):
    """A label map [h, w] uint8, 0 unlabelled; form: JPEG, PALETTE or "", where all is plain."""

    values: np.ndarray
    form: str


def read_listed(path: str | Path, turn: bool = False) -> Image.Image:
    """The picture of a record by `decode.read_rgb`; where it is missing the list is named.

    turn: as the EXIF orientation says; the original ignores it
    """
    if not os.path.exists(path):
        raise InputError(_missing(path, "image"))
    return read_rgb(path, turn)


def listed_header(path: str | Path) -> Header:
    """The picture's header. Raises InputError as `read_listed`."""
    if not os.path.exists(path):
        raise InputError(_missing(path, "image"))
    return read_header(path)


def read_label(path: str | Path, num_class: int, turn: bool = False) -> np.ndarray:
    """[h, w] uint8 label map as stored: 0 unlabelled, 1 ... num_class the classes.

    A palette's indices are the labels, 16-bit grey values too. turn: as `read_listed`
    Raises InputError naming the file when it is missing, damaged, of a form in which the classes
    are not certain, or holds a value above `num_class`.
    """
    return inspect_label(path, num_class, turn).values


def inspect_label(path: str | Path, num_class: int, turn: bool = False) -> Label:
    """`read_label` with the form that the labels are kept in."""
    content = _read(path, "label")
    labels, form = None, ""
    if content[:8] == _PNG_START and content[24:26] == bytes(_GREY_8_BIT):
        # Faster than PIL, same values. Where it is not a plain map (a grey value declared
        # transparent brings an alpha channel) or is damaged PIL is asked.
        _require_size(path, *struct.unpack(">II", content[16:24]))
        with contextlib.suppress(cv2.error):
            labels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if labels is None or labels.ndim != 2 or labels.dtype != np.uint8:
        labels, form = _pil_label(content, path, num_class)
    if turn:
        labels = turned_as_exif_says(labels, Image.open(io.BytesIO(content)))
    highest = int(labels.max())
    lowest = 0 if labels.dtype == np.uint8 else int(labels.min())
    if highest > num_class or lowest < 0:
        wrong = highest if highest > num_class else lowest
        hint = f" ({_VOID}, which elsewhere means 'ignore', is 0 here)" if wrong == _VOID else ""
        if form == JPEG:
            hint += "; this is a JPEG file, which changes pixels: make the labels anew as PNG"
        raise InputError(
            f"{path}: label value {wrong} is {'above' if wrong > 0 else 'below'} "
            f"{f'DATASET.num_class {num_class}' if wrong > 0 else '0'}: want 0 for unlabelled and "
            f"1 to {num_class} for the classes{hint}"
        )
    return Label(labels.astype(np.uint8, copy=False), form)


def read_pair(
    record: dict, root: str, num_class: int, turn: bool = False
) -> tuple[Image.Image, Label]:
    """(image, label) of a record, checked: training, evaluation and --check-data read by this.

    Raises InputError naming the file that cannot be used.
    """
    image = read_listed(os.path.join(root, record["fpath_img"]), turn)
    label = inspect_label(os.path.join(root, record["fpath_segm"]), num_class, turn)
    check_pair(record, root, image.size, label.values.shape[::-1], turn)
    return image, label


def check_pair(
    record: dict,
    root: str,
    size: tuple[int, int],
    label_size: tuple[int, int],
    turn: bool = False,
) -> None:
    """Raise InputError when image, label and list disagree on the size; sizes are (w, h)."""
    image = os.path.join(root, record["fpath_img"])
    label = os.path.join(root, record["fpath_segm"])
    if size != label_size:
        exif = _exif_words(image, turn, label_size) or _exif_words(label, turn, size)
        raise InputError(
            f"{label}: the label is {label_size[0]}x{label_size[1]}, its image {image} is "
            f"{size[0]}x{size[1]}: both must have the same size{exif}"
        )
    listed = (record.get("width"), record.get("height"))
    if None not in listed and size != listed:
        raise InputError(
            f"{image}: the image is {size[0]}x{size[1]}, the list says {listed[0]}x{listed[1]}: "
            f"correct width and height in the list{_exif_words(image, turn, listed)}"
        )


def _exif_words(path, turn, wanted):
    """What to say when the other reading of EXIF would give the (w, h) that is wanted."""
    try:
        header = read_header(path)
    except InputError:
        return ""
    if header.size(turn) == header.size(not turn) or header.size(not turn) != tuple(wanted):
        return ""
    word = "asks for a quarter turn" if not turn else "has turned it"
    width, height = header.size(not turn)
    return (
        f". EXIF orientation {header.orientation} of {os.path.basename(path)} {word}; DATASET."
        f"exif_turn {not turn} makes it {width}x{height} in training and evaluation, or store "
        "the turned pixels"
    )


def _pil_label(content, path, num_class):
    """(integers [h, w], form) of a label that is not a plain 8-bit grey PNG."""
    try:
        image = Image.open(io.BytesIO(content))
        _require_size(path, *image.size)
        image.load()
        values = np.asarray(image)
    except Image.UnidentifiedImageError as error:
        raise InputError(f"{path}: damaged or not a readable label; replace the file") from error
    except _UNREADABLE as error:
        raise InputError(f"{path}: not a readable label ({error}); replace the file") from error
    is_png = image.format == "PNG"
    if image.mode == "L" and not (is_png and content[24] < 8):
        return values, JPEG if image.format == "JPEG" else ""
    if image.mode == "P":
        _require_no_grey_palette(image, values, path, num_class)
        return values, PALETTE
    if image.mode.startswith("I"):
        return values.astype(np.int64), ""
    if image.mode == "LA" and values[..., 1].min() == 255:
        return values[..., 0], ""
    kind = f"picture of PIL's mode {image.mode}"
    if is_png:
        kind = f"{_PNG_MODES.get(content[25], 'unknown')} PNG with {content[24]} bits"
    if image.mode in ("RGB", "RGBA") and (values[..., :1] == values[..., 1:3]).all():
        kind += ", whose channels are equal"
    raise InputError(
        f"{path}: a label must be an 8-bit grey picture (PIL mode L) whose values are the "
        f"classes, or a palette's indices; this is a {kind}: store the class numbers themselves, "
        "as PNG"
    )


def _require_size(path, width, height):
    if width * height > MAX_PIXELS:
        million = MAX_PIXELS // 10**6
        raise InputError(f"{path}: the label claims to be {width}x{height}, more than {million} "
                         "million pixels; replace it or scale image and label down")


def _require_no_grey_palette(image, values, path, num_class):
    """A grey map that a program saved with a palette: its indices are no longer its values."""
    used = np.unique(values)
    palette = np.array(image.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
    if used[-1] >= len(palette):
        return
    colours = palette[used]
    greys = colours[:, 0]
    is_grey_map = (colours == greys[:, None]).all() and len(np.unique(greys)) == len(used)
    if is_grey_map and greys.max() <= num_class and (greys != used).any():
        raise InputError(
            f"{path}: a palette PNG whose indices {used.tolist()} show the greys "
            f"{greys.tolist()}: either may be the classes; save it as 8-bit grey (PIL mode L)"
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
