"""The four scripts on an accelerator: every precision, the CPU's losses, several GPUs, resuming."""

import json
import math
import sys
from pathlib import Path

import pytest
import torch
from script_run import ScriptRun

SCRIPTS = ("train_yolact", "train_seg", "train_resnest", "train_queryinst")
DEVICE = "cuda"
DRIVER = Path(__file__).resolve().parents[1] / "host_waits.py"

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.fixture
def sample_run(tmp_path):
    """sample_run("train_seg", "--amp fp16", ...) runs a script on its embedded sample."""

    def run(script, line="", device=DEVICE, updates=4, out="out", **how):
        folder = tmp_path / out
        words = ["--log-every", "1", "--max-iters", updates, *line.split()]
        if device:
            words += ["--device", device]
        logs = folder
        if script == "train_yolact":
            logs = folder / "logs" / "yolact_shapes"
            words += ["--config", "yolact_shapes", "--save_folder", folder / "weights",
                      "--log_folder", folder / "logs", "--num_workers", "2"]
        elif script == "train_seg":
            words += ["--cfg", "configs/seg/shapes.yaml", "DIR", folder]
        elif script == "train_resnest":
            words += ["--config-file", "configs/resnest/shapes.yaml", "--outdir", folder]
        else:
            words = ["queryinst_shapes", "--work-dir", folder, *words]
        done = ScriptRun(f"{script}.py", words, tmp_path, logs, **how)
        assert done.status == 0, done.err_text
        return done

    return run


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("line", ["--amp off", "--amp bf16", "--amp fp16 --channels-last",
                                  "--accumulate 2 --ema 0.9"])
def test_trains_and_scores(sample_run, script, line):
    run = sample_run(script, line)
    assert [event["iteration"] for event in run.train_events] == [0, 1, 2, 3]
    assert all(math.isfinite(event["loss"]) for event in run.train_events)
    assert run.train_events[-1]["memory_mb"] > 0
    assert run.evals


@pytest.mark.parametrize("script", SCRIPTS)
def test_first_losses_are_the_cpus(sample_run, script):
    losses = sample_run(script, updates=1).losses[0]
    wanted = sample_run(script, updates=1, device="cpu", out="cpu").losses[0]
    # convolutions may compute in TF32, whose ten bits of mantissa are 1e-3
    assert losses == pytest.approx(wanted, rel=2e-2)


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_run_goes_on(sample_run, script):
    sample_run(script, updates=2)
    rest = sample_run(script, "--resume latest", updates=4)
    assert sorted(rest.losses) == [0, 1, 2, 3]


# the losses are read once an update; matching QueryInst's proposals needs their costs on the host
@pytest.mark.parametrize("script, most", [
    ("train_yolact", 1), ("train_seg", 1), ("train_resnest", 1), ("train_queryinst", 2)])
@pytest.mark.parametrize("line", ["--channels-last", "--amp bf16 --ema 0.9", "--amp fp16"])
def test_an_update_waits_once(sample_run, tmp_path, script, most, line):
    found = tmp_path / "found.json"
    sample_run(script, f"--clip-grad 1 {line}", updates=2,
               launcher=[sys.executable, str(DRIVER), str(found)])
    waits = json.loads(found.read_text())
    most += "fp16" in line  # gradients that overflow are looked at by the scaler
    assert 1 <= len(waits) <= most, waits


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one CUDA device")
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_process_for_each_gpu(sample_run, script):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone",
                "--nproc_per_node", "2"]
    assert sample_run(script, device=None, launcher=launcher).evals


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one CUDA device")
@pytest.mark.parametrize("script", ["train_yolact", "train_seg", "train_resnest"])
def test_one_command_takes_all_gpus(sample_run, script):
    assert sample_run(script, device=None).evals
