"""How exactly, how fast and how repeatably a process computes."""

import os

import torch


def set_up_gpu(tf32: bool | None, fixed_shapes: bool) -> None:
    """Choose the arithmetic of GPUs for this process.

    tf32:         have products of float32 matrices, too, compute with ten bits of mantissa, which
                  is several times as fast; False has convolutions compute in full as well. None is
                  torch's choice: TF32 in convolutions only
    fixed_shapes: batches are of one shape, so that it pays to have cuDNN time its algorithms first
    """
    if tf32 is not None:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = fixed_shapes


def compute_repeatably() -> None:
    """The same numbers in every run on a CPU."""
    # On several threads torch adds up the gradient of an indexing by atomics, in any order.
    # Everything else that the trainers do on a CPU repeats its bits anyway; on a GPU the switch
    # would cost speed and refuse operations.
    torch.use_deterministic_algorithms(True, warn_only=True)
    # only finds bugs, costs time; a property of the module, which no stub can tell
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def refuse_unrepeatable() -> None:
    """Every operation whose result may differ from run to run is an error, on GPUs as well."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    torch.use_deterministic_algorithms(True)
