"""What of a file's weights went into a network: compared by name and shape, nothing silent."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from runtime.errors import InputError

NAMES_SHOWN = 6  # of each kind, in a report


@dataclass(frozen=True)
class LoadReport:
    """What of a file went into a network. Iterating gives the lines of `lines`."""

    loaded: int
    missing: tuple[str, ...]  # the network has them, the file has not
    unexpected: tuple[str, ...]  # the other way round
    mismatched: tuple[str, ...]  # in both, with different shapes

    def __iter__(self) -> Iterator[str]:
        return iter(self.lines())

    def lines(self) -> list[str]:
        """The report for a log, one line a kind, long lists cut."""
        kinds = {
            "not in the file, left as they were": self.missing,
            "of another shape in the file, left as they were": self.mismatched,
            "in the file only, not used": self.unexpected,
        }
        lines = [f"{self.loaded} entries loaded"]
        for kind, names in kinds.items():
            if names:
                cut = ", ..." if len(names) > NAMES_SHOWN else ""
                lines.append(f"{len(names)} {kind}: {', '.join(names[:NAMES_SHOWN])}{cut}")
        return lines


def compare_weights(
    module: nn.Module, state: Mapping[str, Any], source: str
) -> tuple[dict[str, torch.Tensor], LoadReport]:
    """The entries of `state` that fit `module`, and the report.

    Raises InputError, naming `source`, when it is no dict of tensors or nothing fits.
    """
    if not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise InputError(f"{source}: not a dict of tensors, so not weights")
    wanted = module.state_dict()
    mismatched = [k for k, v in state.items() if k in wanted and wanted[k].shape != v.shape]
    fitting = {k: v for k, v in state.items() if k in wanted and k not in mismatched}
    if not fitting:
        raise InputError(
            f"{source}: none of its {len(state)} entries is one of a {type(module).__name__} "
            f"network such as {next(iter(wanted))}"
        )
    missing = tuple(k for k in wanted if k not in state)
    unexpected = tuple(k for k in state if k not in wanted)
    return fitting, LoadReport(len(fitting), missing, unexpected, tuple(mismatched))
