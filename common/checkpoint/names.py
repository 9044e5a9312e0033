"""Names of checkpoint files, and which of a folder's files is the newest.

YOLACT's form is `<name>_<epoch>_<iteration>[_interrupt].pth`; the other families write
`epoch_N.pth`, `iter_N.pth`, `checkpoint_N.pth`, `encoder_epoch_N.pth`, `checkpoint_iter_N.pth`.

The newest is the one with the most updates, whatever the files' times say: a copy loses them, and
clocks jump. The updates are known
- from the name, where it counts them;
- else from the file, or from the training state beside it (`runtime.vetting.progress`);
- else, for a damaged file or a stranger's, from its epoch, and the updates that the file of the
  nearest epoch has for each of its own;
- where no file tells that, a damaged one comes first, so that it is named before another is taken,
  and a stranger's last; by epoch, then by name.
Of two with as many updates, one that is no interrupted run's is the newer one.
"""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from runtime.vetting.pickles import BadFile
from runtime.vetting.progress import read_iteration

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
    iteration: float | None  # None: not known
    epochs: int  # done, as the name says; in YOLACT's form the present one
    interrupted: bool

    @property
    def age(self) -> tuple:
        """Sorts the oldest first."""
        return self.iteration, self.epochs, not self.interrupted, self.path.name


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
    Files' times do not matter: see the module's text.
    """
    return next(iter(newest_first(folder, name)), None)


def find_interrupt(folder: str | Path, name: str | None = None) -> Path | None:
    """The newest checkpoint that an interrupted run left: `*_interrupt.pth`, or `*iter_N.pth`."""
    return next(iter(newest_first(folder, name, only_interrupted=True)), None)


def newest_first(
    folder: str | Path, name: str | None = None, only_interrupted: bool = False
) -> list[Path]:
    """All checkpoints of `folder`, the newest first; states, best copies and others left out.

    only_interrupted: those that an interrupted run may have left, as `find_interrupt`
    """
    return by_progress(item.path for item in _named(folder, name)
                       if item.interrupted or not only_interrupted)


def by_progress(paths: Iterable[Path]) -> list[Path]:
    """Checkpoints, the one with the most updates first, as the module's text says."""
    items = [_parse(path) or _Candidate(path, "", None, 0, False) for path in paths]
    if len(items) > 1:
        items = _with_iterations(items)
        items.sort(key=lambda item: item.age, reverse=True)
    return [item.path for item in items]


def replaced_by(path: str | Path) -> tuple[list[Path], Path | None]:
    """What a new checkpoint at `path` makes superfluous, among YOLACT's names in its folder.

    Returns (interrupted states of the same config that are not newer, the newest periodic save
    that is not newer); remove them only after `path` is whole on the disk.
    """
    path = Path(path)
    parsed = parse_checkpoint_name(path)
    if parsed is None:
        raise ValueError(f"{path} is not named in YOLACT's form")
    name, _, iteration, _ = parsed
    older = [
        item
        for item in _named(path.parent, name)
        if (found := parse_checkpoint_name(item.path)) and found[2] <= iteration
        and item.path != path
    ]
    older.sort(key=lambda item: item.age, reverse=True)
    periodic = (item.path for item in older if not item.interrupted)
    return [item.path for item in older if item.interrupted], next(periodic, None)


def orphans(folder: str | Path, name: str) -> list[Path]:
    """Weights files that are gone, or never came, while their training state lies there.

    A process has died while it removed or wrote the two.
    """
    states = Path(folder).glob(f"*{STATE_SUFFIX}")
    paths = [path.with_name(path.name.removesuffix(STATE_SUFFIX) + ".pth") for path in states]
    found = [item for path in paths if (item := _parse(path)) and not path.exists()]
    return [item.path for item in found if _is_wanted(item.name, name)]


def _named(folder: str | Path, name: str | None) -> list[_Candidate]:
    """What the names in `folder` say, in any order."""
    found = [_parse(path) for path in sorted(Path(folder).glob("*.pth")) if path.is_file()]
    return [item for item in found if item is not None and _is_wanted(item.name, name)]


def _is_wanted(found: str, name: str | None) -> bool:
    words = found.split("_")
    is_copy = words[0] in _NO_CHECKPOINTS or words[-1] in _NO_CHECKPOINTS
    return name in (None, found) and not is_copy


def _with_iterations(items: list[_Candidate]) -> list[_Candidate]:
    """The candidates with the iterations that their names do not tell."""
    unsure: dict[Path, float] = {}  # where to put it when no other file helps
    known = []
    for item in items:
        if item.iteration is None:
            state = state_path(item.path)
            try:
                iteration = read_iteration(state if state.is_file() else item.path)
                unsure[item.path] = -1
            except BadFile:
                iteration = None
                unsure[item.path] = math.inf
            item = replace(item, iteration=iteration)
        known.append(item)
    measures = [item for item in known if item.path in unsure and item.iteration and item.epochs]

    def placed(item: _Candidate) -> _Candidate:
        if item.iteration is not None:
            return item
        if not measures or not item.epochs:
            return replace(item, iteration=unsure[item.path])
        nearest = min(measures, key=lambda other: abs(other.epochs - item.epochs))
        return replace(item, iteration=item.epochs * (nearest.iteration or 0) / nearest.epochs)

    return [placed(item) for item in known]


def _parse(path: Path) -> _Candidate | None:
    parsed = parse_checkpoint_name(path)
    if parsed is not None:
        name, epoch, iteration, interrupted = parsed
        return _Candidate(path, name, iteration, epoch, interrupted)
    found = _COUNTED.fullmatch(path.name)
    if found is None:
        return None
    name, count = found["name"] or "", int(found["count"])
    if found["unit"] == "iter":
        return _Candidate(path, name, count, 0, True)
    # checkpoint_0 is after the first epoch, epoch_1 as well
    return _Candidate(path, name, None, count + (found["unit"] == "checkpoint"), False)
