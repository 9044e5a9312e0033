"""The project's own Python files, for the tests that read them; data sets beside them are none."""

from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROOMS = ("common", "data", "metrics", "models", "runtime", "settings")
SCRIPTS = ("train_queryinst", "train_resnest", "train_seg", "train_yolact")


def folders(room: str) -> Iterator[Path]:
    """The room and its sub-folders that are packages."""
    waiting = [ROOT / room]
    while waiting:
        folder = waiting.pop(0)
        yield folder
        waiting += sorted(path.parent for path in folder.glob("*/__init__.py"))


def modules(room: str) -> list[Path]:
    """The Python files of a room."""
    return [path for folder in folders(room) for path in sorted(folder.glob("*.py"))]


def all_files() -> list[Path]:
    """Scripts, rooms, benchmarks and tests."""
    others = [*ROOT.glob("*.py"), *ROOT.glob("benchmarks/*.py"), *ROOT.glob("tests/**/*.py")]
    return sorted([*others, *(path for room in ROOMS for path in modules(room))])
