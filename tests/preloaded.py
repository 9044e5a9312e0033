"""Runs scripts in forks of a process that has imported what takes seconds: for hundreds of runs.

A run is a process of its own, with the script executed from its first line, and can be killed like
any other; only the libraries are in memory already.
"""

import json
import os
import runpy
import select
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DRIVER = ROOT / "tests" / "fault_driver.py"


class Preloaded:
    """The process that forks. Use as a context manager; one run at a time."""

    def __enter__(self):
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        self._server = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env=environment)
        self._said = b""  # by the server, and not yet read
        return self

    def __exit__(self, *_):
        self._server.stdin.close()
        self._server.wait(timeout=60)

    def start(self, script, words, folder, fault=()):
        """Begin `script` with `words` in `folder`; its process id. Follow with `wait`.

        fault: kind and number for tests/fault_driver.py
        Output goes to `folder`/out.txt and err.txt.
        """
        words = [str(ROOT / script), *map(str, words)]
        if fault:
            words = [str(DRIVER), *map(str, fault), *words]
        return self.start_words(words, folder, Path(folder) / "out.txt", Path(folder) / "err.txt")

    def start_words(self, words, folder, out, err, environment=None):
        """Begin the Python file words[0]; its process id. Follow with `wait`.

        out, err: files for its output; environment: in place of this process's
        """
        order = {"words": list(map(str, words)), "folder": str(folder), "out": str(out),
                 "err": str(err), "environment": environment}
        self._server.stdin.write(json.dumps(order).encode() + b"\n")
        self._server.stdin.flush()
        return self._number()

    def wait(self, pid=None, timeout=None):
        """The status of the run: negative for the signal that ended it.

        Raises subprocess.TimeoutExpired when `pid` takes more than `timeout` seconds; it is killed.
        """
        status = self._number(timeout)
        if status is None:
            os.kill(pid, signal.SIGKILL)
            self._number()
            raise subprocess.TimeoutExpired(f"process {pid}", timeout)
        return status

    def _number(self, timeout=None):
        """The next line of the server; None where none comes within `timeout` seconds."""
        pipe = self._server.stdout.fileno()
        while b"\n" not in self._said:
            if not select.select([pipe], [], [], timeout)[0]:
                return None
            said = os.read(pipe, 4096)
            assert said, "the process that forks has ended"
            self._said += said
        line, _, self._said = self._said.partition(b"\n")
        return int(line)

    def run(self, script, words, folder, fault=()):
        """(status, text, error text) of a whole run."""
        self.start(script, words, folder, fault)
        status = self.wait()
        return status, *((Path(folder) / name).read_text() for name in ("out.txt", "err.txt"))


def serve():
    import cv2  # noqa: F401
    import matplotlib.pyplot  # noqa: F401
    import scipy.optimize  # noqa: F401
    import torch._dynamo  # noqa: F401
    from pycocotools import cocoeval  # noqa: F401

    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _become(order)
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


def _become(order):
    try:
        os.setsid()
        os.chdir(order["folder"])
        for number, name, mode in ((0, os.devnull, os.O_RDONLY),
                                   (1, order["out"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
                                   (2, order["err"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)):
            os.dup2(os.open(name, mode), number)
        if order["environment"] is not None:
            os.environ.clear()
            os.environ.update(order["environment"])
        become(order["words"])
    finally:
        os._exit(1)


def become(words):
    """This fork goes on as `python WORDS...` and ends with its status."""
    status = 1
    try:
        sys.argv = words
        sys.orig_argv = [sys.executable, *words]
        own = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
        sys.path[:1] = [str(Path(words[0]).parent), *own]
        runpy.run_path(words[0], run_name="__main__")
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    serve()
