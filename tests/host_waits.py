"""Finds, on a CPU, the operations at which a GPU's host would stand until the device is done.

    python host_waits.py FOUND.json SCRIPT WORDS ...

runs a script and writes what it finds in its session's second update, from `Rescue.begins` to
`Rescue.done`; the first one may fill caches. With `--device cuda` the device itself tells.

A CPU's tensors all lie on the host, so it is told from how they were made which ones would: what
the loader gives, what is made without a device, and what is computed from these alone. Moving them
is a wait unless `non_blocking`; to change their layout is work that the device does faster.
"""

import json
import runpy
import sys
import traceback
import warnings
from pathlib import Path

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

ROOT = Path(__file__).resolve().parents[1]
aten = torch.ops.aten
# what has to see values before the host goes on
READING = {
    aten._local_scalar_dense, aten.nonzero, aten.masked_select, aten.unique_dim, aten._unique2,
    aten.unique_consecutive, aten.equal, aten.bincount, aten.is_nonzero,
}
# methods that hand values to Python without an operator on a CPU
HANDING_OVER = {
    torch.Tensor.tolist, torch.Tensor.numpy, torch.Tensor.__array__, torch.Tensor.cpu,
}
MOVING = {torch.Tensor.to, torch.Tensor.cuda}
MAKING = {torch.tensor, torch.as_tensor}
HOST, DEVICE = "host", "device"


class HostWaits:
    """A context manager; afterwards `found` has "file:line function: operation" of each wait."""

    def __init__(self):
        self.found = []
        self._modes = _Operators(self._note), _Functions(self._note)

    def __enter__(self):
        for mode in self._modes:
            mode.__enter__()
        self._from_numpy = torch.from_numpy  # which no mode sees
        torch.from_numpy = lambda array: _marked(self._from_numpy(array))
        return self

    def __exit__(self, *error):
        torch.from_numpy = self._from_numpy
        for mode in reversed(self._modes):
            mode.__exit__(*error)

    def _note(self, what):
        self.found.append(f"{_own_line()}: {what}")


class DeviceWaits:
    """The same of a GPU, by what torch itself warns of."""

    def __init__(self):
        self.found = []
        self._caught = warnings.catch_warnings()

    def __enter__(self):
        self._caught.__enter__()
        warnings.simplefilter("always")
        warnings.showwarning = self._note
        torch.cuda.set_sync_debug_mode("warn")
        return self

    def __exit__(self, *error):
        torch.cuda.set_sync_debug_mode("default")
        self._caught.__exit__(*error)

    def _note(self, message, *_, **__):
        if "synchronizing" in str(message):
            self.found.append(f"{_own_line()}: waits")


def on_host(nested):
    """`nested`, its tensors marked as lying on the host."""
    return tree_map(_marked, nested)


class _Operators(TorchDispatchMode):
    def __init__(self, note):
        super().__init__()
        self._note = note

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        packet = func.overloadpacket
        if packet in READING or func is aten.repeat_interleave.Tensor:
            self._note(packet.__name__)
        elif packet in (aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_):
            # a single value goes into a mask without a look at it
            is_fill = packet is not aten.index and args[2].numel() == 1
            if any(_is_mask(index) for index in args[1]) and not is_fill:
                self._note(f"{packet.__name__} with a mask")
        return func(*args, **kwargs)


class _Functions(TorchFunctionMode):
    def __init__(self, note):
        super().__init__()
        self._note = note

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        given = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, torch.Tensor)]
        is_here = all(map(_is_marked, given)) and not kwargs.get("device")
        if func in HANDING_OVER and not is_here:
            self._note(func.__name__)
        if func in MOVING and is_here and kwargs.get("memory_format"):
            self._note(f"{func.__name__} with a layout, on the host")
        if func in MOVING and (target := _target(args[1:], kwargs)) is not None:
            if kwargs.get("non_blocking") is not True and _is_marked(args[0]) != (target == HOST):
                self._note(func.__name__)
            moved = func(*args, **kwargs)
            moved = moved.view_as(moved) if moved is args[0] else moved  # on a CPU they are one
            return _marked(moved) if target == HOST else moved
        sends = func in MAKING and kwargs.get("device") and all(map(_is_marked, given))
        if sends or func is torch.Tensor.new_tensor:
            self._note(func.__name__)
        answer = func(*args, **kwargs)
        return on_host(answer) if is_here and func not in HANDING_OVER else answer


def _target(words, named):
    """Where `Tensor.to` puts it, HOST or DEVICE; None where it only changes the type."""
    for word in (*words, named.get("device"), named.get("other")):
        if isinstance(word, torch.Tensor):
            return HOST if _is_marked(word) else DEVICE
        if isinstance(word, str | torch.device):
            return HOST if word == "cpu" else DEVICE  # the run's own is no word
    return None


def _is_mask(index):
    return isinstance(index, torch.Tensor) and index.dtype in (torch.bool, torch.uint8)


def _marked(value):
    if isinstance(value, torch.Tensor):
        value._lies_on_host = True
    return value


def _is_marked(tensor):
    return getattr(tensor, "_lies_on_host", False)


def _own_line():
    """The innermost line of the project: "file:line (function)" without the tests."""
    for frame in reversed(traceback.extract_stack()):
        path = Path(frame.filename)
        if path.is_relative_to(ROOT) and not {".venv", "tests"} & set(path.parts):
            return f"{path.relative_to(ROOT)}:{frame.lineno} {frame.name}"
    return "elsewhere"


def main():
    found_path, script, *words = sys.argv[1:]
    sys.argv = [script, *words]
    sys.path[0] = str(Path(script).parent)

    from data.loading.loader import UpdateLoader
    from runtime.run.rescue import Rescue

    waits, updates = DeviceWaits() if "cuda" in words else HostWaits(), 0
    begins, done, steps = Rescue.begins, Rescue.done, UpdateLoader.steps

    def begin(rescue):
        nonlocal updates
        updates += 1
        if updates == 2:
            waits.__enter__()
        begins(rescue)

    def end(rescue, iteration):
        done(rescue, iteration)
        if updates == 2:
            waits.__exit__(None, None, None)
            Path(found_path).write_text(json.dumps(waits.found))

    def given(*args, **kwargs):
        for step, epoch, batches in steps(*args, **kwargs):
            yield step, epoch, on_host(batches)

    Rescue.begins, Rescue.done, UpdateLoader.steps = begin, end, given
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main()
