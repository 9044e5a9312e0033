"""TensorBoard events of a run, for `--tensorboard`: the numbers of metrics.jsonl once more."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runtime.errors import InputError


class EventWriter:
    """Writes the train and eval events that `Run.record` gets to `folder`/tensorboard.

    Raises InputError when the tensorboard package is not installed.
    """

    def __init__(self, folder: Path):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise InputError("--tensorboard: the package is not installed; "
                             "pip install tensorboard") from error
        self._writer = SummaryWriter(folder / "tensorboard")

    def write(self, event: Mapping[str, Any]) -> None:
        """Losses, rates and scores of one event as scalars over the iteration."""
        if event["event"] == "train":
            scalars = {f"loss/{name}": value for name, value in event["losses"].items()}
            for name in ("loss", "lr", "images_per_s", "data_s", "memory_mb", "grad_norm"):
                scalars[f"train/{name}"] = event[name]
        elif event["event"] == "eval":
            scalars = event["metrics"]
        else:
            return
        for name, value in scalars.items():
            if value is not None and math.isfinite(value):
                self._writer.add_scalar(name, value, event["iteration"])

    def close(self) -> None:
        self._writer.close()
