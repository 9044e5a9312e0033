"""How long a script takes to its first update and to its --help, beside what torch takes to load.

    python benchmarks/startup.py [--rounds 3]

Each script is launched on its drawn scenes, which are drawn before, and is stopped at the first
line of its log about an update. The yardstick is a process that imports torch and makes an
optimizer, which no trainer can do without. Medians; seconds are printed. Wanted on two cores: 6 s
to the first update, 0.5 s for --help.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]

from figures import Figure  # noqa: E402
from loop_overhead import RUNS  # noqa: E402

FIRST = {"yolact": "[  0]       0 ||", "seg": "Epoch: [1][0/", "resnest": "Batch: 0|",
         "queryinst": "Epoch(train)"}
FLOOR = "import torch; torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1); print('done')"


def seconds_to(words, mark):
    """From the launch of Python with `words` to the first line with `mark`; then it is killed."""
    begin = time.perf_counter()
    with subprocess.Popen([sys.executable, "-u", *words], cwd=ROOT, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True) as process:
        try:
            for line in process.stdout:
                if mark in line:
                    return time.perf_counter() - begin
        finally:
            process.kill()
    raise RuntimeError(f"{' '.join(words)} ended without a line with {mark!r}")


def first_update(name):
    with tempfile.TemporaryDirectory() as folder:
        words = RUNS[name].format(folder, 30).split()
        return seconds_to([f"train_{name}.py", "--log-every", "1", *words], FIRST[name])


def medians(rounds):
    """{name: seconds}: the floor, each script's first update, and its --help."""
    jobs = {"floor": lambda: seconds_to(["-c", FLOOR], "done")}
    for name in RUNS:
        jobs[name] = lambda name=name: first_update(name)
        jobs[f"{name} --help"] = lambda name=name: seconds_to(
            [f"train_{name}.py", "--help"], "--version")
    taken = {job: [] for job in jobs}
    for i in range(rounds + 1):
        for job, work in jobs.items():
            seconds = work()
            if i:  # the first round draws the scenes and fills the file cache
                taken[job].append(seconds)
    return {job: statistics.median(each) for job, each in taken.items()}


def figures(datasets):
    found = medians(3)
    floor = found.pop("floor")
    print(f"floor {floor:.2f} s; " + ", ".join(f"{job} {s:.2f} s" for job, s in found.items()))
    return [Figure(f"{job}{'' if '--help' in job else ', launch to first update'}", s / floor,
                   "the loading of torch", 0.5 if "--help" in job else None, is_cost=True)
            for job, s in found.items()]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    for job, seconds in medians(parser.parse_args().rounds).items():
        print(f"{seconds:6.2f} s  {job}")


if __name__ == "__main__":
    main()
