"""Checkpoints of encoder and decoder: written together, found, fallen back from, replaced."""

import os

import pytest
import torch

from common.checkpoint.seg_files import BEST, NetCheckpoints, checkpoint_of, updates_of
from runtime.errors import InputError


@pytest.fixture
def folder(tmp_path):
    return NetCheckpoints(tmp_path)


def save(folder, suffix, value, history=None):
    folder.save(suffix, {"encoder": {"w": torch.full((9,), value)},
                         "decoder": {"w": torch.full((9,), -value)}}, {"iteration": int(value)},
                history)
    for path in folder.folder.glob(f"*{suffix}"):  # file systems' clocks are coarse
        os.utime(path, (value, value))


def damage(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def names(folder):
    return sorted(path.name for path in folder.folder.iterdir())


def test_a_checkpoint_is_four_files(folder):
    save(folder, "epoch_1.pth", 1.0, {"train": {"loss": [0.5]}})
    assert names(folder) == ["decoder_epoch_1.pth", "encoder_epoch_1.pth",
                             "encoder_epoch_1.state.pth", "history_epoch_1.pth"]
    name, weights, state = folder.load_newest(pytest.fail)
    assert name == str(folder.folder / "*_epoch_1.pth")
    assert weights["decoder"]["w"][0] == -1
    assert state == {"iteration": 1}


@pytest.mark.parametrize("part", ["encoder_epoch_2.pth", "decoder_epoch_2.pth",
                                  "encoder_epoch_2.state.pth"])
def test_a_damaged_part_falls_back(folder, part):
    save(folder, "epoch_1.pth", 1.0)
    save(folder, "epoch_2.pth", 2.0)
    damage(folder.folder / part)
    warnings = []
    assert folder.load_newest(warnings.append)[2] == {"iteration": 1}
    assert len(warnings) == 1
    assert part in warnings[0]
    with pytest.raises(InputError, match=part):
        folder.load("epoch_2.pth", pytest.fail)


def test_all_damaged_files_are_named(folder):
    save(folder, "epoch_2.pth", 2.0, {"train": {}})
    for name in names(folder):
        damage(folder.folder / name)
    with pytest.raises(InputError) as caught:
        folder.load_newest(lambda line: None)
    for name in names(folder):
        assert name in str(caught.value)


def test_a_damaged_history_is_a_warning(folder):
    save(folder, "epoch_2.pth", 2.0, {"train": {}})
    damage(folder.folder / "history_epoch_2.pth")
    warnings = []
    assert folder.load_newest(warnings.append)[2] == {"iteration": 2}
    assert "history_epoch_2.pth" in warnings[0]


def test_halves_of_two_checkpoints_are_not_taken_for_one(folder):
    save(folder, "epoch_1.pth", 1.0)
    save(folder, "epoch_2.pth", 2.0)
    (folder.folder / "decoder_epoch_1.pth").replace(folder.folder / "decoder_epoch_2.pth")
    with pytest.raises(InputError, match="does not belong to the weights"):
        folder.load("epoch_2.pth", pytest.fail)


def test_a_missing_decoder_is_named(folder):
    save(folder, "epoch_1.pth", 1.0)
    (folder.folder / "decoder_epoch_1.pth").unlink()
    with pytest.raises(InputError, match=r"decoder_epoch_1\.pth"):
        folder.load_newest(lambda line: None)


def test_what_a_new_checkpoint_replaces(folder):
    for i in (1, 2, 3):
        save(folder, f"iter_{i}.pth", float(i))
    folder.prune("iter_3.pth", also_previous=True)
    assert [name for name in names(folder) if "encoder_iter" in name and "state" not in name] == [
        "encoder_iter_2.pth", "encoder_iter_3.pth"]
    save(folder, "epoch_1.pth", 4.0)
    save(folder, BEST, 5.0)
    folder.prune("epoch_1.pth")
    assert not any("iter" in name for name in names(folder))
    assert folder.exists(BEST)
    save(folder, "iter_5.pth", 6.0)
    folder.prune("iter_5.pth")
    assert {"encoder_iter_5.pth", "encoder_epoch_1.pth"} <= set(names(folder))


def test_what_is_named_and_what_is_found(folder):
    with pytest.raises(InputError, match="holds no checkpoint"):
        folder.find_trained(None, "epoch_20.pth", False, pytest.fail)
    assert folder.find_start("latest", 0, pytest.fail) is None
    assert folder.find_start(None, 0, pytest.fail) is None
    save(folder, "epoch_1.pth", 1.0)
    save(folder, "iter_2.pth", 2.0)
    save(folder, BEST, 3.0)

    def trained(*arguments):
        return folder.find_trained(*arguments, pytest.fail)[2]["iteration"]

    assert trained(None, "epoch_1.pth", False) == 3
    assert trained(None, "epoch_1.pth", True) == 1
    assert trained("latest", "epoch_1.pth", True) == 2
    for name in ("encoder_epoch_1.pth", "decoder_epoch_1.pth", "epoch_1.pth",
                 "encoder_epoch_1.state.pth"):
        assert trained(str(folder.folder / name), "", False) == 1
    assert folder.find_start("interrupt", 1, pytest.fail)[2] == {"iteration": 2}
    assert folder.find_start(None, 1, pytest.fail)[2] == {"iteration": 1}
    with pytest.raises(InputError, match=r"encoder_epoch_7\.pth"):
        folder.find_start(None, 7, pytest.fail)


def test_names():
    checkpoints, suffix = checkpoint_of("a/b/decoder_epoch_12.pth")
    assert (str(checkpoints.folder), suffix) == ("a/b", "epoch_12.pth")
    assert updates_of("a/*_epoch_12.pth", 50) == 600
    assert updates_of("a/*_iter_12.pth", 50) == 12
    assert updates_of("a/*_best.pth", 50) == 0
