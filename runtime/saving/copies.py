"""A copy of a training state in main memory, made between two updates."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

_ALIGNMENT = 64  # bytes; what torch's own CPU allocator gives


class Copies:
    """Makes copies of states, one at a time, in memory that the next one uses again.

    New memory is several times slower: the system zeroes it page by page, and a GPU's driver has to
    pin it. So as much as the largest state took stays taken.
    """

    def __init__(self) -> None:
        self._memory = torch.empty(0, dtype=torch.uint8)

    def of(self, state: Any) -> Any:
        """`state` as it is now; the copy before is overwritten.

        state: nested dicts, lists and tuples of tensors and values that do not change
        `torch.save` writes the same bytes of both, but that tensors of a GPU are the CPU's: views
        of one storage stay views of one, an object that occurs twice stays one.
        """
        tensors = _tensors_in(state)
        storages = {tensor.untyped_storage()._cdata: tensor.untyped_storage() for tensor in tensors}
        copies = self._copied(storages)
        return _rebuilt(state, copies, {})

    def _copied(self, storages: Mapping[int, torch.UntypedStorage]
                ) -> dict[int, torch.UntypedStorage]:
        """A copy of each storage in main memory; pinned, and fetched at once, from a GPU."""
        places, end = {}, 0
        for key, storage in storages.items():
            places[key] = end
            end += -(-storage.nbytes() // _ALIGNMENT) * _ALIGNMENT
        on_gpu = any(storage.device.type == "cuda" for storage in storages.values())
        if len(self._memory) < end:
            self._memory = torch.empty(0, dtype=torch.uint8)  # the old before the new is taken
            self._memory = torch.empty(end, dtype=torch.uint8, pin_memory=on_gpu)
        memory = self._memory.numpy()
        copies = {}
        for key, storage in storages.items():
            if not storage.nbytes():  # at no address: torch.save wants one type at each
                copies[key] = torch.UntypedStorage(0)
                continue
            # by way of numpy each becomes a storage of its own, which is saved by itself
            target = memory[places[key] : places[key] + storage.nbytes()]
            source = torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)
            copy = torch.from_numpy(target)
            if storage.device.type == "cpu":
                # one thread: torch's would wait for each other at every small tensor
                np.copyto(target, source.numpy())
            else:
                copy.copy_(source, non_blocking=True)
            copies[key] = copy.untyped_storage()
        if on_gpu:
            for device in {storage.device for storage in storages.values()}:
                if device.type == "cuda":
                    torch.cuda.current_stream(device).synchronize()
        return copies


def _tensors_in(state: Any) -> list[torch.Tensor]:
    found, waiting = [], [state]
    while waiting:
        value = waiting.pop()
        if isinstance(value, torch.Tensor):
            found.append(value)
        elif isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, list | tuple):
            waiting += value
    return found


def _rebuilt(value: Any, copies: Mapping[int, torch.UntypedStorage], done: dict[int, Any]) -> Any:
    """`value` with the copied storages, and with containers of its own; done: {id: copy}."""
    if id(value) in done:
        return done[id(value)]
    new = value
    if isinstance(value, torch.Tensor):
        storage = copies[value.untyped_storage()._cdata]
        new = torch.empty(0, dtype=value.dtype).set_(
            storage, value.storage_offset(), value.size(), value.stride())
    elif isinstance(value, dict):
        # the class and what a state dict has beside its items: `_metadata`
        new = type(value)()
        done[id(value)] = new
        for key, item in value.items():
            new[key] = _rebuilt(item, copies, done)
        if hasattr(value, "__dict__"):
            vars(new).update({name: _rebuilt(item, copies, done)
                              for name, item in vars(value).items()})
    elif isinstance(value, list):
        new = [_rebuilt(item, copies, done) for item in value]
    elif type(value) is tuple:
        new = tuple(_rebuilt(item, copies, done) for item in value)
    done[id(value)] = new
    return new
