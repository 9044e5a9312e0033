"""Long trainings keep their size, and ask nothing of the network."""

import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.fault, pytest.mark.slow]
GROWTH_MB = 20
NAMES = ("train", "segment", "classify", "query_train")


class Watcher:
    """Samples of a process: (seconds, memory in MB, open files, threads)."""

    def __init__(self, folder):
        self.samples = []
        self._file = folder / "pid"
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def preexec(self):
        self._file.write_text(str(os.getpid()))

    def _watch(self):
        while not self._file.exists() or not self._file.read_text():
            time.sleep(0.05)
        process = Path("/proc") / self._file.read_text()
        try:
            while True:
                status = dict(line.split(":", 1) for line in
                              (process / "status").read_text().splitlines())
                if "VmRSS" not in status:
                    return
                self.samples.append((time.monotonic(), int(status["VmRSS"].split()[0]) / 1024,
                                     len(os.listdir(process / "fd")), int(status["Threads"])))
                time.sleep(0.2)
        except OSError:  # it has ended
            return


def soak(fixture, line, tmp_path):
    """One run under watch: its samples of the second and of the last fifth."""
    shared = set(os.listdir("/dev/shm"))
    watcher = Watcher(tmp_path)
    run = fixture(line, preexec=watcher.preexec, timeout=3000)
    assert run.status == 0, run.err_text
    left = [name for name in set(os.listdir("/dev/shm")) - shared if name.startswith("torch_")]
    assert not left
    fifth = len(watcher.samples) // 5
    assert fifth >= 5, "too short to tell anything"
    return run, watcher.samples[fifth : 2 * fifth], watcher.samples[-fifth:-1]


def keeps_its_size(early, late):
    (_, early_mb, early_files, early_threads), (_, late_mb, late_files, late_threads) = (
        [statistics.median(column) for column in zip(*part, strict=True)]
        for part in (early, late))
    assert late_mb - early_mb < GROWTH_MB
    # a batch on its way from a worker holds a file for a moment; a leak would be one an update
    assert abs(late_files - early_files) <= 1
    assert late_threads == early_threads


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_five_thousand_iterations(segment, tmp_path):
    """The cheapest script and config: nine pixels would do."""
    run, early, late = soak(
        lambda line, **how: segment(line, "DATASET.imgSizes", "(16,)", "TRAIN.epoch_iters", "1000",
                                    "TRAIN.num_epoch", "5", **how),
        "--max-iters 5000 --log-every 20", tmp_path)
    assert run.train_events[-1]["iteration"] == 4980
    keeps_its_size(early, late)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("name, line", [
    ("train", "--max-iters 400 --save_interval 40"),
    ("classify", "--max-iters 400 TRAINING.EPOCHS 80 TRAINING.EVAL_EVERY 4"),
    ("query_train", "--max-iters 300 --cfg-options train_cfg.max_epochs=100 "
                    "train_dataloader.num_workers=2 default_hooks.checkpoint.max_keep_ckpts=2")])
def test_the_other_scripts(request, tmp_path, name, line):
    _, early, late = soak(request.getfixturevalue(name), line, tmp_path)
    keeps_its_size(early, late)


BLOCKED = """
import os, socket
def refuse(what):
    def call(*arguments, **named):
        if what != "connect" or arguments[0].family != socket.AF_UNIX:
            with open(os.environ["ASKED"], "a") as file:
                file.write(f"{what} {arguments[1:]} {named}\\n")
            raise OSError("no network in this test")
        return connect(*arguments, **named)
    return call
connect = socket.socket.connect
socket.socket.connect = refuse("connect")
socket.getaddrinfo = refuse("getaddrinfo")
socket.gethostbyname = refuse("gethostbyname")
"""


@pytest.mark.parametrize("name", NAMES)
def test_no_network_where_all_files_are_there(request, tmp_path, name):
    """In a network namespace without interfaces where that is allowed; any try is noted."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(BLOCKED)
    asked = tmp_path / "asked"
    launcher = ["env", f"PYTHONPATH={tmp_path / 'site'}", f"ASKED={asked}"]
    if shutil.which("unshare") and subprocess.run(["unshare", "-n", "true"]).returncode == 0:
        launcher += ["unshare", "-n"]
    run = request.getfixturevalue(name)("--max-iters 2", launcher=[*launcher, sys.executable])
    assert run.status == 0, run.err_text
    assert [event["iteration"] for event in run.train_events] == [0, 1]
    assert not asked.exists(), asked.read_text()
