"""Which checkpoints of a run stay, what they are called, and which one is the newest."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from common.checkpoint import load_checkpoint
from common.checkpoint.query_files import (
    BestCheckpoints,
    CheckpointSeries,
    checkpoint_rules,
    find_single,
    is_greater_better,
    load_newest_single,
    read_last_checkpoint,
    write_last_checkpoint,
)
from runtime.errors import InputError, SaveError

PER_EPOCH = 10


def run(series, iterations, stop_at=None):
    """Train from `iterations` on: save what is due, and what a stop at `stop_at` leaves."""
    for iteration in iterations:
        if series.due(iteration, PER_EPOCH) or iteration == stop_at:
            series.save(iteration, PER_EPOCH, lambda record: {"series": record})
        if iteration == stop_at:
            return


def names(folder):
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("options, due", [
    ({}, [10, 20, 30]),
    ({"interval": 2}, [20]),
    ({"interval": 7, "by_epoch": False}, [7, 14, 21, 28]),
    ({"interval": -1}, []),
    ({"interval": 2, "save_every": 15}, [15, 20, 30]),
    ({"interval": -1, "by_epoch": False, "save_every": 12}, [12, 24]),
])
def test_when_one_is_due(tmp_path, options, due):
    series = CheckpointSeries(tmp_path, **options)
    assert [i for i in range(1, 31) if series.due(i, PER_EPOCH)] == due


def test_names(tmp_path):
    epochs = CheckpointSeries(tmp_path)
    assert epochs.path(30, PER_EPOCH).name == "epoch_3.pth"
    assert epochs.path(31, PER_EPOCH).name == "iter_31.pth"
    assert CheckpointSeries(tmp_path, by_epoch=False).path(30, PER_EPOCH).name == "iter_30.pth"
    other = CheckpointSeries(tmp_path, epoch_name="checkpoint_{}.pth",
                             iter_name="checkpoint_iter_{}.pth")
    assert other.path(30, PER_EPOCH).name == "checkpoint_3.pth"
    assert other.path(31, PER_EPOCH).name == "checkpoint_iter_31.pth"


def test_only_the_newest_of_this_run_stay(tmp_path):
    (tmp_path / "iter_1.pth").write_bytes(b"of another run")
    series = CheckpointSeries(tmp_path, interval=5, by_epoch=False, max_keep=2)
    run(series, range(1, 23))
    assert names(tmp_path) == {"iter_1.pth", "iter_15.pth", "iter_20.pth"}
    assert load_checkpoint(tmp_path / "iter_20.pth")["series"] == {
        "kept": ["iter_15.pth", "iter_20.pth"], "bridges": []}


def test_an_interrupted_series_ends_as_an_unbroken_one(tmp_path):
    options = {"interval": 5, "by_epoch": False, "max_keep": 2}
    unbroken = CheckpointSeries(tmp_path / "unbroken", **options)
    run(unbroken, range(1, 21))
    first = CheckpointSeries(tmp_path / "broken", **options)
    run(first, range(1, 21), stop_at=12)
    assert names(tmp_path / "broken") == {"iter_5.pth", "iter_10.pth", "iter_12.pth"}
    rest = CheckpointSeries(tmp_path / "broken", **options)
    rest.restore(load_checkpoint(tmp_path / "broken" / "iter_12.pth")["series"])
    run(rest, range(13, 21))
    assert names(tmp_path / "broken") == names(tmp_path / "unbroken")


def test_a_stop_where_a_regular_one_is_due_leaves_that(tmp_path):
    series = CheckpointSeries(tmp_path, interval=5, by_epoch=False, max_keep=1)
    run(series, range(1, 11), stop_at=10)
    assert names(tmp_path) == {"iter_10.pth"}
    assert series.bridges == []


def test_the_old_one_goes_only_after_the_new_one_was_read_back(tmp_path, monkeypatch):
    from common.checkpoint import query_files as checkpoint_series

    series = CheckpointSeries(tmp_path, interval=5, by_epoch=False, max_keep=1)
    run(series, range(1, 6))

    def save_damaged(path, state):
        path.write_bytes(b"PK\x03\x04 something went wrong on the way")

    monkeypatch.setattr(checkpoint_series, "save_checkpoint", save_damaged)
    with pytest.raises(SaveError, match=r"iter_10\.pth"):
        series.save(10, PER_EPOCH, lambda record: record)
    assert "iter_5.pth" in names(tmp_path)


def test_last_checkpoint_moves_with_its_folder(tmp_path):
    here = tmp_path / "here"
    series = CheckpointSeries(here, interval=5, by_epoch=False, run_folder=here)
    run(series, range(1, 6))
    assert (here / "last_checkpoint").read_text() == "iter_5.pth"
    here.rename(tmp_path / "there")
    assert read_last_checkpoint(tmp_path / "there") == tmp_path / "there" / "iter_5.pth"
    # MMDetection's own, absolute and outdated
    (tmp_path / "there" / "last_checkpoint").write_text(str(here / "iter_5.pth"))
    assert read_last_checkpoint(tmp_path / "there") == tmp_path / "there" / "iter_5.pth"
    (tmp_path / "there" / "last_checkpoint").write_text("/gone/epoch_9.pth")
    assert read_last_checkpoint(tmp_path / "there") is None
    assert read_last_checkpoint(tmp_path) is None


def test_checkpoints_in_another_folder_are_noted_absolutely(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "epoch_1.pth").touch()
    write_last_checkpoint(tmp_path / "run", tmp_path / "elsewhere" / "epoch_1.pth")
    assert read_last_checkpoint(tmp_path / "run") == tmp_path / "elsewhere" / "epoch_1.pth"


def test_the_newest_good_one_is_found(tmp_path):
    series = CheckpointSeries(tmp_path, interval=5, by_epoch=False, run_folder=tmp_path)
    run(series, range(1, 16))
    warnings = []
    path, content = load_newest_single(tmp_path, tmp_path, warnings.append)
    assert path.name == "iter_15.pth"
    assert content["series"]["kept"] == ["iter_5.pth", "iter_10.pth", "iter_15.pth"]
    # what last_checkpoint says goes before the highest number
    write_last_checkpoint(tmp_path, tmp_path / "iter_5.pth")
    assert load_newest_single(tmp_path, tmp_path, warnings.append)[0].name == "iter_5.pth"
    (tmp_path / "last_checkpoint").unlink()
    assert load_newest_single(tmp_path, tmp_path, warnings.append)[0].name == "iter_15.pth"
    assert warnings == []
    (tmp_path / "iter_15.pth").write_bytes(b"")
    assert load_newest_single(tmp_path, tmp_path, warnings.append)[0].name == "iter_10.pth"
    assert "iter_15.pth" in warnings[0]
    for name in ("iter_5.pth", "iter_10.pth"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(InputError) as caught:
        load_newest_single(tmp_path, tmp_path, warnings.append)
    assert len(caught.value.faults) == 3
    assert load_newest_single(tmp_path / "empty", tmp_path / "empty", warnings.append) is None


def test_the_best_replaces_the_best_before_it(tmp_path):
    best = BestCheckpoints(tmp_path, ("auto", "loss"))
    steps = [({"a/mAP": 0.2, "loss": 2.0}, "epoch_1"), ({"a/mAP": 0.1, "loss": 1.0}, "epoch_2"),
             ({"a/mAP": 0.3, "loss": 3.0}, "iter_7")]
    for metrics, suffix in steps:
        better = best.improved(metrics)
        best.save(better, metrics, suffix, lambda scores: {"weights": torch.ones(1),
                                                           "best": scores})
    assert names(tmp_path) == {"best_a_mAP_iter_7.pth", "best_loss_epoch_2.pth"}
    again = BestCheckpoints(tmp_path, ("auto", "loss"))
    again.restore(load_checkpoint(tmp_path / "best_a_mAP_iter_7.pth")["best"])
    assert again.improved({"a/mAP": 0.3, "loss": 0.9}) == ["loss"]
    os.utime(tmp_path / "best_loss_epoch_2.pth", (0, 0))
    assert again.newest() == tmp_path / "best_a_mAP_iter_7.pth"
    with pytest.raises(InputError, match="has no loss; it has other"):
        again.improved({"other": 1.0})


@pytest.mark.parametrize("metric, greater", [
    ("coco/segm_mAP", True), ("coco/bbox_mAP_50", True), ("accuracy/top1", True),
    ("mIoU", True), ("loss", False), ("val/loss_mask", False)])
def test_the_name_says_which_direction_is_better(metric, greater):
    assert is_greater_better(metric) is greater
    assert is_greater_better(metric, "less") is False
    assert is_greater_better(metric, "greater") is True


def test_a_name_that_says_nothing():
    with pytest.raises(InputError, match="speed"):
        is_greater_better("speed")


def hook(**changes):
    settings = {"interval": 5, "by_epoch": False, "max_keep_ckpts": 2, "out_dir": None,
                "save_best": None, "rule": None}
    return SimpleNamespace(**settings | changes)


@pytest.mark.parametrize("out_dir, folder", [
    (None, "runs/a"), ("{tmp}/runs/a", "runs/a"), ("{tmp}/runs/a/", "runs/a"), ("runs/a", "runs/a"),
    ("{tmp}/elsewhere", "{tmp}/elsewhere/a"), ("elsewhere/", "elsewhere/a")])
def test_where_a_hook_wants_them(tmp_path, monkeypatch, out_dir, folder):
    """MMDetection's rule, but a relative path or a trailing slash is no other folder."""
    monkeypatch.chdir(tmp_path)
    series, best = checkpoint_rules(
        hook(out_dir=out_dir and out_dir.format(tmp=tmp_path)), Path("runs/a"), [], save_every=7)
    assert series.folder == best.folder == Path(folder.format(tmp=tmp_path))
    assert series.run_folder == Path("runs/a")
    assert (series.interval, series.by_epoch) == (5, False)
    assert (series.max_keep, series.save_every) == (2, 7)
    assert best.metrics == ()


def test_best_metrics_are_known_before_training(tmp_path):
    known = ["coco/bbox_mAP", "coco/segm_mAP"]
    for given, names in (("auto", ("auto",)), (("auto", known[1]), ("auto", known[1]))):
        assert checkpoint_rules(hook(save_best=given), tmp_path, known)[1].metrics == names
    with pytest.raises(InputError, match=r"no coco/segm_map; .*Did you mean coco/segm_mAP\?"):
        checkpoint_rules(hook(save_best="coco/segm_map"), tmp_path, known)


def test_what_resume_names(tmp_path):
    def find(wanted):
        found = find_single(wanted, tmp_path, tmp_path, warnings.append)
        return found and found[0].name

    warnings = []
    assert find(None) is None
    assert find("latest") is None
    with pytest.raises(InputError, match="no interrupted state"):
        find("interrupt")
    with pytest.raises(InputError, match=r"iter_3\.pth: does not exist"):
        find(str(tmp_path / "iter_3.pth"))
    run(CheckpointSeries(tmp_path, run_folder=tmp_path), range(1, 15), stop_at=13)
    assert find("latest") == find("interrupt") == "iter_13.pth"
    assert find(str(tmp_path / "epoch_1.pth")) == "epoch_1.pth"
