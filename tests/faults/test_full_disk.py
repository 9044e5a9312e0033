"""A disk that is full at 20 different points: the old checkpoint stays, the next save works.

A real one where this process may mount (a tmpfs of a few MB); else a limit on the size of files
stands for it.
"""

import contextlib
import errno
import os
import resource
import shutil
import subprocess

import pytest
from save_kinds import KINDS

from runtime import files
from runtime.errors import SaveError

pytestmark = pytest.mark.fault
NUMBERS = 30_000  # in each tensor: a save takes 0.3 to 0.6 MB
DISK_BYTES = 12 << 20


@pytest.fixture
def disk(tmp_path):
    """A file system of its own, or None where none can be had."""
    point = tmp_path / "disk"
    point.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(point)]
    try:
        mounted = subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        mounted = False
    yield point if mounted else None
    if mounted:
        subprocess.run(["umount", "-l", str(point)], check=True)


@contextlib.contextmanager
def full_but_for(disk, free):
    """In it, `free` bytes can be written: on the disk, or without one into each file."""
    if disk is None:
        old = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (free, old[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, old)
        return
    filler = disk / "filler"
    with open(filler, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, shutil.disk_usage(disk).free - free))
    try:
        yield
    finally:
        filler.unlink()


def fill_up(kind, folder, disk, sizes):
    """Saves at each size of what is free. Returns (how many held, how many of them failed)."""
    held = failed = 0
    for size in sizes:
        saver = KINDS[kind](folder, NUMBERS)
        position = saver.find(pytest.fail) or 0
        done = []
        with full_but_for(disk, size):
            try:
                saver.train(position, position // 2 + 1, done.append)
            except SaveError as error:
                failed += 1
                text = str(error)
                assert str(folder) in text
                assert os.strerror(errno.ENOSPC if disk else errno.EFBIG) in text
        assert not list(folder.glob(".*")), "something half written was left"
        found = KINDS[kind](folder, NUMBERS).find(pytest.fail) or 0
        assert found >= max([position, *done])
        saver = KINDS[kind](folder, NUMBERS)  # there is room again
        saver.find(pytest.fail)
        saver.train(found, found // 2 + 1, done.append)
        assert KINDS[kind](folder, NUMBERS).find(pytest.fail) == done[-1]
        held += 1
    return held, failed


def sizes_for(count, largest):
    return [4096 + i * largest // count for i in range(count)]


@pytest.mark.parametrize("kind", KINDS)
def test_some_sizes(tmp_path, disk, monkeypatch, kind):
    """Another program takes what was free a moment ago: writing itself meets the end."""
    monkeypatch.setattr(files, "_check_free_space", lambda folder, needed: None)
    assert fill_up(kind, disk or tmp_path, disk, sizes_for(2, 300_000)) == (2, 2)


@pytest.mark.slow
def test_twenty_sizes(tmp_path, disk, monkeypatch):
    """Five sizes for each kind; half of them are noticed before anything is written."""
    held = failed = 0
    for number, kind in enumerate(KINDS):
        folder = (disk or tmp_path) / kind
        folder.mkdir()
        if number % 2:
            monkeypatch.setattr(files, "_check_free_space", lambda folder, needed: None)
        counts = fill_up(kind, folder, disk, sizes_for(5, 700_000))
        monkeypatch.undo()
        held, failed = held + counts[0], failed + counts[1]
        shutil.rmtree(folder)
    assert held == 20
    assert failed >= 12
