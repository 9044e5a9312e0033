"""A stopped run of train_seg goes on as if it had never stopped: losses, weights, file names."""

import json
import signal

import pytest
import torch

UPDATES = 10  # epochs of four updates: two and a half


def same_weights(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def is_continued(rest, unbroken):
    assert rest.status == 0, rest.err_text
    assert rest.losses == unbroken.losses  # bit for bit
    assert rest.names == unbroken.names
    for name in ("encoder_iter_10.pth", "decoder_iter_10.pth", "encoder_epoch_2.pth"):
        assert same_weights(rest.load(name), unbroken.load(name))
    assert rest.load("history_epoch_2.pth") == unbroken.load("history_epoch_2.pth")
    return True


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, seg_scenes):
    from seg_run import SegRun

    run = SegRun(tmp_path_factory.mktemp("unbroken"), seg_scenes, ["--max-iters", str(UPDATES)])
    assert run.status == 0, run.err_text
    assert len({losses["main"] for losses in run.losses.values()}) == UPDATES  # they do differ
    return run


def sessions(run):
    found = json.loads((run.out / "env.json").read_text())["sessions"]
    return [(each["status"], each["start"], each.get("reason")) for each in found]


@pytest.mark.parametrize("workers, number, status, keyword", [
    (0, signal.SIGINT, 130, "latest"),
    (2, signal.SIGTERM, 75, "interrupt"),
])
def test_interrupted_and_resumed_equals_unbroken(segment, unbroken, workers, number, status,
                                                 keyword):
    flags = f"--max-iters {UPDATES} --workers {workers}"
    first = segment(flags, stop=(number, 3))
    assert first.status == status, first.err_text
    assert len(first.err) == 1, first.err_text
    done = len(first.losses)
    assert 3 <= done < UPDATES
    assert {f"encoder_iter_{done}.pth", f"encoder_iter_{done}.state.pth",
            f"decoder_iter_{done}.pth"} <= set(first.names)
    reason = f"stopped by {number.name}"
    assert sessions(first) == [("stopped", 0, reason)]
    assert f"It ended early: {reason}" in (first.out / "report.html").read_text()
    rest = segment(f"{flags} --resume {keyword}")
    assert is_continued(rest, unbroken)
    assert sessions(rest) == [("stopped", 0, reason), ("done", done, None)]


def test_a_longer_run_and_a_start_epoch_continue_too(segment, unbroken):
    assert segment("--max-iters 6 --save-every 5").status == 0
    rest = segment(f"--max-iters {UPDATES} --resume latest")
    assert is_continued(rest, unbroken)
    # the same epoch's checkpoint by the original's key; the state beside it is taken up
    again = segment(f"--max-iters {UPDATES} TRAIN.start_epoch 1")
    assert is_continued(again, unbroken)


def test_damaged_files_are_named_and_the_checkpoint_before_is_taken(segment, unbroken):
    assert segment(f"--max-iters {UPDATES}").status == 0
    run = segment("--max-iters 1 --resume latest")  # nothing left to do
    damaged = ("encoder_iter_10.pth", "decoder_iter_10.pth", "encoder_iter_10.state.pth")
    for name in damaged:
        content = bytearray((run.out / name).read_bytes())
        content[len(content) // 2] ^= 1
        (run.out / name).write_bytes(content)
    rest = segment(f"--max-iters {UPDATES} --resume latest")
    assert is_continued(rest, unbroken)
    assert "epoch_2.pth" in rest.text
    for name in damaged:
        assert name in rest.err_text


def test_averages_accumulation_and_clipping_resume_too(segment):
    flags = "--ema 0.5 --accumulate 2 --clip-grad 5 VAL.interval 1"
    whole = segment(f"{flags} --max-iters 5", out="whole")
    assert whole.status == 0, whole.err_text
    assert segment(f"{flags} --max-iters 3").status == 0
    rest = segment(f"{flags} --max-iters 5 --resume latest")
    assert rest.losses == whole.losses
    assert all(event["grad_norm"] > 0 for event in rest.train_events)
    a, b = (run.load("encoder_iter_5.state.pth") for run in (whole, rest))
    assert same_weights(a["ema"], b["ema"])
    assert not torch.equal(a["ema"]["module.encoder.features.0.0.weight"],
                           whole.load("encoder_iter_5.pth")["features.0.0.weight"])
    assert set(a["optimizer"]) == {"encoder", "decoder"}
    groups = a["optimizer"]["encoder"]["param_groups"]
    assert [len(group["params"]) for group in groups] == [51, 102]
    assert rest.evals[-1]["metrics"] == whole.evals[-1]["metrics"]


def test_another_run_is_refused_unless_forced(segment):
    nothing = segment("--max-iters 2 --resume latest")
    assert "Nothing to resume" in nothing.text
    other = segment("--max-iters 3 --resume latest TRAIN.batch_size_per_gpu 3")
    assert other.status == 2
    assert "batch_size_per_gpu was 2, is now 3" in other.err[0]
    forced = segment("--max-iters 3 --resume latest TRAIN.batch_size_per_gpu 3 --force-resume")
    assert forced.status == 0, forced.err_text
    assert list(forced.losses) == [0, 1, 2]
