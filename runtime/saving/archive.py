"""One file of a checkpoint: written, signed with a checksum and checked."""

from collections.abc import Mapping
from typing import Any, BinaryIO, cast

import torch

from runtime.saving.forks import let_forks_pass
from runtime.vetting.pickles import BadFile
from runtime.vetting.scan import add_checksum, check_file

_PICKLE_BYTES = 1 << 20  # what names, shapes and alignment take beside the tensors


def write_archive(file: BinaryIO, state: Mapping[str, Any]) -> str:
    """Write `state` as torch does, with a checksum, and check it; returns the checksum in hex.

    file: empty, open "w+b". Raises OSError of the file, ValueError when `state` holds something
    that would be refused in loading.
    """
    guard = _WriteGuard(file)
    try:
        torch.save(state, cast(BinaryIO, guard))  # all that torch asks of a file is there
    except RuntimeError:
        if guard.error is not None:  # torch's writer hides the reason
            raise guard.error from None
        raise
    if guard.error is not None:
        raise guard.error
    checksum = add_checksum(file)
    file.flush()
    try:
        check_file(file, is_fresh=True)
    except BadFile as error:
        raise ValueError(f"this state could not be loaded again: {error}") from error
    return checksum


class _WriteGuard:
    """Remembers the error of a write that torch's C++ writer reports as something else."""

    def __init__(self, file: BinaryIO):
        self.file = file
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        let_forks_pass(self.file.flush)
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self.file.flush()


def size_of(state: Any) -> int:
    """How many bytes `state` will take on the disk, each storage counted once."""
    storages: dict[int, int] = {}
    waiting = [state]
    while waiting:
        value = waiting.pop()
        if isinstance(value, torch.Tensor):
            storage = value.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
        elif isinstance(value, Mapping):
            waiting += value.values()
        elif isinstance(value, (list, tuple)):
            waiting += value
    return sum(storages.values()) + 128 * len(storages) + _PICKLE_BYTES
