"""A stopped run goes on as if it had never stopped: same losses, same weights, same file names."""

import signal

import pytest
import torch

from models.resnest import build_resnest

UPDATES = 12  # two epochs of six
FINAL = ["checkpoint_0.pth", "checkpoint_1.pth", "checkpoint_final.pth", "model_best.pth",
         "model_weights.pth"]


def same_weights(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.fixture
def unbroken(classify):
    run = classify(out="unbroken")
    assert run.status == 0, run.err_text
    assert list(run.losses) == list(range(UPDATES))
    assert len({losses["cross_entropy"] for losses in run.losses.values()}) == UPDATES
    assert run.names == FINAL
    return run


def assert_same(rest, whole):
    assert rest.status == 0, rest.err_text
    assert rest.losses == whole.losses  # bit for bit
    assert rest.evals == whole.evals
    assert rest.names == whole.names
    a, b = (run.load("checkpoint_1.pth") for run in (rest, whole))
    assert same_weights(a["state_dict"], b["state_dict"])
    for key in ("epoch", "best_pred", "acclist_train", "acclist_val", "iteration"):
        assert a[key] == b[key], key


@pytest.mark.parametrize("number, status, workers, keyword, after", [
    (signal.SIGINT, 130, 0, "latest", 3),
    (signal.SIGTERM, 75, 2, "interrupt", 8),
])
def test_interrupted_and_resumed_equals_unbroken(
    classify, unbroken, number, status, workers, keyword, after
):
    first = classify(f"--workers {workers}", stop=(number, after))
    assert first.status == status, first.err_text
    assert len(first.err) == 1
    done = len(first.losses)
    assert after <= done < UPDATES
    assert f"checkpoint_iter_{done}.pth" in first.names
    assert_same(classify(f"--workers {workers} --resume {keyword}"), unbroken)


def test_a_longer_run_continues_one_that_ended_inside_an_epoch(classify, unbroken):
    first = classify("--max-iters 8")
    assert first.status == 0, first.err_text
    assert [event["iteration"] for event in first.evals] == [6, 8]
    assert "checkpoint_iter_8.pth" in first.names
    rest = classify("--resume latest")
    assert rest.status == 0, rest.err_text
    assert rest.losses == unbroken.losses
    assert [event["iteration"] for event in rest.evals] == [6, 8, 12]
    assert rest.names == FINAL
    assert same_weights(rest.load("model_weights.pth"), unbroken.load("model_weights.pth"))
    # nothing is left to do, and doing it changes nothing
    again = classify("--resume latest")
    assert again.status == 0, again.err_text
    assert again.losses == unbroken.losses
    assert same_weights(again.load("model_weights.pth"), unbroken.load("model_weights.pth"))


def test_the_originals_checkpoint_is_resumed(classify, unbroken, tmp_path):
    """As the original writes it: tensors for numbers, and nothing of ours."""
    saved = unbroken.load("checkpoint_0.pth")
    original = {key: saved[key] for key in ("epoch", "state_dict", "optimizer")} | {
        "best_pred": torch.tensor(saved["best_pred"]),
        "acclist_train": [torch.tensor([value]) for value in saved["acclist_train"]],
        "acclist_val": [torch.tensor(value) for value in saved["acclist_val"]]}
    torch.save(original, tmp_path / "theirs.pth")
    run = classify("--resume theirs.pth")
    assert run.status == 0, run.err_text
    assert run.losses == {i: unbroken.losses[i] for i in range(6, 12)}
    last = run.load("checkpoint_1.pth")
    assert last["acclist_val"] == pytest.approx(unbroken.load("checkpoint_1.pth")["acclist_val"])
    # the file that was resumed from is as it was (the original would overwrite one of its own)
    assert not (run.out / "checkpoint_-1.pth").exists()
    # without a checkpoint a run from START_EPOCHS on is a fresh one
    late = classify("--resume latest TRAINING.START_EPOCHS 1", out="late")
    assert list(late.losses) == list(range(6, 12))
    assert [event["iteration"] for event in late.evals] == [12]
    assert "checkpoint_0.pth" not in late.names
    # a START_EPOCHS of the config counts more than the file's epoch
    moved = classify("--resume theirs.pth TRAINING.START_EPOCHS 1 TRAINING.EPOCHS 2", out="moved")
    assert list(moved.losses) == list(range(6, 12))


def test_refusals(classify, unbroken, tmp_path):
    """Another batch size, bare weights, other parameter groups: one line each."""
    def line(words):
        run = classify(words, out="unbroken")
        assert run.status == 2, run.err_text
        assert len(run.err) == 1
        return run.err[0]

    assert "batch_size was 4, is now 2" in line("--resume latest TRAINING.BATCH_SIZE 2")
    torch.save(build_resnest("resnest14_small", 3).state_dict(), tmp_path / "bare.pth")
    assert "bare.pth: bare weights" in line("--resume bare.pth")
    assert "optimizer state does not fit" in line("--resume latest OPTIMIZER.DISABLE_BN_WD True")
