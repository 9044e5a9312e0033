"""Runs a function in a process of its own: it may die, and its memory can be told."""

import multiprocessing
import os
import resource
import sys
import traceback
from pathlib import Path


def run_isolated(function, *args, last_input: Path, limit_s: int = 600) -> float:
    """MB by which the memory of the process grew while `function(*args)` ran.

    function:   of a module, with all its imports at the top
    last_input: the function writes each input there before it tries it
    Raises AssertionError with its traceback; or with how the process died, and on what.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_report, args=(sender, function, args))
    child.start()
    sender.close()
    try:
        failure, grown_mb = receiver.recv() if receiver.poll(limit_s) else (None, None)
    except EOFError:
        failure, grown_mb = None, None
    if grown_mb is None and child.is_alive():
        child.kill()
    child.join()
    died = f"the process ended with {child.exitcode} at the input kept as {last_input}"
    assert grown_mb is not None, died
    assert failure is None, failure
    return grown_mb


def _report(sender, function, args):
    os.environ["OMP_NUM_THREADS"] = "1"
    before = _peak_mb()
    try:
        function(*args)
        failure = None
    except BaseException:
        failure = traceback.format_exc()[-20_000:]
    sender.send((failure, _peak_mb() - before))
    sender.close()


def _peak_mb():
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
