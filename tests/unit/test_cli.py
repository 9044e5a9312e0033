"""The shared command line: spellings, checks, one line a fault, exit status, quick help."""

import os
import re
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import pytest
import typer

from common.checkpoint import SaveError
from runtime import cli
from runtime.errors import InputError
from runtime.launch.signals import Stopped

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def run(capsys, monkeypatch):
    """`run("--lr 1")` -> (exit status, what the script received, stderr's lines)."""
    monkeypatch.delenv("RANK", raising=False)

    def run_line(line, raises=None):
        seen = {}

        def script(
            batch_size: Annotated[int, typer.Option("--batch_size")] = 8,
            validation_epoch: Annotated[int, typer.Option("--validation_epoch")] = 2,
            lr: Annotated[float | None, typer.Option("--lr", "--learning_rate")] = None,
            cuda: Annotated[str, cli.bool_option("--cuda", help="")] = "True",
            resume: Annotated[str | None, typer.Option("--resume")] = None,
            device: cli.Device = None,
            amp: cli.Amp = "off",
            channels_last: cli.ChannelsLast = False,
            accumulate: cli.Accumulate = 1,
            clip_grad: cli.ClipGrad = None,
            ema: cli.Ema = None,
            seed: cli.Seed = 0,
            cfg_options: cli.CfgOptions = None,
            debug: cli.Debug = False,
        ):
            return locals()

        def main(flags):
            seen.update(flags)
            if raises:
                raise raises

        monkeypatch.setattr(sys, "argv", ["train_it.py", *line.split()])
        with pytest.raises(SystemExit) as stop:
            cli.run(main, "train_it", cli.read_flags(script, "train_it"))
        return stop.value.code, seen, capsys.readouterr().err.splitlines()

    return run_line


@pytest.mark.parametrize(
    "line, name, value",
    [
        ("--batch_size 4", "batch_size", 4),
        ("--batch-size=4", "batch_size", 4),
        ("--validation_epoch -1", "validation_epoch", -1),
        ("--validation-epoch=-1", "validation_epoch", -1),
        ("--learning-rate 1e-3", "lr", 1e-3),
        ("--channels_last", "channels_last", True),
        ("--no_channels_last", "channels_last", False),
        ("--cuda False", "cuda", False),
        ("--cuda=YES", "cuda", True),
        ("--cuda maybe", "cuda", False),
        ("", "cuda", True),
        ("--resume a_b/c-d_e.pth", "resume", "a_b/c-d_e.pth"),
        ("--resume=a_b=c.pth", "resume", "a_b=c.pth"),
        ("--resume", "resume", "latest"),
        ("--resume --lr 1", "resume", "latest"),
        ("", "resume", None),
        ("--cfg-options a_b=1 --cfg_options c=2", "cfg_options", ["a_b=1", "c=2"]),
        ("--cfg-options a_b=1 c=-2 --lr 1", "cfg_options", ["a_b=1", "c=-2"]),
        ("--cfg_options=a_b=1 c=-2", "cfg_options", ["a_b=1", "c=-2"]),
        ("--device cuda:1", "device", "cuda:1"),
        ("--amp bf16", "amp", "bf16"),
        ("--ema 0.99", "ema", 0.99),
    ],
)
def test_values(run, line, name, value):
    status, seen, errors = run(line)
    assert (status, errors) == (0, [])
    assert seen[name] == value


@pytest.mark.parametrize(
    "line, fault",
    [
        ("--batchsize 3", "no such option --batchsize. Did you mean --batch_size?"),
        ("--batch_siz=3", "no such option --batch_siz. Did you mean --batch_size?"),
        ("--zzz", "no such option --zzz. --help lists them."),
        ("--amp bf61", "--amp: 'bf61' is not one of off, bf16, fp16. Did you mean bf16?"),
        ("--device cuda:x", "--device: 'cuda:x' is not cpu, cuda or cuda:N"),
        ("--clip-grad 0", "--clip-grad: 0.0 is not above 0"),
        ("--clip-grad nan", "--clip-grad: nan is not above 0"),
        ("--ema 1", "--ema: 1.0 is not between 0 and 1"),
        ("--seed -1", "--seed: -1 is not between 0 and 4294967295"),
        ("--batch_size x", "--batch_size: 'x' is no whole number"),
        ("--batch-size=1.5", "--batch_size: '1.5' is no whole number"),
        ("--lr abc", "--lr: 'abc' is no number"),
        ("--accumulate 0", "--accumulate: '0' is less than 1"),
        ("stray", "stray belongs to no flag"),
        ("--lr inf", "--lr: inf is not a finite number"),
        ("--lr nan", "--lr: nan is not a finite number"),
        ("--batch_size 99999999999999999999", "--batch_size: 99999999999999999999 is too large"),
        ("--amp float16", "--amp: 'float16' is not one of off, bf16, fp16. Did you mean fp16?"),
        ("--amp fb16", "--amp: 'fb16' is not one of off, bf16, fp16. Did you mean bf16?"),
        ("-batch_size 3", "no such option -batch_size. Did you mean --batch_size?"),
        ("-resume latest", "no such option -resume. Did you mean --resume?"),
        ("batch_size 3", "batch_size stands without dashes. Did you mean --batch_size?"),
        ("batch-size=3", "batch-size=3 stands without dashes. Did you mean --batch_size=3?"),
        ("max_iter=3", "max_iter=3 belongs to no flag. Did you mean --cfg-options max_iter=3?"),
        ("last.pth", "last.pth belongs to no flag. To evaluate it: --eval-only --resume last.pth;"),
        ("\u2013batch_size 3", "\u2013batch_size: begins with a dash that is no hyphen; write "
                              "--batch_size"),
        ("--Batch_Size 3", "no such option --Batch_Size. Did you mean --batch_size?"),
        ("--bad\x1bflag", r"no such option --bad\x1bflag. --help lists them."),
    ],
)
def test_usage_faults_are_one_line(run, line, fault):
    status, seen, errors = run(line)
    assert (status, seen, len(errors)) == (2, {}, 1)
    assert errors[0].startswith(f"train_it: {fault}")


def test_exceptions_become_exit_status(run):
    status, _, errors = run("", InputError(["one", "two"]))
    assert (status, errors) == (2, ["train_it: one", "train_it: two"])
    status, _, errors = run("", SaveError("disk full"))
    assert (status, errors) == (3, ["train_it: disk full"])
    assert run("", Stopped("SIGTERM"))[::2] == (75, [])
    assert run("", Stopped("SIGINT"))[::2] == (130, [])
    for error in (RuntimeError("broken"), EOFError("broken")):
        status, _, errors = run("", error)
        assert status == 1
        assert errors[0].startswith("Traceback")
        assert errors[-1].endswith("broken")


def test_debug_shows_the_traceback_of_input_errors(run):
    status, _, errors = run("--debug", InputError("one"))
    assert status == 2
    assert errors[0].startswith("Traceback")
    assert errors[-1] == "train_it: one"


def test_the_rank_is_named_under_a_launcher(run, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    monkeypatch.setattr(cli.signal, "signal", lambda *args: None)
    for rank in ("0", "1"):
        with monkeypatch.context() as env:
            env.setenv("RANK", rank)
            # `run` itself clears RANK only once, when the fixture is made.
            assert run("", InputError("one"))[2] == [f"train_it: rank {rank}: one"]
            assert run("", ValueError("a\nb"))[2][-1] == f"train_it: rank {rank}: ValueError: a b"


def test_ranks_of_srun_are_told_apart_as_those_of_torchrun(run, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: waited.append(seconds))
    monkeypatch.setattr(cli.signal, "signal", lambda *args: None)
    monkeypatch.setenv("SLURM_NTASKS", "2")
    for rank, waits in (("0", []), ("1", [2])):
        waited = []
        monkeypatch.setenv("SLURM_PROCID", rank)
        assert run("", InputError("one"))[2] == [f"train_it: rank {rank}: one"]
        assert waited == waits
    monkeypatch.setenv("SLURM_NTASKS", "1")
    assert run("", InputError("one"))[2] == ["train_it: one"]


BARE_HELP = """
import typer
app = typer.Typer(add_completion=False)
@app.command()
def flags(device: str = "cpu", amp: str = "off", seed: int = 0):
    pass
app()
"""
HELP_SCRIPT = """
import sys
sys.path.insert(0, sys.argv.pop(1))
from runtime import cli
def flags(device: cli.Device = None, amp: cli.Amp = "off", seed: cli.Seed = 0):
    pass
try:
    cli.read_flags(flags, "train_it")
finally:
    assert "torch" not in sys.modules
"""


def test_help_is_light_and_in_one_panel(tmp_path):
    script, bare = tmp_path / "script.py", tmp_path / "bare.py"
    script.write_text(HELP_SCRIPT)
    bare.write_text(BARE_HELP)

    def cpu_seconds(*words):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [sys.executable, *words, "--help"], capture_output=True, text=True, check=True,
            env=os.environ | {"COLUMNS": "120"})
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout

    pairs = [(cpu_seconds(script, ROOT), cpu_seconds(bare)) for _ in range(4)]
    for (_, text), _ in pairs:
        assert text.count("Additions") == 1
        assert "--amp" in text
    # The promise to users is half a second. A busy machine makes processor time longer, too: then
    # it is half as much again as Typer needs by itself.
    own, floor = (min(seconds for seconds, _ in runs) for runs in zip(*pairs, strict=True))
    assert own < max(0.5, 1.5 * floor)


def test_help_names_values_and_leaves_switches_without(monkeypatch, capsys):
    def script(
        lr: Annotated[float | None, cli.flag("--lr", "rate", min=0)] = None,
        size: Annotated[int, cli.flag("--size", "pixels")] = 8,
        name: Annotated[str | None, cli.flag("--name", "text")] = None,
        half: Annotated[bool, cli.flag("--half", "switch")] = False,
        device: cli.Device = None,
        export: cli.Export = None,
        channels_last: cli.ChannelsLast = False,
    ):
        raise AssertionError

    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as stop:
        cli.read_flags(script, "train_it", ["--help"])
    lines = [" ".join(line.strip(" │").split()) for line in capsys.readouterr().out.splitlines()]
    assert stop.value.code == 0
    for line in ("--lr FLOAT [x>=0] rate", "--size INT pixels [default: 8]", "--name TEXT text",
                 "--half switch", "--version Show the versions and exit.",
                 "--help -h Show this message and exit."):
        assert line in lines, lines
    said = "\n".join(lines)
    assert "--device cpu|cuda|cuda:N Where" in said
    assert "--export PATH Write" in said
    assert "--channels-last --no-channels-last Memory" in said
    assert "<" not in said


@pytest.mark.parametrize("columns", ["80", "100", "200"])
@pytest.mark.parametrize("script", ["yolact", "seg", "resnest", "queryinst"])
def test_no_flag_is_cut_in_a_narrow_terminal(script, columns):
    done = subprocess.run([sys.executable, ROOT / f"train_{script}.py", "--help"], text=True,
                          capture_output=True, check=True, env=os.environ | {"COLUMNS": columns})
    assert "--no-channels-last" in done.stdout
    assert "…" not in done.stdout
    assert "<str>" not in done.stdout


def test_versions_are_told_without_torch():
    """The script is run for real: nothing heavy may be imported for the answer."""
    code = ("import sys, runpy; sys.argv = ['train_seg.py', '--version']\n"
            "try: runpy.run_path('train_seg.py', run_name='__main__')\n"
            "finally: assert 'torch' not in sys.modules")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"train_seg \d+\.\d+\.\d+, torch \d\S+, torchvision \d\S+, "
                        r"Python \d\S+\n", done.stdout)


@pytest.mark.parametrize("line, pairs, gpus", [
    ("A.b 1 C (2,3)", ["A.b", "1", "C", "(2,3)"], "0-3"),
    ("A.b -1 A.c -.5e-3 --gpus 2", ["A.b", "-1", "A.c", "-.5e-3"], "2"),  # flags after pairs too
    ("--gpus 1 A.b", ["A.b"], "1"),
    ("", None, "0-3"),
])
def test_pairs_of_key_and_value(monkeypatch, line, pairs, gpus):
    def script(
        opts: cli.Pairs = None,
        gpus: Annotated[str, typer.Option("--gpus")] = "0-3",
        seed: cli.Seed = None,
    ):
        return opts, gpus, seed

    monkeypatch.setattr(sys, "argv", ["train_it.py", *line.split()])
    assert cli.read_flags(script, "train_it") == (pairs, gpus, None)


def test_a_misspelt_flag_among_pairs_is_still_one(monkeypatch, capsys):
    def script(opts: cli.Pairs = None, gpus: Annotated[str, typer.Option("--gpus")] = ""):
        return opts

    monkeypatch.setattr(sys, "argv", ["train_it.py", "A.b", "1", "--gpu", "0"])
    with pytest.raises(SystemExit) as stop:
        cli.read_flags(script, "train_it")
    assert stop.value.code == 2
    assert "--gpu. Did you mean --gpus?" in capsys.readouterr().err


@pytest.mark.parametrize("line, fault", [
    ("--amp fb16", "--amp: 'fb16' is not one of off, bf16, fp16. Did you mean bf16?"),
    ("--amp true", "--amp: 'true' is not one of off, bf16, fp16. Did you mean fp16?"),
    ("seed 3", "seed stands without dashes. Did you mean --seed?"),
    ("A.b 1 eval-only True", "eval-only stands without dashes. Did you mean --eval-only?"),
])
def test_faults_beside_pairs(monkeypatch, capsys, line, fault):
    def script(opts: cli.Pairs = None, amp: cli.Amp = None, seed: cli.Seed = None,
               eval_only: cli.EvalOnly = False):
        return opts

    monkeypatch.setattr(sys, "argv", ["train_it.py", *line.split()])
    with pytest.raises(SystemExit) as stop:
        cli.read_flags(script, "train_it")
    assert stop.value.code == 2
    assert capsys.readouterr().err == f"train_it: {fault}\n"


def test_a_bare_amp_leaves_pairs_alone(monkeypatch):
    def script(opts: cli.Pairs = None, amp: cli.Amp = None):
        return opts, amp

    monkeypatch.setattr(sys, "argv", ["train_it.py", "--amp", "SEED", "1"])
    assert cli.read_flags(script, "train_it") == (["SEED", "1"], "fp16")


def test_a_joined_pair_is_told():
    with pytest.raises(InputError, match=r"A.b=1: .* come in pairs, KEY VALUE; write A.b 1"):
        cli.paired(["A.b=1"])
