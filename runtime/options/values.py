"""What the values of options may be: callbacks that Typer calls with them.

Light: it is imported before torch.
"""

import math
import re
from collections.abc import Callable, Mapping

import typer

from runtime.errors import did_you_mean

AUTO = "auto"  # in place of a number of images


def one_of(*choices: str, synonyms: Mapping[str, str] | None = None
           ) -> Callable[[str | None], str | None]:
    """An option callback that accepts only these texts (or nothing).

    synonyms: {other text: the choice that a message proposes for it}
    """

    def check(value: str | None) -> str | None:
        if value is None or value in choices:
            return value
        wanted = ", ".join(choices)
        meant = (synonyms or {}).get(value.casefold())
        hint = f" Did you mean {meant}?" if meant else did_you_mean(value, choices)
        raise typer.BadParameter(f"{value!r} is not one of {wanted}.{hint}")

    return check


def between(low: float, high: float) -> Callable[[float | None], float | None]:
    """An option callback that accepts numbers with low < number < high (or nothing)."""

    def check(value: float | None) -> float | None:
        if value is None or low < value < high:  # false for nan
            return value
        limit = f"above {low:g}" if math.isinf(high) else f"between {low:g} and {high:g}"
        raise typer.BadParameter(f"{value} is not {limit}")

    return check


def batch_size(value: str | int | None) -> str | int | None:
    """An option callback: a number of images, at least 1, or "auto" (or nothing)."""
    if value is None or value == AUTO:
        return value
    try:
        number = int(value)
    except ValueError:
        raise typer.BadParameter(f"{value!r} is no whole number, nor {AUTO}") from None
    if number < 1:
        raise typer.BadParameter(f"{value!r} is less than 1")
    if number >= 2**63:
        raise typer.BadParameter(f"{value} is too large")
    return number


def check_device(value: str | None) -> str | None:
    """An option callback: cpu, cuda, cuda:N (or nothing)."""
    if value is None or re.fullmatch(r"cpu|cuda(:\d+)?", value):
        return value
    raise typer.BadParameter(f"{value!r} is not cpu, cuda or cuda:N")


def check_seed(value: int | None) -> int | None:
    """An option callback: a number that all generators take (or nothing)."""
    if value is None or 0 <= value < 2**32:  # what numpy's generators take
        return value
    raise typer.BadParameter(f"{value} is not between 0 and {2**32 - 1}")
