"""What a benchmark finds: ratios to a yardstick of the same run, and how they are kept."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

WORSE = 0.1  # the part by which a ratio may be worse than before: what machines differ by


@dataclass(frozen=True)
class Figure:
    """One ratio.

    name:    what was measured
    ratio:   ours divided by the yardstick
    of:      the yardstick, "PIL's decoding rate"
    wanted:  the aim, None where there is none
    is_cost: less is better: times and memory; else rates
    """

    name: str
    ratio: float
    of: str
    wanted: float | None = None
    is_cost: bool = False

    @property
    def aim(self) -> str:
        if self.wanted is None:
            return ""
        return f"{'at most' if self.is_cost else 'at least'} {self.wanted:g}"

    @property
    def is_met(self) -> bool:
        """Whether the aim is reached; without one it is."""
        if self.wanted is None:
            return True
        return self.ratio <= self.wanted if self.is_cost else self.ratio >= self.wanted

    def worse_than(self, old: float) -> bool:
        """Whether the ratio is worse than `old` by more than WORSE."""
        if self.is_cost:
            return self.ratio > old * (1 + WORSE)
        return self.ratio < old * (1 - WORSE)


class LeftOut(Exception):
    """A benchmark that cannot be run here, and why."""


def save(path: Path, machine: Mapping[str, Any], suites: Mapping[str, Sequence[Figure]]) -> None:
    """Write a file for `load`."""
    plain = {"machine": dict(machine),
             "suites": {name: [asdict(each) for each in found] for name, found in suites.items()}}
    path.write_text(json.dumps(plain, indent=2) + "\n", encoding="utf-8")


def load(path: Path) -> tuple[dict[str, Any], dict[str, list[Figure]]]:
    """(machine, {suite: figures}) of a file by `save`.

    Raises ValueError, naming the file, for anything else.
    """
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        return plain["machine"], {name: [Figure(**each) for each in found]
                                  for name, found in plain["suites"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: no file of python -m benchmarks --json: {error}") from error


def table(found: Sequence[Figure], old: Sequence[Figure] = ()) -> list[list[str]]:
    """Rows: name, ratio, yardstick, aim; with `old` its ratio, too, and "worse" or "new"."""
    before = {each.name: each.ratio for each in old}
    rows = []
    for each in found:
        row = [each.name, f"{each.ratio:.3g}", each.of,
               each.aim + ("" if each.is_met else " (missed)")]
        if old:
            was = before.get(each.name)
            verdict = "new" if was is None else "worse" if each.worse_than(was) else ""
            row += ["" if was is None else f"{was:.3g}", verdict]
        rows.append(row)
    return rows
