"""Services that follow a run, for `--tensorboard` and `--wandb`: the numbers of metrics.jsonl."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from runtime.errors import InputError

TENSORBOARD, WANDB = "tensorboard", "wandb"  # flags, and the packages that they need


class Tracker(Protocol):
    """What gets a run's scalars."""

    def write(self, scalars: Mapping[str, float], iteration: int) -> None:
        """Finite values by their names, after so many updates."""

    def close(self) -> None:
        """Have everything written."""


class Trackers:
    """The services of one run, which get the train and eval events of `Run.record`.

    names:    of the services, each once
    folder:   the run's, which is there; both write into it
    script:   its name; Weights & Biases has a project by that name, unless WANDB_PROJECT says one
    cfg_text: the resolved config
    say:      called with a line about a service that does less than was asked for
    Raises InputError for a package that cannot be imported.
    """

    def __init__(self, names: Sequence[str], folder: Path, script: str, cfg_text: str,
                 say: Callable[[str], object]):
        self._trackers: list[Tracker] = []
        if TENSORBOARD in names:
            self._trackers.append(_TensorBoard(folder))
        if WANDB in names:
            self._trackers.append(_WandB(folder, script, cfg_text, say))

    def write(self, event: Mapping[str, Any]) -> None:
        """Losses, rates and scores of one event; other events are no numbers over iterations."""
        scalars = {name: value for name, value in scalars_of(event).items()
                   if value is not None and math.isfinite(value)}
        for tracker in self._trackers if scalars else ():
            tracker.write(scalars, event["iteration"])

    def close(self) -> None:
        for tracker in self._trackers:
            tracker.close()


def scalars_of(event: Mapping[str, Any]) -> dict[str, float | None]:
    """{name: value} of a line of metrics.jsonl; empty for one that is no train or eval event."""
    if event["event"] == "eval":
        return dict(event["metrics"])
    if event["event"] != "train":
        return {}
    scalars = {f"loss/{name}": value for name, value in event["losses"].items()}
    for name in ("loss", "lr", "images_per_s", "data_s", "memory_mb", "grad_norm"):
        scalars[f"train/{name}"] = event[name]
    return scalars


class _TensorBoard:
    """Events in `folder`/tensorboard."""

    def __init__(self, folder: Path):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise InputError(f"--tensorboard: the package cannot be imported: {error}") from error
        self._writer = SummaryWriter(folder / "tensorboard")

    def write(self, scalars: Mapping[str, float], iteration: int) -> None:
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, iteration)

    def close(self) -> None:
        self._writer.close()


class _WandB:
    """A run of Weights & Biases, named as the folder; without a login it stays in `folder`/wandb.

    No fault of the service ends a training: it is told once, and no more is sent.
    """

    def __init__(self, folder: Path, script: str, cfg_text: str, say: Callable[[str], object]):
        try:
            import wandb
        except ImportError as error:
            raise InputError(f"--wandb: the package cannot be imported: {error}") from error
        self._say = say
        how = {"project": os.environ.get("WANDB_PROJECT", script),
               "name": os.environ.get("WANDB_NAME", folder.name), "dir": str(folder),
               "config": {"script": script, "config": cfg_text},
               # our own log has the console, and its handlers stay as they are
               "settings": {"console": "off"}}
        self._run: Any = None
        try:
            # asked without a terminal it would fail, with one it would wait for an answer
            if "WANDB_MODE" in os.environ or wandb.api.api_key:
                self._run = wandb.init(**how)
            else:
                self._run = wandb.init(mode="offline", **how)
                say(f"--wandb: nobody is logged in (`wandb login`), so the run stays in "
                    f"{folder}/wandb; `wandb sync` sends it.")
            # after a resume the iterations begin again below the last: no step of theirs may
            self._run.define_metric("iteration")
            self._run.define_metric("*", step_metric="iteration")
        except Exception as error:  # of whatever kind a service's own code raises
            self._give_up(error)

    def write(self, scalars: Mapping[str, float], iteration: int) -> None:
        if self._run is None:
            return
        try:
            self._run.log({**scalars, "iteration": iteration})
        except Exception as error:
            self._give_up(error)

    def close(self) -> None:
        if self._run is None:
            return
        try:
            self._run.finish()
        except Exception as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._run = None
        text = " ".join(f"{type(error).__name__}: {error}".split())
        self._say(f"--wandb: no more is logged there ({text}); metrics.jsonl has all numbers.")
