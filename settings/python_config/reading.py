"""A Python config file as a tree of Nodes, over its `_base_` files."""

import ast
import os
import re
import warnings
from pathlib import Path

from settings.nodes import MAX_BYTES, Node, merge
from settings.python_config.statements import BaseReader, Statements
from settings.python_config.values import (
    Budget,
    Row,
    Table,
    TooMuch,
    Unreadable,
    from_node,
    to_node,
)

MAX_PYTHON_BYTES = 150_000  # of a file; the largest of MMDetection's, with its lists, has 60,000
# `{{$NAME:default}}`: a variable of the environment, put in before the file is parsed
_ENVIRONMENT = re.compile(r"\{\{\s*\$(\w+)\s*:\s*([^\s{}]*?)\s*\}\}")
_NEARLY_BASE = ("base_", "_base", "__base__", "_BASE_", "base")
# names that MMDetection's own configs have beside their sections, and their dumps keep
UNUSED = "variables that their own file does not use; a base file has used its own value"
WELL_KNOWN = frozenset((
    "backend_args", "base_lr", "classes", "class_name", "data_root",
    "dataset_type", "file_client_args", "image_size", "img_norm_cfg", "img_scale", "img_scales",
    "max_epochs", "metainfo", "norm_cfg", "num_classes", "num_proposals", "num_stages",
    "scales", "test_pipeline", "train_pipeline", "val_pipeline",
))


def read_python(path: Path, faults: list[str], budget: Budget, read_base: BaseReader) -> Node:
    """The mapping that a Python config gives, over its `_base_` files; nothing is run.

    read_base: (file name, relative to this file; the line that names it) to that file's tree, or
    None when that could not be had, which it has told
    """
    empty = Node({}, str(path))
    lines = _parsed(path, faults)
    if lines is None:
        return empty
    source, tree = lines
    reader = Statements(path, budget, source, faults, read_base)
    try:
        bases = _read_bases(reader, tree)
        reader.run(tree.body)
        return _result(reader, bases)
    except TooMuch:
        faults.append(f"{reader.at}: too much to work out for a config")
    except ValueError as error:
        faults.append(f"{path}: {error}")
    return empty


def _parsed(path: Path, faults: list[str]) -> tuple[list[str], ast.Module] | None:
    """(lines, syntax tree), None after a fault."""
    try:
        size = path.stat().st_size
        if size > min(MAX_PYTHON_BYTES, MAX_BYTES):
            faults.append(f"{path}: {size:,} bytes are too large to be a config")
            return None
        text = path.read_bytes().decode("utf-8-sig")
        text = _ENVIRONMENT.sub(_from_environment, text)
        with warnings.catch_warnings():  # of odd escapes in texts
            warnings.simplefilter("ignore")
            return re.split(r"\r\n|\r|\n", text), ast.parse(text)
    except SyntaxError as error:
        faults.append(f"{path}:{error.lineno or 1}: not a valid Python file: {error.msg}")
    except UnicodeError:
        faults.append(f"{path}: not a text file in UTF-8; a Python config is wanted")
    except (RecursionError, MemoryError):
        faults.append(f"{path}: nested too deep to be a config")
    except OSError as error:
        faults.append(f"{path}: cannot be read: {error.strerror or error}")
    except ValueError as error:
        faults.append(f"{path}: not a valid Python file: {error}")
    return None


def _from_environment(match: re.Match[str]) -> str:
    return os.environ.get(match[1], match[2]).replace("\r", " ").replace("\n", " ")


def _read_bases(reader: Statements, tree: ast.Module) -> Node | None:
    """The trees of the files that `_base_` names, one over the other; its line is taken out."""
    found = None
    for line in list(tree.body):
        targets = line.targets if isinstance(line, ast.Assign) else []
        if not (isinstance(line, ast.Assign) and len(targets) == 1
                and isinstance(targets[0], ast.Name) and targets[0].id == "_base_"):
            continue
        tree.body.remove(line)
        try:
            value = reader.value(line.value)
        except Unreadable as error:
            reader.tell(error)
            continue
        where = reader.where(line)
        names = list(value) if isinstance(value, Row) else [value]
        lines = value.lines if isinstance(value, Row) else [where]
        found = Node({}, where)
        for name, place in zip(names, lines, strict=True):
            if not isinstance(name, str) or not name:
                reader.faults.append(f"{place}: _base_ wants a file name or a list of them")
                continue
            base = reader.read_base(str(name), place)
            if base is not None:
                found = merge(found, base)
    if found is not None:
        base_table = from_node(found, reader.budget)
        reader.base = base_table if isinstance(base_table, Table) else None
    return found


def _result(reader: Statements, bases: Node | None) -> Node:
    """The file's names over its bases, and which of them are mere variables."""
    names, where = reader.names, f"{reader.path}:1"
    own = Table(where)
    for name, value in names.items():
        own.put(name, value, names.lines[name])
        if name in _NEARLY_BASE:
            reader.faults.append(f"{names.lines[name]}: unknown key {name}. Did you mean _base_?")
            own.pop(name)
    variables = dict(reader.variables)
    below: Node | None = None
    if bases is not None and reader.base is not None:
        below = to_node(reader.base, bases.where, reader.budget)  # lines may have changed it
        variables |= bases.variables
    for name in own:
        if name in reader.used or name.startswith("_"):
            variables[name] = ""
        elif name in reader.changed and (name in variables or name in WELL_KNOWN):
            variables[name] = UNUSED
    variables |= dict.fromkeys(reader.used_of_base, "")
    tree = to_node(own, where, reader.budget)
    tree = Node(tree.value, where, variables=variables)
    return tree if below is None else merge(below, tree)
