"""A stopped or killed run goes on as if nothing had happened: same losses, weights and names."""

import random
import signal

import pytest
from query_runs import same_state

UPDATES = 12  # three epochs of four updates
KEEP = ("--cfg-options default_hooks.checkpoint.interval=3 "
        "default_hooks.checkpoint.by_epoch=False default_hooks.checkpoint.max_keep_ckpts=2")


@pytest.fixture
def unbroken(query_train):
    run = query_train(KEEP, out="unbroken")
    assert run.status == 0, run.err_text
    assert list(run.losses) == list(range(UPDATES))
    assert len({losses["s0.loss_cls"] for losses in run.losses.values()}) == UPDATES  # they differ
    assert run.names == ["iter_12.pth", "iter_9.pth"]
    return run


def test_stopped_killed_and_resumed_equals_unbroken(query_train, unbroken):
    first = query_train(KEEP, stop=(signal.SIGTERM, 4))
    assert first.status == 75, first.err_text
    assert first.err == ["Stopping after this iteration, saving the state..."]
    done = len(first.losses)
    assert 4 <= done < UPDATES
    assert f"iter_{done}.pth" in first.names
    assert (first.out / "last_checkpoint").read_text() == f"iter_{done}.pth"

    killed = query_train(f"{KEEP} --workers 2 --resume", stop=(signal.SIGKILL, done + 1))
    assert killed.status == -signal.SIGKILL

    rest = query_train(f"{KEEP} --resume")
    assert rest.status == 0, rest.err_text
    assert rest.losses == unbroken.losses  # bit for bit
    assert rest.names == unbroken.names
    a, b = (run.load("iter_12.pth") for run in (rest, unbroken))
    assert same_state(a["state_dict"], b["state_dict"])
    assert same_state(a["optimizer"], b["optimizer"])


@pytest.mark.slow
def test_the_documents_sequence_on_two_processes(query_train, tmp_path):
    """Checkpoints by iteration, two of them kept, kill -9, --resume, and --resume iter_N.pth."""
    flags = KEEP.replace("interval=3", "interval=2") + " train_dataloader.batch_size=2"
    whole = query_train(flags, processes=2, out="whole")
    assert whole.status == 0, whole.err_text + whole.text
    assert list(whole.losses) == list(range(UPDATES))
    assert whole.names == ["iter_10.pth", "iter_12.pth"]

    stop_after = random.randint(3, 8)
    first = query_train(flags, processes=2, stop=(signal.SIGKILL, stop_after))
    assert first.status == -signal.SIGKILL
    rest = query_train(f"{flags} --resume", processes=2)
    assert rest.status == 0, rest.err_text
    assert rest.losses == whole.losses, stop_after
    assert rest.names == whole.names

    again = query_train(f"{flags} --resume {rest.out / 'iter_10.pth'}", processes=2,
                        out="again")
    assert again.status == 0, again.err_text
    assert again.losses == {i: whole.losses[i] for i in (10, 11)}
    last = again.load("iter_12.pth")
    assert same_state(last["state_dict"], whole.load("iter_12.pth")["state_dict"])
    assert last["meta"]["iter"] == UPDATES
