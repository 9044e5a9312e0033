"""Images of all kinds become BGR bytes; damaged, turned and hostile files are named."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from data.loading.decode import read_bgr
from runtime.errors import InputError

HEIGHT, WIDTH = 40, 60
# A horizontal and a vertical ramp: every flip and turn shows.
RAMP = np.stack([
    np.broadcast_to(np.linspace(0, 250, WIDTH), (HEIGHT, WIDTH)),
    np.broadcast_to(np.linspace(0, 250, HEIGHT)[:, None], (HEIGHT, WIDTH)),
    np.full((HEIGHT, WIDTH), 128.0),
], axis=2).astype(np.uint8)


def save(path, pixels, **options):
    Image.fromarray(pixels).save(path, **options)
    return path


def test_png_is_bgr(tmp_path):
    path = save(tmp_path / "a.png", RAMP)
    np.testing.assert_array_equal(read_bgr(path, (HEIGHT, WIDTH)), RAMP[..., ::-1])


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "1", "I;16", "CMYK"])
def test_every_mode_becomes_bgr_bytes(tmp_path, mode):
    image = Image.fromarray(RAMP)
    if mode == "I;16":
        image = Image.fromarray(RAMP[..., 0].astype(np.uint16) * 257)
    elif mode == "LA":
        image = image.convert("L").convert("LA")
    else:
        image = image.convert(mode)
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    image.save(path)
    found = read_bgr(path)
    assert found.shape == (HEIGHT, WIDTH, 3)
    assert found.dtype == np.uint8
    if mode == "I;16":
        np.testing.assert_array_equal(found[..., 1], RAMP[..., 0])
    elif mode in ("RGBA", "CMYK"):
        # JPEG at Pillow's default quality
        assert np.abs(found[..., ::-1].astype(int) - RAMP).mean() < 6
    elif mode != "1":
        grey = np.array(Image.fromarray(RAMP).convert("L")).astype(int)
        # the palette's steps are the coarsest
        assert np.abs(found.mean(2) - grey).mean() < 30


@pytest.mark.parametrize("kind", ["jpg", "png", "bmp", "webp"])
@pytest.mark.parametrize("share", [0.2, 0.6, 0.97])
def test_truncated_file_is_named(tmp_path, kind, share):
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    path = save(tmp_path / f"a.{kind}", noise)
    data = path.read_bytes()
    path.write_bytes(data[:int(len(data) * share)])
    with pytest.raises(InputError, match=f"a.{kind}"):
        read_bgr(path)


def test_bytes_behind_the_end_do_no_harm(tmp_path):
    path = save(tmp_path / "a.jpg", RAMP)
    expected = read_bgr(path)
    path.write_bytes(path.read_bytes() + b"\0" * 7)
    np.testing.assert_array_equal(read_bgr(path), expected)


@pytest.mark.parametrize("content", [b"", b"not an image at all", b"\xff\xd8\xff"])
def test_no_image(tmp_path, content):
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.jpg"):
        read_bgr(path)


def test_missing_file_and_folder_in_its_place(tmp_path):
    with pytest.raises(InputError, match=r"none\.jpg: cannot be read"):
        read_bgr(tmp_path / "none.jpg")
    with pytest.raises(InputError, match="cannot be read"):
        read_bgr(tmp_path)


@pytest.mark.parametrize("pillows_own", [True, False])
def test_gigantic_header_is_refused_before_decoding(tmp_path, monkeypatch, pillows_own):
    if not pillows_own:
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # as some programs set it

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(
            ">I", zlib.crc32(kind + data))

    path = tmp_path / "bomb.png"
    header = struct.pack(">IIBBBBB", 30000, 30000, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
                     + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b""))
    with pytest.raises(InputError, match=r"bomb\.png.*million pixels"):
        read_bgr(path)


def turned_by_pillow(orientation):
    """What a viewer shows of RAMP stored with this EXIF orientation."""
    exif = Image.Exif()
    exif[274] = orientation
    stream = io.BytesIO()
    Image.fromarray(RAMP).save(stream, "PNG", exif=exif)
    return np.array(ImageOps.exif_transpose(Image.open(stream)))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_exif_orientation(tmp_path, orientation, kind):
    exif = Image.Exif()
    exif[274] = orientation
    path = save(tmp_path / f"a.{kind}", RAMP, exif=exif)
    shown = turned_by_pillow(orientation)
    for size in (None, shown.shape[:2]):
        found = read_bgr(path, size)[..., ::-1].astype(int)
        # JPEG at Pillow's default quality; the ramps' slopes are 4 to 6 a pixel
        assert np.abs(found - shown).mean() < 2


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_orientation_is_ignored_when_the_annotations_were_made_without(tmp_path, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    path = save(tmp_path / "a.png", RAMP, exif=exif)
    np.testing.assert_array_equal(read_bgr(path, (HEIGHT, WIDTH))[..., ::-1], RAMP)


def test_other_size_names_file_and_sizes(tmp_path):
    path = save(tmp_path / "a.png", RAMP)
    with pytest.raises(InputError, match=r"a.png: the image is 60x40, .* for 70x40"):
        read_bgr(path, (40, 70))
    exif = Image.Exif()
    exif[274] = 6
    path = save(tmp_path / "b.png", RAMP, exif=exif)
    with pytest.raises(InputError, match=r"60x40 \(40x60 as its EXIF orientation turns it\)"):
        read_bgr(path, (40, 70))
