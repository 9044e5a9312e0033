"""What a config has other than the recipe that it came from, and other than the defaults."""

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from runtime.errors import InputError
from settings.files import RECIPES, read_file
from settings.loading import to_dict
from settings.nodes import expanded

Changes = dict[str, list[Any]]  # dotted key: [the value here, the value there]


def about_config(name: str | None, cfg: Any, load: Callable[[Any], Any]) -> dict[str, Any]:
    """Facts for `Run.describe`: the config's name, and what it has of its own.

    name: of the recipe, as the command line gives it; None is the defaults
    cfg:  the config in force, a dataclass; load: `load(name)` is the config without any override
    """
    facts: dict[str, Any] = {"config": name}
    with contextlib.suppress(InputError):  # a recipe that is whole only with an override
        if name is not None:
            facts["differs_from_recipe"] = changes(cfg, load(name))
    with contextlib.suppress(TypeError, InputError):  # a schema with a key that has no default
        facts["differs_from_defaults"] = changes(cfg, type(cfg)())
    return facts


def is_own(key: str, path: Path | None, options: Iterable[str]) -> bool:
    """Whether the user has set a config's key, rather than one of our recipes.

    key:     dotted
    path:    the config's file, which was loaded before; None: there is none
    options: texts KEY=VALUE over it
    """
    named = (option.partition("=")[0].strip() for option in options)
    if any(f"{key}.".startswith(f"{each}.") for each in named):  # itself, or a section around it
        return True
    node = None if path is None else read_file(path, [])
    for part in key.split("."):
        inner = None if node is None else expanded(node).value
        node = inner.get(part) if isinstance(inner, dict) else None
    if node is None:
        return False
    file = Path(node.where.rpartition(":")[0]).resolve()
    return not file.is_relative_to(RECIPES)


def changes(cfg: Any, other: Any) -> Changes:
    """{dotted key: [its value in `cfg`, its value in `other`]} where these differ.

    A key that only one of them has stands as None in the other.
    """
    here, there = (dict(_leaves(to_dict(each), "")) for each in (cfg, other))
    keys = list(dict.fromkeys([*here, *there]))
    found = {key: [here.get(key), there.get(key)] for key in keys}
    return {key: pair for key, pair in found.items() if pair[0] != pair[1]}


def _leaves(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for name, item in value.items():
            yield from _leaves(item, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
        for i, item in enumerate(value):
            yield from _leaves(item, f"{key}.{i}")
    else:
        # NaN is other than itself, and no JSON
        is_odd = isinstance(value, float) and not math.isfinite(value)
        yield key, str(value) if is_odd else value
