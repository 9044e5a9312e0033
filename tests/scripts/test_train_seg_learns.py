"""train_seg learns: drawn scenes in minutes, real photos in half an hour, on two CPU cores."""

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def learn(folder, *words):
    """(scores of the evaluations, processor seconds / 2) of a run; time is what two cores take."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run = subprocess.run([sys.executable, ROOT / "train_seg.py", *words, "DIR", "out"],
                         cwd=folder, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert run.returncode == 0, run.stderr
    assert (folder / "out" / "curves.png").stat().st_size > 10_000
    events = [json.loads(line) for line in (folder / "out" / "metrics.jsonl").open()]
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return [event["metrics"]["mean_iou"] for event in events if event["event"] == "eval"], seconds/2


@pytest.mark.slow
def test_drawn_scenes_in_four_minutes(tmp_path):
    scores, seconds = learn(tmp_path, "--cfg", "configs/seg/shapes.yaml")
    assert scores[-1] >= 0.70
    assert seconds <= 240


@pytest.mark.slow
def test_camvid_from_random_weights_in_half_an_hour(datasets, tmp_path):
    photos = datasets("camvid").resolve()
    scores, seconds = learn(
        tmp_path, "--cfg", "configs/seg/small.yaml", "DATASET.root_dataset", str(photos),
        "DATASET.list_train", str(photos / "training.odgt"),
        "DATASET.list_val", str(photos / "validation.odgt"))
    assert scores[-1] >= 0.30
    assert scores[-1] >= max(scores) - 0.02  # still rising, or flat
    assert seconds <= 1800
