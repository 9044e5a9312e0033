"""Checkpoints that survive crashes, full disks and damaged files, and cannot harm who opens them.

Written to a temporary file, flushed, checked, renamed. Read with `weights_only=True` after the file
was found to be whole and to hold as much as it claims. Plain `torch.load` reads the files as well.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import torch

from common.checkpoint.names import state_path
from runtime.errors import InputError, SaveError
from runtime.files import kept_path, write_atomically, write_together
from runtime.saving.archive import size_of, write_archive
from runtime.vetting.finite import not_finite
from runtime.vetting.foreign import read_foreign
from runtime.vetting.pickles import BadFile, ForeignName
from runtime.vetting.scan import check_file, open_checkpoint, read_checksum

logger = logging.getLogger(__name__)

_WEIGHTS_KEY = "_weights_sha256"  # in a state file: the checksum of the weights it belongs to
RETRIES = 3  # of a reader beside a training that replaces the files at that moment


def save_checkpoint(path: str | Path, state: Mapping[str, Any]) -> None:
    """Write `state` to `path` in torch's zip format, whole or not at all, with a checksum.

    state: nested dicts, lists and tuples of tensors, numbers, texts, None. Keep numpy and Python
           generator states as tensors or lists: nothing else could be read back.
    Raises SaveError when it cannot be written (what was there stays), ValueError when `state`
    holds something that `load_checkpoint` would refuse.
    """
    write_atomically(path, lambda file: write_archive(file, state), size_of(state))


def load_checkpoint(path: str | Path, map_location: str | torch.device = "cpu") -> dict:
    """The mapping in the file, ours or anyone's, in zip or legacy format.

    Raises InputError, naming the file, when it is missing, damaged, cut off, hostile or something
    else. That is found before loading; a file that lies about its sizes costs next to nothing.
    Weights that are not finite are loaded, and a warning says so.
    """
    path = Path(path)
    try:
        with open_checkpoint(path) as file:
            check_file(file)
            loaded = _load(file, map_location)
    except BadFile as error:
        raise InputError(f"{path}: {error}") from error
    if spoilt := not_finite(loaded):
        logger.warning("%s: %s", path, spoilt)
    return loaded


def load_any_checkpoint(path: str | Path) -> dict:
    """The mapping in the file: ours, anyone's weights, or a checkpoint of another runner.

    Raises InputError as `load_checkpoint` and `read_foreign`.
    """
    try:
        return load_checkpoint(path)
    except InputError as error:
        if not isinstance(error.__cause__, ForeignName):
            raise
    return read_foreign(path)


def verify(path: str | Path) -> None:
    """Read the file again and compare its checksum. Raises InputError when it is damaged."""
    try:
        with open_checkpoint(Path(path)) as file:
            check_file(file)
    except BadFile as error:
        raise InputError(f"{path}: {error}") from error


def read_back(paths: Iterable[str | Path]) -> None:
    """Raises SaveError unless the files, just written, are whole: older ones must stay then."""
    try:
        for path in paths:
            verify(path)
    except InputError as error:
        raise SaveError(f"{error}: it was written a moment ago; the older checkpoints stay") from (
            error)


def save_pair(path: str | Path, weights: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Write `weights` to `path` and `state` to `<stem>.state.pth` beside it.

    Both are on the disk before either gets its name, and the weights get theirs last. The state
    remembers the weights' checksum, so that halves of two pairs are never taken for one.
    Raises as `save_checkpoint`.
    """
    checksum = ""

    def write_weights(file: BinaryIO) -> None:
        nonlocal checksum
        checksum = write_archive(file, weights)

    def write_state(file: BinaryIO) -> None:
        write_archive(file, {**state, _WEIGHTS_KEY: checksum})

    writes = [(Path(path), write_weights), (state_path(path), write_state)]
    write_together(writes, size_of([weights, state]))


def load_pair(
    path: str | Path, map_location: str | torch.device = "cpu"
) -> tuple[dict, dict | None]:
    """(weights, state) of a checkpoint; state is None when no `<stem>.state.pth` lies beside it.

    Raises InputError that names every damaged file of the two.
    """
    (weights,), state = _load_set([Path(path)], state_path(path), map_location)
    return weights, state


def save_group(
    weights: Mapping[Path, Mapping[str, Any]],
    state_file: Path,
    state: Mapping[str, Any],
    others: Mapping[Path, Mapping[str, Any]] | None = None,
) -> None:
    """Write the weights of several networks, one training state, and files that just go along.

    All in one folder: every file is on the disk before one gets its name, the first weights get
    theirs last. The state remembers the checksums of all weights. Raises as `save_checkpoint`.
    """
    checksums: dict[str, str] = {}

    def writer(path: Path, content: Mapping[str, Any]) -> Callable[[BinaryIO], None]:
        def write(file: BinaryIO) -> None:
            checksums[path.name] = write_archive(file, content)

        return write

    def write_state(file: BinaryIO) -> None:
        sums = {path.name: checksums[path.name] for path in weights}
        write_archive(file, {**state, _WEIGHTS_KEY: sums})

    files = {**weights, **(others or {})}
    writes = [(path, writer(path, content)) for path, content in files.items()]
    write_together([*writes, (state_file, write_state)], size_of([*files.values(), state]))


def load_group(paths: Sequence[Path], state_file: Path) -> tuple[list[dict], dict | None]:
    """(weights of each path, state) of what `save_group` wrote; state None when it is not there.

    Raises InputError that names every damaged or missing file.
    """
    return _load_set(paths, state_file, "cpu")


def _load_set(
    paths: Sequence[Path], state_file: Path, map_location: str | torch.device
) -> tuple[list[dict], dict | None]:
    """(weights of each path, state or None): files of one save, all of them whole."""
    for _ in range(RETRIES):
        before = _stamps([*paths, state_file])
        try:
            return _read_set(*_one_save(paths, state_file), map_location)
        except InputError:
            if _stamps([*paths, state_file]) == before:
                raise
    return _read_set(*_one_save(paths, state_file), map_location)


def _stamps(paths: Sequence[Path]) -> list[tuple[int, int] | None]:
    """Tells whether a training has replaced one of the files meanwhile."""
    def stamp(path: Path) -> tuple[int, int] | None:
        try:
            status = path.stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns

    return [stamp(path) for path in paths]


def _read_set(
    paths: Sequence[Path], state_file: Path, map_location: str | torch.device
) -> tuple[list[dict], dict | None]:
    faults: list[str] = []
    loaded: dict[Path, dict] = {}
    for path in [*paths, *([state_file] if state_file.exists() else [])]:
        try:
            loaded[path] = load_checkpoint(path, map_location)
        except InputError as error:
            faults += error.faults
    if not faults and state_file in loaded:
        wanted = loaded[state_file].pop(_WEIGHTS_KEY, None)
        faults = [f"{state_file} does not belong to the weights in {path}" for path in paths
                  if _checksum_of(path) != _wanted(wanted, path)]
    if faults:
        raise InputError(faults)
    return [loaded[path] for path in paths], loaded.get(state_file)


def _one_save(paths: Sequence[Path], state_file: Path) -> tuple[Sequence[Path], Path]:
    """The files to read: those in place, or the ones before a save that died while it renamed."""
    if not any(kept_path(path).exists() for path in (*paths, state_file)):
        return paths, state_file
    for state in (state_file, kept_path(state_file)):
        try:
            wanted = load_checkpoint(state).get(_WEIGHTS_KEY)
        except InputError:
            continue
        found = [next((each for each in (path, kept_path(path))
                       if _checksum_of(each) == _wanted(wanted, path)), None) for path in paths]
        whole = [path for path in found if path is not None]
        if len(whole) == len(found):
            return whole, state
    return paths, state_file


def _wanted(checksums: str | dict[str, str] | None, path: Path) -> str | None:
    """What a state says of the weights at `path`: one checksum, or one for each name."""
    return checksums.get(path.name.removeprefix(".").removesuffix(".old")) if isinstance(
        checksums, dict) else checksums


def _checksum_of(path: Path) -> str | None:
    try:
        with open(path, "rb") as file:
            return read_checksum(file)
    except OSError:
        return None


def remove_checkpoint(path: str | Path) -> None:
    """Delete a checkpoint's weights and state, the weights first; absent files are no fault.

    Raises SaveError when the folder does not allow it.
    """
    path, state = Path(path), state_path(path)
    for part in (path, state, kept_path(path), kept_path(state)):
        try:
            part.unlink(missing_ok=True)
        except OSError as error:
            raise SaveError(f"{part}: could not be removed: {error.strerror or error}") from error


def _load(file: BinaryIO, map_location: str | torch.device) -> dict:
    file.seek(0)
    try:
        return torch.load(file, map_location=map_location, weights_only=True)
    except Exception as error:  # whatever torch makes of a stranger's bytes is the file's fault
        reason = str(error).strip().split("\n")[0]
        raise BadFile(f"cannot be loaded: {type(error).__name__}: {reason}") from error
