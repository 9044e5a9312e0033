"""The allocator keeps freed memory, unless the user has set it."""

import subprocess
import sys
from statistics import median

import pytest

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")

PAGES = 16384  # of 4 kB in one of the blocks of 64 MB
PAGE_FAULTS = """
import resource
import torch
from runtime.allocator import keep_freed_memory

print(keep_freed_memory(LIMIT))
for _ in range(30):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    x = torch.ones(SIZE)
    y = x + 1
    del x, y
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def run(limit=None, size=16 << 20, **environment):
    """(what keep_freed_memory returned, page faults of each round)

    The heap's fragments decide when it has all the room that it reuses: mostly after 2 to 9 of the
    30 rounds, and a later one can want more. So a test of reuse asks for the median.
    """
    program = PAGE_FAULTS.replace("LIMIT", str(limit)).replace("SIZE", str(size))
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    kept, *faults = done.stdout.split()
    return kept == "True", list(map(int, faults))


def test_large_blocks_are_reused():
    kept, faults = run()
    if not kept:
        pytest.skip("another C library")
    assert median(faults) < PAGES / 100


def test_small_blocks_are_kept_and_large_ones_given_back_with_a_limit():
    kept, faults = run(limit=64 << 20, size=1 << 20)  # 4 MB
    if not kept:
        pytest.skip("another C library")
    assert median(faults) < PAGES / 16 / 100
    _, faults = run(limit=64 << 20)
    assert min(faults) > 2 * PAGES / 512  # with huge pages of 2 MB a fault fetches 512


def test_the_users_own_settings_stay():
    kept, faults = run(MALLOC_TRIM_THRESHOLD_="1000000")
    assert not kept
    assert min(faults) > 2 * PAGES / 512
