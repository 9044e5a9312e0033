"""A thousand damaged or odd pictures, through the readers of all four scripts.

Each is read to a finite picture, or refused in one line that names the file. The default run takes
a sample; `-m slow` all of them, in a process of its own whose memory counts.
"""

import contextlib
import io
import json
import resource
import struct
import tempfile
import time
import warnings
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from coco_maker import annotation, document
from hypothesis import given
from hypothesis import strategies as st
from isolated import run_isolated
from mutations import example_settings, mutated_bytes
from PIL import Image

from data import segmentation
from data.coco_format import open_coco
from data.imagenet import ClassificationDataset, open_class_folders, val_transform
from data.loading.loader import SampleKey
from data.queryinst import QueryInstDataset, open_query_data
from data.yolact import InstanceDataset
from models.yolact import load_yolact_config
from runtime.errors import InputError
from settings.queryinst.config import QueryInstConfig
from settings.queryinst.data import DataPrefix
from settings.segmentation import DatasetConfig as SegDataset

SLOWEST_S = 30
MOST_MB = 2500  # the largest picture that is let in takes 540 MB, and is there twice for a moment
FULL = 1000
QUICK = 60
SIZE = (40, 30)  # (w, h)

# format -> the modes in which Pillow writes it
FORMATS = {
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I"),
    "JPEG": ("L", "RGB", "CMYK"),
    "GIF": ("L", "P", "RGB"),
    "WEBP": ("RGB", "RGBA"),
    "TIFF": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F", "LAB", "YCbCr"),
    "BMP": ("1", "L", "P", "RGB", "RGBA"),
    "PPM": ("1", "L", "RGB", "I"),
    "ICO": ("RGBA",),
    "TGA": ("L", "P", "RGB", "RGBA"),
}
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")


def picture(kind, mode, size=SIZE, **options):
    """The bytes of a noisy picture."""
    width, height = size
    noise = np.random.default_rng(3).integers(0, 256, (height, width, 4), np.uint8)
    if mode == "I;16":
        image = Image.fromarray(noise[..., 0].astype(np.uint16) * 257)
    elif mode in ("I", "F"):
        image = Image.fromarray(noise[..., 0].astype(np.int32 if mode == "I" else np.float32))
    elif mode == "LAB":
        image = Image.frombytes("LAB", size, noise[..., :3].tobytes())
    else:
        image = Image.fromarray(noise, "RGBA") if mode == "RGBA" else Image.fromarray(
            noise[..., :3]).convert(mode)
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def odd_pictures():
    """Bytes of every format and mode, EXIF turns, several frames, and what is no picture."""
    found = []
    for kind, modes in FORMATS.items():
        for mode in modes:
            with contextlib.suppress(OSError):  # Pillow's versions differ in what they write
                found.append(picture(kind, mode))
    assert len(found) > 35
    for turn in range(10):
        exif = Image.Exif()
        exif[274] = turn
        found += [picture(kind, "RGB", exif=exif) for kind in ("JPEG", "PNG", "WEBP")]
    frames = [Image.new("P", SIZE, i) for i in range(3)]
    for kind in ("GIF", "TIFF"):
        stream = io.BytesIO()
        frames[0].save(stream, kind, save_all=True, append_images=frames[1:])
        found.append(stream.getvalue())
    found += [picture("JPEG", "RGB", progressive=True), picture("PNG", "P", transparency=0),
              picture("TIFF", "RGB", compression="tiff_lzw"),
              picture("TIFF", "L", compression="packbits"),
              picture("PNG", "RGB", (1, 1)), picture("PNG", "RGB", (3000, 1)),
              picture("JPEG", "RGB", SIZE[::-1]), picture("GIF", "P", (1, 1))]
    found += [
        b"", b"\0" * 1000, b"not a picture", b"GIF89a", b"\xff\xd8\xff\xd9", b"BM", b"P6 1 1 255",
        b"P5\n999999 999999\n255\n", b"P6 40 30 65535\n" + bytes(7200), b"II*\0\x08\0\0\0",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%PDF-1.4", b"RIFF\0\0\0\0WEBPVP8 ",
        b"\0\0\0 ftypavif", b"\x1f\x8b\x08", b"\x89PNG\r\n\x1a\n",
    ]
    return found


@st.composite
def claimed_sizes(draw):
    """A picture whose header claims another size than its pixels have."""
    side = st.sampled_from((0, 1, 2, 39, 41, 60, 1000, 13_000, 40_000, 65_535, 2**31 - 1))
    width, height = draw(side), draw(side)
    kind = draw(st.sampled_from(("PNG", "BMP", "GIF", "JPEG", "TIFF")))
    content = bytearray(picture(kind, draw(st.sampled_from(("RGB", "L")))))
    if kind == "PNG":
        content[16:24] = struct.pack(">II", width, height)
        content[29:33] = struct.pack(">I", zlib.crc32(bytes(content[12:29])))
    elif kind == "BMP":
        content[18:26] = struct.pack("<ii", width, draw(st.sampled_from((height, -height))))
    elif kind == "GIF":
        content[6:10] = struct.pack("<HH", min(width, 65_535), min(height, 65_535))
    elif kind == "JPEG":
        at = content.find(b"\xff\xc0")
        content[at + 5:at + 9] = struct.pack(">HH", min(height, 65_535), min(width, 65_535))
    else:
        for tag, value in ((256, width), (257, height)):
            at = content.find(struct.pack("<HH", tag, 3))
            at = at if at >= 0 else content.find(struct.pack("<HH", tag, 4))
            content[at:at + 12] = struct.pack("<HHII", tag, 4, 1, value)
    return bytes(content)


@st.composite
def broken_pictures(draw, whole):
    """(bytes, suffix)."""
    claims = draw(st.integers(0, 5)) == 0
    content = draw(claimed_sizes() if claims else st.sampled_from(whole))
    for _ in range(draw(st.sampled_from((0, 1, 1, 2)))):
        content = draw(mutated_bytes(content))
    return content, draw(st.sampled_from(SUFFIXES))


class Sets:
    """A data set of one picture for each script, whose file is exchanged."""

    def __init__(self, folder):
        self.folder = folder
        for name in ("images", "train/a", "val/a"):
            (folder / name).mkdir(parents=True)
        self.label = folder / "label.png"
        Image.fromarray(np.random.default_rng(0).integers(0, 4, SIZE[::-1], np.uint8)).save(
            self.label)

    def place(self, content, suffix):
        """Put the picture where each data set looks for it."""
        for name in ("images", "train/a", "val/a"):
            for old in (self.folder / name).iterdir():
                old.unlink()
            (self.folder / name / f"1{suffix}").write_bytes(content)
        made = document([annotation(1, 1, box=(5, 5, 20, 20))], 1, SIZE[::-1], categories=(1,))
        made["images"][0]["file_name"] = f"1{suffix}"
        (self.folder / "info.json").write_text(json.dumps(made))
        self.photo = f"images/1{suffix}"

    def yolact(self):
        cfg = load_yolact_config("yolact_shapes", options=["max_size=64"])
        info, images = str(self.folder / "info.json"), str(self.folder / "images")
        own = replace(cfg.dataset, train_info=info, train_images=images, class_names=(),
                      label_map=None)
        own, indexes = open_coco(own, ["train"], own_data=True, deep=True)
        cfg = replace(cfg, dataset=own, num_classes=2)
        dataset = InstanceDataset(indexes["train"], images, cfg, train=True, seed=0)
        return dataset[SampleKey(0, 0, 0)]["image"]

    def queryinst(self):
        section = replace(QueryInstConfig().train_dataloader.dataset, data_root=str(self.folder),
                          ann_file="info.json", data_prefix=DataPrefix("images"))
        steps = [replace(step, scale=SIZE) if step.type == "Resize" else step
                 for step in section.pipeline]
        section = replace(section, filter_cfg=replace(section.filter_cfg, min_size=0),
                          pipeline=tuple(steps))
        names, indexes = open_query_data({"train": section}, deep=True)
        dataset = QueryInstDataset(indexes["train"], section, names, train=True, divisor=32)
        return dataset[SampleKey(0, 0, 0)]["image"]

    def seg_photo(self):
        return self.seg(self.photo, "label.png")

    def seg_label(self):
        good = self.folder / "good.png"
        if not good.exists():
            good.write_bytes(picture("PNG", "RGB"))
        return self.seg("good.png", self.photo)

    def seg(self, photo, label):
        record = {"fpath_img": photo, "fpath_segm": label, "width": SIZE[0], "height": SIZE[1]}
        listed = self.folder / "training.odgt"
        listed.write_text(json.dumps(record) + "\n")
        cfg = SegDataset(root_dataset=str(self.folder), list_train=str(listed),
                         list_val=str(listed), num_class=3, imgSizes=(24,), imgMaxSize=64)
        cfg, lists = segmentation.open_lists(cfg, ["train", "val"], self.folder,
                                             lambda line: None, deep=True)
        batch = segmentation.train_batch([lists["train"][0]], cfg, 24, [1])
        assert int(batch["seg_label"].max()) < 3
        return segmentation.eval_item(lists["val"][0], cfg)["img_data"][0]

    def resnest(self):
        folders, _ = open_class_folders(self.folder, deep=True)
        dataset = ClassificationDataset(folders, val_transform(32), train=False, seed=0)
        return dataset[0]["image"]

    @property
    def readers(self):
        return (self.yolact, self.queryinst, self.seg_photo, self.seg_label, self.resnest)


def check_pictures(count, last_input):
    whole = odd_pictures()
    with tempfile.TemporaryDirectory() as name:
        sets = Sets(Path(name))
        seen = {"read": 0, "told": 0}

        @example_settings(count)
        @given(broken_pictures(whole))
        def check(made):
            sets.place(*made)
            if last_input:
                Path(last_input).write_bytes(made[0])
            started = time.process_time()
            for reader in sets.readers:
                try_reader(reader, name, seen)
            assert time.process_time() - started < SLOWEST_S

        check()
        assert min(seen.values()) > count / 10, seen


def try_reader(reader, folder, seen):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of odd files
        try:
            image = reader()
        except InputError as error:
            seen["told"] += 1
            for fault in error.faults:
                assert fault.isprintable(), fault
                assert folder in fault
                assert "object at 0x" not in fault, fault
        else:
            seen["read"] += 1
            assert torch.as_tensor(image).float().isfinite().all()


@pytest.mark.fault
def test_broken_pictures():
    check_pictures(QUICK, None)


@pytest.mark.slow
@pytest.mark.fault
def test_a_thousand_broken_pictures(tmp_path):
    last = tmp_path / "last.bin"
    assert run_isolated(check_pictures, FULL, last, last_input=last) < MOST_MB


@pytest.mark.fault
def test_whole_pictures_of_every_form(tmp_path):
    """Each form that the formats have, undamaged: read, or refused in a line."""
    sets, seen = Sets(tmp_path), {"read": 0, "told": 0}
    for content in odd_pictures():
        sets.place(content, ".png")
        for reader in sets.readers:
            try_reader(reader, str(tmp_path), seen)
    assert seen["read"] > 150


@pytest.mark.fault
@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF", "PPM"])
def test_a_huge_claim_costs_no_memory(tmp_path, kind):
    """A header of 60,000 x 60,000 pixels on a file of a few kilobytes."""
    side = 60_000
    content = bytearray(picture(kind, "RGB"))
    if kind == "PNG":
        content[16:24] = struct.pack(">II", side, side)
        content[29:33] = struct.pack(">I", zlib.crc32(bytes(content[12:29])))
    elif kind == "BMP":
        content[18:26] = struct.pack("<ii", side, side)
    elif kind == "GIF":
        content[6:10] = struct.pack("<HH", side, side)
    elif kind == "PPM":
        content = b"P6\n60000 60000\n255\n" + bytes(1000)
    else:
        for tag in (256, 257):
            at = content.find(struct.pack("<HH", tag, 3))
            at = at if at >= 0 else content.find(struct.pack("<HH", tag, 4))
            content[at:at + 12] = struct.pack("<HHII", tag, 4, 1, side)
    sets, seen = Sets(tmp_path), {"read": 0, "told": 0}
    sets.place(bytes(content), ".png")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for reader in sets.readers:
        try_reader(reader, str(tmp_path), seen)
    # 10 GB of pixels; torch and OpenCV take some when first used
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400 * 1024
    assert seen == {"read": 0, "told": 5}
