"""Each form of picture is read by one rule, whichever of the two decoders reads it."""

import struct
import warnings
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from data.loading.decode import read_bgr, read_header, read_rgb
from runtime.errors import InputError

H, W = 24, 36
_RNG = np.random.RandomState(0)
RGB = cv2.resize(_RNG.randint(0, 256, (4, 6, 3)).astype(np.uint8), (W, H))  # smooth, for JPEG
GREY = RGB[..., 1]
RGB16 = RGB.astype(np.uint16) * 257 + 3
GREY16 = RGB16[..., 1]


def both(path):
    """The picture by PIL, by OpenCV; as RGB arrays."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return np.asarray(read_rgb(path)), read_bgr(path)[..., ::-1]


def grey3(plane):
    return np.repeat(plane[..., None], 3, 2)


def save_pil(image, **options):
    return lambda path: image.save(path, **options)


def save_cv(pixels):
    return lambda path: cv2.imwrite(str(path), pixels)


def chunk(kind, content):
    return (struct.pack(">I", len(content)) + kind + content
            + struct.pack(">I", zlib.crc32(kind + content)))


def grey_alpha_16(path):
    pixels = np.stack([GREY16, np.full((H, W), 9)], 2).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", W, H, 16, 4, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
                     + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def pgm(maximum, dtype):
    values = (GREY.astype(np.int64) * maximum // 255).astype(dtype)
    return lambda path: path.write_bytes(b"P5 %d %d %d\n" % (W, H, maximum) + values.tobytes())


GREY_PICTURE, COLOUR = Image.fromarray(GREY), Image.fromarray(RGB)
ALPHA = np.dstack([RGB, GREY[::-1]])
PALETTE = COLOUR.quantize(32)
SHOWN = np.asarray(PALETTE.convert("RGB"))
BITS = np.where(GREY > 127, 255, 0).astype(np.uint8)


@pytest.mark.parametrize("name, save, wanted", [
    ("grey.png", save_pil(GREY_PICTURE), grey3(GREY)),
    ("colour.png", save_pil(COLOUR), RGB),
    ("alpha.png", save_pil(Image.fromarray(ALPHA)), RGB),
    ("grey_alpha.png", save_pil(Image.fromarray(ALPHA[..., 2:], "LA")), grey3(RGB[..., 2])),
    ("clear_grey.png", save_pil(GREY_PICTURE, transparency=7), grey3(GREY)),
    ("clear_colour.png", save_pil(COLOUR, transparency=(1, 2, 3)), RGB),
    ("palette.png", save_pil(PALETTE), SHOWN),
    ("clear_palette.png", save_pil(PALETTE, transparency=3), SHOWN),
    ("alpha_palette.png", save_pil(PALETTE, transparency=bytes(range(32))), SHOWN),
    ("bits.png", save_pil(Image.fromarray(BITS).convert("1")), grey3(BITS)),
    ("bits.tif", save_pil(Image.fromarray(BITS).convert("1")), grey3(BITS)),
    ("grey16.png", save_pil(Image.fromarray(GREY16)), grey3(GREY16 >> 8)),
    ("grey16.tif", save_pil(Image.fromarray(GREY16)), grey3(GREY16 >> 8)),
    ("lzw16.tif", save_cv(GREY16), grey3(GREY16 >> 8)),
    ("colour16.png", save_cv(RGB16[..., ::-1]), RGB16 >> 8),
    ("alpha16.png", save_cv(np.dstack([RGB16[..., ::-1], GREY16])), RGB16 >> 8),
    ("grey_alpha16.png", grey_alpha_16, grey3(GREY16 >> 8)),
    ("eight.pgm", pgm(255, np.uint8), grey3(GREY)),
    ("sixteen.pgm", pgm(65535, ">u2"), grey3(GREY)),
])
def test_both_readers_show_the_same(tmp_path, name, save, wanted):
    path = tmp_path / name
    save(path)
    for found in both(path):
        assert found.shape == (H, W, 3)
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("name, save", [
    # OpenCV's TIFF rounds where PIL cuts, and either rounds a colour space in its own way
    ("colour16.tif", save_cv(RGB16[..., ::-1])),
    ("cmyk.jpg", save_pil(COLOUR.convert("CMYK"), quality=100)),
    ("cmyk.tif", save_pil(COLOUR.convert("CMYK"))),
    # by its own maximum, not by 65535
    ("twelve.pgm", pgm(4095, ">u2")),
])
def test_forms_whose_rounding_differs(tmp_path, name, save):
    path = tmp_path / name
    save(path)
    wanted = grey3(GREY) if name == "twelve.pgm" else RGB
    for found in both(path):
        # CMYK in JPEG loses most: its channels are the inverted colours, compressed one by one
        assert np.abs(found.astype(int) - wanted).max() <= (8 if name == "cmyk.jpg" else 2)


def test_16_bit_is_opencvs_byte(tmp_path):
    values = _RNG.randint(0, 1 << 16, (H, W)).astype(np.uint16)
    for name in ("a.png", "a.tif"):
        Image.fromarray(values).save(tmp_path / name)
        wanted = cv2.imread(str(tmp_path / name))
        np.testing.assert_array_equal(np.asarray(read_rgb(tmp_path / name)), wanted)


@pytest.mark.parametrize("dtype, words", [(np.float32, "float"), (np.int32, "32-bit integer")])
def test_pixels_without_a_known_range_are_refused(tmp_path, dtype, words):
    path = tmp_path / "a.tif"
    Image.fromarray(GREY.astype(dtype)).save(path)
    for read in (read_rgb, read_bgr, read_header):
        with pytest.raises(InputError, match=rf"a\.tif: {words} pixels.*save the picture with 8"):
            read(path)


def test_forms_that_no_reader_knows(tmp_path):
    path = tmp_path / "a.tif"
    cv2.imwrite(str(path), RGB.astype(np.float32))
    for read in (read_rgb, read_bgr):
        with pytest.raises(InputError, match=r"a\.tif: damaged, or a TIFF of a form.*no floats"):
            read(path)
    COLOUR.convert("LAB").save(path)
    for read in (read_rgb, read_bgr):
        with pytest.raises(InputError, match=r"a\.tif: LAB pixels cannot be read.*as RGB"):
            read(path)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pil_turns_as_asked(tmp_path, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    path = tmp_path / "a.png"
    COLOUR.save(path, exif=exif)
    np.testing.assert_array_equal(np.asarray(read_rgb(path)), RGB)
    shown = np.asarray(ImageOps.exif_transpose(Image.open(path)))
    np.testing.assert_array_equal(np.asarray(read_rgb(path, turn=True)), shown)
    header = read_header(path)
    assert header.size(turn=False) == (W, H)
    assert header.size(turn=True) == shown.shape[1::-1]
    assert header.orientation == orientation
