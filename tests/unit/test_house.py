"""The floor plan of docs/code.md: who may import whom, how large rooms, files and functions are,
and that a script loads its own family only.
"""

import ast
import json
import re
import subprocess
import sys

import pytest
from rooms import ROOMS, ROOT, SCRIPTS, folders, modules

# What a file of a room may import beside its own room. Scripts, benchmarks and tests: everything.
ARROWS = {
    "data": {"common", "settings", "runtime"},
    "models": {"common", "settings", "runtime"},
    "metrics": {"common", "settings", "runtime", "data.coco_format"},
    "common": {"runtime"},
    "settings": {"runtime"},
    "runtime": set(),
}
UPWARD = {"common/config.py": {"settings"}}  # the public face over the config core, a few lines

MOST_MODULES = 15  # of a folder, without __init__.py
MOST_LINES = 500  # of a module
MOST_LINES_OF_SCRIPT = 450
MOST_LINES_OF_FUNCTION = 80
MOST_LINES_OF_FLAGS = 100  # `flags` of a script is the table of its options, one a line, no code
MOST_LINES_OF_COMMON = 3500

# Words that tell whose a module is, by the beginning of one of its names, and their owners.
OWNERS = {
    "yolact": {"train_yolact"},
    "multibox": {"train_yolact"},
    "queryinst": {"train_queryinst"},
    "set_matching": {"train_queryinst"},
    "set_prediction": {"train_queryinst"},
    "mmdetection": {"train_queryinst"},
    "coco": {"train_yolact", "train_queryinst"},
    "resnest": {"train_resnest"},
    "imagenet": {"train_resnest"},
    "classification": {"train_resnest"},
    "class_history": {"train_resnest"},
    "segmentation": {"train_seg"},
    "seg_": {"train_seg"},
    "pycocotools": {"train_yolact", "train_queryinst"},
}


def check(faults):
    """Fails with the faults, {key: what is wrong}."""
    left = [f"{key}: {text}" for key, text in faults.items()]
    assert not left, "\n".join(left)


def sources():
    """(path as text, syntax tree) of each file of the rooms and each script."""
    paths = [ROOT / f"{script}.py" for script in SCRIPTS]
    paths += [path for room in ROOMS for path in modules(room)]
    return [(path.relative_to(ROOT).as_posix(), ast.parse(path.read_text())) for path in paths]


SOURCES = sources()


def imported(tree):
    """Dotted names that a file imports, anywhere in it; of `from a import b` both a and a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name == "import_module":
                yield str(node.args[0].value)


def lies_in(name, places):
    return any(name == place or name.startswith(f"{place}.") for place in places)


def wrong_arrows(path, tree):
    """The names that the file at `path` must not import."""
    room = path.partition("/")[0]
    if room not in ARROWS:
        return []
    allowed = {room} | ARROWS[room] | UPWARD.get(path, set())
    inner = {place for place in allowed if "." in place}
    # `from data import coco_format` names data first; what is taken from it decides
    through = {place.partition(".")[0] for place in inner} - allowed
    return sorted({name for name in imported(tree)
                   if lies_in(name, ROOMS) and not lies_in(name, allowed) and name not in through})


def functions(tree):
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return [node for node in ast.walk(tree) if isinstance(node, kinds)]


def test_arrows_go_one_way():
    check({f"{path} -> {name}": "must not be imported there"
           for path, tree in SOURCES for name in wrong_arrows(path, tree)})


def test_nobody_imports_a_script():
    others = [(path.relative_to(ROOT).as_posix(), ast.parse(path.read_text()))
              for path in ROOT.glob("benchmarks/*.py")]
    check({f"{path} -> {name}": "a script is not imported"
           for path, tree in SOURCES + others for name in imported(tree)
           if lies_in(name, SCRIPTS)})


def test_public_faces_load_from_their_own_room():
    faults = {}
    for path, tree in SOURCES:
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "lazy_names":
                room = path.rpartition("/")[0].replace("/", ".")
                homes = [text.value for text in ast.walk(tree)
                         if isinstance(text, ast.Constant) and isinstance(text.value, str)
                         and lies_in(text.value, ROOMS) and "." in text.value]
                faults |= {f"{path} -> {home}": "another room's" for home in homes
                           if not lies_in(home, {room})}
    check(faults)


def test_folders_are_small():
    faults = {}
    for room in ROOMS:
        for folder in folders(room):
            count = len([path for path in folder.glob("*.py") if path.name != "__init__.py"])
            if count > MOST_MODULES:
                faults[f"modules of {folder.relative_to(ROOT).as_posix()}"] = count
    check(faults)


def test_modules_are_short():
    faults = {}
    for path, _ in SOURCES:
        count = len((ROOT / path).read_text().splitlines())
        if count > (MOST_LINES if "/" in path else MOST_LINES_OF_SCRIPT):
            faults[f"lines of {path}"] = count
    check(faults)


def test_functions_are_short():
    faults = {}
    for path, tree in SOURCES:
        for node in functions(tree):
            is_table = "/" not in path and node.name == "flags"
            count = node.end_lineno - node.lineno + 1
            if count > (MOST_LINES_OF_FLAGS if is_table else MOST_LINES_OF_FUNCTION):
                faults[f"function {path}:{node.name}"] = count
    check(faults)


def test_common_is_thin():
    count = sum(len(path.read_text().splitlines()) for path in modules("common"))
    check({"lines of common": count} if count > MOST_LINES_OF_COMMON else {})


def test_no_bag_of_state():
    check({f"class {node.name} of {path}": "functions take what they use"
           for path, tree in SOURCES for node in ast.walk(tree)
           if isinstance(node, ast.ClassDef) and node.name == "Job"})


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_loads_its_own_family_only(script):
    code = f"import {script}, json, sys; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True,
                          timeout=120)
    if done.returncode:
        check({f"{script} cannot be imported": done.stderr})
        return
    loaded = [name for name in json.loads(done.stdout.splitlines()[-1])
              if lies_in(name, (*ROOMS, "pycocotools"))]
    assert "runtime.cli" in loaded  # that they are found at all
    check({f"{script} loads {name}": f"is for {', '.join(sorted(owners))}"
           for name in loaded for word, owners in OWNERS.items()
           if script not in owners and any(part.startswith(word) for part in name.split("."))})


@pytest.mark.parametrize("page", ["docs/code.md", "README.md"])
def test_pages_name_files_that_are_there(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    rooms = "|".join((*ROOMS, "docs", "tests", "benchmarks"))
    named = re.findall(rf"\b((?:{rooms})/[\w/.]*\w\.(?:py|md))\b", text)
    named += [f"docs/{link}" if page.startswith("docs") else link
              for link in re.findall(r"\]\((?!http|#)([^)]+)\)", text)]
    assert len(named) > 3
    check({f"{page} names {name}": "is not there"
           for name in named if not (ROOT / name).exists()})


@pytest.mark.parametrize("path, source, names", [
    ("models/a.py", "from data import loading", ["data", "data.loading"]),
    ("models/a.py", "def f():\n    import data.loading", ["data.loading"]),
    ("metrics/a.py", "from data.coco_format import rle\nfrom data import coco_format", []),
    ("metrics/a.py", "from data.coco_format.rle import x\nfrom data.loading import y",
     ["data.loading", "data.loading.y"]),
    ("common/config.py", "from settings.loading import load_config", []),
    ("common/a.py", "from settings.loading import load_config",
     ["settings.loading", "settings.loading.load_config"]),
    ("runtime/a.py", "import importlib\nimportlib.import_module('common.parallel')",
     ["common.parallel"]),
    ("settings/a.py", "import torch, runtime.errors", []),
])
def test_a_wrong_arrow_is_found(path, source, names):
    assert wrong_arrows(path, ast.parse(source)) == names
