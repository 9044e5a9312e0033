"""A config file, YAML or MMDetection's Python, as one tree over the files that it is based on."""

import os
from pathlib import Path

from runtime.errors import did_you_mean
from settings.nodes import Node, is_file, merge, read_yaml
from settings.python_config.reading import read_python
from settings.python_config.values import Budget

RECIPES = Path(__file__).resolve().parents[1] / "configs"
MAX_BASES = 20  # files one below the other
MAX_FILES = 100  # of one config


def read_file(path: Path, faults: list[str]) -> Node:
    """The mapping of a file merged over its `_base_` files; faults are appended."""
    return _Reader(faults).read(path, ())


class _Reader:
    """Reads the files of one config: each once, because bases of bases can multiply."""

    def __init__(self, faults: list[str]):
        self.faults = faults
        self.budget = Budget()
        self.seen: dict[Path, Node] = {}

    def read(self, path: Path, above: tuple[Path, ...]) -> Node:
        """above: the files that led here, to find a circle"""
        place = path.resolve()
        if place not in self.seen:
            above = (*above, place)
            if path.suffix == ".py":
                tree = read_python(path, self.faults, self.budget, lambda name, where: self.base(
                    path, name, where, above))
            else:
                tree = self.over_bases(read_yaml(path, self.faults), path, above)
            self.seen[place] = tree
        return self.seen[place]

    def over_bases(self, tree: Node, path: Path, above: tuple[Path, ...]) -> Node:
        """A YAML file's tree over what its `_base_` names."""
        # fvcore, which reads the classification original's files, spells it in capitals
        named = tree.value.pop("_base_", None) or tree.value.pop("_BASE_", None)
        if named is None:
            return tree
        result = Node({}, str(path))
        for node in named.value if isinstance(named.value, list) else [named]:
            if not isinstance(node.value, str) or not node.value:
                self.faults.append(f"{node.where}: _base_ wants a file name or a list of them")
                continue
            base = self.base(path, node.value, node.where, above)
            result = result if base is None else merge(result, base)
        return merge(result, tree)

    def base(self, path: Path, name: str, where: str, above: tuple[Path, ...]) -> Node | None:
        """The tree of the base `name` of the file at `path`, or None with a fault appended."""
        if "::" in name:
            base = self.recipe(name, where)
            if base is None:
                return None
        else:
            base = Path(os.path.normpath(path.parent / name))
        fault = ""
        if not is_file(base):
            fault = f"{base}, which does not exist"
        elif base.resolve() in above:
            fault = f"{base}, which is based on this file itself"
        elif len(self.seen) > MAX_FILES:
            fault = f"one more file than the {MAX_FILES} that a config may have"
        elif len(above) <= MAX_BASES:
            return self.read(base, above)
        else:
            self.faults.append(
                f"{where}: more than {MAX_BASES} files below each other by _base_")
        if fault:
            self.faults.append(f"{where}: _base_ names {fault}")
        return None

    def recipe(self, name: str, where: str) -> Path | None:
        """Our recipe for `mmdet::folder/file.py`, which is a config of an installed package."""
        folder, _, file = name.partition("::")[2].rpartition("/")
        stems = {entry.stem: entry for entry in sorted(RECIPES.glob("*/*.yaml"))
                 if entry.parent.name == folder}
        stem = file.removesuffix(".py")
        if name.startswith("mmdet::") and stem in stems:
            return stems[stem]
        hint = did_you_mean(stem, stems)
        self.faults.append(f"{where}: _base_ names {name}, a config of an installed package; of "
                           f"those only our own recipes are here, and none is named so.{hint}")
        return None
