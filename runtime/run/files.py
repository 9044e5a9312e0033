"""Files of a run folder other than checkpoints: metrics.jsonl, log.txt, env.json."""

import json
import math
import os
import platform
import sys
import time
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, BinaryIO

import torch

from runtime.errors import SaveError
from runtime.files import write_atomically
from runtime.launch.ranks import Launch

# distributions whose versions can change numbers or explain a failure
_DISTRIBUTIONS = (
    "torch",
    "torchvision",
    "numpy",
    "scipy",
    "pillow",
    "opencv-python-headless",
    "opencv-python",
    "pycocotools",
    "faster-coco-eval",
    "PyYAML",
)
# events that count updates from 0; the others count updates done
_UPDATE_EVENTS = ("train", "skip")


class LineFile:
    """A text file that only grows, line by line; each is on its way to the disk at once.

    Raises SaveError naming the file when it cannot be opened or written.
    """

    def __init__(self, path: Path):
        self._path = path
        try:
            # unbuffered: a line that failed is not tried again when the file is closed
            self._file = open(path, "ab", buffering=0)  # noqa: SIM115 - open as long as the run
        except OSError as error:
            raise self._fault(error.strerror) from error

    def write(self, text: str) -> None:
        line = (text + "\n").encode("utf-8", "backslashreplace")
        try:
            written = self._file.write(line)
        except OSError as error:
            raise self._fault(error.strerror) from error
        if written < len(line):
            raise self._fault("No space left on device")

    def close(self) -> None:
        self._file.close()

    def _fault(self, reason: str | None) -> SaveError:
        return SaveError(f"{self._path}: could not be written: {reason}")


def json_line(event: Mapping[str, object]) -> str:
    """`event` as one line of JSON, floats in full precision, non-finite ones as null.

    Values may be 0-d tensors, numpy scalars and paths, also inside mappings and sequences.
    """
    return json.dumps(_plain(event), allow_nan=False)


def cut_metrics(path: Path, iteration: float) -> None:
    """Leave in metrics.jsonl what lies before the state after `iteration` updates, atomically.

    Train and skip events carry the 0-based index of their update: kept below `iteration`. Others
    carry a number of updates done: kept up to `iteration`. Torn lines go. No file is fine.
    """
    if not path.exists():
        return

    def copy_kept(target: BinaryIO) -> None:
        with open(path, "rb") as source:
            target.writelines(line for line in source if _is_kept(line, iteration))

    write_atomically(path, copy_kept)


def set_aside(path: Path) -> None:
    """Rename the metrics of an earlier run, so that a fresh one does not mix with them."""
    if not path.exists() or path.stat().st_size == 0:
        return
    numbered = (path.with_stem(f"{path.stem}_{i}") for i in range(1, sys.maxsize))
    path.rename(next(free for free in numbered if not free.exists()))


def describe_environment(
    script: str, launch: Launch, devices: Iterable[str]
) -> dict[str, object]:
    """What a stranger needs to run the same thing again; `devices` are named in rank order."""
    return {
        "script": script,
        "command": sys.argv,
        "cwd": os.getcwd(),
        "time": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "versions": _versions(),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "launcher": launch.launcher,
        "starter": _starter(launch),
        "world_size": launch.world_size,
        "devices": list(devices),
        "threads": torch.get_num_threads(),
    }


def device_name(device: torch.device) -> str:
    """The model name of a GPU, "cpu (ARCH)" for the CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu ({platform.machine()})"


def _starter(launch: Launch) -> list[str]:
    """The words before a script's name that start as many processes."""
    if launch.launcher == "slurm":
        return ["srun", "python"]
    if launch.launcher == "none" or launch.meeting:  # the script starts its ranks itself
        return ["python"]
    local, world = launch.local_world_size, launch.world_size
    places = ["--standalone"] if local == world else ["--nnodes", str(world // max(1, local))]
    return ["torchrun", *places, "--nproc-per-node", str(local)]


def _is_kept(line: bytes, iteration: float) -> bool:
    try:
        event = json.loads(line)
        index = event.get("iteration", -math.inf)
        is_update = event["event"] in _UPDATE_EVENTS
    except (ValueError, KeyError, AttributeError):
        return False
    return line.endswith(b"\n") and (index < iteration if is_update else index <= iteration)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, Path):
        return str(value)
    number = value if isinstance(value, float) else value.item()
    return None if isinstance(number, float) and not math.isfinite(number) else number


def _versions() -> dict[str, str]:
    found = {}
    for name in _DISTRIBUTIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    # a source build has no distribution's metadata
    return {"torch": torch.__version__} | found
