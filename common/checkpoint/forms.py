"""How a checkpoint lies on the disk: one file, weights and training state, or several networks."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.checkpoint.files import (
    load_checkpoint,
    load_group,
    load_pair,
    save_checkpoint,
    save_group,
    save_pair,
    state_path,
    verify,
)
from runtime.errors import InputError

NETS = ("encoder", "decoder")

Content = Mapping[str, Any]
Read = tuple[dict, dict | None]  # weights, training state beside them


@dataclass(frozen=True)
class SingleFile:
    """All in one file."""

    load: Callable[[Path], dict] = load_checkpoint

    def weights(self, path: Path) -> list[Path]:
        """The files of weights of the checkpoint that `path` names; by the first it is found."""
        return [path]

    def written(self, path: Path) -> list[Path]:
        """All files of one save."""
        return [path]

    def save(self, path: Path, weights: Content, state: Content | None) -> None:
        """Whole or not at all. Raises SaveError."""
        save_checkpoint(path, weights)

    def read(self, path: Path, warn: Callable[[str], object]) -> Read:
        """Raises InputError that names every damaged or missing file."""
        return self.load(path), None


class Pair(SingleFile):
    """Weights and, in `<stem>.state.pth` beside them, the training state."""

    def written(self, path: Path) -> list[Path]:
        return [path, state_path(path)]

    def save(self, path: Path, weights: Content, state: Content | None) -> None:
        save_pair(path, weights, state or {})

    def read(self, path: Path, warn: Callable[[str], object]) -> Read:
        return load_pair(path)


class Nets(SingleFile):
    """Encoder and decoder apart, one state beside the encoder, an epoch's history beside both."""

    def weights(self, path: Path) -> list[Path]:
        return [net_path(path, net) for net in NETS]

    def written(self, path: Path) -> list[Path]:
        return [*self.weights(path), state_path(path)]

    def save(
        self, path: Path, weights: Content, state: Content | None, history: Content | None = None
    ) -> None:
        """history: goes along with an epoch's files."""
        files = dict(zip(self.weights(path), (weights[net] for net in NETS), strict=True))
        others = {}
        if history is not None and path.name.startswith("encoder_epoch_"):
            others[net_path(path, "history")] = history
        save_group(files, state_path(path), state or {}, others)

    def read(self, path: Path, warn: Callable[[str], object]) -> Read:
        """A history that is damaged is a warning: the state has it, too."""
        paths, history = self.weights(path), net_path(path, "history")
        faults: list[str] = []
        if history.exists():
            try:
                verify(history)
            except InputError as error:
                faults = error.faults
        try:
            weights, state = load_group(paths, state_path(paths[0]))
        except InputError as error:
            raise InputError([*error.faults, *faults]) from error
        for fault in faults:
            warn(fault)
        return dict(zip(NETS, weights, strict=True)), state


def net_path(path: str | Path, net: str) -> Path:
    """The file of `net` ("encoder", "decoder", "history", or "*" in messages) of the checkpoint
    that `path` names: one of its files, or what they have in common, for example "epoch_3.pth"."""
    path = Path(path)
    name = re.sub(r"^(encoder|decoder|history)_", "", path.name.replace(".state.pth", ".pth"))
    return path.with_name(f"{net}_{name}")
