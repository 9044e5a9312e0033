"""What several unit tests share."""

import pytest


@pytest.fixture
def make_run(monkeypatch):
    """Runs of this process alone, closed at the end; torch's global switches are put back."""
    import torch

    from runtime.run.run import start_run

    for name in ("RANK", "WORLD_SIZE", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    runs = []

    def make(script="train_test", **options):
        runs.append(start_run(script, "cpu", **options))
        return runs[-1]

    yield make
    for run in runs:
        run.close()
    torch.use_deterministic_algorithms(False)
