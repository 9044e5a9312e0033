"""Checkpoint files: what goes in comes out, whole or not at all; the newest good one is found."""

import collections
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from common import checkpoint
from common.checkpoint import (
    SaveError,
    checkpoint_path,
    find_interrupt,
    find_latest,
    load_checkpoint,
    load_pair,
    parse_checkpoint_name,
    remove_checkpoint,
    save_checkpoint,
    save_pair,
    state_path,
    verify,
)
from common.checkpoint.series import yolact_series
from runtime import files
from runtime.errors import InputError

ROOT = Path(__file__).resolve().parents[2]


def newest(folder, name, warn):
    return yolact_series(folder, name, 1, per_epoch=1).find_start("latest", warn)


def training_state():
    """What a run keeps: every kind of value that a checkpoint of ours may hold."""
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    optimizers = [
        torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9),
        torch.optim.AdamW(net.parameters()),
    ]
    net(torch.ones(2, 3, 5, 5)).sum().backward()
    for optimizer in optimizers:
        optimizer.step()
    return {
        "model": net.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
        "scaler": torch.amp.GradScaler("cpu").state_dict(),
        "torch_rng": torch.get_rng_state(),
        "python_rng": random.getstate(),
        "order": collections.OrderedDict(a=1, b=(2, 3.5)),
        "nested": {"list": [1, [None, True], {"x": -(2**70)}], 7: "ümlaut"},
        "size": torch.Size([1, 2]),
        "dtype": torch.bfloat16,
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "view": torch.arange(10)[3:9:2],
        "expanded": torch.ones(1).expand(5),
        "half": torch.ones(3, dtype=torch.bfloat16),
        "complex": torch.ones(2, dtype=torch.complex64),
        "nothing": torch.zeros(0, 4),
        "scalar": torch.tensor(3),
        "config": "lr: 1e-3\n" * 500,
    }


def assert_same(left, right):
    assert type(left) is type(right)
    if isinstance(left, torch.Tensor):
        assert left.dtype == right.dtype
        assert torch.equal(left, right)
    elif isinstance(left, dict):
        assert list(left) == list(right)
        for key in left:
            assert_same(left[key], right[key])
    elif isinstance(left, (list, tuple)):
        assert len(left) == len(right)
        for one, other in zip(left, right, strict=True):
            assert_same(one, other)
    else:
        assert left == right


def test_everything_comes_back(tmp_path):
    state = training_state()
    save_checkpoint(tmp_path / "a.pth", state)
    loaded = load_checkpoint(tmp_path / "a.pth")
    assert_same(loaded, state)
    assert loaded["model"]._metadata == state["model"]._metadata
    assert os.listdir(tmp_path) == ["a.pth"]


@pytest.mark.parametrize("options", [{}, {"mmap": True}, {"weights_only": False}])
def test_plain_torch_reads_our_files(tmp_path, options):
    state = training_state()
    save_checkpoint(tmp_path / "a.pth", state)
    assert_same(torch.load(tmp_path / "a.pth", **options), state)


@pytest.mark.parametrize("is_zip", [True, False])
def test_files_of_plain_torch_load(tmp_path, is_zip):
    state = training_state()
    torch.save(state, tmp_path / "wéights a.pth", _use_new_zipfile_serialization=is_zip)
    assert_same(load_checkpoint(tmp_path / "wéights a.pth"), state)


def test_parameters_as_files_of_2017_hold_them(tmp_path):
    """OrderedDict from pairs, `_rebuild_tensor`, a Parameter called and then given its state."""
    tensor = (
        b"ctorch._utils\n_rebuild_tensor\n((U\7storagectorch\nFloatStorage\nU\0010U\3cpuK\2NtQ"
        b"K\0K\2\x85K\1\x85tR"
    )
    parameter = b"ctorch.nn.parameter\nParameter\n" + tensor + b"\x85R\x89\x89N\x87b"
    pickled = b"\x80\2ccollections\nOrderedDict\n](](U\1a" + parameter + b"ee\x85R."
    start = tmp_path / "start.pth"
    torch.save({"a": torch.tensor([1.0, 2.0])}, start, _use_new_zipfile_serialization=False)
    whole = start.read_bytes()
    at = whole.index(b"\x80\2}q\0X\1\0\0\0a")
    keys = b"\x80\2]U\0010a."
    (tmp_path / "old.pth").write_bytes(whole[:at] + pickled + keys + whole[-16:])
    loaded = load_checkpoint(tmp_path / "old.pth")
    assert loaded["a"].tolist() == [1.0, 2.0]


def test_checksum_finds_what_zip_checksums_cannot(tmp_path):
    path = tmp_path / "a.pth"
    save_checkpoint(path, {"a": torch.ones(4)})
    verify(path)
    whole = bytearray(path.read_bytes())
    at = whole.index(b"PK\1\2")  # a date in the archive's directory: no record's own checksum
    whole[at + 12] ^= 1
    path.write_bytes(whole)
    for read in (verify, load_checkpoint):
        with pytest.raises(InputError, match=r"a\.pth: damaged: its checksum does not match"):
            read(path)


def test_foreign_files_are_checked_by_record(tmp_path):
    path = tmp_path / "a.pth"
    torch.save({"a": torch.ones(4)}, path)
    with zipfile.ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if name.endswith("data/0"))
    whole = bytearray(path.read_bytes())
    whole[whole.index(torch.ones(4).numpy().tobytes())] ^= 1
    path.write_bytes(whole)
    with pytest.raises(InputError, match=f"damaged: record {name}"):
        load_checkpoint(path)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(InputError, match=r"none\.pth: does not exist"):
        load_checkpoint(tmp_path / "none.pth")
    with pytest.raises(InputError, match="a folder, not a checkpoint"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("value", [{1, 2}, b"bytes", Path("x"), {(1, 2): 3}])
def test_what_could_not_be_read_back_is_not_written(tmp_path, value):
    save_checkpoint(tmp_path / "a.pth", {"a": 1})
    with pytest.raises(ValueError, match="could not be loaded again"):
        save_checkpoint(tmp_path / "a.pth", {"a": value})
    assert load_checkpoint(tmp_path / "a.pth") == {"a": 1}
    assert os.listdir(tmp_path) == ["a.pth"]


def test_too_little_space_is_noticed_before_writing(tmp_path, monkeypatch):
    save_checkpoint(tmp_path / "a.pth", {"a": 1})
    usage = shutil.disk_usage(tmp_path)._replace(free=9_000_000)
    monkeypatch.setattr(files.shutil, "disk_usage", lambda folder: usage)
    save_checkpoint(tmp_path / "b.pth", {"a": torch.ones(1_000_000)})
    with pytest.raises(SaveError, match=r"a\.pth: could not be written: .*MB needed, 9 MB free"):
        save_checkpoint(tmp_path / "a.pth", {"a": torch.ones(2_000_000)})
    assert load_checkpoint(tmp_path / "a.pth") == {"a": 1}


def test_a_folder_is_made_where_it_can_be(tmp_path):
    save_checkpoint(tmp_path / "new" / "deep" / "a.pth", {"a": 1})
    assert load_checkpoint(tmp_path / "new" / "deep" / "a.pth") == {"a": 1}
    (tmp_path / "file").touch()
    with pytest.raises(SaveError, match=r"a\.pth: could not be written: (Not a dir|File exists)"):
        save_checkpoint(tmp_path / "file" / "a.pth", {"a": 1})


@pytest.mark.fault
@pytest.mark.parametrize("limit", [100, 20_000, 4_000_100])
def test_disk_full_while_writing_keeps_the_old_file(tmp_path, limit):
    """A limit on the size of files stands for the full disk: in the middle, and at the end."""
    save_pair(tmp_path / "a_1_2.pth", {"a": torch.zeros(2)}, {"step": 2})
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, old[1]))
    try:
        with pytest.raises(SaveError, match=r"a_1_2\.pth: could not be written: File too large"):
            save_pair(tmp_path / "a_1_2.pth", {"a": torch.ones(1_000_000)}, {"step": 3})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    weights, state = load_pair(tmp_path / "a_1_2.pth")
    assert weights["a"].tolist() == [0, 0]
    assert state == {"step": 2}
    assert sorted(os.listdir(tmp_path)) == ["a_1_2.pth", "a_1_2.state.pth"]


KILLED = """
import os, signal, sys, torch
from common.checkpoint.series import yolact_series
from runtime import files
from common.checkpoint import save_pair
calls = []
def replace(source, target):
    calls.append(target)
    if len(calls) == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    rename(source, target)
rename, files.os.replace = os.replace, replace
save_pair(sys.argv[1], {"a": torch.ones(2)}, {"step": 3})
"""


@pytest.mark.fault
@pytest.mark.parametrize("kill_at", [1, 2])
def test_killed_before_or_between_the_renames(tmp_path, kill_at):
    save_pair(tmp_path / "a_0_1.pth", {"a": torch.zeros(2)}, {"step": 1})
    save_pair(tmp_path / "a_1_2.pth", {"a": torch.zeros(2)}, {"step": 2})
    for name in ("a_1_2.pth", "a_1_3.pth"):  # over an old pair, and as a new one
        done = subprocess.run(
            [sys.executable, "-c", KILLED, tmp_path / name, str(kill_at)],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        assert done.returncode == -signal.SIGKILL
    assert find_latest(tmp_path) == tmp_path / "a_1_2.pth"
    # between the renames the new state stands beside the old weights: theirs was kept
    path, weights, state = newest(tmp_path, "a", pytest.fail)
    assert (path.name, weights["a"][0], state["step"]) == ("a_1_2.pth", 0, 2)
    save_pair(tmp_path / "a_1_2.pth", {"a": torch.ones(2)}, {"step": 4})
    assert load_pair(tmp_path / "a_1_2.pth")[1] == {"step": 4}
    files.remove_leftovers(tmp_path)
    left = {path.name for path in tmp_path.iterdir() if path.name.startswith(".")}
    assert not left


def test_names_in_yolacts_form():
    path = checkpoint_path("w", "yolact_base", 54, 800000)
    assert path == Path("w/yolact_base_54_800000.pth")
    assert parse_checkpoint_name(path) == ("yolact_base", 54, 800000, False)
    path = checkpoint_path("w", "yolact_base", 0, 7, interrupt=True)
    assert parse_checkpoint_name(path) == ("yolact_base", 0, 7, True)
    assert state_path(path) == Path("w/yolact_base_0_7_interrupt.state.pth")
    for name in (
        "yolact_base.pth",
        "resnet50-19c8e357.pth",
        "a_1_2.state.pth",
        "a_1_2.pth.tmp",
        "a_x_2.pth",
        "epoch_3.pth",
        "_1_2.pth",
        "a_1_²2.pth",
    ):
        assert parse_checkpoint_name(name) is None


@pytest.mark.parametrize(
    "names, wanted, latest, interrupt",
    [
        ([], None, None, None),
        (
            ["a_1_90.pth", "a_2_100.pth", "a_2_100.state.pth", "a_9_95.pth"],
            "a",
            "a_2_100.pth",
            None,
        ),
        (["a_1_9.pth", "b_2_10.pth"], "a", "a_1_9.pth", None),
        (["a_1_9.pth", "b_2_10.pth"], None, "b_2_10.pth", None),
        (["a_1_9.pth", "a_b_2_10.pth"], "a", "a_1_9.pth", None),
        (
            ["a_1_9.pth", "a_1_12_interrupt.pth"],
            "a",
            "a_1_12_interrupt.pth",
            "a_1_12_interrupt.pth",
        ),
        (["a_1_9.pth", "b_1_12_interrupt.pth"], "a", "a_1_9.pth", None),
        (
            ["a_1_9.pth", "a_best_2_20.pth", "best_a_3_30.pth", "a_best.pth"],
            None,
            "a_1_9.pth",
            None,
        ),
        (["epoch_9.pth", "epoch_10.pth", "best_mAP_epoch_11.pth"], None, "epoch_10.pth", None),
        (["iter_9.pth", "iter_10.pth"], None, "iter_10.pth", "iter_10.pth"),
        (["checkpoint_-1.pth", "checkpoint_3.pth"], None, "checkpoint_3.pth", None),
        (["checkpoint_iter_50.pth"], None, "checkpoint_iter_50.pth", "checkpoint_iter_50.pth"),
        (
            ["encoder_epoch_3.pth", "decoder_epoch_4.pth", "history_epoch_4.pth"],
            "encoder",
            "encoder_epoch_3.pth",
            None,
        ),
        ([".a_1_9.pth.77.tmp", "a_1_8.pth.bak", "notes.pth"], None, None, None),
    ],
)
def test_find(tmp_path, names, wanted, latest, interrupt):
    for name in names:
        (tmp_path / name).touch()
    assert find_latest(tmp_path, wanted) == (tmp_path / latest if latest else None)
    assert find_interrupt(tmp_path, wanted) == (tmp_path / interrupt if interrupt else None)


def test_pairs(tmp_path):
    path = tmp_path / "a_0_5.pth"
    save_pair(path, {"w": torch.ones(2)}, {"step": 5})
    weights, state = load_pair(path)
    assert weights["w"].tolist() == [1, 1]
    assert state == {"step": 5}
    assert list(torch.load(path)) == ["w"]  # the weights' file is the original's form
    state_path(path).unlink()
    assert load_pair(path)[1] is None
    save_pair(path, {"w": torch.ones(2)}, {"step": 5})
    remove_checkpoint(path)
    remove_checkpoint(path)
    assert os.listdir(tmp_path) == []


def test_weights_of_another_pair_are_refused(tmp_path):
    save_pair(tmp_path / "a_0_5.pth", {"w": torch.ones(2)}, {"step": 5})
    save_checkpoint(tmp_path / "a_0_5.pth", {"w": torch.zeros(2)})
    with pytest.raises(InputError, match=r"a_0_5\.state\.pth does not belong to the weights in"):
        load_pair(tmp_path / "a_0_5.pth")


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def test_damaged_newest_falls_back_and_every_damaged_file_is_named(tmp_path):
    for step in (1, 2, 3):
        save_pair(tmp_path / f"a_0_{step}.pth", {"w": torch.ones(2) * step}, {"step": step})
    cut(tmp_path / "a_0_3.pth")
    cut(tmp_path / "a_0_3.state.pth")
    warnings = []
    path, weights, state = newest(tmp_path, "a", warnings.append)
    assert (path, state) == (tmp_path / "a_0_2.pth", {"step": 2})
    assert weights["w"].tolist() == [2, 2]
    (warning,) = warnings
    assert str(tmp_path / "a_0_3.pth") in warning
    assert str(tmp_path / "a_0_3.state.pth") in warning
    cut(tmp_path / "a_0_2.state.pth")
    cut(tmp_path / "a_0_1.pth")
    with pytest.raises(InputError) as caught:
        newest(tmp_path, "a", warnings.append)
    named = [fault.split(":")[0].rsplit("/", 1)[1] for fault in caught.value.faults]
    assert named == ["a_0_3.pth", "a_0_3.state.pth", "a_0_2.state.pth", "a_0_1.pth"]
    assert newest(tmp_path, "b", warnings.append) is None


def test_public_names():
    for name in checkpoint.__all__:
        assert callable(getattr(checkpoint, name))


@pytest.mark.parametrize("spoil", [float("nan"), float("inf"), None])
def test_weights_that_are_not_finite_are_named(tmp_path, caplog, spoil):
    """Opposite infinities, too; halves and sums that overflow do no harm."""
    weights = {"a": torch.full((3,), 3e38), "half": torch.full((9,), 6e4, dtype=torch.float16),
               "count": torch.tensor(3),
               "net": [{"w": torch.ones(4, 5), "v": torch.full((2,), 1e308, dtype=torch.float64)}]}
    if spoil is not None:
        weights["net"][0]["w"][2, 3] = spoil
        weights["net"][0]["w"][2, 2] = -spoil
    torch.save(weights, tmp_path / "a.pth")
    load_checkpoint(tmp_path / "a.pth")
    wanted = [] if spoil is None else [
        f"{tmp_path}/a.pth: net.0.w holds values that are not finite (NaN or infinity): a training "
        "that has failed; go on from a checkpoint before it"]
    assert [record.getMessage() for record in caplog.records] == wanted
