"""Several processes evaluate one network: the one that is saved."""

import sys
from pathlib import Path

import pytest

DRIVER = Path(__file__).resolve().parents[1] / "fault_driver.py"
FIXTURES = {
    "yolact": ("train", "--batch_size 16 --validation_epoch 1 --max-iters 2"),
    "seg": ("segment", "--max-iters 4 TRAIN.sync_bn False VAL.interval 1"),
    "resnest": ("classify", "--max-iters 3 TRAINING.EVAL_EVERY 1"),
    "queryinst": ("query_train", "--max-iters 2"),
}


@pytest.mark.parametrize("name", ["yolact", "seg", pytest.param("resnest", marks=pytest.mark.slow),
                                  pytest.param("queryinst", marks=pytest.mark.slow)])
def test_all_ranks_hold_the_same_buffers_at_an_evaluation(request, tmp_path, ranks, name):
    fixture, flags = FIXTURES[name]
    run = request.getfixturevalue(fixture)(
        flags, launcher=[*ranks(2), str(DRIVER), "buffers", str(tmp_path)])
    assert run.status == 0, run.err_text
    first, second = ((tmp_path / f"rank{rank}").read_text().split() for rank in (0, 1))
    assert first == second
    assert len(set(first)) > 5  # the statistics were trained, and there are some


def test_the_score_of_the_best_file_is_the_one_that_chose_it(segment, ranks):
    flags = "TRAIN.sync_bn False VAL.interval 1 TRAIN.num_epoch 1"
    run = segment(flags, launcher=ranks(2))
    assert run.status == 0, run.err_text
    again = segment("--eval-only --resume", run.out / "encoder_best.pth", launcher=[sys.executable])
    assert again.status == 0, again.err_text
    trained, evaluated = (event["metrics"] for event in again.evals)
    assert evaluated == trained
