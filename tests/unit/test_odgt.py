"""Lists as editors and other systems write them."""

import json

import numpy as np
import pytest
from PIL import Image

from data.segmentation.lists import SegList, read_seg_list
from data.segmentation.odgt import read_odgt
from runtime.errors import InputError

RECORD = {"fpath_img": "images/a.png", "fpath_segm": "annotations/a.png",
          "width": 12, "height": 8}
LINE = json.dumps(RECORD)


@pytest.fixture
def root(tmp_path):
    for name in ("images", "annotations"):
        (tmp_path / name).mkdir()
        Image.fromarray(np.ones((8, 12), np.uint8)).save(tmp_path / name / "a.png")
    return tmp_path


def read(root, content, **options):
    (root / "a.odgt").write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(read_seg_list(str(root / "a.odgt"), str(root), **options))


@pytest.mark.parametrize("content", [
    LINE,
    f"\n{LINE}\n \n",
    f"{LINE}\r\n",
    f"{LINE}\r\r",
    b"\xef\xbb\xbf" + LINE.encode(),
    f"\ufeff{LINE}\r\n".encode("utf-16-le"),
    f"\ufeff{LINE}\r\n".encode("utf-16-be"),
    LINE.encode("utf-16-le"),
    LINE.replace("12", "12.0").replace("8", "8.0"),
    LINE.replace("12", '"12"').replace("8", '" 8.0"'),
    LINE.replace("/", "\\\\"),
    f"[{LINE}]",
    f"\ufeff[\n{LINE}\n]\n",
    f"{LINE},\n",
    f"\n\ufeff{LINE}\n",
])
def test_what_is_certain_is_read(root, content):
    assert read(root, content) == [RECORD]


@pytest.mark.parametrize("value", ["12.5", '"wide"', "true", "0", "-3", "[12]", "1e99", "NaN"])
def test_no_size(root, value):
    with pytest.raises(InputError, match=r"a\.odgt:1: width wants pixels"):
        read(root, LINE.replace("12", value))


def test_no_size_at_all_is_read_from_the_image(root):
    assert read(root, LINE.replace("12", '""').replace("8", "null")) == [RECORD]


def test_paths_as_in_addresses(root):
    assert read(root, LINE.replace("images/a", "images%2F%61")) == [RECORD]
    with pytest.raises(InputError, match=r"images%2Fb\.png: no such image"):
        read(root, LINE.replace("images/a", "images%2Fb"))


def test_no_utf8_names_the_line(root):
    with pytest.raises(InputError, match=r"a\.odgt:2: .*save the list as UTF-8"):
        read(root, LINE.encode() + b"\n" + LINE.replace("a.png", "ä.png").encode("latin-1"))


@pytest.mark.parametrize("content", [
    '{"fpath_img": "images/a.png", "fpath_segm": "annotations/a.png"}',
    LINE.replace("12", "null").replace("8", "null"),
])
def test_sizes_that_are_not_there(root, content):
    bare = {name: RECORD[name] for name in ("fpath_img", "fpath_segm")}
    assert read(root, content, needs_sizes=False) == [bare]
    assert read(root, content) == [RECORD]  # from the image
    (root / "images/a.png").write_bytes(b"no image")
    assert read(root, content, needs_sizes=False) == [bare]
    with pytest.raises(InputError, match=r"images/a\.png: damaged"):
        read(root, content)


def test_backslashes_are_no_slashes_where_such_a_file_is(root):
    (root / "images\\a.png").write_bytes((root / "images/a.png").read_bytes())
    (found,) = read(root, LINE.replace("images/", "images\\\\"))
    assert found["fpath_img"] == "images\\a.png"
    with pytest.raises(InputError, match="no such image file"):
        read(root, LINE.replace("images/a", "images\\\\b"))


def test_a_list_that_was_written_is_read_back(root):
    bare = SegList([{k: RECORD[k] for k in ("fpath_img", "fpath_segm")}, RECORD])
    bare.write(root / "b.odgt")
    assert read_odgt(str(root / "b.odgt")) == list(bare)


def test_fingerprint():
    def of(*records):
        return SegList(records).fingerprint

    other = RECORD | {"fpath_img": "images/b.png"}
    same = of(RECORD, other)
    assert same == of(dict(RECORD), dict(other))
    assert len(same) == 16
    different = {of(other, RECORD), of(RECORD), of(RECORD, other | {"width": 13}),
                 of(RECORD, RECORD), of(RECORD, other | {"fpath_segm": "x"})}
    assert len(different) == 5
    assert same not in different
