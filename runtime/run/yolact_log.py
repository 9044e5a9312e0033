"""YOLACT's own logs: the console line, and one JSON object a line for its plot tools."""

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType, SimpleNamespace

from runtime.errors import InputError
from runtime.run.files import LineFile

# nvidia-smi's names -> the log's [yolact.md: Log]. MiB, W, the rest in percent.
_SESSION_FIELDS = {"index": "idx", "name": "name", "uuid": "uuid",
                   "power.limit": "pwr_cap", "memory.total": "mem_total"}
_RUNNING_FIELDS = {"fan.speed": "fan_spd", "temperature.gpu": "temp", "power.draw": "pwr_used",
                   "memory.used": "mem_used", "utilization.gpu": "util"}
LEGEND = ("In each line: [epoch] iteration, mean losses B box, C class, M mask, S semantic "
          "segmentation, I mask IoU (those that are trained), T their sum; ETA: the time left; "
          "timer: seconds of the last update.")
GPU_LOG_INTERVAL = 10  # iterations between two readings; nvidia-smi takes tens of milliseconds


def gpu_readings(fields: Mapping[str, str]) -> list[dict[str, float | str]]:
    """One {log name: value} per GPU, asked from nvidia-smi; `fields` maps its names to ours."""
    answer = subprocess.run(
        ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"],
        capture_output=True, text=True, check=True, timeout=30)
    return [dict(zip(fields.values(), map(_number, row.split(", ")), strict=True))
            for row in answer.stdout.strip().splitlines()]


def _number(text: str) -> float | str:
    try:
        return float(text) if "." in text else int(text)
    except ValueError:
        return text  # names, and "[N/A]" of cards without a fan


def console_line(
    epoch: int, iteration: int, means: Mapping[str, float], eta: str, elapsed_s: float
) -> str:
    """The original's line of an update: parsers of its output rely on this form.

    means: {term: mean of its last values}; eta: the time left as text
    """
    terms = "".join(f" {name}: {means[name]:.3f} |" for name in "BCMSI" if name in means)
    return (f"[{epoch:3d}] {iteration:7d} ||{terms} T: {sum(means.values()):.3f} || "
            f"ETA: {eta} || timer: {elapsed_s:.3f}")


class SessionLog:
    """Appends session, train and val lines to `path`; without a path it writes nothing.

    arguments: what the session line records, a JSON-able mapping.
    log_gpu:   adds a `gpus` list to the session line and to every tenth train line, until
               nvidia-smi fails: a training does not end for that
    warn:      gets a line then
    Raises InputError when log_gpu is asked for and nvidia-smi is not on the PATH, SaveError when a
    line cannot be written.
    """

    def __init__(
        self,
        path: Path | None = None,
        arguments: Mapping[str, object] = MappingProxyType({}),
        log_gpu: bool = False,
        warn: Callable[[str], object] = print,
    ):
        if log_gpu and shutil.which("nvidia-smi") is None:
            raise InputError("--log_gpu: nvidia-smi was not found; leave the flag out here")
        self.path, self.log_gpu, self._warn = path, log_gpu, warn
        if path is None:
            return
        self.session = _last_session(path) + 1
        self._file = LineFile(path)
        self._append("session", {**arguments, **self._gpus(_SESSION_FIELDS)})

    def train(
        self, losses: Mapping[str, float], epoch: int, iteration: int, lr: float, elapsed_s: float
    ) -> None:
        """One update: `losses` by their terms, `iteration` counted from 0, `lr` in force."""
        if self.path is None:
            return
        total = sum(losses.values())
        order = [name for name in ("B", "M", "C", "I", "S") if name in losses]
        loss = {name: round(losses[name], 5) for name in order} | {"T": round(total, 5)}
        gpus = self._gpus(_RUNNING_FIELDS) if iteration % GPU_LOG_INTERVAL == 0 else {}
        self._append("train", {"loss": loss, "epoch": epoch, "iter": iteration,
                               "lr": round(lr, 10), "elapsed": elapsed_s, **gpus})

    def val(
        self, metrics: Mapping[str, float], epoch: int, iteration: int, elapsed_s: float
    ) -> None:
        """One validation: `metrics` in percent under `box/50`-like names."""
        if self.path is None:
            return
        tables = {kind: {key.split("/")[1]: round(value, 2) for key, value in metrics.items()
                         if key.startswith(kind + "/")} for kind in ("box", "mask")}
        self._append("val", {"elapsed": elapsed_s, "epoch": epoch, "iter": iteration, **tables})

    def _gpus(self, fields: Mapping[str, str]) -> dict[str, object]:
        if not self.log_gpu:
            return {}
        try:
            return {"gpus": gpu_readings(fields)}
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            self.log_gpu = False
            self._warn(f"--log_gpu: nvidia-smi failed, the log goes on without it ({error})")
            return {}

    def _append(self, kind: str, data: Mapping[str, object]) -> None:
        line = {"type": kind, "session": self.session, "data": data, "time": time.time()}
        self._file.write(json.dumps(line))


def open_session_log(
    path: Path, flags: SimpleNamespace, warn: Callable[[str], object]
) -> SessionLog:
    """The log at `path`, begun with the command line's flags; `no_log` and `log_gpu` count here."""
    if flags.no_log:
        return SessionLog()
    plain = {name: value for name, value in vars(flags).items()
             if isinstance(value, str | int | float | list | None)}
    return SessionLog(path, plain, flags.log_gpu, warn)


def _last_session(path: Path) -> int:
    """The session number of the last whole line of `path`; -1 for a new file."""
    if not path.exists():
        return -1
    for line in reversed(path.read_text(errors="replace").splitlines()):
        try:
            return int(json.loads(line)["session"])
        except (ValueError, KeyError, TypeError):
            continue  # a line torn by a crash
    return -1
