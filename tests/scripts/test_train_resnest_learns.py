"""Drawn shapes and small photos are learnt from random weights, resnest50 runs on large photos."""

import json

import pytest
from script_run import ROOT, ScriptRun


def run_script(folder, *words, **how):
    return ScriptRun("train_resnest.py", ["--outdir", folder / "out", *words], folder,
                     folder / "out", **how)


def top1_of(folder, config, *words):
    run = run_script(folder, "--config-file", ROOT / "configs" / "resnest" / config, *words,
                     timeout=3600)
    assert run.status == 0, run.err_text
    return json.loads((folder / "out" / "metrics.json").read_text())["top1"]


@pytest.mark.slow
def test_drawn_shapes_are_learnt_from_random_weights(tmp_path):
    assert top1_of(tmp_path, "shapes.yaml") >= 95


@pytest.mark.slow
def test_a_thousand_small_photos_are_learnt_from_random_weights(datasets, tmp_path):
    photos = datasets("cifar10_small").resolve()
    assert top1_of(tmp_path, "small.yaml", "DATA.ROOT", photos) >= 45


@pytest.mark.slow
def test_resnest50_trains_on_large_photos_from_end_to_end(datasets, tmp_path):
    photos = datasets("hymenoptera").resolve()
    run = run_script(tmp_path, "--config-file", "resnest50", "DATA.ROOT", photos,
                     "TRAINING.EPOCHS", "2", "OPTIMIZER.WARMUP_EPOCHS", "1",
                     "TRAINING.BATCH_SIZE", "16", "TRAINING.TEST_BATCH_SIZE", "16",
                     "TRAINING.WORKERS", "1", timeout=3600, env={"OMP_NUM_THREADS": "2"})
    assert run.status == 0, run.err_text
    assert run.err == []
    assert len(run.evals) == 2
    assert all(event["metrics"]["top5"] == 100.0 for event in run.evals)
    saved = {path.name for path in (tmp_path / "out").glob("*.pth")}
    assert saved == {"checkpoint_0.pth", "checkpoint_1.pth", "checkpoint_final.pth",
                     "model_best.pth", "model_weights.pth"}


def test_large_photos_train_without_a_warning(datasets, tmp_path):
    photos = datasets("hymenoptera").resolve()
    run = run_script(tmp_path, "--max-iters", "2", "--workers", "1", "--log-every", "1",
                     "DATA.ROOT", photos, "DATA.CROP_SIZE", "96", "DATA.RAND_AUG", "True",
                     "MODEL.NAME", "resnest14_small", "TRAINING.BATCH_SIZE", "16")
    assert run.status == 0, run.err_text
    assert run.err == []
    assert len(run.losses) == 2
    assert "Validation: Top1: " in run.text
