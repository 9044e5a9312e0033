"""However a run ends, the state before the update that failed is saved, named, and goes on."""

import math
import re
import sys
from pathlib import Path

import pytest
import torch
from script_run import fault, load

UPDATES = 6
SAVED = re.compile(r"The state after (\d+) updates is saved in (\S+); --resume latest")


@pytest.fixture
def scripts(request):
    """{name: runs that script on its tiny set for UPDATES updates, without validation}."""

    def lazily(fixture, *flags):
        def run(*more, **how):
            words = ["--max-iters", UPDATES, *flags, *more]
            return request.getfixturevalue(fixture)("", *words, **how)

        return run

    return {"yolact": lazily("train"), "seg": lazily("segment", "--save-every", "1000"),
            "resnest": lazily("classify"), "queryinst": lazily("query_train")}


def weights(run):
    """The bits of the last checkpoints of a run."""
    found = {name: run.load(name) for name in run.names if "best" not in name}
    last = {}
    for name, content in found.items():
        state = content.get("state_dict", content)
        last[name] = {key: value for key, value in state.items() if torch.is_tensor(value)}
    return last


def saved_in(line, updates):
    found = SAVED.search(line)
    assert found, line
    assert int(found[1]) == updates
    assert Path(found[2]).is_file()
    return Path(found[2])


@pytest.mark.parametrize("name, kind", [
    ("yolact", "memory"), ("seg", "odd"), ("resnest", "memory"), ("queryinst", "odd"),
])
def test_a_fault_in_the_backward_pass_costs_nothing(scripts, name, kind):
    whole = scripts[name](out="whole", launcher=[sys.executable])
    assert whole.status == 0, whole.err_text
    broken = scripts[name](launcher=fault(kind, 4))
    assert broken.status == 1, broken.err_text
    saved_in(broken.err[-1], 3)
    if kind == "memory":
        assert len(broken.err) == 1  # no traceback
        assert re.search(r"out of memory in main memory: \d+\.\d PiB more were asked for. Lower "
                         r"\S*(batch_size|BATCH_SIZE)", broken.err[0]), broken.err[0]
    else:
        assert "ArithmeticError: odd numbers" in broken.err[-1]
        assert "Traceback" in broken.err_text
    assert broken.events[-1]["event"] == "stop"

    rest = scripts[name]("--resume", "latest", launcher=[sys.executable])
    assert rest.status == 0, rest.err_text
    assert rest.losses == whole.losses  # bit for bit: BatchNorm's statistics went back, too
    assert rest.names == whole.names
    ours, theirs = weights(rest), weights(whole)
    for file, tensors in theirs.items():
        assert all(torch.equal(ours[file][key], value) for key, value in tensors.items()), file


@pytest.mark.parametrize("name", [
    "yolact", "resnest", pytest.param("seg", marks=pytest.mark.slow),
    pytest.param("queryinst", marks=pytest.mark.slow)])
def test_a_killed_worker_is_named_with_its_samples(scripts, name):
    flags = ["TRAIN.workers", "2"] if name == "seg" else [
        "--num_workers" if name == "yolact" else "--workers", "2"]
    run = scripts[name](*flags, launcher=fault("worker", 2))
    assert run.status == 1, run.err_text
    assert len(run.err) == 1, run.err_text
    assert "was ended by signal SIGKILL" in run.err[0]
    assert re.search(r"while it prepared \S+|\(the system kills", run.err[0])
    done = int(SAVED.search(run.err[0])[1])
    assert 2 <= done < UPDATES  # what was under way is finished
    saved_in(run.err[0], done)
    rest = scripts[name](*flags, "--resume", "latest", launcher=[sys.executable])
    whole = scripts[name](*flags, out="whole", launcher=[sys.executable])
    assert (rest.status, whole.status) == (0, 0), rest.err_text + whole.err_text
    assert rest.losses == whole.losses
    ours, theirs = weights(rest), weights(whole)
    for file, tensors in theirs.items():  # BatchNorm's statistics, too
        assert all(torch.equal(ours[file][key], value) for key, value in tensors.items()), file


@pytest.mark.parametrize("name, clip", [
    ("yolact", []), ("queryinst", []), pytest.param("seg", ["--clip-grad", "1"]),
    pytest.param("resnest", ["--clip-grad", "1"], marks=pytest.mark.slow)])
def test_an_infinite_gradient_never_reaches_the_weights(scripts, name, clip):
    run = scripts[name](*clip, launcher=fault("inf", 3))
    assert run.status == 1, run.err_text
    assert "the gradient is not finite at iteration 2" in run.err[-1]
    path = saved_in(run.err[-1], 2)
    content = load(path)
    state = content.get("state_dict", content)
    assert all(value.isfinite().all() for value in state.values() if torch.is_tensor(value))


@pytest.mark.parametrize("name", [
    "yolact", "resnest", "queryinst", pytest.param("seg", marks=pytest.mark.slow)])
def test_nothing_of_a_skipped_update_stays(scripts, name):
    flags = ["--nan", "skip", "--ema", "0.5"]
    run = scripts[name](*flags, launcher=fault("nan", 2))
    assert run.status == 0, run.err_text
    assert "left out because their loss or gradient was not finite: 1" in run.text
    skipped = [event for event in run.events if event["event"] == "skip"]
    assert [event["iteration"] for event in skipped] == [1]
    assert None in run.losses[1].values()  # JSON has no NaN
    for file, tensors in weights(run).items():
        for key, value in tensors.items():
            assert value.isfinite().all(), (file, key)
    assert all(math.isfinite(value) for value in run.losses[2].values())


def test_where_the_weights_have_begun_to_change_the_last_good_file_is_named(scripts):
    run = scripts["yolact"]("--save_interval", "3", launcher=fault("update", 5))
    assert run.status == 1
    assert run.names == ["tiny_1_3.pth", "tiny_1_3.state.pth"]
    assert re.search(r"ArithmeticError: odd numbers\. The update had begun to change the weights\. "
                     r"The last good state, after 3 updates, is \S+tiny_1_3\.pth", run.err[-1])


@pytest.mark.parametrize("name, flags", [
    ("yolact", ["--validation_epoch", "1"]),  # after the second epoch: 4 updates
    pytest.param("resnest", ["TRAINING.EVAL_EVERY", "1"]),
    pytest.param("seg", ["VAL.interval", "1"], marks=pytest.mark.slow),
])
def test_a_failing_validation_costs_nothing(scripts, name, flags):
    run = scripts[name](*flags, launcher=fault("validation", 1))
    assert run.status == 1
    line = run.err[-1]
    assert "ArithmeticError: odd numbers" in line
    path = Path(re.search(r"(?:saved in|updates, is) (\S+);", line)[1])
    done = int(re.search(r"after (\d+) updates", line)[1])
    assert path.is_file()
    assert done == len(run.losses)
    rest = scripts[name](*flags, "--resume", "latest", launcher=[sys.executable])
    assert rest.status == 0, rest.err_text
    assert rest.evals[0]["iteration"] == done  # made up for


def test_a_first_update_that_fails_leaves_nothing_and_claims_nothing(scripts):
    run = scripts["resnest"](launcher=fault("odd", 1))
    assert run.status == 1
    assert run.names == []
    assert run.err[-1] == "train_resnest: ArithmeticError: odd numbers"
