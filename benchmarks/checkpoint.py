"""How long a training loop stands for a checkpoint, against torch.save of the same state in place.

    python benchmarks/checkpoint.py [MB]

The state, of 200 MB or so many, is weights and momentum in 500 tensors. In each round it is saved
by torch.save, by our series in place (with checks and flushes to the disk), and by our series
behind the loop, where the time is that of the call. While that one is being written the loop
computes; how much longer it takes for that is shown as well: threads share the cores.
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from figures import Figure

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common.checkpoint.series import resnest_series
from runtime.allocator import keep_freed_memory
from runtime.saving.writer import BackgroundWriter

TENSORS = 500
ROUNDS = 7
WANTED = 0.2


def seconds_of(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def busy_loop(seconds: float) -> Callable[[], None]:
    """As many products as take so long when nothing else runs."""
    a = torch.randn(256, 256)
    products = 0
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        a @ a
        products += 1

    def compute() -> None:
        for _ in range(products):
            a @ a

    return compute


def figures(datasets: Path) -> list[Figure]:
    found = compare(200.0)
    name = "A checkpoint of 200 MB, "
    return [Figure(name + "the loop stands", found["behind the loop"], "torch.save's time", WANTED,
                   is_cost=True),
            Figure(name + "in place", found["in place"], "torch.save's time", is_cost=True),
            Figure(name + "slower computing meanwhile", found["slower computing"],
                   "torch.save's time", is_cost=True)]


def compare(megabytes: float) -> dict[str, float]:
    """Times divided by torch.save's, medians over the rounds but the first, which takes memory."""
    keep_freed_memory()  # as a run on a CPU does
    numbers = int(megabytes * 1e6 / 4 / TENSORS)
    state = {f"tensor {i}": torch.randn(numbers) for i in range(TENSORS)}
    ratios: dict[str, list[float]] = {
        "in place": [], "behind the loop": [], "slower computing": []}
    with tempfile.TemporaryDirectory() as name:
        folder, writer = Path(name), BackgroundWriter()
        in_place = resnest_series(folder / "place", 1)
        behind = resnest_series(folder / "behind", 1, writer=writer)
        for i in range(1, ROUNDS + 1):
            plain = seconds_of(lambda: torch.save(state, folder / "plain.pth"))
            whole = seconds_of(lambda i=i: in_place.save(i, state))
            compute = busy_loop(whole)
            alone = seconds_of(compute)
            stands = seconds_of(lambda i=i: behind.save(i, state))
            slower = max(0.0, seconds_of(compute) - alone)
            writer.wait()
            print(f"round {i}: torch.save {plain:.3f} s, in place {whole:.3f} s, behind the loop "
                  f"{stands:.3f} s and {slower:.3f} s of slower computing")
            for kind, seconds in zip(ratios, (whole, stands, slower), strict=True):
                ratios[kind].append(seconds / plain)
    print(f"the first time the loop stands {ratios['behind the loop'][0]:.2f} of torch.save; "
          f"{torch.get_num_threads()} threads on {len(os.sched_getaffinity(0))} cores")
    return {kind: statistics.median(values[1:]) for kind, values in ratios.items()}


if __name__ == "__main__":
    for kind, ratio in compare(float(sys.argv[1]) if len(sys.argv) > 1 else 200.0).items():
        print(f"{kind}: {ratio:.2f} of torch.save")
