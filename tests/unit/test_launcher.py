"""How dist_train.sh reads its command line, and how it finds the cause of a failure."""

import os
import socket
from pathlib import Path

import pytest

from runtime.errors import InputError
from runtime.launch import launcher, peers
from runtime.launch.launcher import is_free, outcome, pick_port, read_command

ROOT = Path(__file__).resolve().parents[2]


def note(status, *lines, secondary=False, time=0.0):
    return {"status": status, "lines": list(lines), "secondary": secondary, "time": time}


def test_a_script_may_come_first():
    command = read_command(["train_yolact.py", "4", "--lr", "1"], {})
    assert (command.script.resolve(), command.processes, command.arguments) == (
        ROOT / "train_yolact.py", 4, ["--lr", "1"])
    assert (command.nodes, command.node_rank, command.address, command.port) == (
        1, 0, "127.0.0.1", None)


def test_a_config_is_for_queryinst(monkeypatch):
    monkeypatch.setattr(launcher, "DEFAULT_SCRIPT", "train_yolact.py")  # any that is there
    env = {"NNODES": "2", "NODE_RANK": "1", "PORT": "29501", "MASTER_ADDR": "gpu07"}
    command = read_command(["some/config.py", "8", "--resume"], env)
    assert (command.processes, command.arguments) == (8, ["some/config.py", "--resume"])
    assert (command.nodes, command.node_rank, command.address, command.port) == (
        2, 1, "gpu07", 29501)


def test_a_config_may_be_called_like_a_script(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train_mine.py").write_text("model = dict()")
    (tmp_path / "train_yolact.py").write_text("model = dict()")
    for name in ("train_mine.py", "./train_yolact.py", str(tmp_path / "train_yolact.py")):
        command = read_command([name, "2"], {})
        assert (command.script, command.arguments) == (ROOT / "train_queryinst.py", [name])
    (tmp_path / "train_own.py").write_text("import torch\nmodel = dict()")
    command = read_command(["train_own.py", "2", "--epochs", "3"], {})
    assert (command.script, command.arguments) == (Path("train_own.py"), ["--epochs", "3"])
    for name in ("train_seg.py", str(ROOT / "train_yolact.py")):
        command = read_command([name, "2"], {})
        assert (command.script, command.arguments) == (ROOT / Path(name).name, [])


@pytest.mark.parametrize("words, env, part", [
    (["train_yolact.py"], {}, "GPUS"),
    (["train_yolact.py", "--lr"], {}, "GPUS: --lr is no number"),
    (["train_yolact.py", "0"], {}, "GPUS: 0"),
    (["train_nothing.py", "2"], {}, "train_nothing.py: no such script"),
    (["train_yolact.py", "2"], {"PORT": "many"}, "PORT=many"),
    (["train_yolact.py", "2"], {"NNODES": "2", "NODE_RANK": "2"}, "it is 0 to 1"),
])
def test_bad_input(words, env, part):
    with pytest.raises(InputError, match="^(?s:.*)" + part):
        read_command(words, env)


def test_a_taken_port(monkeypatch, capsys):
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen(1)
        port = other.getsockname()[1]
        assert not is_free(port)
        monkeypatch.setattr(launcher, "DEFAULT_PORT", port)
        found = pick_port(read_command(["train_yolact.py", "2"], {}))
        assert found != port
        assert str(found) in capsys.readouterr().out
        with pytest.raises(InputError, match=f"port {port} is taken"):
            pick_port(read_command(["train_yolact.py", "2"], {"PORT": str(port)}))
        # several machines must agree on one
        with pytest.raises(InputError, match=f"port {port} is taken"):
            pick_port(read_command(["train_yolact.py", "2"], {"NNODES": "2"}))
        other_machine = {"NNODES": "2", "NODE_RANK": "1"}
        assert pick_port(read_command(["train_yolact.py", "2"], other_machine)) == port
    assert is_free(port)


@pytest.mark.parametrize("notes, exit_codes, signalled, status, lines", [
    ({}, {}, None, 0, []),
    # rank 1 was killed, rank 0 noticed or was ended by torchrun
    ({0: note(1, "t: rank 0: x", secondary=True)}, {0: 1, 1: -9}, None, 1, ["rank 1: killed by"]),
    ({}, {0: -15, 1: -9}, None, 1, ["rank 1: killed by SIGKILL"]),
    ({}, {0: -15, 1: -11}, None, 1, ["rank 1: ended by SIGSEGV"]),
    # rank 1 has the fault, rank 0 hung and was killed by torchrun
    ({1: note(2, "t: rank 1: bad")}, {0: -9, 1: 2}, None, 2, ["t: rank 1: bad"]),
    # both have one: the first counts
    ({0: note(1, "late", time=2.0), 1: note(3, "early", time=1.0)}, {0: 1, 1: 3}, None, 3,
     ["early"]),
    # stopped, by a signal to the launcher or to a rank
    ({0: note(75), 1: note(75)}, {}, 15, 75, []),
    ({0: note(130), 1: note(130)}, {0: 130, 1: 130}, None, 130, []),
    ({}, {}, 15, 143, []),
    # what torchrun saw of a rank that left no word
    ({}, {0: 7}, None, 1, ["rank 0: ended with status 7"]),
    ({0: note(1, "lost another", secondary=True)}, {}, None, 1, ["lost another"]),
])
def test_the_cause_is_found(notes, exit_codes, signalled, status, lines):
    got, said = outcome("t", notes, exit_codes, signalled)
    assert got == status
    assert len(said) == len(lines)
    for text, part in zip(said, lines, strict=True):
        assert part in text


def test_notes_come_back(tmp_path, monkeypatch):
    monkeypatch.delenv(peers.NOTES_FOLDER, raising=False)
    assert not peers.leave_note(2, ["x"])
    monkeypatch.setenv(peers.NOTES_FOLDER, str(tmp_path))
    monkeypatch.setenv("RANK", "3")
    assert peers.leave_note(2, ["x"], secondary=True)
    (tmp_path / f".3.{os.getpid()}").mkdir()  # as a full disk: it is said here instead
    assert not peers.leave_note(2, ["x"])
    (tmp_path / "attempt_0").mkdir()  # torchrun's own
    (found,) = peers.read_notes(tmp_path).items()
    assert found[0] == 3
    assert (found[1]["status"], found[1]["lines"], found[1]["secondary"]) == (2, ["x"], True)
