"""Counts where a piece of work stands until the GPU is done. Used by gpu_step.py and tests/gpu."""

import warnings

import torch


def device_waits(work):
    """["file:line", ...] of the Python lines in `work()` at which the host waits for the GPU."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            work()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return [f"{warning.filename}:{warning.lineno}" for warning in caught
            if "synchronizing" in str(warning.message)]
