"""A stopped run goes on as if it had never stopped: same losses, same weights, same file names."""

import signal

import pytest
import torch

UPDATES = 10  # five epochs of two updates


def same_weights(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.fixture
def unbroken(train):
    run = train(f"--max-iters {UPDATES}", out="unbroken")
    assert run.status == 0, run.err_text
    assert list(run.losses) == list(range(UPDATES))
    assert len({losses["C"] for losses in run.losses.values()}) == UPDATES  # they do differ
    return run


@pytest.mark.parametrize("workers, keyword", [(0, "latest"), (2, "interrupt")])
def test_interrupted_and_resumed_equals_unbroken(train, unbroken, workers, keyword):
    flags = f"--max-iters {UPDATES} --num_workers {workers}"
    first = train(flags, stop=(signal.SIGINT, 3))
    assert first.status == 130, first.err_text
    assert len(first.err) == 1
    done = len(first.losses)
    assert 3 <= done < UPDATES
    assert first.names == [f"tiny_{(done - 1) // 2}_{done}_interrupt.pth",
                           f"tiny_{(done - 1) // 2}_{done}_interrupt.state.pth"]

    rest = train(f"{flags} --resume {keyword}")
    assert rest.status == 0, rest.err_text
    assert rest.losses == unbroken.losses  # bit for bit
    assert rest.names == unbroken.names == ["tiny_4_10.pth", "tiny_4_10.state.pth"]
    assert same_weights(rest.load("tiny_4_10.pth"), unbroken.load("tiny_4_10.pth"))


def test_sigterm_leaves_a_state_and_the_status_for_requeueing(train, unbroken):
    first = train(f"--max-iters {UPDATES}", stop=(signal.SIGTERM, 2))
    assert first.status == 75, first.err_text
    rest = train(f"--max-iters {UPDATES} --resume latest")
    assert rest.losses == unbroken.losses


def test_a_longer_run_continues_a_finished_one(train, unbroken):
    assert train("--max-iters 4").status == 0
    rest = train(f"--max-iters {UPDATES} --resume latest")
    assert rest.losses == unbroken.losses
    assert same_weights(rest.load("tiny_4_10.pth"), unbroken.load("tiny_4_10.pth"))


def test_ema_and_accumulation_resume_too(train):
    flags = "--ema 0.5 --accumulate 2 --batch_size 4 --clip-grad 5"
    whole = train(f"{flags} --max-iters 6", out="whole")
    assert whole.status == 0, whole.err_text
    assert train(f"{flags} --max-iters 3").status == 0
    rest = train(f"{flags} --max-iters 6 --resume latest")
    assert rest.losses == whole.losses
    assert all(event["grad_norm"] > 0 for event in rest.train_events)
    a, b = (run.load("tiny_2_6.state.pth")["ema"] for run in (whole, rest))
    assert same_weights(a, b)
    assert not torch.equal(a["module.backbone.conv1.weight"],
                           whole.load("tiny_2_6.pth")["backbone.conv1.weight"])


def test_nothing_to_resume_starts_from_the_beginning(train):
    run = train("--max-iters 1 --resume latest")
    assert run.status == 0, run.err_text
    assert "Nothing to resume" in run.text


def test_another_batch_size_is_refused_unless_forced(train):
    assert train("--max-iters 2").status == 0
    other = train("--max-iters 4 --batch_size 4 --resume latest")
    assert other.status == 2
    assert "batch_size was 8, is now 4" in other.err[0]
    forced = train("--max-iters 4 --batch_size 4 --resume latest --force-resume")
    assert forced.status == 0, forced.err_text
    assert list(forced.losses) == [0, 1, 2, 3]


def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(train, unbroken):
    first = train(f"--max-iters {UPDATES} --save_interval 4")
    assert first.status == 0, first.err_text
    for name in ("tiny_4_10.pth", "tiny_4_10.state.pth"):
        content = bytearray((first.weights / name).read_bytes())
        content[len(content) // 2] ^= 1
        (first.weights / name).write_bytes(content)
    rest = train(f"--max-iters {UPDATES} --resume latest")
    assert rest.status == 0, rest.err_text
    assert "tiny_4_10.pth" in rest.err_text
    assert "tiny_4_10.state.pth" in rest.err_text
    assert rest.losses == unbroken.losses
    assert same_weights(rest.load("tiny_4_10.pth"), unbroken.load("tiny_4_10.pth"))
