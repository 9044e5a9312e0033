"""What the training loops cost beside the work itself.

    python benchmarks/loop_overhead.py [--updates 40] [yolact seg resnest queryinst]

Each script trains drawn scenes in this process, a classifier with ResNeSt-50 and label maps with
resnet18dilated + ppm_deepsup, whose updates take a good part of a second. Of an update's time,
without the wait for data, is taken what its forward and backward passes and the change of the
weights take; the rest is the loop's: norms, checks, schedules, log, metrics. Wanted: at most 0.02
of the work.
"""

import argparse
import contextlib
import importlib
import io
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from figures import Figure

from common.optim.learner import Learner
from runtime import cli
from runtime.launch.signals import StopSignals
from runtime.run.meter import Meter

RUNS = {
    "yolact": "--config yolact_shapes --save_folder {0}/w --log_folder {0}/l --max-iters {1}",
    "seg": "--cfg shapes --max-iters {1} DIR {0}/ckpt",
    "resnest": "--config-file shapes --outdir {0} --max-iters {1}",
    "queryinst": "queryinst_shapes --work-dir {0} --max-iters {1}",
}
LARGER = {"seg": " MODEL.arch_encoder resnet18dilated MODEL.arch_decoder ppm_deepsup "
                 "MODEL.fc_dim 512 DATASET.segm_downsampling_rate 8",
          "resnest": " MODEL.NAME resnest50"}
WARM_UP = 10  # updates


class Stopwatch:
    """Puts clocks around a script's work and its updates; `rows` has (work, all) in seconds."""

    def __init__(self, script):
        self.rows, self._work_s = [], 0.0
        self._patched = [(script, "backward"), (Learner, "update"), (Meter, "updated")]

    def __enter__(self):
        self._originals = [getattr(owner, name) for owner, name in self._patched]
        for (owner, name), original in zip(self._patched, self._originals, strict=True):
            clocked = self._noted if owner is Meter else self._counted
            setattr(owner, name, clocked(original))
        return self

    def __exit__(self, *_):
        for (owner, name), original in zip(self._patched, self._originals, strict=True):
            setattr(owner, name, original)

    def _counted(self, function):
        def work(*args, **keywords):
            begin = time.perf_counter()
            try:
                return function(*args, **keywords)
            finally:
                self._work_s += time.perf_counter() - begin
        return work

    def _noted(self, function):
        def updated(meter, *args, **keywords):
            function(meter, *args, **keywords)
            if self._work_s:  # not a validation's batches
                self.rows.append((self._work_s, meter.elapsed_s - meter.waited_s))
            self._work_s = 0.0
        return updated


def overhead(name, updates):
    """The median over the updates of the loop's time divided by the work's."""
    script = importlib.import_module(f"train_{name}")
    with tempfile.TemporaryDirectory() as folder, Stopwatch(script) as watch:
        words = (RUNS[name].format(folder, updates) + LARGER.get(name, "")).split()
        flags = cli.read_flags(script.flags, script.SCRIPT, words)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            script.main(flags, StopSignals())
    rows = watch.rows[WARM_UP:]
    work, rest = (1e3 * statistics.median(column) for column in
                  zip(*((work, whole - work) for work, whole in rows), strict=True))
    print(f"{name:10s} {len(rows)} updates: work {work:7.2f} ms, loop {rest:5.2f} ms, "
          f"{rest / work:.3f}")
    return rest / work


def figures(datasets):
    return [Figure(f"{name}, loop", overhead(name, 40), "the work of an update",
                   0.02, is_cost=True) for name in RUNS]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=list(RUNS))
    parser.add_argument("--updates", type=int, default=40)
    args = parser.parse_args()
    for name in args.names:
        overhead(name, args.updates)


if __name__ == "__main__":
    main()
