"""Names of checkpoint files, and which of a folder's files is the newest.

YOLACT's form is `<name>_<epoch>_<iteration>[_interrupt].pth`; the other families write
`epoch_N.pth`, `iter_N.pth`, `checkpoint_N.pth`, `encoder_epoch_N.pth`, `checkpoint_iter_N.pth`.
"""

import re
from dataclasses import dataclass
from pathlib import Path

STATE_SUFFIX = ".state.pth"
_YOLACT = re.compile(
    r"(?P<name>.+)_(?P<epoch>[0-9]{1,18})_(?P<iteration>[0-9]{1,18})(?P<stop>_interrupt)?\.pth"
)
_COUNTED = re.compile(
    r"(?:(?P<name>.+)_)?(?P<unit>epoch|iter|checkpoint)_(?P<count>[0-9]{1,18})\.pth"
)
_NO_CHECKPOINTS = ("best", "history")  # copies, and seg's loss curves


@dataclass(frozen=True)
class _Candidate:
    path: Path
    name: str
    count: tuple[int, int]  # iteration, epoch; or one of them and 0
    unit: str
    interrupted: bool


def checkpoint_path(
    folder: str | Path, name: str, epoch: int, iteration: int, interrupt: bool = False
) -> Path:
    """`folder/<name>_<epoch>_<iteration>.pth`; epoch is 0-based, iteration counts updates made."""
    return Path(folder) / f"{name}_{epoch}_{iteration}{'_interrupt' if interrupt else ''}.pth"


def parse_checkpoint_name(path: str | Path) -> tuple[str, int, int, bool] | None:
    """(name, epoch, iteration, interrupted) of a file named in YOLACT's form, else None."""
    found = _YOLACT.fullmatch(Path(path).name)
    if found is None:
        return None
    return found["name"], int(found["epoch"]), int(found["iteration"]), found["stop"] is not None


def state_path(path: str | Path) -> Path:
    """`<stem>.state.pth`, where the training state of the weights `<stem>.pth` lies."""
    return Path(path).with_suffix("").with_name(Path(path).stem + STATE_SUFFIX)


def find_latest(folder: str | Path, name: str | None = None) -> Path | None:
    """The checkpoint with the highest iteration in `folder`, interrupted runs' included, or None.

    name: only files of that config (YOLACT), or with that word before `_epoch_N` and `_iter_N`.
    Where files that count epochs and files that count iterations lie together, the later written
    one is the newest.
    """
    return next(iter(newest_first(folder, name)), None)


def find_interrupt(folder: str | Path, name: str | None = None) -> Path | None:
    """The newest checkpoint that an interrupted run left: `*_interrupt.pth`, or `*iter_N.pth`."""
    found = _candidates(folder, name)
    return next((item.path for item in found if item.interrupted), None)


def newest_first(folder: str | Path, name: str | None = None) -> list[Path]:
    """All checkpoints of `folder`, the newest first; states, best copies and others left out."""
    return [item.path for item in _candidates(folder, name)]


def replaced_by(path: str | Path) -> tuple[list[Path], Path | None]:
    """What a new checkpoint at `path` makes superfluous, among YOLACT's names in its folder.

    Returns (interrupted states of the same config that are not newer, the newest periodic save
    that is not newer). Ask before `path` is written; remove only after.
    """
    path = Path(path)
    name, _, iteration, _ = parse_checkpoint_name(path)
    older = [
        item
        for item in _candidates(path.parent, name)
        if item.unit == "iter" and item.count[0] <= iteration and item.path != path
    ]
    periodic = (item.path for item in older if not item.interrupted)
    return [item.path for item in older if item.interrupted], next(periodic, None)


def _candidates(folder: str | Path, name: str | None) -> list[_Candidate]:
    found = [_parse(path) for path in sorted(Path(folder).glob("*.pth")) if path.is_file()]
    found = [item for item in found if item is not None and name in (None, item.name)]
    has_both_units = len({item.unit for item in found}) > 1

    def age(item: _Candidate):
        written = item.path.stat().st_mtime_ns if has_both_units else 0
        return written, item.count, not item.interrupted

    return sorted(found, key=age, reverse=True)


def _parse(path: Path) -> _Candidate | None:
    parsed = parse_checkpoint_name(path)
    if parsed is not None:
        name, epoch, iteration, interrupted = parsed
        candidate = _Candidate(path, name, (iteration, epoch), "iter", interrupted)
    else:
        found = _COUNTED.fullmatch(path.name)
        if found is None:
            return None
        unit = "iter" if found["unit"] == "iter" else "epoch"
        count = (int(found["count"]), 0)
        candidate = _Candidate(path, found["name"] or "", count, unit, unit == "iter")
    words = candidate.name.split("_")
    return None if words[0] in _NO_CHECKPOINTS or words[-1] in _NO_CHECKPOINTS else candidate
