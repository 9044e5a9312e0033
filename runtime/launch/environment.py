"""What a launcher has put into the environment. Imports no torch: a misspelt flag asks here too."""

from collections.abc import Mapping


def own_rank(env: Mapping[str, str]) -> str | None:
    """This process's number among several, as torchrun or srun says it; None: it is alone."""
    if "RANK" in env:
        return env["RANK"]
    return env.get("SLURM_PROCID") if env.get("SLURM_NTASKS", "1") != "1" else None


def is_first(env: Mapping[str, str]) -> bool:
    """Whether this process speaks for all: rank 0, or alone."""
    return own_rank(env) in (None, "0")
