"""What several tests with many processes share."""

import pytest
from jobs import Job, started, torchrun


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """A folder where `Job`s find and leave their drawn images."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="session")
def unbroken(data, tmp_path_factory):
    """unbroken("seg", 12) gives the losses of 12 updates in two processes that nothing disturbs."""
    done = {}

    def run(name, updates, processes=2):
        wanted = (name, updates, processes)
        if wanted not in done:
            job = Job(name, data, tmp_path_factory.mktemp("whole"), f"--max-iters {updates}")
            launcher = torchrun("--standalone", "--nproc-per-node", processes)
            with started([*launcher, *job.words], job.out / "said") as process:
                status, text = process.finish()
            assert status == 0, text
            done[wanted] = job.losses
        return done[wanted]

    return run
