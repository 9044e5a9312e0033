"""docs/own_data.md: a network of six classes makes a better start for four others."""

import json
import shutil

import pytest
from script_run import ROOT, ScriptRun

FEW, PHOTOS = ("bird", "cat", "deer", "dog"), 25


@pytest.fixture
def two_sets(datasets, tmp_path):
    """six/ and few/, of CIFAR-10: class folders of which none is in both."""
    source = datasets("cifar10_small").resolve()
    for part in ("train", "val"):
        for folder in sorted((source / part).iterdir()):
            files = sorted(folder.iterdir())
            is_new = folder.name in FEW
            target = tmp_path / ("few" if is_new else "six") / part / folder.name
            target.mkdir(parents=True)
            for file in files[:PHOTOS] if is_new and part == "train" else files:
                shutil.copy(file, target)
    return tmp_path


@pytest.mark.slow  # five minutes
def test_four_classes_from_a_network_of_six(two_sets):
    def best_top1(name, *words):
        out = two_sets / name
        run = ScriptRun("train_resnest.py", [
            "--config-file", ROOT / "configs" / "resnest" / "small.yaml", "--outdir", out, *words],
            two_sets, out, timeout=3600)
        assert run.status == 0, run.err_text
        return max(event["metrics"]["top1"] for event in run.evals), run.text

    six, _ = best_top1("out_six", "DATA.ROOT", two_sets / "six")
    assert six >= 65
    few = ["--seed", "1", "--epochs", "40", "DATA.ROOT", two_sets / "few"]
    from_random, _ = best_top1("random", *few)
    tuned, text = best_top1("tuned", "--pretrained", two_sets / "out_six" / "model_best.pth", *few)
    assert "the file has 6 classes, so fc.weight, fc.bias start at random" in text
    assert tuned >= from_random + 4
    names = json.loads((two_sets / "tuned" / "env.json").read_text())["network"]["classes"]
    assert names == list(FEW)
