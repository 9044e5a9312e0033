"""Files made to harm who opens them: refused with one line, within 1 GB and 5 s.

Every file is opened in a process of its own whose address space is limited, so that a hole in the
checks fails the test instead of taking the machine down.
"""

import io
import json
import os
import pickle
import random
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from common.checkpoint import load_checkpoint, save_checkpoint
from runtime.errors import InputError
from runtime.vetting.scan import add_checksum

pytestmark = pytest.mark.fault
ROOT = Path(__file__).resolve().parents[2]
PROTO = b"\x80\x02"

CHILD = """
import json, os, resource, sys, time, warnings
warnings.simplefilter("error")
from common.checkpoint import load_checkpoint
from runtime.vetting.pickles import BadFile
from runtime.vetting.progress import read_iteration
from settings.loading import InputError
vm_bytes = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
limit = vm_bytes + 2_000_000_000
for path in sys.argv[1:]:
    sys.stdout.flush()
    if os.fork() == 0:
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CPU, (30, 30))
        before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
        try:
            try:  # what puts a folder's files in order
                read_iteration(path)
            except BadFile:
                pass
            load_checkpoint(path)
            fault = None
        except InputError as error:
            fault = str(error)
        except BaseException as error:
            fault = f"uncaught {error!r}"
        seconds = time.process_time() - start
        peak_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        print(json.dumps([path, fault, seconds, peak_mb]), flush=True)
        os._exit(0)
    os.wait()
"""


def zip_of(data_pkl, records=(), compression=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in [("data.pkl", data_pkl), ("version", b"3\n"), *records]:
            archive.writestr(f"archive/{name}", content)
    return buffer.getvalue()


def legacy_of(data_pkl, keys=(), tail=b""):
    parts = [pickle.dumps(part, protocol=2) for part in (0x1950A86A20F9469CFC6C, 1001, {})]
    return b"".join([*parts, data_pkl, pickle.dumps(list(keys), protocol=2), tail])


def mapping_of(value):
    """A pickle of {"a": value}; value in opcodes."""
    return PROTO + b"}X\1\0\0\0a" + value + b"s."


def number(value):
    return pickle.dumps(value, protocol=2)[2:-1]


def tensor(numel, size, stride, legacy=False, key=b"0"):
    """Opcodes of a float tensor over the storage `key`."""
    saved_id = b"(X\7\0\0\0storagectorch\nFloatStorage\nX" + struct.pack("<I", len(key)) + key
    saved_id += b"X\3\0\0\0cpu"
    saved_id += number(numel) + (b"N" if legacy else b"") + b"tQ"
    view = b"K\0" + number(size) + number(stride) + b"\x89ccollections\nOrderedDict\n)R"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + saved_id + view + b"tR"


def doubling(levels):
    """A pair of pairs of pairs ...: 2**levels leaves in a few bytes a level."""
    return b"K\1q\0" + b"h\0\x86q\0" * levels


OVERLAPPING = range(10_000, 11_200)


def overlapping_zip(data_pkl):
    """A thousand and more records that all are the same megabyte."""
    data = zip_of(data_pkl, [("data/0", bytes(1 << 20))])
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        info = archive.getinfo("archive/data/0")
    start = data.index(b"PK\1\2")
    entries = data[start : data.index(b"PK\5\6")]
    one = entries[entries.index(b"archive/data/0") - 46 :]
    names = [f"archive/data/{i}".encode() for i in OVERLAPPING]
    more = b"".join(one[:28] + struct.pack("<H", len(name)) + one[30:46] + name for name in names)
    assert info.file_size == 1 << 20
    count = len(names) + 3
    length = len(entries) + len(more)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, length, start, 0)
    return data[:start] + entries + more + end


def sealed_overlapping_zip():
    """The same with a tensor for each record and our checksum, which spares the records' own."""
    numel = (1 << 20) // 4
    tensors = [tensor(numel, (numel,), (1,), key=str(i).encode()) for i in OVERLAPPING]
    file = io.BytesIO(overlapping_zip(mapping_of(b"](" + b"".join(tensors) + b"e")))
    add_checksum(file)
    return file.getvalue()


def two_directories():
    """An archive whose comment is the end of a second one: which is found depends on the reader."""
    inner = zip_of(mapping_of(b"cos\nsystem\nX\4\0\0\0true\x85R"))
    outer = bytearray(zip_of(mapping_of(b"N")))
    at = outer.rindex(b"PK\5\6")
    comment = inner[inner.rindex(b"PK\5\6") :]
    outer[at + 20 : at + 22] = struct.pack("<H", len(comment))
    return bytes(outer) + comment


HOSTILE = {
    # code
    "system": zip_of(mapping_of(b"cos\nsystem\nX\4\0\0\0true\x85R")),
    "eval": legacy_of(mapping_of(b"c__builtin__\neval\nX\1\0\0\x001\x85R")),
    "inst": zip_of(PROTO + b"(X\4\0\0\0trueios\nsystem\n."),
    # memory from a few bytes
    "bytearray": zip_of(mapping_of(b"c__builtin__\nbytearray\n" + number(10**10) + b"\x85R")),
    "encode": zip_of(mapping_of(b"c_codecs\nencode\nX\1\0\0\0aX\5\0\0\0utf_7\x86R")),
    "int_tensor": zip_of(mapping_of(b"ctorch\nFloatTensor\n" + number(10**10) + b"\x85R")),
    "legacy_terabyte": legacy_of(
        mapping_of(tensor(1 << 38, (1 << 38,), (1,), legacy=True)),
        ["0"],
        struct.pack("<q", 1 << 38),
    ),
    "zip_numel_lie": zip_of(mapping_of(tensor(1 << 38, (4,), (1,))), [("data/0", bytes(16))]),
    "zip_no_storage": zip_of(mapping_of(tensor(1 << 38, (4,), (1,)))),
    "size_lie": zip_of(mapping_of(tensor(4, (1 << 38,), (1,))), [("data/0", bytes(16))]),
    "stride_lie": zip_of(mapping_of(tensor(4, (2, 2), (1 << 38, 1))), [("data/0", bytes(16))]),
    "expanded": zip_of(mapping_of(tensor(4, (1 << 40,), (0,))), [("data/0", bytes(16))]),
    "negative": zip_of(mapping_of(tensor(4, (-1,), (1,))), [("data/0", bytes(16))]),
    "many_sizes": zip_of(
        mapping_of(tensor(1, (1 << 62,) * 100_000, (0,) * 100_000)), [("data/0", bytes(4))]
    ),
    # the archive
    "zip_bomb": zip_of(
        mapping_of(tensor(1 << 27, (4,), (1,))),
        [("data/0", bytes(1 << 29))],
        zipfile.ZIP_DEFLATED,
    ),
    "pickle_bomb": zip_of(b"N" * (1 << 29), compression=zipfile.ZIP_DEFLATED),
    "overlapping": overlapping_zip(mapping_of(b"N")),
    "sealed_overlapping": sealed_overlapping_zip(),
    "two_directories": two_directories(),
    "other_case": zip_of(mapping_of(b"N"), [("DATA.pkl", mapping_of(b"cos\nsystem\n"))]),
    "many_records": zip_of(mapping_of(b"N"), [(f"data/{i}", b"") for i in range(60_000)]),
    "big_version": zip_of(mapping_of(b"N"), [("byteorder", bytes(1 << 20))]),
    # lengths that lie
    "long1": zip_of(mapping_of(b"\x8a\xff" + b"\x7f" * 255)),
    "long4": zip_of(mapping_of(b"\x8b" + struct.pack("<i", 2**31 - 1))),
    "binbytes8": zip_of(mapping_of(b"\x8e" + struct.pack("<Q", 2**40))),
    "binunicode": zip_of(mapping_of(b"X" + struct.pack("<I", 2**32 - 1))),
    "frame": zip_of(b"\x80\x04\x95" + struct.pack("<Q", 2**40)),
    "line": zip_of(mapping_of(b"c" + b"a" * (20 << 20))),
    # containers
    "deep_lists": zip_of(mapping_of(b"]" * 190_000 + b"a" * 189_999)),
    "deep_tuples": legacy_of(mapping_of(b")" + b"\x85" * 500_000)),
    "doubling": zip_of(mapping_of(doubling(60))),
    "hash_bomb": zip_of(mapping_of(b"}" + doubling(18) + b"Ns")),
    "colliding_keys": zip_of(
        mapping_of(b"}(" + b"".join(number(i * (2**61 - 1)) + b"N" for i in range(10_000)) + b"u")
    ),
    "circle": zip_of(mapping_of(b"]q\0h\0a")),
    "attributes": zip_of(
        mapping_of(b"ccollections\nOrderedDict\n)R}X\5\0\0\0itemsNsb"),
    ),
    "many_steps": zip_of(mapping_of(b"](" + b"N" * 20_000_000 + b"e")),
    "many_lists": zip_of(mapping_of(b"](" + b"]" * 390_000 + b"e") + b"}"),
    "many_calls": zip_of(
        mapping_of(b"](ccollections\nOrderedDict\nq\0)R" + b"h\0)R" * 132_000 + b"K\1K\1\x86e")
    ),
    "many_storages": legacy_of(
        mapping_of(b"](" + tensor(1 << 30, (1,), (1,), legacy=True) * 10_000 + b"e")
    ),
    "many_pickles": b"".join(
        [legacy_of(b"")[: -len(pickle.dumps([], protocol=2)) - len(pickle.dumps({}, protocol=2))]]
        + [PROTO + b"](" + b"]" * 390_000 + b"e."] * 3
    ),
    "many_keys": legacy_of(mapping_of(b"N"))[: -len(pickle.dumps([], protocol=2))]
    + (PROTO + b"](" + b"]" * 390_000 + b"e."),
    # before the iteration that orders a folder's files
    "iteration_of_long1": zip_of(mapping_of(b"N")[:-2] + b"X\t\0\0\0iteration"
                                 + b"\x8a\xff" + b"\x7f" * 255 + b"s."),
    "meta_circle": zip_of(PROTO + b"}X\4\0\0\0meta}q\0X\4\0\0\0iterh\0ss."),
    "meta_doubling": zip_of(PROTO + b"}(X\4\0\0\0meta" + doubling(60) + b"u."),
    # not checkpoints
    "empty": b"",
    "web_page": b"<!DOCTYPE html><html>404</html>",
    "lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n",
    "noise": random.Random(0).randbytes(5000),
    "zip_noise": b"PK\3\4" + random.Random(1).randbytes(5000),
    "legacy_noise": legacy_of(random.Random(2).randbytes(5000)),
    "list": zip_of(PROTO + b"]."),
    "other_zip": zip_of(mapping_of(b"N"), [("constants.pkl", b"")]),
}
# Refused by this rule, where a newer Python or torch would have had another to refuse them by.
REASONS = {
    "overlapping": "it claims more bytes than it holds",
    "sealed_overlapping": "it claims more bytes than it holds",
}
# Not refused: large for what it says, but within the limits of a checkpoint.
ALLOWED = {"many_lists", "many_calls"}


def load_apart(paths):
    """{path: (fault, seconds, peak MB)}: each file loaded in its own limited process.

    Seconds are the processor's, so that a busy machine does not fail the test.
    """
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *map(str, paths)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return {Path(path).name: tuple(rest) for path, *rest in rows}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    for name, content in HOSTILE.items():
        (folder / name).write_bytes(content)
    # A legacy file that says a terabyte, and has it: as a hole.
    with open(folder / "hole", "wb") as file:
        file.write(HOSTILE["legacy_terabyte"])
        file.truncate(len(HOSTILE["legacy_terabyte"]) + (1 << 40))
    results = load_apart([folder / name for name in [*HOSTILE, "hole"]])
    os.truncate(folder / "hole", 0)
    return results


@pytest.mark.parametrize("name", [*HOSTILE, "hole"])
def test_hostile_file(results, name):
    assert name in results, "the process died: memory or time ran out"
    fault, seconds, peak_mb = results[name]
    if name in ALLOWED:
        assert fault is None
    else:
        assert fault is not None
        assert f"/{name}: " in fault
        assert "\n" not in fault
        assert not fault.startswith("uncaught")
        assert REASONS.get(name, "") in fault
        assert "cannot be loaded" not in fault, "torch saw a file that the scan should refuse"
    assert seconds < 5  # DESIGN section 5
    assert peak_mb < 1000


def test_all_are_held_off(results):
    """The proof asks for 20."""
    refused = [name for name in (*HOSTILE, "hole") if name in results
               and results[name][0] and not results[name][0].startswith("uncaught")
               and results[name][1] < 5 and results[name][2] < 1000]
    assert len(refused) == len(HOSTILE) + 1 - len(ALLOWED) >= 50


@pytest.mark.parametrize("is_zip", [True, False])
def test_damaged_copies_never_load_as_something_else(tmp_path, is_zip):
    """Cut off anywhere, or with bytes changed: refused, or (legacy only) still a mapping."""
    state = {"a": torch.arange(6.0).reshape(2, 3), "b": {"c": [1, 2.5, "text"], "d": torch.ones(2)}}
    path = tmp_path / "good.pth"
    if is_zip:
        save_checkpoint(path, state)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=False)
    whole = path.read_bytes()
    assert load_checkpoint(path).keys() == state.keys()
    rng = random.Random(0)
    bad = tmp_path / "bad.pth"
    for length in rng.sample(range(len(whole)), 60):
        bad.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"bad\.pth: "):
            load_checkpoint(bad)
    for _ in range(150):
        at = rng.randrange(len(whole))
        changed = bytearray(whole)
        changed[at] ^= 1 << rng.randrange(8)
        bad.write_bytes(changed)
        try:
            loaded = load_checkpoint(bad)
        except InputError:
            continue
        assert isinstance(loaded, dict)
        if is_zip:  # only the checksum itself was hit: the records' own are looked at
            assert at >= len(whole) - 71 - 2
            assert torch.equal(loaded["a"], state["a"])
