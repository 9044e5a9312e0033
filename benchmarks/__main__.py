"""Every benchmark by one command; each figure is a ratio to a yardstick of the same run.

    python -m benchmarks                          # all that this machine can run
    python -m benchmarks data steps               # suites, or single benchmarks
    python -m benchmarks --json new.json --compare old.json
    python -m benchmarks --write                  # benchmarks/RESULTS.md anew

Photos are looked for in --datasets: folders camvid, coco_small, hymenoptera. What a benchmark needs
beside requirements.txt is in requirements-bench.txt; what is missing is left out, with the reason.
Each runs in a process of its own. A ratio that is worse than in OLD.json by more than a tenth ends
the command with status 1.
"""

import argparse
import importlib
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from figures import Figure, LeftOut, load, save, table  # noqa: E402

SUITES = {
    "data": ("yolact_data", "seg_data", "resnest_data", "queryinst_data"),
    "index": ("coco_index", "lists"),
    "saves": ("checkpoint",),
    "scores": ("coco_scores",),
    "steps": ("resnest_step", "seg_step", "queryinst_step", "cpu_step", "multibox_loss",
              "deform_conv", "loop_overhead"),
    "inference": ("inference",),
    "start": ("startup",),
    "gpu": ("gpu_step",),
}
RESULTS = ROOT / "benchmarks" / "RESULTS.md"
SKIPPED = 75  # status of a benchmark that is left out


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [*SUITES, *(name for suite in SUITES.values() for name in suite)]
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(names))
    parser.add_argument("--datasets", type=Path, default=ROOT / "data", metavar="DIR")
    parser.add_argument("--json", type=Path, metavar="NEW.json", help="write the figures there")
    parser.add_argument("--compare", type=Path, metavar="OLD.json", help="show them beside these")
    parser.add_argument("--write", action="store_true", help=f"bring {RESULTS.name} up to date")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    unknown = [name for name in args.names if name not in names]
    if unknown:
        parser.error(f"no benchmark named {unknown[0]}; there are {', '.join(names)}")
    if args.alone:
        return run_here(args.names[0], args.datasets, args.json)
    old_machine, old = {}, {}
    if args.compare:
        try:
            old_machine, old = load(args.compare)
        except ValueError as error:
            parser.error(str(error))
    modules = [module for name in (args.names or [*SUITES]) for module in SUITES.get(name, (name,))]
    found = {}
    for module in dict.fromkeys(modules):
        print(f"--- {module}", flush=True)
        figures = run_apart(module, args.datasets)
        if figures is not None:
            found[module] = figures
    machine = this_machine()
    if args.json:
        save(args.json, machine, found)
    if args.write:
        write_results(machine, found)
    if args.compare and old_machine != machine | {"date": old_machine.get("date")}:
        print("\nThe old figures are another machine's or other versions': "
              + ", ".join(f"{key} {value}" for key, value in old_machine.items()))
    return show(found, old)


def run_here(module: str, datasets: Path, path: Path) -> int:
    """Run a benchmark in this process and write its figures to `path`."""
    try:
        figures = importlib.import_module(module).figures(datasets)
    except (LeftOut, ImportError) as error:
        print(f"left out: {error}")
        return SKIPPED
    save(path, {}, {module: figures})
    return 0


def run_apart(module: str, datasets: Path) -> list[Figure] | None:
    """Its figures from a process of its own; None where it was left out. Raises SystemExit."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "figures.json"
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks", module, "--alone", "--datasets",
             str(datasets.resolve()), "--json", str(path)], cwd=ROOT)
        if done.returncode == SKIPPED:
            return None
        if done.returncode:
            sys.exit(f"{module} failed with status {done.returncode}")
        return load(path)[1][module]


def this_machine() -> dict[str, str]:
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {"date": time.strftime("%Y-%m-%d"), "cpu": cpu_name(), "cores": str(os.cpu_count()),
            "gpu": device, "python": platform.python_version(), "torch": torch.__version__}


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())


def show(found: dict[str, list[Figure]], old: dict[str, list[Figure]]) -> int:
    """Print all figures; 1 where one is worse than before, else 0."""
    head = ["", "ratio", "of", "wanted", *(["before", ""] if old else [])]
    rows = [head, *(row for module, figures in found.items()
                    for row in table(figures, old.get(module, ()) if old else ()))]
    rows = [row + [""] * (len(head) - len(row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    print()
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())
    return int(any(row[-1] == "worse" for row in rows) if old else 0)


def write_results(machine: dict[str, str], found: dict[str, list[Figure]]) -> None:
    """The page with this machine's figures; those of other machines stay."""
    title = f"## {machine['cpu'] if machine['gpu'] == 'none' else machine['gpu']}"
    section = [title, "", ", ".join(f"{key} {value}" for key, value in machine.items()), "",
               "| | ratio | of | wanted |", "|---|---|---|---|",
               *("| " + " | ".join(row) + " |"
                 for figures in found.values() for row in table(figures)), ""]
    text = RESULTS.read_text(encoding="utf-8") if RESULTS.is_file() else HEAD
    before, _, rest = text.partition(title + "\n")
    after = "\n## " + rest.partition("\n## ")[2] if "\n## " in rest else ""
    RESULTS.write_text(before.rstrip() + "\n\n" + "\n".join(section) + after, encoding="utf-8")


HEAD = """# Results

Written by `python -m benchmarks --write`. Every figure is ours divided by a yardstick that was
timed in turn with it, in the same run; absolute times of these machines mean nothing.
"""

if __name__ == "__main__":
    sys.exit(main())
