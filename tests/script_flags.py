"""The four scripts' flags and config keys, as the tests of messages about them want them."""

import importlib
import typing
from dataclasses import fields, is_dataclass

import typer

from settings.queryinst.config import QueryInstConfig
from settings.resnest import ResNeStConfig
from settings.segmentation import SegConfig
from settings.yolact import YolactConfig

SCHEMAS = {
    "train_yolact": YolactConfig,
    "train_seg": SegConfig,
    "train_resnest": ResNeStConfig,
    "train_queryinst": QueryInstConfig,
}


def flag_groups(script):
    """[(names of one option)], long flags only."""
    app = typer.Typer(add_completion=False)
    app.command()(importlib.import_module(script).flags)
    params = typer.main.get_command(app).params
    groups = [(*param.opts, *param.secondary_opts) for param in params]
    return [group for group in groups if group[0].startswith("--")]


def flag_names(script):
    return [name for group in flag_groups(script) for name in group]


def sections(schema, prefix=""):
    """{dotted section, "" for the top: its keys}; items of lists have the list's name."""
    hints = typing.get_type_hints(schema)
    found = {prefix: [field.name for field in fields(schema) if field.init]}
    for key in found[prefix]:
        hint = hints[key]
        for part in _parts(hint):
            if is_dataclass(part) and part is not schema:
                inner = sections(part, f"{prefix}.{key}" if prefix else key)
                for name, keys in inner.items():  # of a list's items, each kind has its own
                    found[name] = list(dict.fromkeys([*found.get(name, []), *keys]))
    return found


def _parts(hint):
    """The types in a hint, at any depth: of tuple[A | B, ...] A and B too."""
    inner = [part for each in typing.get_args(hint) for part in _parts(each)]
    return [hint, *inner]


def dotted_keys(schema):
    return [f"{section}.{key}" if section else key
            for section, keys in sections(schema).items() for key in keys]
