"""One process, several GPUs: how the originals' two data-parallel wrappers split and gather.

On a machine without a GPU both wrappers call the module itself. Several processes are the better
way (torchrun); these keep the originals' command lines and numbers.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from runtime.errors import InputError
from runtime.launch.gpus import parse_devices as parse_devices

Device = torch.device | str | int
Nested = Any  # tensors, also inside dicts, lists and tuples


class CustomDataParallel(nn.DataParallel):
    """YOLACT's wrapper: images are split over the GPUs, every loss term averaged over them.

    module:      takes (images, targets, masks, num_crowds) or a dict of them; returns {term: 0-d}
    batch_alloc: images of each GPU (`--batch_alloc`); None splits evenly

    Each GPU normalises its terms by its own positives, the mean is not weighted. A term that some
    GPUs lack (YOLACT's `I` without a usable mask) counts as 0 there.
    """

    def __init__(
        self,
        module: nn.Module,
        device_ids: Sequence[int] | None = None,
        batch_alloc: Sequence[int] | None = None,
    ):
        super().__init__(module, device_ids)
        self.batch_alloc = batch_alloc

    def scatter(
        self, inputs: tuple, kwargs: dict | None, device_ids: Sequence[int | torch.device]
    ) -> tuple[list[tuple], list[dict | None]]:
        batch = inputs[0] if len(inputs) == 1 else inputs
        pieces = scatter_batch(batch, device_ids, self.batch_alloc)
        pieces = [(piece,) if len(inputs) == 1 else piece for piece in pieces]
        return pieces, [kwargs] * len(pieces)

    def parallel_apply(
        self, replicas: Sequence[Callable], inputs: Sequence[tuple], kwargs: Sequence[dict]
    ) -> list[dict]:
        return super().parallel_apply(in_callers_precision(replicas), inputs, kwargs)

    def gather(self, outputs: Sequence[dict], output_device: int | torch.device) -> dict:
        return mean_losses(outputs, output_device)


class UserScatteredDataParallel(nn.DataParallel):
    """The segmentation original's wrapper: the batch is a list with one dict for each GPU.

    Called with that list; the dicts may differ in size. Scalars come back as 1-d tensors with one
    element for each GPU, in order; other tensors concatenated along dimension 0.
    Raises ValueError when the list has another length than there are GPUs.
    """

    def forward(self, batch: Sequence[dict]) -> Nested:
        wanted = max(1, len(self.device_ids))
        if len(batch) != wanted:
            raise ValueError(f"{len(batch)} batches for {wanted} devices")
        if not self.device_ids:
            return gather_outputs([self.module(batch[0])], None)
        pieces = [to_device(piece, gpu) for piece, gpu in zip(batch, self.device_ids, strict=True)]
        if len(pieces) == 1:
            outputs = [self.module(pieces[0])]
        else:
            replicas = self.replicate(self.module, self.device_ids)
            inputs = [(piece,) for piece in pieces]
            outputs = self.parallel_apply(
                in_callers_precision(replicas), inputs, [{}] * len(pieces))
        return gather_outputs(outputs, self.output_device)


def in_callers_precision(
    replicas: Sequence[Callable], device_type: str = "cuda"
) -> list[Callable]:
    """The replicas as other threads must call them to compute as under the caller's autocast.

    A thread begins with autocast's default dtype, float16 on a GPU; torch's own parallel_apply
    takes over whether autocast is on, but not that it is in bfloat16, and float16 without a loss
    scaler underflows.
    """
    enabled = torch.is_autocast_enabled(device_type)
    dtype = torch.get_autocast_dtype(device_type)

    def in_precision(replica: Callable) -> Callable:
        def call(*args: Nested, **kwargs: Nested) -> Nested:
            with torch.autocast(device_type, dtype=dtype, enabled=enabled):
                return replica(*args, **kwargs)

        return call

    return [in_precision(replica) for replica in replicas]


def check_one_process(num_devices: int, is_compiled: bool) -> None:
    """Raises InputError for what several GPUs in one process cannot do: `--compile`."""
    if num_devices > 1 and is_compiled:
        raise InputError(
            f"--compile: not with {num_devices} GPUs in one process, whose copies of the network "
            f"torch.compile does not know; start a process for each: torchrun --nproc_per_node "
            f"{num_devices} ..., or take one GPU with --device cuda:0"
        )


def user_scattered_collate(batch: list) -> list:
    """The samples as they are: each is one GPU's whole batch [segmentation.md: Several GPUs]."""
    return batch


def scatter_batch(
    batch: Nested, devices: Sequence[Device], batch_alloc: Sequence[int] | None = None
) -> list:
    """`batch` cut along its images: one piece of the same structure for each device, moved there.

    batch:       a tensor [B, ...], or a dict, tuple or list of tensors and lists that all have B
                 entries, for example (images [B,3,S,S], targets, masks, num_crowds)
    devices:     where the pieces go; integers are GPU numbers
    batch_alloc: images of each device, at least 1, sum B; None splits evenly, the first devices
                 taking the remainder; when images are fewer, the last devices get no piece

    Raises InputError when `batch_alloc` fits neither the devices nor the batch.
    """
    size = _batch_size(batch)
    if batch_alloc is None:
        share, rest = divmod(size, len(devices))
        batch_alloc = [share + (i < rest) for i in range(min(size, len(devices)))]
    else:
        _check_alloc(batch_alloc, len(devices), size)
    ends = list(itertools.accumulate(batch_alloc))
    spans = zip([0, *ends], ends, devices, strict=False)
    return [to_device(_cut(batch, start, stop), device) for start, stop, device in spans]


def parse_batch_alloc(text: str | None, num_devices: int, batch_size: int) -> list[int] | None:
    """Images of each device from a text such as "5,3"; None, for even shares, without one.

    Raises InputError when they do not fit.
    """
    if text is None:
        return None
    pieces = text.split(",")
    alloc = [int(piece) if piece.strip().isdigit() else 0 for piece in pieces]
    _check_alloc(alloc, num_devices, batch_size, text)
    return alloc


def to_device(
    value: Nested, device: Device, layout: torch.memory_format = torch.preserve_format
) -> Nested:
    """`value` with every tensor in it, also inside dicts, lists and tuples, on `device`.

    layout: of what has four dimensions, which are images; the device itself puts it in order
    """
    if isinstance(value, torch.Tensor):
        value = value.to(_torch_device(device), non_blocking=True)
        return value.to(memory_format=layout) if value.ndim == 4 else value
    if isinstance(value, dict):
        return {key: to_device(item, device, layout) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(to_device(item, device, layout) for item in value)
    return value


def mean_losses(outputs: Sequence[dict], device: Device) -> dict:
    """Each term's mean over the replicas' outputs; a replica without the term counts as 0."""
    names = dict.fromkeys(name for output in outputs for name in output)
    target = _torch_device(device)
    return {
        name: sum(output[name].to(target) for output in outputs if name in output) / len(outputs)
        for name in names
    }


def gather_outputs(outputs: Sequence[Nested], device: Device | None) -> Nested:
    """The replicas' outputs (tensors, or tuples or dicts of them) concatenated; scalars first 1-d.

    device: where they are gathered; None leaves them where they are.
    """
    first = outputs[0]
    if isinstance(first, dict):
        return {key: gather_outputs([output[key] for output in outputs], device) for key in first}
    if isinstance(first, list | tuple):
        return type(first)(gather_outputs(items, device) for items in zip(*outputs, strict=True))
    if device is not None:
        outputs = [output.to(_torch_device(device)) for output in outputs]
    return torch.cat([output.reshape(1) if output.dim() == 0 else output for output in outputs])


def _torch_device(device: Device) -> torch.device:
    return torch.device("cuda", device) if isinstance(device, int) else torch.device(device)


def _check_alloc(
    alloc: Sequence[int], num_devices: int, batch_size: int, text: str | None = None
) -> None:
    if len(alloc) != num_devices or sum(alloc) != batch_size or min(alloc) < 1:
        raise InputError(
            f"--batch_alloc {text or ','.join(map(str, alloc))}: must be {num_devices} numbers "
            f"above 0, one for each device, that sum to the batch size {batch_size}"
        )


def _batch_size(batch: Nested) -> int:
    if isinstance(batch, torch.Tensor):
        return len(batch)
    fields = list(batch.values()) if isinstance(batch, dict) else list(batch)
    sizes = {len(field) for field in fields}
    if len(sizes) != 1:
        raise ValueError(f"fields of one batch with different lengths: {sorted(sizes)}")
    return sizes.pop()


def _cut(batch: Nested, start: int, stop: int) -> Nested:
    if isinstance(batch, torch.Tensor):
        return batch[start:stop]
    if isinstance(batch, dict):
        return {key: field[start:stop] for key, field in batch.items()}
    return type(batch)(field[start:stop] for field in batch)
