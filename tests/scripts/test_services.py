"""--tensorboard and --wandb in each script: told before anything is made, and fed by the run."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = {"train_yolact": [], "train_seg": [], "train_resnest": [],
           "train_queryinst": ["queryinst_shapes"]}
STAND_IN = """
import json, os, types
api = types.SimpleNamespace(api_key=None)
def note(*what):
    with open(os.environ["NOTED"], "a") as file:
        file.write(json.dumps(what) + "\\n")
class Run:
    def log(self, scalars): note("log", scalars)
    def define_metric(self, *names, **how): pass
    def finish(self): note("finish")
def init(**how):
    note("init", how)
    return Run()
"""


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_missing_package_is_one_line(script, tmp_path):
    missing = [name for name in ("wandb", "tensorboard") if importlib.util.find_spec(name) is None]
    if not missing:
        pytest.skip("both packages are installed")
    done = subprocess.run([sys.executable, ROOT / f"{script}.py", *SCRIPTS[script],
                           f"--{missing[0]}"], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (
        2, "", f"{script}: --{missing[0]}: the package is not installed; "
               f"pip install {missing[0]}\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fixture", ["train", "segment", "classify", "query_train"])
def test_wandb_gets_what_metrics_has(fixture, request, tmp_path, monkeypatch):
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "wandb.py").write_text(STAND_IN)
    monkeypatch.setenv("NOTED", str(tmp_path / "noted"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(tmp_path / "modules")  # for the one that runs in this process
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    run = request.getfixturevalue(fixture)("--wandb --max-iters 2")
    sys.modules.pop("wandb", None)
    assert run.status == 0, run.err_text
    first, *logged, last = map(json.loads, (tmp_path / "noted").read_text().splitlines())
    assert (first[0], last) == ("init", ["finish"])
    assert first[1]["mode"] == "offline"
    losses = [values["train/loss"] for _, values in logged if "train/loss" in values]
    assert losses == [event["loss"] for event in run.train_events]
    assert len(losses) == 2
