"""Which checkpoints of a run stay, what they are called, and which one is the newest."""

import os
from pathlib import Path

import pytest
import torch

from common.checkpoint import load_checkpoint
from common.checkpoint.best import BestCheckpoints, is_greater_better
from common.checkpoint.naming import Occasion
from models.queryinst.series import (
    newest_best,
    queryinst_series,
    read_last_checkpoint,
    write_last_checkpoint,
)
from runtime.errors import InputError, SaveError
from settings.queryinst.hooks import CheckpointHookConfig

PER_EPOCH = 10


def hook(**changes):
    settings = {"interval": 1, "by_epoch": True, "max_keep_ckpts": -1, "out_dir": None,
                "save_best": None, "rule": None}
    return CheckpointHookConfig(**settings | changes)


def make(folder, save_every=None, **changes):
    return queryinst_series(hook(**changes), folder, PER_EPOCH, [], save_every)[0]


def run(series, iterations, stop_at=None):
    """Train from `iterations` on: save what is due, and what a stop at `stop_at` leaves."""
    for iteration in iterations:
        if series.due(iteration) or iteration == stop_at:
            occasion = Occasion.STOP if iteration == stop_at else Occasion.REGULAR
            record = series.record_after(iteration, occasion)
            series.save(iteration, {"series": record}, occasion=occasion)
            assert series.record == record | {"going": []}  # they are gone
        if iteration == stop_at:
            return


def names(folder):
    return {path.name for path in folder.glob("*.pth")}


@pytest.mark.parametrize("options, due", [
    ({}, [10, 20, 30]),
    ({"interval": 2}, [20]),
    ({"interval": 7, "by_epoch": False}, [7, 14, 21, 28]),
    ({"interval": -1}, []),
    ({"interval": 2, "save_every": 15}, [15, 20, 30]),
    ({"interval": -1, "by_epoch": False, "save_every": 12}, [12, 24]),
])
def test_when_one_is_due(tmp_path, options, due):
    series = make(tmp_path, **options)
    assert [i for i in range(1, 31) if series.due(i)] == due


def test_names(tmp_path):
    epochs = make(tmp_path)
    assert epochs.path(30).name == "epoch_3.pth"
    assert epochs.path(31).name == "iter_31.pth"
    assert make(tmp_path, by_epoch=False).path(30).name == "iter_30.pth"


def test_only_the_newest_of_this_run_stay(tmp_path):
    (tmp_path / "iter_1.pth").write_bytes(b"of another run")
    series = make(tmp_path, interval=5, by_epoch=False, max_keep_ckpts=2)
    run(series, range(1, 23))
    assert names(tmp_path) == {"iter_1.pth", "iter_15.pth", "iter_20.pth"}
    assert load_checkpoint(tmp_path / "iter_20.pth")["series"] == {
        "kept": ["iter_15.pth", "iter_20.pth"], "bridges": [], "going": ["iter_10.pth"]}


def test_what_a_killed_process_should_have_removed_goes_later(tmp_path, monkeypatch):
    """Killed between a save and the removal of what it replaces, and gone on from that save."""
    options = {"by_epoch": False, "interval": 2, "max_keep_ckpts": 2}
    series = make(tmp_path, **options)
    run(series, [2])
    run(series, [3], stop_at=3)
    record = series.record_after(4)
    assert record == {"kept": ["iter_2.pth", "iter_4.pth"], "bridges": [], "going": ["iter_3.pth"]}
    monkeypatch.setattr("common.checkpoint.series.remove_checkpoint", lambda path: None)
    series.save(4, {"series": record})
    monkeypatch.undo()
    assert names(tmp_path) == {"iter_2.pth", "iter_3.pth", "iter_4.pth"}

    again = make(tmp_path, **options)
    again.restore(load_checkpoint(tmp_path / "iter_4.pth")["series"])
    run(again, [6])
    assert names(tmp_path) == {"iter_4.pth", "iter_6.pth"}


def test_an_interrupted_series_ends_as_an_unbroken_one(tmp_path):
    options = {"interval": 5, "by_epoch": False, "max_keep_ckpts": 2}
    unbroken = make(tmp_path / "unbroken", **options)
    run(unbroken, range(1, 21))
    first = make(tmp_path / "broken", **options)
    run(first, range(1, 21), stop_at=12)
    assert names(tmp_path / "broken") == {"iter_5.pth", "iter_10.pth", "iter_12.pth"}
    rest = make(tmp_path / "broken", **options)
    rest.restore(load_checkpoint(tmp_path / "broken" / "iter_12.pth")["series"])
    run(rest, range(13, 21))
    assert names(tmp_path / "broken") == names(tmp_path / "unbroken")


def test_a_stop_where_a_regular_one_is_due_leaves_that(tmp_path):
    series = make(tmp_path, interval=5, by_epoch=False, max_keep_ckpts=1)
    run(series, range(1, 11), stop_at=10)
    assert names(tmp_path) == {"iter_10.pth"}
    assert series.record == {"kept": ["iter_10.pth"], "bridges": [], "going": []}


def test_the_old_one_goes_only_after_the_new_one_was_read_back(tmp_path, monkeypatch):
    series = make(tmp_path, interval=5, by_epoch=False, max_keep_ckpts=1)
    run(series, range(1, 6))

    def save_damaged(path, state):
        path.write_bytes(b"PK\x03\x04 something went wrong on the way")

    monkeypatch.setattr("common.checkpoint.forms.save_checkpoint", save_damaged)
    with pytest.raises(SaveError, match=r"iter_10\.pth.*the older checkpoints stay"):
        series.save(10, {})
    assert "iter_5.pth" in names(tmp_path)


def test_last_checkpoint_moves_with_its_folder(tmp_path):
    here = tmp_path / "here"
    series = make(here, interval=5, by_epoch=False)
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
    series = make(tmp_path, interval=5, by_epoch=False)
    run(series, range(1, 16))
    warnings = []

    def newest():
        return series.find_start("latest", warnings.append)

    path, content, _ = newest()
    assert path.name == "iter_15.pth"
    assert content["series"]["kept"] == ["iter_5.pth", "iter_10.pth", "iter_15.pth"]
    # what last_checkpoint says goes before the highest number
    write_last_checkpoint(tmp_path, tmp_path / "iter_5.pth")
    assert newest().path.name == "iter_5.pth"
    (tmp_path / "last_checkpoint").unlink()
    assert newest().path.name == "iter_15.pth"
    assert warnings == []
    (tmp_path / "iter_15.pth").write_bytes(b"")
    assert newest().path.name == "iter_10.pth"
    assert "iter_15.pth" in warnings[0]
    for name in ("iter_5.pth", "iter_10.pth"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(InputError) as caught:
        newest()
    assert len(caught.value.faults) == 3
    assert make(tmp_path / "empty").find_start("latest", pytest.fail) is None


def test_the_best_replaces_the_best_before_it(tmp_path):
    best = BestCheckpoints(tmp_path, ("auto", "loss"))
    steps = [({"a/mAP": 0.2, "loss": 2.0}, "epoch_1"), ({"a/mAP": 0.1, "loss": 1.0}, "epoch_2"),
             ({"a/mAP": 0.3, "loss": 3.0}, "iter_7")]
    for metrics, suffix in steps:
        better = best.improved(metrics)
        scores = best.scores_after(better, metrics, suffix)
        best.save(better, metrics, suffix, {"weights": torch.ones(1), "best": scores})
        assert best.scores == scores
    assert names(tmp_path) == {"best_a_mAP_iter_7.pth", "best_loss_epoch_2.pth"}
    again = BestCheckpoints(tmp_path, ("auto", "loss"))
    again.restore(load_checkpoint(tmp_path / "best_a_mAP_iter_7.pth")["best"])
    assert again.improved({"a/mAP": 0.3, "loss": 0.9}) == ["loss"]
    os.utime(tmp_path / "best_loss_epoch_2.pth", (0, 0))
    assert newest_best(tmp_path) == tmp_path / "best_a_mAP_iter_7.pth"
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


@pytest.mark.parametrize("out_dir, folder", [
    (None, "runs/a"), ("{tmp}/runs/a", "runs/a"), ("{tmp}/runs/a/", "runs/a"), ("runs/a", "runs/a"),
    ("{tmp}/elsewhere", "{tmp}/elsewhere/a"), ("elsewhere/", "elsewhere/a")])
def test_where_a_hook_wants_them(tmp_path, monkeypatch, out_dir, folder):
    """MMDetection's rule, but a relative path or a trailing slash is no other folder."""
    monkeypatch.chdir(tmp_path)
    out_dir = out_dir and out_dir.format(tmp=tmp_path)
    series, best = queryinst_series(hook(out_dir=out_dir), Path("runs/a"), PER_EPOCH, [], 7)
    assert series.folder == best.folder == Path(folder.format(tmp=tmp_path))
    series.save(7, {"a": 1})
    assert read_last_checkpoint("runs/a").resolve() == series.path(7).resolve()
    assert best.metrics == ()


def test_best_metrics_are_known_before_training(tmp_path):
    known = ["coco/bbox_mAP", "coco/segm_mAP"]
    for given, names in (("auto", ("auto",)), (("auto", known[1]), ("auto", known[1]))):
        _, best = queryinst_series(hook(save_best=given), tmp_path, PER_EPOCH, known)
        assert best.metrics == names
    with pytest.raises(InputError, match=r"no coco/segm_map; .*Did you mean coco/segm_mAP\?"):
        queryinst_series(hook(save_best="coco/segm_map"), tmp_path, PER_EPOCH, known)


def test_what_resume_names(tmp_path):
    def find(wanted):
        found = series.find_start(wanted, warnings.append)
        return found and found.path.name

    warnings, series = [], make(tmp_path)
    assert find(None) is None
    assert find("latest") is None
    with pytest.raises(InputError, match="no interrupted state"):
        find("interrupt")
    with pytest.raises(InputError, match=r"iter_3\.pth: does not exist"):
        find(str(tmp_path / "iter_3.pth"))
    run(series, range(1, 15), stop_at=13)
    assert find("latest") == find("interrupt") == "iter_13.pth"
    assert find(str(tmp_path / "epoch_1.pth")) == "epoch_1.pth"


def test_what_is_evaluated(tmp_path):
    series = make(tmp_path)
    with pytest.raises(InputError, match="holds no checkpoint: name one with --resume FILE"):
        series.find_trained(None, pytest.fail)
    run(series, range(1, 21))
    assert series.find_trained(None, pytest.fail).path.name == "epoch_2.pth"
    best = BestCheckpoints(tmp_path, ("mAP",))
    best.save(["mAP"], {"mAP": 0.5}, "epoch_1", {"meta": {"iter": 10}})
    found = series.find_trained(None, pytest.fail)
    assert found.path.name == "best_mAP_epoch_1.pth"
    assert series.iteration_of(found) == 10
    assert series.find_trained("latest", pytest.fail).path.name == "epoch_2.pth"
