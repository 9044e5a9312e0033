"""Whether a checkpoint's tensors hold numbers: NaN weights predict nothing, and silently."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch

_CHECKED = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def not_finite(loaded: Any) -> str:
    """What is wrong with the first tensor that is not finite, naming it; "" where all are.

    loaded: mappings and lists of tensors and anything else, as `torch.load` gives them
    """
    seen: dict[tuple[int, torch.dtype], bool] = {}
    spoilt = next((tensor for tensor in _tensors(loaded) if not _is_finite(tensor, seen)), None)
    if spoilt is None:
        return ""
    name = _name_of(spoilt, loaded)
    return (f"{name} holds values that are not finite (NaN or infinity): a training that has "
            "failed; go on from a checkpoint before it")


def _is_finite(tensor: torch.Tensor, seen: dict[tuple[int, torch.dtype], bool]) -> bool:
    """seen: {(address, type) of a storage: whether it is finite}, so that views cost nothing"""
    if (tensor.layout != torch.strided or tensor.dtype not in _CHECKED
            or tensor.device.type == "meta"):
        return True
    storage = tensor.untyped_storage()
    key = storage.data_ptr(), tensor.dtype
    if key not in seen:
        count = storage.nbytes() // tensor.itemsize
        seen[key] = _holds_numbers(tensor.as_strided((count,), (1,), 0))
    return seen[key] or _holds_numbers(tensor)


def _holds_numbers(tensor: torch.Tensor) -> bool:
    # a sum reads faster than a look at each value; that it overflows is no proof
    return bool(tensor.sum(dtype=torch.float64).isfinite()) or bool(tensor.isfinite().all())


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    """All that are inside, in order. Without their names: a file may hold 400,000 lists."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, torch.Tensor):
            yield value
        elif value and isinstance(value, Mapping):
            waiting += reversed(list(value.values()))
        elif value and isinstance(value, (list, tuple)):
            waiting += reversed(value)


def _name_of(wanted: torch.Tensor, value: Any) -> str:
    """The dotted name of a tensor that is inside."""
    waiting = [("", value)]
    while waiting:
        name, value = waiting.pop()
        if value is wanted:
            return name
        pairs = (value.items() if isinstance(value, Mapping) else
                 enumerate(value) if isinstance(value, (list, tuple)) else ())
        waiting += [(f"{name}.{key}" if name else str(key), item) for key, item in pairs]
    raise ValueError("not inside")
