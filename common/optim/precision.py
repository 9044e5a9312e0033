"""Mixed precision: the autocast and the loss scaler that `--amp` asks for."""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from common.optim.steps import OneOrSeveral
from runtime.errors import InputError

DTYPES = {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class Precision:
    """`amp` is "off", "bf16" or "fp16"; parameters and optimizer state stay float32.

    `scaler` is a disabled GradScaler unless fp16 needs it, so the loop has no second branch.
    warn: called with a line where the device only imitates that precision
    scaling: options of the GradScaler, or {"fixed": a scale that stays what it is}
    Raises InputError where the device cannot compute in that precision.
    """

    def __init__(
        self,
        amp: str,
        device: torch.device,
        warn: Callable[[str], None] = lambda line: None,
        scaling: Mapping[str, Any] | None = None,
    ):
        if amp not in DTYPES:
            raise InputError(f"--amp {amp}: give one of {', '.join(DTYPES)}")
        if amp == "fp16" and device.type == "cpu":
            raise InputError("--amp fp16: only GPUs train in float16; give bf16 or off")
        if amp == "bf16" and device.type == "cuda" and not _gpu_has_bf16():
            raise InputError("--amp bf16: this GPU does not compute in bfloat16; give fp16 or off")
        if amp == "bf16" and device.type == "cpu" and not cpu_has_bf16():
            warn("--amp bf16: this processor only imitates bfloat16, which takes many times longer "
                 "than --amp off")
        self.amp = amp
        self._device_type = device.type
        options = dict(scaling or {})
        self._fixed_scale: float | None = options.pop("fixed", None)
        if self._fixed_scale is not None:
            options = {"init_scale": self._fixed_scale}
        self.scaler = torch.amp.GradScaler(device.type, enabled=amp == "fp16", **options)

    def autocast(self) -> torch.autocast:
        """A context in which the forward pass and the losses are computed."""
        enabled = self.amp != "off"
        return torch.autocast(self._device_type, dtype=DTYPES[self.amp], enabled=enabled)

    @property
    def is_scaled(self) -> bool:
        """Whether a loss scaler is at work, which leaves out updates that overflow."""
        return self.scaler.is_enabled()

    def grad_norm(self, optimizer: OneOrSeveral, p: float = 2.0) -> torch.Tensor:
        """The p-norm of all gradients together, 0-d on their device; unscales them in place.

        Once an update, before `step` or `skip`. Nothing waits for the device here.
        """
        self.scaler.unscale_(optimizer)  # type: ignore[arg-type]  # asks only for its groups
        gradients = [p.grad for p in _with_gradient(optimizer) if p.grad is not None]
        return torch.nn.utils.get_total_norm(gradients, norm_type=p)

    def step(
        self,
        optimizer: OneOrSeveral,
        clip_grad: float | None = None,
        grad_norm: torch.Tensor | None = None,
        is_finite: bool = False,
    ) -> None:
        """Clip and update; an fp16 update whose gradients overflowed is left out.

        clip_grad: the largest norm of all gradients together; None leaves them as they are
        grad_norm: what `grad_norm` gave; needed with `clip_grad`
        is_finite: the norm is known to be, so that the scaler need not wait to look
        """
        if clip_grad is not None:
            assert grad_norm is not None, "clip_grad needs grad_norm"
            torch.nn.utils.clip_grads_with_norm_(_with_gradient(optimizer), clip_grad, grad_norm)
        if self.is_scaled and is_finite:
            optimizer.step()
        else:
            self.scaler.step(optimizer)  # type: ignore[arg-type]  # calls only its step()
        self.scaler.update(self._fixed_scale)

    def skip(self) -> None:
        """In place of `step`: the update is left out, and the scale stays what it was."""
        if self.is_scaled:
            self.scaler.update(self.scaler.get_scale())


def _with_gradient(optimizer: OneOrSeveral) -> list[torch.Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]


def cpu_has_bf16() -> bool:
    """Whether the processor computes in bfloat16 at least as fast as in float32.

    Without it a convolution takes up to 70 times longer (measured with AVX2).
    """
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()


def _gpu_has_bf16() -> bool:
    return torch.cuda.is_bf16_supported(including_emulation=False)
