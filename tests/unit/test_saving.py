"""Checkpoints that are written behind the training: of which state, in which order, and faults."""

import io
import threading
import time
from collections import OrderedDict
from contextlib import closing
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from common.checkpoint import load_checkpoint
from common.checkpoint.series import Occasion, resnest_series, yolact_series
from data.loading.workers import fetched
from models.queryinst.series import queryinst_series, read_last_checkpoint
from runtime import files
from runtime.errors import SaveError, ending_of
from runtime.launch.signals import Stopped
from runtime.run.rescue import Rescue
from runtime.run.run import start_run
from runtime.saving import copies
from runtime.saving.copies import Copies
from runtime.saving.forks import between_writes, held_by_nobody, let_forks_pass, writing
from runtime.saving.writer import BackgroundWriter
from settings.queryinst.hooks import CheckpointHookConfig

SOON_S = 0.1  # in which what must not happen would have happened
LONG_S = 30


@pytest.fixture
def disk(monkeypatch):
    """A slow disk: what is written gets its name only when `disk.set()` was called."""
    is_ready = threading.Event()
    rename = files._rename

    def slow(staged):
        assert is_ready.wait(LONG_S)
        rename(staged)

    monkeypatch.setattr(files, "_rename", slow)
    yield is_ready
    is_ready.set()


@pytest.fixture
def full_disk(monkeypatch):
    """Lets nothing be written from `full_disk()` on, until `full_disk(False)`."""
    def fill(is_full=True):
        free = 0 if is_full else 1 << 40
        monkeypatch.setattr(files.shutil, "disk_usage", lambda folder: SimpleNamespace(free=free))

    return fill


def odd_state():
    whole = torch.arange(24.0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    weights = net.to(memory_format=torch.channels_last).state_dict()
    weights._metadata[""]["facts"] = {"sizes": [1, 2], "pixels": (3, 4)}
    rates = [0.1, 0.2]
    return {
        "weights": weights, "whole": whole, "part": whole[4:10], "turned": whole.view(4, 6).t(),
        "none": torch.empty(0), "no numbers": torch.empty(0, 3, dtype=torch.int64),
        "flags": torch.tensor([True, False]), "number": torch.tensor(3), "rates": [rates, rates],
        "half": torch.ones(5, dtype=torch.bfloat16), "nested": OrderedDict(a=({"b": [whole]}, 1)),
        "text": "a", "nothing": None, "rng": torch.get_rng_state(),
    }


def saved_bytes(state):
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def test_of_a_copy_the_same_bytes_are_saved():
    state = odd_state()
    assert saved_bytes(Copies().of(state)) == saved_bytes(state)


def test_a_copy_stays_what_it_was():
    state = odd_state()
    before, copy = saved_bytes(state), Copies().of(state)
    state["whole"] += 1
    for value in state["weights"].values():
        value.fill_(7)
    state["rates"][0][0] = 5
    state["weights"]["more"] = 1
    state["weights"]._metadata[""]["facts"]["sizes"].append(3)
    state["nested"]["a"][0]["b"].append(2)
    assert saved_bytes(copy) == before != saved_bytes(state)


def test_the_memory_of_a_copy_is_used_again_and_grows():
    made = Copies()
    first = made.of({"a": torch.ones(1000)})["a"].data_ptr()
    assert made.of({"a": torch.zeros(500)})["a"].data_ptr() == first
    larger = {"a": torch.ones(100_000), "b": torch.arange(3)}
    copy = made.of(larger)
    assert all(torch.equal(copy[name], larger[name]) for name in larger)


def series_of(folder, writer):
    return resnest_series(folder, 1, writer=writer)


def test_what_is_written_is_the_state_at_the_time_of_the_call(tmp_path, disk):
    writer = BackgroundWriter()
    net = nn.Linear(300, 300)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)

    def update(value):
        with torch.no_grad():
            for weight in net.parameters():
                weight.fill_(value)
                optimizer.state[weight]["momentum_buffer"] = torch.full_like(weight, value)
        optimizer.param_groups[0]["lr"] = value

    checkpoints = series_of(tmp_path, writer)
    for step in range(4, 7):
        update(float(step))
        disk.clear()
        path = checkpoints.save(
            step, {"net": net.state_dict(), "optimizer": optimizer.state_dict()})
        assert not path.exists()
        for later in range(50):  # the training goes on while the file is written
            update(100.0 + later)
        disk.set()
        writer.wait()
        saved = load_checkpoint(path)
        numbers = [saved["net"]["weight"], saved["net"]["bias"]]
        numbers += [each["momentum_buffer"] for each in saved["optimizer"]["state"].values()]
        assert all((each == step).all() for each in numbers)
        assert saved["optimizer"]["param_groups"][0]["lr"] == step


def test_a_second_save_waits_for_the_first(tmp_path, disk):
    writer, state = BackgroundWriter(), {"a": torch.zeros(3)}
    checkpoints = series_of(tmp_path, writer)
    first = checkpoints.save(1, state)
    second = []
    thread = threading.Thread(target=lambda: second.append(checkpoints.save(2, state)))
    thread.start()
    thread.join(SOON_S)
    assert thread.is_alive()
    assert not first.exists()
    state["a"] += 1  # a save that waits has not copied anything yet
    disk.set()
    thread.join(LONG_S)
    writer.wait()
    assert [float(load_checkpoint(path)["a"][0]) for path in (first, *second)] == [0, 1]


def test_an_old_file_goes_only_when_the_new_one_is_there(tmp_path, disk):
    writer = BackgroundWriter()
    lines = []
    checkpoints = yolact_series(tmp_path, "n", 1, keep_latest=True, log=lines.append, per_epoch=9,
                                writer=writer)
    disk.set()
    old = checkpoints.save(1, {"a": torch.zeros(3)}, {"iteration": 1})
    writer.wait()
    disk.clear()
    new = checkpoints.save(2, {"a": torch.zeros(3)}, {"iteration": 2})
    time.sleep(SOON_S)
    assert old.exists()
    assert not new.exists()
    assert lines == []
    disk.set()
    assert checkpoints.find_start("latest", pytest.fail).path == new  # waits
    assert not old.exists()
    assert lines == ["Deleting old save..."]


def test_queryinst_notes_and_counts_what_is_on_the_disk(tmp_path, disk):
    writer = BackgroundWriter()
    hook = CheckpointHookConfig(interval=1, by_epoch=False, max_keep_ckpts=1, out_dir=None,
                                save_best="mAP", rule=None)
    checkpoints, best = queryinst_series(hook, tmp_path, 9, ["mAP"], writer=writer)
    path = checkpoints.save(1, {"a": torch.zeros(3)})
    assert read_last_checkpoint(tmp_path) is None
    threading.Timer(SOON_S, disk.set).start()
    assert checkpoints.record_after(2) == {
        "kept": ["iter_2.pth"], "bridges": [], "going": ["iter_1.pth"]}
    assert read_last_checkpoint(tmp_path) == path
    disk.clear()
    scored = best.improved({"mAP": 0.5}), {"mAP": 0.5}, "iter_1"
    (file,) = best.save(*scored, {"a": torch.zeros(3)})
    assert not file.exists()
    threading.Timer(SOON_S, disk.set).start()
    assert best.files == [file]
    assert file.exists()


FULL = "could not be written: No space left on device"


@pytest.mark.parametrize("asks", ["save", "check", "wait"])
def test_a_fault_in_writing_is_raised_once_by_whoever_asks_next(tmp_path, full_disk, asks):
    writer = BackgroundWriter()
    checkpoints, state, called = series_of(tmp_path, writer), {"a": torch.zeros(3)}, []
    kept = checkpoints.save(1, state)
    writer.wait()
    full_disk()
    in_place = resnest_series(tmp_path, 1)
    with pytest.raises(SaveError, match=FULL) as plain:
        in_place.save(2, state)
    checkpoints.save(2, state)
    writer.then(lambda: called.append("saved"))
    wait_for_end(writer)
    ask = {"save": lambda: checkpoints.save(3, state), "check": writer.check, "wait": writer.wait}
    with pytest.raises(SaveError) as behind:
        ask[asks]()
    assert str(behind.value) == str(plain.value)
    writer.check()
    writer.wait()
    assert called == []
    full_disk(False)
    assert sorted(path.name for path in tmp_path.iterdir()) == [kept.name]
    checkpoints.save(3, state)
    writer.wait()
    assert checkpoints.find_start("latest", pytest.fail).path.name == "checkpoint_2.pth"


def wait_for_end(writer):
    """Until the thread is done, with what it found not yet told."""
    end = time.monotonic() + LONG_S
    while not writer._pending.done() and time.monotonic() < end:
        time.sleep(0.001)


def test_check_does_not_wait(tmp_path, disk):
    writer, called = BackgroundWriter(), []
    writer.then(lambda: called.append("at once"))
    path = series_of(tmp_path, writer).save(1, {"a": torch.zeros(3)})
    writer.then(lambda: called.append(path.exists()))
    writer.check()
    assert called == ["at once"]
    disk.set()
    wait_for_end(writer)
    writer.check()
    assert called == ["at once", True]


def test_without_memory_for_a_copy_it_is_written_at_once(tmp_path, monkeypatch):
    def none_left(*_, **__):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(copies.Copies, "of", none_left)
    writer, called = BackgroundWriter(), []
    path = series_of(tmp_path, writer).save(1, {"a": torch.zeros(3)})
    assert path.exists()
    writer.then(lambda: called.append("saved"))
    assert called == ["saved"]


# --- the end of a loop


def rescue_of(run, checkpoints, **how):
    return Rescue(run, save=lambda i: checkpoints.save(i, {"i": i}, occasion=Occasion.STOP), **how)


@pytest.fixture
def run(tmp_path):
    made = start_run("t", "cpu")
    made.open_folder(tmp_path / "run", "a: 1\n")
    yield made
    made.close()


def test_a_state_counts_as_saved_once_it_is_on_the_disk(tmp_path, run, disk):
    checkpoints = series_of(tmp_path, run.writer)
    rescue = rescue_of(run, checkpoints)
    rescue.done(1)
    rescue.saved(1, checkpoints.save(1, {"i": 1}))
    rescue.begins()
    assert rescue._last_good == (0, None)
    threading.Timer(SOON_S, disk.set).start()
    assert rescue.path_of(1).exists()
    assert rescue._last_good == (1, tmp_path / "checkpoint_0.pth")


def test_a_fault_waits_for_the_checkpoint_that_is_written(tmp_path, run, disk):
    checkpoints = series_of(tmp_path, run.writer)
    rescue = rescue_of(run, checkpoints)
    rescue.done(1)
    rescue.saved(1, checkpoints.save(1, {"i": 1}))
    threading.Timer(SOON_S, disk.set).start()
    with pytest.raises(ValueError, match="odd") as caught, rescue.watching():
        raise ValueError("odd")
    assert ending_of(caught.value) == (f"The last good state, after 1 update, is "
                                       f"{tmp_path / 'checkpoint_0.pth'}; --resume latest goes on "
                                       "from there.")
    assert [path.name for path in tmp_path.glob("*.pth")] == ["checkpoint_0.pth"]


def test_a_full_disk_ends_the_loop_at_the_next_update(tmp_path, full_disk, run):
    checkpoints = series_of(tmp_path, run.writer)
    rescue = rescue_of(run, checkpoints)
    begun = []

    def loop():
        for iteration in range(1, 1000):
            begun.append(iteration)
            rescue.begins()
            rescue.done(iteration)
            if iteration == 2:
                run.writer.wait()
                full_disk()
            if iteration in (1, 2):
                rescue.saved(iteration, checkpoints.save(iteration, {"i": iteration}))
            if iteration == 2:
                wait_for_end(run.writer)

    with pytest.raises(SaveError, match=FULL) as caught, rescue.watching():
        loop()
    assert begun == [1, 2, 3]
    assert ending_of(caught.value) == (f"The last good state, after 1 update, is "
                                       f"{tmp_path / 'checkpoint_0.pth'}; --resume latest goes on "
                                       "from there.")
    full_disk(False)


def test_a_full_disk_at_the_end_of_the_loop(tmp_path, full_disk, run):
    checkpoints = series_of(tmp_path, run.writer)
    rescue = rescue_of(run, checkpoints)
    rescue.done(1)
    full_disk()
    with pytest.raises(SaveError, match=FULL) as caught, rescue.watching():
        rescue.saved(1, checkpoints.save(1, {"i": 1}))
    assert ending_of(caught.value) == "No state had been saved before."
    full_disk(False)


def test_what_could_not_be_written_is_said_where_another_fault_saves(
        tmp_path, full_disk, run, capsys):
    checkpoints = series_of(tmp_path, run.writer)
    rescue = rescue_of(run, checkpoints)
    rescue.done(1)
    full_disk()
    rescue.saved(1, checkpoints.save(1, {"i": 1}))
    wait_for_end(run.writer)
    full_disk(False)
    with pytest.raises(ValueError, match="odd") as caught, rescue.watching():
        raise ValueError("odd")
    assert "after 1 update is saved in" in ending_of(caught.value)
    assert FULL in capsys.readouterr().err


def test_a_stop_says_where_the_state_is_when_it_is_there(tmp_path, run, disk, monkeypatch):
    lines = []
    monkeypatch.setattr(run, "log", lambda text: lines.append((text, list(tmp_path.glob("*.pth")))))
    rescue = rescue_of(run, series_of(tmp_path, run.writer))
    rescue.done(5)
    run.stop_requested = "SIGTERM"
    threading.Timer(SOON_S, disk.set).start()
    with pytest.raises(Stopped), rescue.watching():
        rescue.leave_if_stopped()
    path = tmp_path / "checkpoint_iter_5.pth"
    assert lines == [(f"Stopped by SIGTERM. The state after 5 updates is saved in {path}; "
                      "--resume latest goes on from there.", [path])]


def test_closing_a_run_waits_and_tells_of_a_fault(tmp_path, disk, full_disk):
    run = start_run("t", "cpu")
    path = series_of(tmp_path, run.writer).save(1, {"a": torch.zeros(3)})
    threading.Timer(SOON_S, disk.set).start()
    run.close()
    assert path.exists()
    full_disk()
    run = start_run("t", "cpu")
    series_of(tmp_path, run.writer).save(2, {"a": torch.zeros(3)})
    with pytest.raises(SaveError, match=FULL):
        run.close()


def test_closing_a_run_that_failed_keeps_its_own_error(tmp_path, full_disk, capsys):
    run = start_run("t", "cpu")
    full_disk()
    series_of(tmp_path, run.writer).save(2, {"a": torch.zeros(3)})
    with pytest.raises(ValueError, match="odd"), closing(run):
        raise ValueError("odd")
    assert FULL in capsys.readouterr().err


def test_the_report_tells_of_the_checkpoint_that_was_just_saved(tmp_path, run, disk):
    rescue = rescue_of(run, checkpoints := series_of(tmp_path / "run", run.writer))
    rescue.saved(1, checkpoints.save(1, {"i": 1}))
    threading.Timer(SOON_S, disk.set).start()
    run.write_report()
    assert "checkpoint_0.pth" in (tmp_path / "run" / "report.html").read_text()


# --- processes that are forked meanwhile


def test_a_fork_waits_for_a_place_between_two_writes():
    at_work, go_on, order = threading.Event(), threading.Event(), []

    def write():
        with writing():
            at_work.set()
            assert go_on.wait(LONG_S)
            let_forks_pass(lambda: order.append("flushed"))
            order.append("goes on")
            with held_by_nobody():
                in_system.set()
                assert after.wait(LONG_S)

    def fork():
        with between_writes():
            order.append("forked")

    in_system, after = threading.Event(), threading.Event()
    writer, forker = threading.Thread(target=write), threading.Thread(target=fork)
    writer.start()
    assert at_work.wait(LONG_S)
    forker.start()
    forker.join(SOON_S)
    assert order == []
    go_on.set()
    forker.join(LONG_S)
    assert order[:2] == ["flushed", "forked"]
    assert in_system.wait(LONG_S)
    with between_writes():  # the writer waits for the system
        order.append("forked again")
    after.set()
    writer.join(LONG_S)
    assert order == ["flushed", "forked", "goes on", "forked again"]
    let_forks_pass(pytest.fail)  # of no thread that writes


class Numbers(torch.utils.data.Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, key):
        return key


def test_data_workers_are_started_in_the_middle_of_a_save(tmp_path, disk):
    writer = BackgroundWriter()
    state = {str(i): torch.randn(20_000) for i in range(300)}
    for iteration in range(1, 4):
        disk.clear()
        path = series_of(tmp_path, writer).save(iteration, state)
        threading.Timer(SOON_S, disk.set).start()
        got = list(fetched(Numbers(), list, [[0, 1], [2, 3]], workers=2))
        assert got == [[0, 1], [2, 3]]
        writer.wait()
        saved = load_checkpoint(path)
        assert all(torch.equal(saved[name], state[name]) for name in state)
