import json
from types import SimpleNamespace

import pytest

from runtime.errors import InputError, SaveError
from runtime.run.yolact_log import SessionLog, open_session_log


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_sessions_count_up_and_lines_have_the_originals_form(tmp_path):
    path = tmp_path / "net.log"
    first = SessionLog(path, {"batch_size": 8})
    first.train({"B": 1.2345678, "C": 2.0, "M": 3.0, "S": 4.0}, 0, 7, 1e-4, 0.5)
    path.write_text(path.read_text() + '{"type": "train", "sess')  # a crash tore the last line
    path.write_text(path.read_text() + "\n")
    second = SessionLog(path, {"batch_size": 4})
    second.val({"box/all": 12.3456, "mask/50": 50.0}, 2, 100, 9.0)

    whole = [line for line in path.read_text().splitlines() if line.endswith("}")]
    session, train, again, val = (json.loads(line) for line in whole)
    assert (session["type"], session["session"], session["data"]["batch_size"]) == ("session", 0, 8)
    assert list(train["data"]["loss"]) == ["B", "M", "C", "S", "T"]
    assert train["data"]["loss"]["B"] == 1.23457
    assert train["data"]["loss"]["T"] == 10.23457
    assert (train["data"]["iter"], train["data"]["lr"]) == (7, 1e-4)
    assert again["session"] == 1
    assert val["data"]["box"] == {"all": 12.35}
    assert val["data"]["mask"] == {"50": 50.0}


def test_gpu_log_without_nvidia_smi_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="--log_gpu: nvidia-smi was not found"):
        SessionLog(tmp_path / "net.log", {}, log_gpu=True)


def test_gpu_readings_come_from_nvidia_smi(tmp_path, monkeypatch):
    tool = tmp_path / "nvidia-smi"
    tool.write_text('#!/bin/sh\ncase "$1" in *uuid*) echo "0, Card, GPU-1, 300.00, 81559";;'
                    ' *) echo "[N/A], 40, 70.5, 100, 99";; esac\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    log = SessionLog(tmp_path / "net.log", {}, log_gpu=True)
    log.train({"B": 1.0}, 0, 10, 1e-3, 0.1)
    log.train({"B": 1.0}, 0, 11, 1e-3, 0.1)
    session, tenth, eleventh = lines(tmp_path / "net.log")
    assert session["data"]["gpus"] == [{"idx": 0, "name": "Card", "uuid": "GPU-1",
                                        "pwr_cap": 300.0, "mem_total": 81559}]
    assert tenth["data"]["gpus"][0]["pwr_used"] == 70.5
    assert "gpus" not in eleventh["data"]


def test_a_reading_that_fails_is_told_once_and_ends_nothing(tmp_path, monkeypatch):
    tool, said = tmp_path / "nvidia-smi", []
    tool.write_text('#!/bin/sh\ncase "$1" in *uuid*) echo "0, Card, GPU-1, 300.00, 81559";;'
                    ' *) exit 9;; esac\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    log = SessionLog(tmp_path / "net.log", {}, log_gpu=True, warn=said.append)
    for iteration in (0, 10, 20):
        log.train({"B": 1.0}, 0, iteration, 1e-3, 0.1)
    session, *rest = lines(tmp_path / "net.log")
    assert "gpus" in session["data"]
    assert [(line["data"]["iter"], "gpus" in line["data"]) for line in rest] == [
        (0, False), (10, False), (20, False)]
    assert len(said) == 1
    assert said[0].startswith("--log_gpu: nvidia-smi failed, the log goes on without it (")


def test_a_log_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "gone").symlink_to(tmp_path / "no" / "net.log")
    with pytest.raises(SaveError, match="gone: could not be written: No such file"):
        SessionLog(tmp_path / "gone")


def test_without_a_path_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = SimpleNamespace(no_log=True, log_gpu=False, lr=0.1, layout=object())
    for log in (SessionLog(), open_session_log(tmp_path / "net.log", flags, print)):
        log.train({"B": 1.0}, 0, 0, 0.1, 0.5)
        log.val({"box/all": 1.0}, 0, 1, 2.0)
    assert list(tmp_path.iterdir()) == []
    flags.no_log = False
    open_session_log(tmp_path / "net.log", flags, print)
    assert json.loads((tmp_path / "net.log").read_text())["data"] == {
        "no_log": False, "log_gpu": False, "lr": 0.1}
