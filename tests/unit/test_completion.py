"""Tab behind a script's name: what is offered, and that real shells offer it."""

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runtime import cli
from runtime.errors import InputError, SaveError
from runtime.options.completion import ASK, install

ROOT = Path(__file__).resolve().parents[2]
YOLACT = ROOT / "train_yolact.py"
WAIT_S = 60
PROMPT = "ready> "
LINES = [("python train_yolact.py --channels_", "--channels_last"),
         ("torchrun --nproc_per_node 4 train_seg.py --cfg ade20k-hr", "ade20k-hrnetv2"),
         (f"python {YOLACT} --amp=b", "--amp=bf16"),
         ("./dist_train.sh queryinst_sm", "queryinst_small"),
         ("./dist_train.sh queryinst_small 4 --auto-sc", "--auto-scale-lr"),
         ("./dist_train.sh train_seg.py 4 --ver", "--version")]


def asked(script, *words):
    """The candidates that the script prints, {word: what is said of it}."""
    done = subprocess.run([sys.executable, ROOT / f"{script}.py", *words], text=True, check=True,
                          capture_output=True, env=os.environ | {ASK: "1"})
    assert done.stderr == ""
    return dict(line.split("\t") for line in done.stdout.splitlines())


@pytest.mark.parametrize("script, words, wanted", [
    ("train_yolact", ["--am"], {"--amp"}),
    ("train_yolact", ["--batch_"], {"--batch_size", "--batch_alloc"}),
    ("train_yolact", ["--batch-"], {"--batch-size", "--batch-alloc"}),
    ("train_yolact", ["--no-ch"], {"--no-channels-last"}),
    ("train_yolact", ["--amp", ""], {"off", "bf16", "fp16"}),
    ("train_yolact", ["--amp", "="], {"off", "bf16", "fp16"}),  # bash takes it apart
    ("train_yolact", ["--amp", "=", "b"], {"bf16"}),
    ("train_yolact", ["--amp=b"], {"--amp=bf16"}),
    ("train_yolact", ["--cuda", "F"], {"False"}),
    ("train_yolact", ["--resume", ""], {"latest", "interrupt"}),
    ("train_yolact", ["--resume", "--conf"], {"--config"}),
    ("train_yolact", ["--lr", "1e-3", "--config", "yolact_s"], {"yolact_shapes", "yolact_small"}),
    ("train_yolact", ["--save_folder", ""], set()),  # the shell's files
    ("train_yolact", ["--seed", ""], set()),
    ("train_yolact", [""], set()),
    ("train_seg", ["--cfg", "ade20k-h"], {"ade20k-hrnetv2"}),
    ("train_seg", ["DATASET.root_dataset", ""], set()),
    ("train_resnest", ["--config-file", "resnest2"], {"resnest200", "resnest269"}),
    ("train_queryinst", ["queryinst_s"], {"queryinst_shapes", "queryinst_small"}),
    ("train_queryinst", ["--amp", "bf16", "queryinst_s"], {"queryinst_shapes", "queryinst_small"}),
    ("train_queryinst", ["--dry-run", "queryinst_s"], {"queryinst_shapes", "queryinst_small"}),
    ("train_queryinst", ["queryinst_small", "q"], set()),
    ("train_queryinst", ["--amp", "=", "bf16", "queryinst_sm"], {"queryinst_small"}),
    ("train_queryinst", ["--cfg-options", "model.x", "=", ""], set()),
    ("train_queryinst", ["4", "queryinst_sm"], {"queryinst_small"}),  # dist_train.sh's GPUS
    ("train_queryinst", ["--export-format", "p"], {"pt2", "pth"}),
    ("train_queryinst", ["--inst"], {"--install-completion"}),
    ("train_queryinst", ["--install-completion", ""], {"bash", "zsh", "fish"}),
])
def test_candidates(script, words, wanted):
    assert set(asked(script, *words)) == wanted


def test_flags_are_explained_and_a_line_that_could_run_is_not_run():
    assert asked("train_yolact", "--dry-run", "--dry")["--dry-run"].startswith("Check everything")


@pytest.fixture
def home(tmp_path, monkeypatch):
    for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "ZDOTDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("shell, start", [("bash", ".bashrc"), ("zsh", ".zshrc")])
def test_installed_once_behind_what_stands_there(home, shell, start):
    (home / start).write_text("export A=1")  # without an end of its line
    for _ in range(2):
        said = install(shell)
    code = home / f".local/share/trainers/completion.{shell}"
    assert (home / start).read_text() == f"export A=1\nsource {code}\n"
    assert str(code) in said
    assert str(home / start) in said
    assert sys.executable in code.read_text()


def test_without_a_value_it_is_the_shell_of_the_user(home, monkeypatch, capsys):
    monkeypatch.setenv("SHELL", "/usr/bin/fish")
    with pytest.raises(SystemExit) as stop:
        cli.read_flags(lambda: None, "train_it", ["--install-completion"])
    assert stop.value.code == 0
    code = home / ".config/fish/conf.d/trainers.fish"
    assert capsys.readouterr().out == f"{code} is written: Tab completes in the next fish\n"
    assert code.exists()


@pytest.mark.parametrize("shell", ["/bin/tcsh", ""])
def test_another_shell_is_refused(home, monkeypatch, shell):
    monkeypatch.setenv("SHELL", shell)
    with pytest.raises(InputError, match="want one of bash, zsh, fish"):
        install("")
    assert not list(home.iterdir())


def test_a_start_up_file_that_cannot_be_written(home):
    (home / ".bashrc").mkdir()
    with pytest.raises(SaveError, match="bashrc: could not be written: Is a directory"):
        install("bash")
    (home / ".local").rename(home / "away")
    (home / ".local").touch()
    with pytest.raises(SaveError, match=r"completion\.bash: could not be written"):
        install("bash")


@pytest.fixture
def typed(home):
    """typed(shell, line, wanted) -> what an interactive shell shows of the line and Tab."""
    started = []

    def type_in(shell, line, wanted):
        install(shell)
        with (home / f".{shell}rc").open("a") as file:
            file.write(f"PS1='{PROMPT}'\n")
        ours, theirs = pty.openpty()
        env = {"HOME": str(home), "PATH": os.environ["PATH"], "TERM": "dumb"}
        started.append((subprocess.Popen([shell, "-i"], stdin=theirs, stdout=theirs, stderr=theirs,
                                         env=env, cwd=ROOT, start_new_session=True), ours))
        os.close(theirs)
        shown, deadline, is_typed = "", time.monotonic() + WAIT_S, False
        while wanted not in shown and time.monotonic() < deadline:
            if not is_typed and PROMPT in shown:
                os.write(ours, f"{line}\t".encode())
                is_typed = True
            if select.select([ours], [], [], 1)[0]:
                shown += os.read(ours, 4096).decode(errors="replace")
        return shown

    yield type_in
    for process, end in started:
        process.kill()
        process.wait()
        os.close(end)


@pytest.mark.parametrize("shell", ["bash", "zsh"])
@pytest.mark.parametrize("line, wanted", LINES)
def test_a_real_shell_completes(typed, shell, line, wanted):
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    assert wanted in typed(shell, line, wanted)


@pytest.mark.parametrize("line, wanted", LINES)
def test_fish_completes(home, line, wanted):
    if shutil.which("fish") is None:
        pytest.skip("fish is not installed")
    install("fish")
    done = subprocess.run(["fish", "-c", f"complete -C '{line}'"], text=True, capture_output=True,
                          cwd=ROOT, check=True)
    assert wanted in [row.split("\t")[0] for row in done.stdout.splitlines()]


def test_what_completed_python_before_goes_on(home):
    install("bash")
    code = home / ".local/share/trainers/completion.bash"
    theirs = "theirs() { COMPREPLY=(theirs); }; complete -F theirs python"
    call = "COMP_WORDS=(python -m v); COMP_CWORD=2; _trainers; echo ${COMPREPLY[@]}"
    script = f"{theirs}; source {code}; source {code}; {call}"
    done = subprocess.run(["bash", "-c", script], text=True, capture_output=True, check=True)
    assert (done.stdout, done.stderr) == ("theirs\n", "")


def test_another_projects_script_is_not_started(home, tmp_path):
    """It knows nothing of completion, and would begin to train."""
    (tmp_path / "train_mine.py").write_text("open('started', 'w')")
    install("bash")
    code = home / ".local/share/trainers/completion.bash"
    call = "COMP_WORDS=(python train_mine.py --x); COMP_CWORD=2; _trainers; echo ${#COMPREPLY[@]}"
    done = subprocess.run(["bash", "-c", f"source {code}; {call}"], text=True, cwd=tmp_path,
                          capture_output=True, check=True)
    assert (done.stdout, done.stderr) == ("0\n", "")
    assert not (tmp_path / "started").exists()
