"""What a launcher grants this process. Imports no torch: a misspelt flag asks here too."""

import os
from collections.abc import Mapping


def own_rank(env: Mapping[str, str]) -> str | None:
    """This process's number among several, as torchrun or srun says it; None: it is alone."""
    if "RANK" in env:
        return env["RANK"]
    return env.get("SLURM_PROCID") if env.get("SLURM_NTASKS", "1") != "1" else None


def is_first(env: Mapping[str, str]) -> bool:
    """Whether this process speaks for all: rank 0, or alone."""
    return own_rank(env) in (None, "0")


def cores() -> int:
    """Processor cores that this process may use; a queue or a container may allow it only some."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
