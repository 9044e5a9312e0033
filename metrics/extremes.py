"""The best and the worst images of a validation, chosen while it runs."""

from typing import Generic, TypeVar

Item = TypeVar("Item")


class Extremes(Generic[Item]):
    """Keeps the `limit` items of lowest and those of highest score.

    Among equal scores the item with the lower number counts as the worse, so that the choice does
    not depend on how images were split over processes.
    """

    def __init__(self, limit: int):
        self.limit = limit
        self._rows: list[tuple[float, int, Item]] = []

    def offer(self, score: float, number: int, item: Item) -> None:
        """One image; number: its place in the data set, never the same twice."""
        self._rows.append((score, number, item))
        self._cut()

    def merge(self, other: "Extremes[Item]") -> None:
        """Take over another process's."""
        self._rows += other._rows
        self._cut()

    @property
    def worst(self) -> list[tuple[float, int, Item]]:
        """(score, number, item), the worst first; at most `limit`."""
        return self._rows[: self.limit]

    @property
    def best(self) -> list[tuple[float, int, Item]]:
        """(score, number, item), the best first, none of which is among `worst`."""
        return self._rows[self.limit :][::-1][: self.limit]

    def _cut(self) -> None:
        self._rows.sort(key=lambda row: row[:2])
        middle = len(self._rows) - 2 * self.limit
        if middle > 0:
            del self._rows[self.limit : self.limit + middle]
