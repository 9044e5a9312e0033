"""Which checkpoint of a folder is the newest: what it says inside decides, never a time."""

import itertools
import os
import shutil
import zipfile

import pytest
import torch

from common.checkpoint import find_interrupt, find_latest, save_checkpoint, save_pair
from common.checkpoint.names import newest_first
from common.checkpoint.series import resnest_series, seg_series
from models.queryinst.series import newest_best, queryinst_series
from runtime.vetting.pickles import BadFile
from runtime.vetting.progress import read_iteration
from settings.queryinst.hooks import CheckpointHookConfig


def ours(iteration):
    """As train_resnest.py has it: the iteration first."""
    return {"iteration": iteration, "state_dict": {"w": torch.ones(3)}}


def query(iteration):
    """As train_queryinst.py and MMDetection have it."""
    return {"meta": {"epoch": 1, "iter": iteration}, "state_dict": {"w": torch.ones(3)},
            "training": {"iteration": iteration}}


def foreign(_=None):
    return {"state_dict": {"w": torch.ones(3)}, "note": "no counts"}


def names(folder, name=None):
    return [path.name for path in newest_first(folder, name)]


@pytest.fixture
def fill(tmp_path):
    """fill({name: content}): the files, of which the one named first has the latest time."""
    def write(contents):
        for age, (name, content) in enumerate(contents.items()):
            save_checkpoint(tmp_path / name, content)
            os.utime(tmp_path / name, (2e9 - age, 2e9 - age))
        return tmp_path

    return write


@pytest.mark.parametrize("state", [ours, query])
def test_times_do_not_matter(fill, tmp_path, state):
    counts = {"checkpoint_0.pth": 4, "checkpoint_iter_30.pth": 30, "checkpoint_4.pth": 20,
              "checkpoint_iter_14.pth": 14}
    wanted = ["checkpoint_iter_30.pth", "checkpoint_4.pth", "checkpoint_iter_14.pth",
              "checkpoint_0.pth"]
    for order in itertools.islice(itertools.permutations(counts), 0, 24, 5):
        fill({name: state(counts[name]) for name in order})
        assert names(tmp_path) == wanted
        assert find_latest(tmp_path) == tmp_path / wanted[0]
        assert find_interrupt(tmp_path) == tmp_path / wanted[0]


def test_a_regular_file_goes_before_an_interrupted_one_of_the_same_iteration(fill, tmp_path):
    fill({"checkpoint_iter_8.pth": ours(8), "checkpoint_1.pth": ours(8),
          "checkpoint_0.pth": ours(4)})
    assert names(tmp_path) == ["checkpoint_1.pth", "checkpoint_iter_8.pth", "checkpoint_0.pth"]
    for name in ("a_1_8_interrupt.pth", "a_1_8.pth"):
        save_checkpoint(tmp_path / name, foreign())
    assert names(tmp_path, "a") == ["a_1_8.pth", "a_1_8_interrupt.pth"]


def test_epochs_of_another_length_do_not_mislead(fill, tmp_path):
    fill({"epoch_9.pth": query(9), "epoch_2.pth": query(40), "epoch_3.pth": query(60)})
    assert names(tmp_path) == ["epoch_3.pth", "epoch_2.pth", "epoch_9.pth"]


def test_the_iteration_in_the_state_beside_the_weights(tmp_path):
    series = seg_series(tmp_path, 10)
    weights = {net: {"w": torch.ones(2)} for net in ("encoder", "decoder")}
    for iteration in (10, 20, 17):
        series.save(iteration, weights, {"iteration": iteration})
    for path in tmp_path.glob("*epoch_1*"):
        os.utime(path, (2e9, 2e9))
    assert names(tmp_path, "encoder") == [f"encoder_{part}.pth"
                                          for part in ("epoch_2", "iter_17", "epoch_1")]
    assert series.find_start("latest", pytest.fail).state["iteration"] == 20


def test_a_strangers_file_goes_by_its_epoch(fill, tmp_path):
    fill({"epoch_9.pth": foreign(), "epoch_10.pth": foreign(), "epoch_1.pth": foreign()})
    assert names(tmp_path) == ["epoch_10.pth", "epoch_9.pth", "epoch_1.pth"]
    # beside one whose iteration is known: behind it ...
    fill({"iter_7.pth": foreign()})
    assert names(tmp_path)[0] == "iter_7.pth"
    # ... and among those that tell an epoch's length, in its place
    fill({"epoch_2.pth": query(20), "iter_95.pth": query(95)})
    assert names(tmp_path) == ["epoch_10.pth", "iter_95.pth", "epoch_9.pth", "epoch_2.pth",
                               "epoch_1.pth", "iter_7.pth"]


def test_a_damaged_file_is_named_before_an_older_one_is_taken(fill, tmp_path):
    fill({"checkpoint_0.pth": ours(4), "checkpoint_2.pth": ours(12),
          "checkpoint_iter_10.pth": ours(10)})
    content = bytearray((tmp_path / "checkpoint_2.pth").read_bytes())
    at = content.index(b"iteration") + len(b"iteration") + 3
    assert content[at] == 12
    for value in (0, 1, 255):  # whatever the damaged number says
        content[at] = value
        (tmp_path / "checkpoint_2.pth").write_bytes(content)
        warnings = []
        path, _, _ = resnest_series(tmp_path, 4).find_start("latest", warnings.append)
        assert path.name == "checkpoint_iter_10.pth"
        assert len(warnings) == 1
        assert "checkpoint_2.pth: damaged" in warnings[0]
    (tmp_path / "checkpoint_0.pth").unlink()  # nothing tells an epoch's length
    assert names(tmp_path)[0] == "checkpoint_2.pth"


def test_the_queryinst_folder_without_its_note(fill, tmp_path):
    fill({"epoch_1.pth": query(4), "iter_6.pth": query(6), "epoch_2.pth": query(8)})
    hook = CheckpointHookConfig(interval=1, by_epoch=True, max_keep_ckpts=-1, out_dir=None,
                                save_best=None, rule=None)
    series, _ = queryinst_series(hook, tmp_path, 4, [])
    assert series.find_start("latest", pytest.fail).path.name == "epoch_2.pth"


def test_the_newest_best_file_is_the_one_of_the_most_updates(fill, tmp_path):
    fill({"best_segm_mAP_epoch_1.pth": query(4), "best_bbox_mAP_iter_6.pth": query(6)})
    assert newest_best(tmp_path) == tmp_path / "best_bbox_mAP_iter_6.pth"
    assert newest_best(tmp_path / "none") is None


def test_pruning_goes_by_iteration(tmp_path):
    weights = {net: {"w": torch.ones(2)} for net in ("encoder", "decoder")}

    def save(iteration):
        seg_series(tmp_path, 10).save(iteration, weights, {"iteration": iteration})

    for iteration in (12, 13):
        save(iteration)
    for path in tmp_path.glob("*iter_12*"):
        os.utime(path, (2e9, 2e9))
    save(10)
    for path in tmp_path.glob("*epoch_1*"):
        os.utime(path, (2.1e9, 2.1e9))
    save(14)
    assert names(tmp_path, "encoder") == [
        "encoder_iter_14.pth", "encoder_iter_13.pth", "encoder_epoch_1.pth"]
    # an epoch's files take only what is not newer with them
    save(23)
    save(20)
    assert names(tmp_path, "encoder") == [
        "encoder_iter_23.pth", "encoder_epoch_2.pth", "encoder_epoch_1.pth"]


@pytest.mark.parametrize("content, iteration", [
    (ours(7), 7), (query(8), 8), ({"iteration": 3}, 3), ({"training": {"iteration": 4}}, 4),
    ({"state_dict": {"iteration": torch.ones(2)}, "iteration": 5}, 5), (foreign(), None),
    ({"iteration": True}, None), ({"iteration": -1}, None), ({"iteration": 2.0}, None),
    ({"iteration": torch.tensor(3)}, None), ({"meta": {"iter": "9"}, "iteration": 2}, 2)])
def test_where_the_iteration_stands(tmp_path, content, iteration):
    save_checkpoint(tmp_path / "a.pth", content)
    assert read_iteration(tmp_path / "a.pth") == iteration


def test_the_reader_is_bounded(tmp_path):
    path = tmp_path / "a.pth"
    torch.save(ours(7), path, _use_new_zipfile_serialization=False)
    assert read_iteration(path) is None
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(1 << 26))
    with pytest.raises(BadFile, match="absurd size"):
        read_iteration(path)
    for content in (b"", b"PK\3\4", b"<html>", b"PK\3\4" + bytes(1000)):
        path.write_bytes(content)
        with pytest.raises(BadFile):
            read_iteration(path)
    with pytest.raises(BadFile, match="does not exist"):
        read_iteration(tmp_path / "none.pth")


def test_large_tensors_are_not_read(tmp_path):
    """The weights' bytes may be damaged: only loading finds that."""
    save_pair(tmp_path / "a_0_3.pth", {"w": torch.ones(1000)}, {"iteration": 3})
    shutil.copy(tmp_path / "a_0_3.state.pth", tmp_path / "s.pth")
    assert read_iteration(tmp_path / "s.pth") == 3
    save_checkpoint(tmp_path / "b.pth", {"iteration": 6, "w": torch.full((1000,), 2.5)})
    content = bytearray((tmp_path / "b.pth").read_bytes())
    content[content.index(torch.full((2,), 2.5).numpy().tobytes())] ^= 1
    (tmp_path / "b.pth").write_bytes(content)
    assert read_iteration(tmp_path / "b.pth") == 6
