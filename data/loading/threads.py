"""Work that waits for files, or decodes them, which leaves Python's lock: in threads."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Found = TypeVar("Found")
AHEAD = 256  # items that are begun before the first is asked for; a million would fill the memory


def in_threads(work: Callable[[Item], Found], items: Iterable[Item]) -> Iterator[Found]:
    """work(item) of each item, in order. Raises what that raised."""
    with ThreadPoolExecutor() as pool:
        begun: deque[Future[Found]] = deque()
        for item in items:
            begun.append(pool.submit(work, item))
            if len(begun) > AHEAD:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
