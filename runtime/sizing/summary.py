"""What a training consists of, in a line or two: parameters, operations, memory, batch."""

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from runtime.run.meter import Meter, peak_memory_mb
from runtime.run.run import Run

FAR_LARGER = 4  # times the sides of what the network sees
WORDS = ((1e12, "trillion"), (1e9, "billion"), (1e6, "million"))


class ModelSize:
    """Tells the network's size: at the start what is known then, after a dry run what it took.

    flags:    compile, dry_run
    learner:  a `Learner`: its net, optimizer and average
    step_net: the module that an update calls
    loader:   an UpdateLoader: its largest_shape, (images, channels, h, w) of this process's largest
              batch, and its median_size, (w, h) of the photos
    """

    def __init__(self, run: Run, flags: SimpleNamespace, learner: Any, step_net: nn.Module,
                 loader: Any):
        self._run, self._learner, self._is_compiled = run, learner, bool(flags.compile)
        self._operations: float | None = None  # of an image
        run.log(start_line(learner, loader.largest_shape))
        hint = size_hint(loader.median_size, loader.largest_shape[2:])
        if hint:
            run.log(hint)
        if flags.dry_run and not flags.compile:
            self._count_in(step_net)

    def tell_dry_run(self, meter: Meter) -> None:
        """The end of a dry run: operations, memory and time of what it did."""
        run = self._run
        peak = peak_memory_mb(run.device) * 2**20
        where = "allocated on the GPU" if run.device.type == "cuda" else "resident of this process"
        run.log(f"{self._operations_text()}\nMemory: {state_text(self._learner)}; at its peak "
                f"{bytes_text(peak)} {where}.\n"
                f"Dry run done: all fits, the last update took {meter.elapsed_s:.3f} s.")

    def _operations_text(self) -> str:
        if self._is_compiled:
            return "Operations: not counted under --compile."
        if not self._operations:
            return "Operations: not counted, several GPUs share the network."
        return (f"Operations: {self._operations / 1e9:.3g} GFLOPs an image and forward pass, "
                f"{self._operations / 2e9:.3g} G multiply-adds, of convolutions and matrix "
                "products; norms, activations, resizing and pooling are not counted.")

    def _count_in(self, step_net: nn.Module) -> None:
        """Count in the first forward pass of `step_net`."""
        counter = FlopCounterMode(display=False, custom_mapping=custom_operators())

        def before(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            counter.__enter__()

        def after(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            counter.__exit__(None, None, None)
            self._operations = counter.get_total_flops() / max(_images_in(inputs), 1)
            for hook in hooks:
                hook.remove()

        hooks = (step_net.register_forward_pre_hook(before),
                 step_net.register_forward_hook(after))


def start_line(learner: Any, batch: Sequence[int]) -> str:
    """What is known before the first update. learner, batch: as `ModelSize` takes them"""
    parameters = list(learner.net.parameters())
    trained = sum(p.numel() for p in parameters if p.requires_grad)
    return (f"Network: {count_text(sum(p.numel() for p in parameters))} parameters, "
            f"{count_text(trained)} of them trained; the largest batch is "
            f"{' x '.join(map(str, batch))} (images, channels, height, width) in each process.")


def size_hint(photos: tuple[int, int], seen: Sequence[int]) -> str:
    """A line where photos are far larger than what the network sees of them; else "".

    photos: (w, h); seen: (h, w)
    """
    if max(photos) < FAR_LARGER * max(seen):
        return ""
    return (f"The photos are {photos[0]} x {photos[1]} pixels (the median of width and height), "
            f"the network sees them at {seen[1]} x {seen[0]} at most: what is small in them is "
            "lost. --image-size N takes more pixels, and as much more time.")


def state_text(learner: Any) -> str:
    """What lies in memory between two updates: weights, gradients, optimizer, average."""
    parts = {
        "weights": [*learner.net.parameters(), *learner.net.buffers()],
        "gradients": [p.grad for p in learner.net.parameters() if p.grad is not None],
        "optimizer": list(_tensors_of(learner.optimizer)),
        "average": [] if learner.ema is None else [*learner.ema.parameters(),
                                                   *learner.ema.buffers()],
    }
    sizes = {name: sum(t.numel() * t.element_size() for t in tensors)
             for name, tensors in parts.items()}
    each = " + ".join(f"{name} {bytes_text(size)}" for name, size in sizes.items() if size)
    return f"{each} = {bytes_text(sum(sizes.values()))}"


def count_text(number: float) -> str:
    """"31.1 million" for 31,100,000."""
    size, word = next(((size, word) for size, word in WORDS if number >= size), (1.0, ""))
    return f"{number / size:.3g} {word}" if word else f"{number:.0f}"


def bytes_text(number: float) -> str:
    """"1.2 GB" or "35 MB", in units of 1024."""
    megabytes = number / 2**20
    return f"{megabytes / 1024:.2f} GB" if megabytes >= 1000 else f"{megabytes:.3g} MB"


def _tensors_of(optimizer: Any) -> list[torch.Tensor]:
    several = getattr(optimizer, "optimizers", None)
    each = [optimizer] if several is None else list(several.values())
    return [value for one in each for state in one.state.values() for value in state.values()
            if isinstance(value, torch.Tensor)]


def _images_in(inputs: Any) -> int:
    """Images of a step's arguments: what the first 4-d tensor holds, in whatever lies around it."""
    if isinstance(inputs, torch.Tensor):
        return len(inputs) if inputs.dim() == 4 else 0
    inner = inputs.values() if isinstance(inputs, dict) else inputs
    if not isinstance(inputs, dict | list | tuple):
        return 0
    return next((count for value in inner if (count := _images_in(value))), 0)


def custom_operators() -> dict[Any, Callable[..., int]]:
    """Operators of other libraries that multiply matrices: torchvision's deformable convolution."""
    try:
        operator = torch.ops.torchvision.deform_conv2d
    except (AttributeError, RuntimeError):
        return {}  # not loaded: plain products do it, which are counted

    def flops(images: Any, weight: Any, *_: Any, out_val: Any = None, **__: Any) -> int:
        # a product for each cell of the result, output channel and weight of the kernel
        return 2 * out_val.numel() * weight.numel() // len(weight)

    flops._get_raw = True  # type: ignore[attr-defined]  # torch then gives tensors, not shapes
    return {operator: flops}
