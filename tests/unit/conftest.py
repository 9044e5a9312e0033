"""What several unit tests share."""

import logging

import pytest


@pytest.fixture(autouse=True)
def runs_are_closed():
    """A run that a test leaves open would write the lines of all that come after it."""
    before = list(logging.getLogger("models").handlers)
    yield
    assert logging.getLogger("models").handlers == before


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
