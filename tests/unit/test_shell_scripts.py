"""MMDetection's dist_test.sh, slurm_train.sh and slurm_test.sh: what they start, with stand-ins for
Python and srun that write down how they were called."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.launch.launcher import read_command
from runtime.options.usage import parse

ROOT = Path(__file__).resolve().parents[2]
STAND_IN = """#!{python}
import json, os, sys
print(json.dumps([sys.argv[1:], {{key: os.environ.get(key) for key in ("MASTER_PORT",)}}]))
"""


@pytest.fixture
def call(tmp_path):
    """`call(words, srun=True, KEY=value)` -> the finished process."""
    for name in ("python-stand-in", "srun"):
        (tmp_path / name).write_text(STAND_IN.format(python=sys.executable))
        (tmp_path / name).chmod(0o755)
    (tmp_path / "only_bash").mkdir()
    (tmp_path / "only_bash" / "bash").symlink_to(shutil.which("bash"))

    def run(*words, with_srun=True, **env):
        clean = {key: value for key, value in os.environ.items()
                 if not key.startswith("SLURM_") and key not in ("GPUS", "MASTER_PORT")}
        path = f"{tmp_path}:{clean['PATH']}" if with_srun else str(tmp_path / "only_bash")
        return subprocess.run(
            [str(word) for word in words], cwd=tmp_path, capture_output=True, text=True,
            env=clean | {"PYTHON": str(tmp_path / "python-stand-in"), "PATH": path} | env)

    return run


def started(done):
    """(words, environment) of what was started."""
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


@pytest.mark.parametrize("script", ["dist_test.sh", "tools/dist_test.sh"])
def test_dist_test_evaluates_a_checkpoint_with_several_processes(call, script):
    words, _ = started(call(ROOT / script, "queryinst_r50_fpn_1x_coco", "w.pth", 4, "--eval",
                            "bbox", "segm", "--work-dir", "out"))
    _, _, folder, *rest = words  # -c, the program, our folder
    assert folder == str(ROOT)
    command = read_command(rest, {})
    assert (command.name, command.processes) == ("train_queryinst", 4)
    flags = parse(__import__(command.name).flags, command.name, command.arguments)
    assert (flags.config, flags.eval_only, flags.resume, flags.work_dir) == (
        "queryinst_r50_fpn_1x_coco", True, "w.pth", "out")


@pytest.mark.parametrize("words", [["queryinst_shapes", "4"], ["queryinst_shapes", "w.pth"],
                                   ["queryinst_shapes", "w.pth", "many"], []])
def test_dist_test_wants_three_words(call, words):
    done = call(ROOT / "dist_test.sh", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("dist_test: GPUS: ")
    assert "want dist_test.sh CONFIG CHECKPOINT GPUS" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("script", ["slurm_train.sh", "tools/slurm_train.sh"])
def test_slurm_train_in_mmdetections_form(call, script):
    done = call(ROOT / script, "dev", "my_job", "queryinst_r50_fpn_1x_coco", "work", "--resume",
                "--cfg-options", "randomness.seed=1", GPUS="16", SRUN_ARGS="--quiet --time=1:00")
    words, env = started(done)
    at = words.index(str(ROOT / "train_queryinst.py"))
    assert words[:at] == [
        "--partition=dev", "--job-name=my_job", "--gres=gpu:8", "--ntasks=16",
        "--ntasks-per-node=8", "--cpus-per-task=5", "--kill-on-bad-exit=0", "--quiet",
        "--time=1:00", words[at - 2], "-u"]
    assert 20000 <= int(env["MASTER_PORT"]) < 40000
    flags = parse(__import__("train_queryinst").flags, "train_queryinst", words[at + 1 :])
    assert (flags.config, flags.work_dir, flags.resume, flags.launcher, flags.eval_only) == (
        "queryinst_r50_fpn_1x_coco", "work", "latest", "slurm", False)
    assert flags.cfg_options == ["randomness.seed=1"]


def test_slurm_train_takes_fewer_gpus_than_a_node_has(call):
    words, env = started(call(ROOT / "slurm_train.sh", "dev", "j", "queryinst_shapes", "w",
                              GPUS="4", CPUS_PER_TASK="2", MASTER_PORT="30001"))
    assert {"--gres=gpu:4", "--ntasks=4", "--ntasks-per-node=4", "--cpus-per-task=2"} <= set(words)
    assert env["MASTER_PORT"] == "30001"


@pytest.mark.parametrize("script", ["slurm_test.sh", "tools/slurm_test.sh"])
def test_slurm_test_evaluates_a_checkpoint(call, script):
    words, _ = started(call(ROOT / script, "dev", "job", "queryinst_shapes", "w.pth", "--eval",
                            "segm", GPUS="1"))
    at = words.index(str(ROOT / "train_queryinst.py"))
    flags = parse(__import__("train_queryinst").flags, "train_queryinst", words[at + 1 :])
    assert (flags.config, flags.resume, flags.eval_only, flags.launcher, flags.work_dir) == (
        "queryinst_shapes", "w.pth", True, "slurm", None)


@pytest.mark.parametrize("words, env, part", [
    (["slurm_train.sh", "dev", "j", "c"], {}, "PARTITION JOB_NAME CONFIG WORK_DIR"),
    (["slurm_train.sh", "train_yolact.py", "--config", "yolact_base", "--lr"], {}, "sbatch"),
    (["slurm_test.sh", "dev", "j", "c"], {}, "PARTITION JOB_NAME CONFIG CHECKPOINT"),
    (["slurm_train.sh", "dev", "j", "c", "w"], {"GPUS": "many"}, "GPUS=many"),
    (["slurm_train.sh", "dev", "j", "c", "w"], {"GPUS_PER_NODE": "0"}, "GPUS_PER_NODE=0"),
])
def test_what_slurm_scripts_cannot_use_is_one_line(call, words, env, part):
    done = call(ROOT / words[0], *words[1:], **env)
    assert (done.returncode, done.stdout) == (2, "")
    assert part in done.stderr
    assert done.stderr.count("\n") == 1


def test_without_slurm_it_says_what_to_use(call):
    done = call(ROOT / "slurm_train.sh", "dev", "j", "c", "w", with_srun=False)
    assert done.returncode == 2
    assert done.stderr == ("slurm_train: there is no srun here: without SLURM use dist_train.sh "
                           "CONFIG GPUS\n")
