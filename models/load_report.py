"""What of a file's weights goes into a network: compared by name and shape, nothing silent.

Two ways: `compare_weights` takes what fits and reports the rest, `misfits` names what is wrong with
a file that must fit.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from runtime.errors import InputError

NAMES_SHOWN = 6  # of each kind, in a report
MOST_FAULTS = 4  # and names in each, of a file that must fit
COUNTERS = ("num_batches_tracked",)  # batch norms' own, which files of old versions lack


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

    def require_all(
        self, source: str, config: str, classes: str, given: Any, wanted: int, whose: str = ""
    ) -> None:
        """Raise InputError unless everything went in: `source` is not for the config.

        classes: what is counted, "classes"; given, wanted: how many the file, None where it does
                 not say, and the config have, the commonest reason
        whose:   what the file is, and which config would fit, where that is another one
        """
        if not (self.missing or self.unexpected or self.mismatched):
            return
        reason = f"does not fit config {config}: {'; '.join(self.lines()[1:])}"
        if whose:
            raise InputError(f"{source}: {whose}, not of config {config}")
        if given is not None and given != wanted:
            reason = f"made for {given} {classes}, config {config} has {wanted}"
        raise InputError(f"{source}: {reason}; use the config that it was trained with, or load it "
                         "partially (--pretrained)")


def bare_state_dict(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """The weights of a checkpoint or of a bare state dict, without the wrappers' `module.`"""
    state = checkpoint.get("state_dict", checkpoint)
    if not isinstance(state, Mapping):
        state = {}
    return {str(key).removeprefix("module."): value for key, value in state.items()}


def compare_weights(
    module: nn.Module, state: Mapping[str, Any], source: str, may_lack: Sequence[str] = ()
) -> tuple[dict[str, torch.Tensor], LoadReport]:
    """The entries of `state` that fit `module`, and the report.

    may_lack: last parts of the names that do not count as missing
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
    missing = tuple(k for k in wanted if k not in state and _last(k) not in may_lack)
    unexpected = tuple(k for k in state if k not in wanted)
    return fitting, LoadReport(len(fitting), missing, unexpected, tuple(mismatched))


def misfits(
    own: Mapping[str, torch.Tensor], given: Mapping[str, Any], source: str,
    may_lack: Sequence[str] = COUNTERS, missing_hint: str = "",
    shape_hint: Callable[[str, Any, torch.Tensor], str] = lambda key, value, wanted: "",
) -> list[str]:
    """What keeps `given` from being all of a network's weights `own`, at most MOST_FAULTS lines.

    may_lack:     last parts of the names that may be missing
    missing_hint: ends the line of missing names
    shape_hint:   (name, entry, own entry) -> the end of the line of an entry of another shape
    """
    missing = [k for k in own if k not in given and _last(k) not in may_lack]
    unexpected = [k for k in given if k not in own]
    faults = [
        f"{source}: {what} {_few(keys)}; the weights belong to another model{hint}"
        for what, keys, hint in (
            ("missing", missing, missing_hint), ("unexpected", unexpected, ""))
        if keys
    ]
    for key, value in given.items():
        if key in own and not (torch.is_tensor(value) and value.shape == own[key].shape):
            shape = tuple(value.shape) if torch.is_tensor(value) else type(value).__name__
            faults.append(f"{source}: {key} is {shape}, the model wants {tuple(own[key].shape)}"
                          + shape_hint(key, value, own[key]))
    return faults[:MOST_FAULTS]


def _last(key):
    return key.rpartition(".")[2]


def _few(keys):
    more = len(keys) - MOST_FAULTS
    return ", ".join(map(str, keys[:MOST_FAULTS])) + (f" and {more} more" if more > 0 else "")
