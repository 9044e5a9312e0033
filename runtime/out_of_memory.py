"""Recognises that memory ran out, on a GPU or not, and says what was asked and what to lower.

Imports no torch: an error that comes before it also passes through here.
"""

import re

_SIGNS = re.compile(
    r"out of memory|can't allocate memory|Cannot allocate memory|not enough memory|"
    r"std::bad_alloc|Unable to allocate|Failed to allocate|Insufficient memory|"
    r"CUBLAS_STATUS_ALLOC_FAILED"
)
_ASKED = re.compile(
    r"(?:tried to allocate|Tried to allocate|Unable to allocate|Failed to allocate)"
    r" ([\d.]+) ?(bytes|[KMGTPE]iB)?"
)
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def memory_text(error: BaseException, to_lower: str) -> str | None:
    """One line about an error that came of missing memory; None for any other error.

    to_lower: names of what takes the memory, for example "--batch_size"
    """
    chain: list[BaseException] = []
    each: BaseException | None = error
    while each is not None and each not in chain:
        chain.append(each)
        each = each.__cause__ or each.__context__
    found = next(filter(_is_of_memory, chain), None)
    if found is None:
        return None
    text = str(found)
    where = "on the GPU" if re.search(r"CUDA|HIP|GPU|CUBLAS", text) else "in main memory"
    asked = _ASKED.search(text)
    amount = _readable(float(asked[1]), asked[2] or "bytes") if asked else ""
    size = f": {amount} more were asked for" if asked else ""
    free = re.search(r"of which ([\d.]+ [KMGTPE]iB) is free", text)
    left = f", {free[1]} were free" if free else ""
    return (f"out of memory {where}{size}{left}. Lower {to_lower} (--accumulate N keeps the batch "
            "that an update learns from), the image size or the number of workers, or try "
            "--amp bf16.")


def _is_of_memory(error: BaseException) -> bool:
    is_likely = isinstance(error, (MemoryError, RuntimeError, OSError)) or (
        type(error).__module__ == "cv2")
    return isinstance(error, MemoryError) or (is_likely and bool(_SIGNS.search(str(error))))


def _readable(amount: float, unit: str) -> str:
    place = _UNITS.index(unit)
    while amount >= 1024 and place + 1 < len(_UNITS):
        amount, place = amount / 1024, place + 1
    return f"{amount:.1f} {_UNITS[place]}" if place else f"{amount:.0f} bytes"
