import numpy as np
import pytest
import torch

from runtime.out_of_memory import memory_text


def error_of(make):
    try:
        make()
    except Exception as error:
        return error
    raise AssertionError("the machine has more memory than there is")


@pytest.mark.parametrize("make, amount", [
    (lambda: torch.empty(10**15), "3.6 PiB"),
    (lambda: np.empty(10**15), "7.1 PiB"),
])
def test_real_errors_tell_what_was_asked(make, amount):
    text = memory_text(error_of(make), "--batch_size")
    assert text.startswith(f"out of memory in main memory: {amount} more were asked for. "
                           "Lower --batch_size (--accumulate N keeps")


def test_what_a_gpu_says():
    error = RuntimeError(
        "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 79.11 GiB "
        "of which 11.25 MiB is free. Including non-PyTorch memory, this process has 79.09 GiB")
    assert memory_text(error, "K").startswith(
        "out of memory on the GPU: 20.0 MiB more were asked for, 11.25 MiB were free. Lower K")


def test_a_cause_behind_another_error_counts():
    error = ValueError("a batch could not be made")
    error.__cause__ = MemoryError()
    assert memory_text(error, "K").startswith("out of memory in main memory. Lower K")


@pytest.mark.parametrize("error", [
    ValueError("out of memory"), RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
    KeyError("a"),
])
def test_other_errors_are_no_lack_of_memory(error):
    assert memory_text(error, "K") is None
