"""Named arrays in one file that is mapped into memory: NumPy's own format around a byte block.

The block holds 8 bytes with the header's length, the header (JSON: for each array dtype, shape and
offset; checksum of what follows the header), then the arrays.
"""

import hashlib
import json
import zlib
from pathlib import Path

import numpy as np

from runtime.errors import SaveError
from runtime.files import write_atomically

FORMAT = 3  # raised when the arrays' meaning changes
_ALIGN = 64


def cache_path(source: Path, folder: Path) -> Path:
    """Where the cache of `source` lies: the name depends on its path, size and time of change."""
    stat = source.stat()
    place = hashlib.sha256(str(source.resolve()).encode()).hexdigest()[:8]
    state = hashlib.sha256(f"{stat.st_size} {stat.st_mtime_ns} {FORMAT}".encode()).hexdigest()[:12]
    return folder / f"{source.stem}-{place}-{state}.index.npy"


def write_cache(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write the arrays to `path`, atomically; caches of the source's former states go.

    Raises SaveError when that is not possible.
    """
    table, offset, parts = {}, 0, []
    for name, array in arrays.items():
        table[name] = (array.dtype.str, array.shape, offset)
        data = np.ascontiguousarray(array).tobytes()
        parts += [data, bytes(-len(data) % _ALIGN)]
        offset += len(data) + len(parts[-1])
    payload = b"".join(parts)
    header = json.dumps({"arrays": table, "crc": zlib.crc32(payload)}).encode()
    header += b" " * (-(8 + len(header)) % _ALIGN)
    block = len(header).to_bytes(8, "little") + header + payload
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SaveError(f"{path.parent}: could not be made: {error.strerror}") from error
    write_atomically(path, lambda file: np.save(file, np.frombuffer(block, np.uint8)), len(block))
    place = path.name.rsplit("-", 1)[0]
    for former in path.parent.glob(f"{place}-*.index.npy"):
        if former != path:
            former.unlink(missing_ok=True)


def read_cache(path: Path) -> dict[str, np.ndarray] | None:
    """The arrays, mapped read-only; None when there is no such file or it is damaged."""
    try:
        block = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
        start = 8 + int.from_bytes(block[:8].tobytes(), "little")
        header = json.loads(block[8:start].tobytes())
        payload = block[start:]
        if zlib.crc32(payload) != header["crc"]:
            return None
        return {name: _array(payload, *entry) for name, entry in header["arrays"].items()}
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None


def _array(payload, dtype, shape, offset):
    size = np.dtype(dtype).itemsize * int(np.prod(shape))
    return payload[offset:offset + size].view(dtype).reshape(shape)
