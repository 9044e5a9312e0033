"""One training run: its folder and its log, on top of its place among the ranks (`Group`)."""

import contextlib
import math
import os
import random
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from tqdm import tqdm

from runtime.allocator import keep_freed_memory
from runtime.arithmetic import compute_repeatably, refuse_unrepeatable, set_up_gpu
from runtime.errors import InputError, SaveError
from runtime.files import write_text
from runtime.launch.group import Group
from runtime.launch.ranks import TIMEOUT_S, Launch, join_group, pick_device, read_launch
from runtime.launch.signals import Stopped, StopSignals
from runtime.report.writer import Report
from runtime.run import lock as run_lock
from runtime.run.facts import DONE, RUNNING, STOPPED, RunFacts, read_facts
from runtime.run.files import (
    LineFile,
    cut_metrics,
    describe_environment,
    device_name,
    json_line,
    set_aside,
)
from runtime.run.guard import SkippedImages
from runtime.run.lock import RunLocks
from runtime.run.log import RunLog
from runtime.run.tracking import Trackers
from runtime.saving.writer import BackgroundWriter

MOST_LETTERS = 1000  # of the reason why a run ended
ByClass = Mapping[str, Mapping[str, float | int | None]]  # a class's name -> its scores


def start_run(
    script: str,
    device: str | None = None,
    seed: int = 0,
    stop: StopSignals | None = None,
    backend: str | None = None,
    clock: bool = False,
    dist_timeout_s: float = TIMEOUT_S,
    deterministic: bool = False,
    tf32: bool | None = None,
    fixed_shapes: bool = False,
) -> "Run":
    """Join the process group, pick the device, seed the generators, begin to log. Makes no files.

    script: its name, for messages
    device: "cpu", "cuda", "cuda:N"; None is the GPU when there is one, else the CPU
    stop:   the signals installed at start-up; None when the caller handles them itself
    backend: of collectives on GPU tensors, "nccl" or "gloo"; None is nccl
    clock:  begin each log line with [MM/DD HH:MM:SS]
    dist_timeout_s: how long a process waits for another one that does not answer
    deterministic: refuse every operation whose result may differ from run to run
    tf32, fixed_shapes: see `set_up_gpu`

    Raises InputError for a device or a process group that cannot be had.
    """
    launch = read_launch(os.environ)
    picked = pick_device(device, launch)
    join_group(launch, picked, dist_timeout_s, script, backend or "nccl")
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)  # the same on every rank, so that all build the same network
    if picked.type == "cpu":
        compute_repeatably()
        keep_freed_memory()
    else:
        set_up_gpu(tf32, fixed_shapes)
    if deterministic:
        refuse_unrepeatable()
    run = Run(script, launch, picked, seed, stop, clock)
    if tf32 is not None and picked.type == "cpu":
        run.warn(f"--{'' if tf32 else 'no-'}tf32 changes nothing on a CPU, which has no TF32")
    return run


class Run(Group):
    """What a script asks about its process and its folder. Made by `start_run`.

    skipped: says and counts the images that this session does without
    writer:  writes checkpoints behind the training; `close` waits for it

    Methods named "all ranks" are collectives: every rank calls them, in the same order.
    """

    def __init__(
        self,
        script: str,
        launch: Launch,
        device: torch.device,
        seed: int,
        stop: StopSignals | None,
        clock: bool = False,
    ):
        super().__init__(launch, device, seed, stop, self.log)
        self._folder: Path | None = None
        self._script = script
        self._launch = launch
        self._log = RunLog(script, launch.rank, clock)
        self._metrics: LineFile | None = None
        self._trackers: Trackers | None = None
        self._locks = RunLocks(self.warn)
        self._facts = RunFacts()
        self._report: Report | None = None
        self.skipped = SkippedImages(self)
        self.writer = BackgroundWriter()
        self._claimed: list[Path] = []

    @property
    def folder(self) -> Path:
        """Where the run writes. Raises RuntimeError before `open_folder`."""
        if self._folder is None:
            raise RuntimeError("the run has no folder yet")
        return self._folder

    def describe(self, **facts: object) -> None:
        """Facts for env.json and report.html, plain values; to be called before `open_folder`."""
        self._facts.add(facts)

    def claim(self, *locks: Path) -> None:
        """Keep other trainings from writing where this one will, until it ends (all ranks).

        locks: lock files, see `RunLocks.take`; in folders that are not there yet they are taken
               by `open_folder`
        To be called before it is looked for a checkpoint to go on from: the training that holds a
        lock may be writing one. Raises InputError on every rank when another training holds one.
        """
        self._claimed += locks
        self._take(lock for lock in self._claimed if lock.parent.is_dir())

    def open_folder(
        self,
        folder: str | Path,
        cfg_text: str,
        resume_from: float | None = None,
        append: bool = False,
        trackers: Sequence[str] = (),
        log_too: Path | None = None,
    ) -> None:
        """Make the run folder with config.yaml, env.json, log.txt and metrics.jsonl (all ranks).

        cfg_text:    the resolved config as YAML
        resume_from: updates done in the checkpoint that the run goes on from, less a half where
                     its validation comes again; metrics beyond are cut, and the start is noted.
                     None is a fresh run: metrics of an earlier one are renamed
        append:      keep all metrics, an existing config.yaml and env.json: for an evaluation
        trackers:    services that get the numbers too, see `Trackers`
        log_too:     a second file for the log's lines

        Unless it appends, it takes the folder's lock (see `claim`).
        Raises SaveError on every rank when rank 0 cannot write there, InputError when another
        training does, or a service's package cannot be imported.
        """
        path = self._folder = Path(folder)
        if not append:
            self._take([*self._claimed, path / run_lock.NAME])
        devices = self.gather(device_name(self.device))
        fault = None
        if self.is_main:
            try:
                self._make_folder(path, cfg_text, devices or [], resume_from, append)
                self._open_lines(path, resume_from, append, log_too)
            except OSError as error:
                fault = f"{error.filename or folder}: could not be written: {error.strerror}"
            except SaveError as error:
                fault = str(error)
        fault = self.broadcast(fault)
        if fault:
            raise SaveError(fault)
        if trackers and self.is_main:
            self._trackers = Trackers(trackers, path, self._script, cfg_text, self.warn)
        if self.is_main and not append and "config" in self._facts.values:
            self.log(self._facts.config_line(path / "config.yaml"))
        if resume_from is not None:
            self.record({"event": "resume", "iteration": math.ceil(resume_from)})

    def log(self, text: str, folded: str | None = None) -> None:
        """One or more lines on the console and in log.txt, from rank 0.

        folded: what a terminal shows in their place; files and pipes have `text`
        """
        self._log.info(text, folded)

    def warn(self, text: str) -> None:
        """Likewise as a warning; other ranks' warnings are shown with their rank."""
        self._log.warning(text)

    def record(self, event: Mapping[str, object]) -> None:
        """Append `event` to metrics.jsonl; nothing on other ranks and before `open_folder`.

        Raises SaveError when the line cannot be written.
        """
        if self._metrics is not None:
            self._metrics.write(json_line(event))
        if self._trackers is not None:
            self._trackers.write(event)

    def saved(self, iteration: int, path: Path | str | None) -> None:
        """A checkpoint of `iteration` updates lies in `path`, for report.html; None is none."""
        if self.is_main and path is not None:
            self._facts.saved(iteration, path)

    def write_report(self) -> None:
        """Bring report.html and env.json up to date; a fault is a warning and ends nothing.

        Waits for the checkpoint that is written: raises its faults."""
        if self._report is not None:
            self.writer.wait()
            self._facts.session(RUNNING)
            self._report.write(self._facts.write)

    def record_scores(
        self, iteration: int, epoch: int | None, metrics: Mapping[str, object],
        classes: ByClass | None = None,
    ) -> None:
        """The `eval` line of metrics.jsonl; epoch is None for an evaluation beside training.

        classes: the scores of each class, by its name, where there are any
        """
        event = {"event": "eval", "iteration": iteration, "epoch": epoch, "metrics": metrics}
        self.record(event if classes is None else {**event, "classes": classes})

    def progress(self, total: int, initial: int = 0, what: str = "") -> tqdm:
        """A tqdm bar below the log lines, `what` before it; nothing away from a terminal."""
        return self._log.progress(total, initial, what)

    def close(self) -> None:
        """Leave the process group and close the files, once; raises what the last save raised."""
        try:
            self.writer.close(self._warn_quietly)
        finally:
            self._close_files()

    def _close_files(self) -> None:
        self._end_report()
        self._log.close()
        if self._metrics is not None:
            self._metrics.close()
            self._metrics = None
        if self._trackers is not None:
            self._trackers.close()
            self._trackers = None
        self._locks.release()
        if dist.is_initialized():
            dist.destroy_process_group()

    def _take(self, locks: Iterable[Path]) -> None:
        fault: InputError | SaveError | None = None
        if self.is_main:
            try:
                for lock in locks:
                    self._locks.take(lock)
            except (InputError, SaveError) as error:
                fault = error
        fault = self.broadcast(fault)
        if fault is not None:
            raise fault

    def _make_folder(
        self, folder: Path, cfg_text: str, devices: list[str], resume_from: float | None,
        append: bool,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        config, env, log = (folder / name for name in ("config.yaml", "env.json", "log.txt"))
        if not (append and config.exists()):
            write_text(config, cfg_text)
        if append and env.exists():
            self._facts.add(read_facts(env))
        else:
            self._facts.open(
                env, describe_environment(self._script, self._launch, devices),
                None if resume_from is None else math.ceil(resume_from),
                log.stat().st_size if log.exists() else 0)
        self._report = Report(folder, self._facts.values, self._warn_quietly)

    def _warn_quietly(self, text: str) -> None:
        with contextlib.suppress(SaveError):  # the disk may be full, which is what it tells
            self.warn(text)

    def _end_report(self) -> None:
        """The last report, which tells how the run ended: well, or by the error in flight."""
        report, self._report = self._report, None
        if report is None:
            return
        error = sys.exc_info()[1]
        reason = str(error) if isinstance(error, Stopped) else f"{type(error).__name__}: {error}"
        if error is None:
            self._facts.session(DONE)
        else:
            self._facts.session(STOPPED, reason[:MOST_LETTERS])
        # where the disk is full, the run's own last line says so
        report.write(self._facts.write, tells_faults=not isinstance(error, SaveError))

    def _open_lines(
        self, folder: Path, resume_from: float | None, append: bool, log_too: Path | None
    ) -> None:
        metrics = folder / "metrics.jsonl"
        if append:
            # a training beside this evaluation has the file open, and would go on in the old one
            if not run_lock.is_held(folder / run_lock.NAME):
                cut_metrics(metrics, float("inf"))
        elif resume_from is not None:
            cut_metrics(metrics, resume_from)
        else:
            set_aside(metrics)
        self._metrics = LineFile(metrics)
        files = [folder / "log.txt"]
        if log_too is not None:
            log_too.parent.mkdir(parents=True, exist_ok=True)
            files.append(log_too)
        self._log.open_file(*map(LineFile, files))
