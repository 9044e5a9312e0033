"""Checks a checkpoint file before torch sees it: checksum, layout, and sizes that add up.

Two formats: the zip archive of torch >= 1.6, and before it bare pickles followed by raw storages.
Our own files are zip archives whose end-of-archive comment holds the SHA-256 of all bytes before
it; readers of zip files, torch among them, skip that comment.
"""

import hashlib
import os
import re
import struct
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO

from runtime.saving.forks import let_forks_pass
from runtime.vetting.pickles import MAX_PICKLE_BYTES, BadFile, Box, Machine, Pickle, scan_pickle

MAX_RECORDS = 50_000  # tensors in one file
MAX_DIRECTORY_BYTES = 8 << 20
MAX_SMALL_RECORD_BYTES = 1 << 16  # version, byte order and the like
COMMENT = re.compile(rb"sha256:([0-9a-f]{64})")
COMMENT_BYTES = 7 + 64
MAX_HEADER_OPCODES = 100  # the legacy format's magic number, version, and facts on the machine
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of the older format
LEGACY_PROTOCOL = 1001
# What zipfile raises on damaged archives: bad names, offsets before the start, unknown versions.
_ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    ValueError,
    RuntimeError,  # NotImplementedError too
    EOFError,
    OSError,
)
_END = struct.Struct("<4s4H2LH")  # end of central directory; its last item is the comment's length
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR64 = struct.Struct("<4sLQL")


def add_checksum(file: BinaryIO) -> str:
    """Append the checksum to the zip archive that ends `file` (open "w+b"); returns it in hex."""
    size = file.seek(0, os.SEEK_END)
    file.seek(size - 2)
    file.write(struct.pack("<H", COMMENT_BYTES))
    digest = hash_bytes(file, size)
    file.seek(size)
    file.write(b"sha256:" + digest.encode())
    return digest


def read_checksum(file: BinaryIO) -> str | None:
    """The checksum that the file carries, in hex; None when it carries none."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - COMMENT_BYTES))
    found = COMMENT.fullmatch(file.read(COMMENT_BYTES))
    return found[1].decode() if found else None


def hash_bytes(file: BinaryIO, count: int) -> str:
    """SHA-256, in hex, of the first `count` bytes."""
    digest = hashlib.sha256()
    file.seek(0)
    while count > 0 and (block := file.read(min(count, 1 << 20))):
        digest.update(block)
        count -= len(block)
        let_forks_pass()  # what was written before is read, so it is buffered no more
    return digest.hexdigest()


def check_file(
    file: BinaryIO,
    is_fresh: bool = False,
    machine_type: type[Machine] | None = None,
    max_pickle_bytes: int = MAX_PICKLE_BYTES,
) -> Pickle:
    """Refuse a file that is damaged, claims more than it holds, or is no checkpoint.

    is_fresh:     just written, so the checksum need not be compared again
    machine_type: see `scan_pickle`
    Returns what its pickle claims to hold. Raises BadFile with the reason.
    """
    status = os.fstat(file.fileno())
    if status.st_size == 0:
        raise BadFile("empty")
    # Holes read as zeros: a terabyte of them costs its writer nothing and its reader everything.
    if status.st_size > 1 << 28 and 0 < status.st_blocks * 512 < status.st_size // 16:
        raise BadFile("mostly a hole: far fewer bytes on disk than its size says")
    file.seek(0)
    start = file.read(64)
    if start.startswith(b"PK\x03\x04"):
        return _check_zip(file, status.st_size, is_fresh, machine_type, max_pickle_bytes)
    if start.startswith(b"\x80\x02\x8a\x0a"):
        return _check_legacy(file, status.st_size)
    raise BadFile("not a PyTorch checkpoint" + _looks_like(start))


def _looks_like(start: bytes) -> str:
    if start.startswith(b"version https://git-lfs"):
        return "; it is a Git LFS pointer, fetch the real file"
    if start.lstrip().lower().startswith((b"<!doctype", b"<html")):
        return "; it is a web page, download the file again"
    return ""


def _check_zip(
    file: BinaryIO,
    size: int,
    is_fresh: bool,
    machine_type: type[Machine] | None,
    max_pickle_bytes: int,
) -> Pickle:
    directory_start = check_end_of_zip(file, size)
    checksum = read_checksum(file)
    is_ours = checksum is not None
    if is_ours and not is_fresh and hash_bytes(file, size - COMMENT_BYTES) != checksum:
        raise BadFile("damaged: its checksum does not match")
    file.seek(0)
    try:
        with zipfile.ZipFile(file) as archive:
            records = _check_records(archive.infolist(), directory_start, max_pickle_bytes)
            if not is_ours:
                _check_crcs(archive)
            data = archive.read(records["data.pkl"])
    except _ZIP_ERRORS as error:
        raise BadFile(f"damaged: {error}") from error
    found = scan_pickle(data, machine_type=machine_type)
    _check_is_mapping(found)
    for key, storage in found.storages.items():
        record = records.get(f"data/{key}")
        if record is None:
            raise BadFile(f"damaged: storage {key} is missing")
        if record.file_size != storage.numel * storage.item_bytes:
            raise BadFile(
                f"refused: it claims {storage.numel} elements where {record.file_size} bytes are"
            )
    return found


def check_end_of_zip(file: BinaryIO, size: int) -> int:
    """The offset of the directory, after checks that every reader finds this same directory."""
    tail_bytes = min(size, _END.size + _END64.size + _LOCATOR64.size + COMMENT_BYTES)
    file.seek(size - tail_bytes)
    tail = file.read(tail_bytes)
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < _END.size:
        raise BadFile("cut off: the end of the archive is missing")
    _, _, _, _, count, length, start, comment_bytes = _END.unpack_from(tail, at)
    comment = tail[at + _END.size :]
    if len(comment) != comment_bytes or (comment and not COMMENT.fullmatch(comment)):
        raise BadFile("damaged: bytes after the end of the archive")
    end = size - tail_bytes + at
    at64 = at - _LOCATOR64.size - _END64.size
    if tail[max(0, at - _LOCATOR64.size) : at].startswith(b"PK\x06\x07"):
        end -= _LOCATOR64.size + _END64.size
        _, _, end64, _ = _LOCATOR64.unpack_from(tail, at - _LOCATOR64.size)
        if at64 < 0 or end64 != end or tail[at64 : at64 + 4] != b"PK\x06\x06":
            raise BadFile("damaged: the end of the archive contradicts itself")
        short = (count, length, start)
        count, length, start = _END64.unpack_from(tail, at64)[-3:]
        widest = (0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF)
        pairs = zip(short, (count, length, start), widest, strict=True)
        if any(old not in (new, top) for old, new, top in pairs):
            raise BadFile("damaged: the end of the archive contradicts itself")
    if start + length != end or length > MAX_DIRECTORY_BYTES or count > MAX_RECORDS:
        raise BadFile("damaged: its list of records does not fit")
    return start


def _check_records(
    infos: list[zipfile.ZipInfo], end: int, max_pickle_bytes: int
) -> dict[str, zipfile.ZipInfo]:
    """Records by name, without the archive's own folder; stored as they are, none twice.

    end: where the directory starts; what the records claim together must lie before it
    """
    if len(infos) > MAX_RECORDS:
        raise BadFile(f"refused: it holds more than {MAX_RECORDS} records")
    folder = infos[0].filename.partition("/")[0] if infos else ""
    records: dict[str, zipfile.ZipInfo] = {}
    folded = set()
    for info in infos:
        top, _, name = info.filename.partition("/")
        is_plain = info.filename == info.orig_filename and info.flag_bits & 1 == 0
        is_stored = (
            info.compress_type == zipfile.ZIP_STORED and info.file_size == info.compress_size
        )
        if not is_stored:
            raise BadFile(
                f"refused: it holds a compressed record, {info.filename}, as checkpoints never do"
            )
        # torch looks names up in any case.
        if top != folder or not name or not is_plain or name.casefold() in folded:
            raise BadFile(
                f"refused: it holds a record that does not belong there: {info.filename!r}"
            )
        is_data = name.startswith("data/")
        limit = max_pickle_bytes if name == "data.pkl" else MAX_SMALL_RECORD_BYTES
        if not is_data and info.file_size > limit:
            raise BadFile(f"refused: it holds a record of absurd size: {info.filename}")
        folded.add(name.casefold())
        records[name] = info
    if "data.pkl" not in records or "constants.pkl" in records:
        raise BadFile("a zip archive, but not of weights")
    if sum(info.file_size for info in infos) > end:
        raise BadFile("refused: it claims more bytes than it holds")
    return records


def _check_crcs(archive: zipfile.ZipFile) -> None:
    bad = archive.testzip()
    if bad is not None:
        raise BadFile(f"damaged: record {bad} does not match its checksum")


def _check_legacy(file: BinaryIO, size: int) -> Pickle:
    file.seek(0)
    data = file.read(MAX_PICKLE_BYTES)
    magic = scan_pickle(data, 0, MAX_HEADER_OPCODES)
    protocol = scan_pickle(data, magic.end, MAX_HEADER_OPCODES)
    system = scan_pickle(data, protocol.end, MAX_HEADER_OPCODES)
    if magic.value != LEGACY_MAGIC or protocol.value != LEGACY_PROTOCOL:
        raise BadFile("not a PyTorch checkpoint")
    found = scan_pickle(data, system.end)
    _check_is_mapping(found)
    # A key and its memo entry each, and a mark a thousand.
    keys = scan_pickle(data, found.end, 3 * len(found.storages) + MAX_HEADER_OPCODES)
    names = [str(key) for key in keys.value.items] if isinstance(keys.value, Box) else []
    if sorted(names) != sorted(found.storages):
        raise BadFile("damaged: its list of storages does not match its tensors")
    at = keys.end
    for name in names:
        storage = found.storages[name]
        file.seek(at)
        count = file.read(8)
        if len(count) != 8 or struct.unpack("<q", count)[0] != storage.numel:
            raise BadFile(f"cut off or damaged: storage {name} has not the size it claims")
        at += 8 + storage.numel * storage.item_bytes
        if at > size:
            raise BadFile(f"cut off: storage {name} reaches beyond its end")
    return found


def _check_is_mapping(found: Pickle) -> None:
    is_mapping = isinstance(found.value, Box) and found.value.kind in ("dict", "ordered dict")
    if not is_mapping:
        raise BadFile("not a checkpoint: it holds no mapping")


def open_checkpoint(path: Path) -> BinaryIO:
    """The file at `path`, open for reading. Raises BadFile when there is none."""
    if path.is_dir():
        raise BadFile("a folder, not a checkpoint")
    try:
        return open(path, "rb")
    except FileNotFoundError as error:
        raise BadFile("does not exist") from error
    except OSError as error:
        raise BadFile(f"cannot be read: {error.strerror or error}") from error
