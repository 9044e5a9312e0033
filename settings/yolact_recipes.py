"""Finds and loads YOLACT configs: recipe names, YAML files, and the original's expressions.

An expression is a name with any number of `.copy({...})` or `.replace({...})` behind it. It is read
from its syntax tree; nothing in it is ever executed.
"""

import ast
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, is_dataclass, replace
from pathlib import Path
from typing import Any

from runtime.errors import InputError, did_you_mean
from settings.changes import about_config
from settings.files import read_file
from settings.loading import load_config, to_dict
from settings.nodes import MAX_DEPTH, MAX_LITERAL, is_file
from settings.yolact import (
    BackboneConfig,
    DatasetConfig,
    FpnConfig,
    TransformConfig,
    YolactConfig,
)

RECIPES = Path(__file__).resolve().parents[1] / "configs" / "yolact"

# Sections that a file, an option or an expression may give by name, and the names' ending.
SECTIONS = {"dataset": "datasets", "backbone": "backbones"}

NAMED_SECTIONS = (*SECTIONS, "fpn")

# Keys whose value is a mapping of the user's, not a section.
MAPPING_KEYS = ("label_map", "head_layer_params")

# The original's other objects that an expression may name.
CONSTANTS: dict[str, Any] = {
    "fpn_base": FpnConfig(),
    "resnet_transform": TransformConfig(normalize=True),
    "vgg_transform": TransformConfig(subtract_means=True),
    "darknet_transform": TransformConfig(to_float=True),
    "mask_type.direct": "direct",
    "mask_type.lincomb": "lincomb",
    **{f"activation_func.{a}": a for a in ("tanh", "sigmoid", "softmax", "relu", "none")},
}


@dataclass(frozen=True)
class _Sections:
    """Schema of the files in `datasets/` and `backbones/`, each of which holds one section."""

    dataset: DatasetConfig | None = None
    backbone: BackboneConfig | None = None


def as_yolact_config(cfg: str | Path | YolactConfig) -> YolactConfig:
    """`cfg` itself when it is loaded, also one that stands in for a config; else it is loaded."""
    return load_yolact_config(cfg) if isinstance(cfg, (str, Path)) else cfg


def load_yolact_config(
    cfg: str | Path | YolactConfig, *, options: Iterable[str] = (), **overrides: Any
) -> YolactConfig:
    """The frozen config that `cfg` stands for.

    cfg:        a recipe's name with or without `_config`, the path of a YAML file, an expression
                such as `yolact_base_config.copy({'max_size': 400})`, or a config
    options:    texts KEY=VALUE with dotted keys, applied last
    overrides:  values by key; a mapping changes only the keys of its section that it names

    Raises InputError with every fault found.
    """
    if isinstance(cfg, YolactConfig):
        path, changes = None, _dotted(to_dict(cfg))
    elif str(cfg).endswith((".yaml", ".yml")):
        path = Path(cfg)
        changes = _dotted(_sections_by_name(path))
    else:
        path, changes = _Expression(str(cfg), "config").recipe()
        changes = _dotted(changes)
    changes |= _dotted(overrides)

    texts = [_as_option(key, value) for key, value in changes.items()]
    spelled_out = [text for option in options for text in _spelled_out(option)]
    try:
        loaded = load_config(YolactConfig, path, texts + spelled_out)
    except InputError as error:
        raise InputError([_without_flag(fault, texts) for fault in error.faults]) from None
    if loaded.name is None and path is not None:
        loaded = replace(loaded, name=path.stem)
    check_class_count(loaded)
    return loaded


def load_dataset_config(cfg: str) -> DatasetConfig:
    """The dataset section that `cfg` names: `coco2017_dataset`, with or without `.copy({...})`.

    Raises InputError when there is none of that name, or a key does not fit.
    """
    values = _Expression(str(cfg), "data set").evaluate()
    if not isinstance(values, Mapping) or "class_names" not in values:
        raise InputError(f"{cfg}: not a data set.{_hint(str(cfg), 'datasets')}")
    return load_config(DatasetConfig, None, values)


def check_class_count(cfg: YolactConfig) -> None:
    """Raise InputError unless num_classes is the number of the data set's names plus background."""
    names = cfg.dataset.class_names
    if names and cfg.num_classes != len(names) + 1:
        raise InputError(
            f"config {cfg.name}: num_classes is {cfg.num_classes}, but data set "
            f"{cfg.dataset.name} names {len(names)} classes and background counts too: set "
            f"num_classes to {len(names) + 1}, or dataset.class_names to the right names"
        )


def _sections_by_name(path: Path) -> dict[str, Any]:
    """The sections that a file gives by name, by what they stand for."""
    faults: list[str] = []
    tree = read_file(path, faults) if is_file(path) else None
    if faults or tree is None:  # load_config says it
        return {}
    named = {}
    for section in NAMED_SECTIONS:
        node = tree.value.get(section)
        if node is not None and isinstance(node.value, str) and _is_name(node.value):
            try:
                named[section] = _Expression(node.value, section).evaluate()
            except InputError as error:
                raise InputError(f"{node.where}: {error}") from None
    return named


def _spelled_out(option: str) -> list[str]:
    """An option, or in place of one that gives a section by name, what the name stands for."""
    key, _, value = (part.strip() for part in option.partition("="))
    if key not in NAMED_SECTIONS or not _is_name(value):
        return [option]
    try:
        section = _Expression(value, key).evaluate()
    except InputError as error:
        raise InputError(f"--cfg-options {option}: {error}") from None
    return [_as_option(*item) for item in _dotted({key: section}).items()]


def _is_name(text: str) -> bool:
    return text[:1].isalpha() and text.casefold() not in ("none", "null")


def _dotted(values: Mapping[str, Any]) -> dict[str, Any]:
    """Sections given as mappings become dotted keys, so that only the keys named change."""
    flat = {}
    for key, value in values.items():
        if is_dataclass(value):
            value = to_dict(value)
        if key in NAMED_SECTIONS and isinstance(value, Mapping):
            flat |= {f"{key}.{inner}": item for inner, item in value.items()}
        else:
            flat[key] = value
    return flat


def _as_option(key: str, value: Any) -> str:
    """KEY=VALUE for `load_config`, which takes either texts or values, not both."""
    if key.rpartition(".")[2] in MAPPING_KEYS and isinstance(value, Mapping):
        value = {"_delete_": True, **value}  # whole, not merged into the one before
    return f"{key}={json.dumps(value, default=str, ensure_ascii=False)}"


def _without_flag(fault: str, texts: list[str]) -> str:
    """A fault about a text of our making, without the flag that nobody has typed."""
    flag = "--cfg-options "
    if any(fault.startswith(flag + text) for text in texts):
        return fault.removeprefix(flag)
    return fault


def _stems(folder: Path) -> dict[str, Path]:
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def _hint(word: str, *folders: str) -> str:
    """The nearest name among the recipes of `folders`, else all of them."""
    names = [name for folder in folders for name in _stems(RECIPES / folder)]
    return did_you_mean(word, names) or f" There are: {', '.join(names)}."


class _Expression:
    """A name with `.copy({...})` and `.replace({...})` behind it, read from its syntax tree."""

    def __init__(self, text: str, what: str):
        self.text = text.strip()
        self.what = what
        try:
            if len(self.text) > MAX_LITERAL:
                raise ValueError("too long")
            self.tree = ast.parse(self.text, mode="eval").body
            if _depth(self.tree) > MAX_DEPTH:
                raise ValueError("too deep")
        except (SyntaxError, ValueError, MemoryError, RecursionError):
            self.text = self.text[:100]
            raise InputError(
                f"{what} {self.text}: wants a name, a YAML file, or NAME.copy({{'key': value}})"
            ) from None

    def recipe(self) -> tuple[Path, dict[str, Any]]:
        """The recipe file that the expression starts from, and the changes on top of it."""
        changes: dict[str, Any] = {}
        node = self.tree
        chain = []
        while isinstance(node, ast.Call):
            chain.append(self._argument(node))
            node = node.func.value
        for argument in reversed(chain):
            changes = _merged(changes, argument)
        if not isinstance(node, ast.Name):
            raise self._refused(node)
        names = _stems(RECIPES)
        name = node.id.removesuffix("_config")
        if name not in names:
            raise InputError(f"no {self.what} named {node.id}.{_hint(name, '.')}")
        return names[name], changes

    def evaluate(self) -> Any:
        """The plain value of an expression over a named section, constant or literal."""
        return self._value(self.tree)

    def _value(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Call):
            argument = self._argument(node)
            base = self._value(node.func.value)
            if not isinstance(base, Mapping):
                raise self._refused(node)
            return _merged(base, argument)
        if isinstance(node, (ast.Name, ast.Attribute)):
            return self._named(node)
        if isinstance(node, ast.Dict) and None not in node.keys:
            keys = [self._value(key) for key in node.keys]
            if any(isinstance(key, (list, dict)) for key in keys):
                raise self._refused(node)
            return dict(zip(keys, map(self._value, node.values), strict=True))
        if isinstance(node, (ast.List, ast.Tuple)):
            return [self._value(item) for item in node.elts]
        try:
            value = ast.literal_eval(node)
        except (ValueError, TypeError, MemoryError, RecursionError):
            raise self._refused(node) from None
        if isinstance(value, int) and value.bit_length() > 63:
            raise self._refused(node)
        return value

    def _named(self, node: ast.expr) -> Any:
        name = ast.unparse(node)
        if name in CONSTANTS:
            value = CONSTANTS[name]
            return to_dict(value) if is_dataclass(value) else value
        for section, folder in SECTIONS.items():
            path = _stems(RECIPES / folder).get(name)
            if path is not None:
                return to_dict(vars(load_config(_Sections, path))[section])
        options = [*CONSTANTS, *(n for f in SECTIONS.values() for n in _stems(RECIPES / f))]
        whole = next((n for n in options if n in (f"{name}_dataset", f"{name}_backbone")), name)
        raise InputError(f"no {self.what} named {name}.{did_you_mean(whole, options)}")

    def _argument(self, node: ast.Call) -> dict[str, Any]:
        """The mapping inside `.copy(...)`."""
        is_copy = isinstance(node.func, ast.Attribute) and node.func.attr in ("copy", "replace")
        if not is_copy or node.keywords or len(node.args) > 1:
            raise self._refused(node)
        argument = self._value(node.args[0]) if node.args else {}
        if not isinstance(argument, Mapping) or not all(isinstance(k, str) for k in argument):
            raise self._refused(node)
        return dict(argument)

    def _refused(self, node: ast.expr) -> InputError:
        return InputError(
            f"{self.what} {self.text}: {_shown(node)} is not allowed here; wants a name, a YAML "
            "file, or NAME.copy({'key': value}) with plain values"
        )


def _depth(tree: ast.expr) -> int:
    """Levels of an expression, found without descending into it by recursion."""
    depth, level = 0, [tree]
    while level:
        depth += 1
        level = [child for node in level for child in ast.iter_child_nodes(node)
                 if isinstance(child, ast.expr)]
    return depth


def _shown(node: ast.expr) -> str:
    try:
        text = ast.unparse(node)
    except (ValueError, RecursionError):  # a number of more digits than Python prints
        text = "this"
    return text if len(text) <= 100 else text[:100] + "..."


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`changes` over `base`; sections given as mappings merge key by key."""
    merged = dict(base)
    for key, value in changes.items():
        both = isinstance(merged.get(key), Mapping) and isinstance(value, Mapping)
        merged[key] = {**merged[key], **value} if both and key in SECTIONS else value
    return merged


def about(name: str, cfg: YolactConfig) -> dict[str, Any]:
    """Facts for `Run.describe` of a config in force: what it has other than the recipe `name`."""
    return about_config(name, cfg, load_yolact_config)
