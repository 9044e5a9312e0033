"""Checkpoints of other runners, MMDetection's above all, whose pickles hold objects of classes.

`torch.load(weights_only=True)` refuses such files whole, and with it MMDetection itself on current
PyTorch. Here tensors and plain values are taken out of the archive by hand; whatever else is in it
becomes None. Nothing of the file is executed, and none of its classes is looked up.

`torch.serialization.safe_globals` with stand-in classes is no substitute: torch's own unpickler
does build what it allows besides them, and a Counter of 20,000 keys that collide, in a file of
240 kB, keeps it busy for 5 s, and for four times as long with twice as many.
"""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from runtime.errors import InputError
from runtime.vetting.pickles import BadFile, Box, ForeignName, Global, Machine, Storage
from runtime.vetting.scan import check_file, open_checkpoint

# What MMDetection's runner pickles beside tensors: log histories (numpy arrays in HistoryBuffers,
# with the functions that average them), milestones (Counter), configs. Others' training scripts
# add their command line (argparse), paths, dates and settings.
_PACKAGES = ("mmengine", "mmcv", "mmdet", "numpy", "argparse", "pathlib", "datetime", "yacs",
             "omegaconf")
_NAMES = {"__builtin__.getattr", "_codecs.encode", "collections.Counter", "collections.deque",
          "collections.defaultdict", "__builtin__.set", "__builtin__.slice",
          "types.SimpleNamespace"}
MAX_PICKLE_BYTES = 256 << 20  # the whole log history of a run lies in it
_DTYPES = {
    "torch.BoolStorage": torch.bool,
    "torch.ByteStorage": torch.uint8,
    "torch.CharStorage": torch.int8,
    "torch.ShortStorage": torch.int16,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.IntStorage": torch.int32,
    "torch.FloatStorage": torch.float32,
    "torch.LongStorage": torch.int64,
    "torch.DoubleStorage": torch.float64,
    "torch.ComplexFloatStorage": torch.complex64,
    "torch.ComplexDoubleStorage": torch.complex128,
}


def read_foreign(path: str | Path) -> dict:
    """The mapping in the file, of tensors and plain values; other objects in it are None.

    Raises InputError for a damaged file, and for objects of other classes than settings and logs
    have.
    """
    path = Path(path)
    try:
        with open_checkpoint(path) as file:
            found = check_file(file, machine_type=_ForeignMachine,
                               max_pickle_bytes=MAX_PICKLE_BYTES)
            with zipfile.ZipFile(file) as archive:
                return _value(found.value, _read_storages(archive, found.storages))
    except ForeignName as error:
        raise InputError(f"{path}: {error}; save the network's state_dict() instead") from error
    except BadFile as error:
        raise InputError(f"{path}: {error}") from error


class _ForeignMachine(Machine):
    """Takes MMDetection's names for opaque values, and remembers what tensors are views of."""

    def named(self, name: str) -> Any:
        if name.partition(".")[0] in _PACKAGES or name in _NAMES:
            return Global(name)
        return super().named(name)

    def call(self, function: Any, arguments: Any) -> Any:
        if not isinstance(function, Global) or not _is_foreign(function.name):
            box = super().call(function, arguments)
            if box.kind == "tensor" and function.name == "torch._utils._rebuild_parameter":
                box.items = arguments[0].items
            elif box.kind == "tensor":
                box.items = arguments[:4]  # storage, offset, size, stride
            return box
        return Box("opaque")

    def build(self, target: Any, state: Any) -> Any:
        if isinstance(target, Box) and target.kind == "opaque":
            return
        super().build(target, state)
        if target.kind == "ordered dict":
            del target.items[-2:]  # the state dict's _metadata is no entry of it

    def extend(self, target: Any, items: Any, *kinds: Any) -> Any:
        if not (isinstance(target, Box) and target.kind == "opaque"):
            super().extend(target, items, *kinds)


def _is_foreign(name: str) -> bool:
    return name.partition(".")[0] in _PACKAGES or name in _NAMES


def _read_storages(
    archive: zipfile.ZipFile, storages: Mapping[str, Storage]
) -> dict[str, torch.Tensor]:
    """{key: flat tensor}; the sizes were compared with the pickle's claims before."""
    records = {info.filename.partition("/")[2]: info for info in archive.infolist()}
    flat = {}
    for key, storage in storages.items():
        data = bytearray(archive.read(records[f"data/{key}"]))
        dtype = _DTYPES[storage.kind]
        flat[key] = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
    return flat


def _value(item: Any, flat: Mapping[str, torch.Tensor]) -> Any:
    """A place-holder as the value that it stands for; opaque ones as None."""
    if not isinstance(item, Box):
        return None if isinstance(item, (Global, Storage)) else item
    if item.kind in ("dict", "ordered dict"):
        keys, values = item.items[::2], item.items[1::2]
        return {key: _value(value, flat) for key, value in zip(keys, values, strict=True)}
    if item.kind == "tensor":
        if len(item.items) != 4:
            raise BadFile("it holds a tensor of an older form; save it anew with current PyTorch")
        storage, offset, size, stride = item.items
        return flat[storage.key].as_strided(size.items, stride.items, offset)
    if item.kind == "list":
        return [_value(value, flat) for value in item.items]
    if item.kind in ("tuple", "size"):
        return tuple(_value(value, flat) for value in item.items)
    return None
