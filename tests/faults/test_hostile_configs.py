"""Hostile and odd Python configs: each is refused in a line, at once, and nothing of it is run."""

import random
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runtime.errors import InputError
from settings.queryinst.recipes import load_queryinst_config

ROOT = Path(__file__).resolve().parents[2]
SLOWEST_S = 5.0  # of the processor; alone none takes 0.6, without limits they take minutes
MOST_MB = 100
BROKEN = 200

# Each would write the file MARKER if it were run. {open} does so as an expression.
OPEN = "open(MARKER, 'w').write('x')"
RUN = {
    "open": "x = {open}",
    "os": "import os\nos.system('touch ' + MARKER)",
    "os_as": "import os as o\nx = o.system('touch ' + MARKER)",
    "from_os": "from os import system\nsystem('touch ' + MARKER)",
    "import": "x = __import__('os').system('touch ' + MARKER)",
    "importlib": "import importlib\nx = importlib.import_module('os').system('touch ' + MARKER)",
    "subprocess": "import subprocess\nx = subprocess.run(['touch', MARKER])",
    "exec": "exec(\"{open}\")",
    "eval": "x = eval(\"{open}\")",
    "compile": "x = compile(\"{open}\", 'a', 'exec')",
    "lambda": "x = (lambda: {open})()",
    "function": "def f():\n    {open}\nf()",
    "decorator": "@{open}\ndef f(): pass",
    "default": "def f(a={open}): pass",
    "class": "class A:\n    {open}",
    "metaclass": "class A(metaclass={open}): pass",
    "walrus": "x = [(y := {open})]",
    "f_string": "x = f\"{{open}}\"",
    "format_spec": "x = f\"{1:{{open}}}\"",
    "list_comprehension": "x = [{open} for i in range(2)]",
    "filter": "x = [i for i in range(2) if {open}]",
    "generator": "x = list({open} for i in range(2))",
    "dict_comprehension": "x = {i: {open} for i in range(2)}",
    "builtins": "x = __builtins__['open'](MARKER, 'w')",
    "subclasses": "x = ().__class__.__bases__[0].__subclasses__()",
    "globals": "x = globals()['__builtins__'].open(MARKER, 'w')",
    "getattr": "x = getattr(__builtins__, 'open')(MARKER, 'w')",
    "method": "x = 'a'.__class__.__mro__",
    "format": "x = '{0.__class__}'.format(1)",
    "format_index": "x = '{0[0].__class__}'.format([1])",
    "format_map": "x = '{a}'.format_map(dict(a=1))",
    "attribute_call": "model = dict()\nmodel.__init__.__globals__['os'].system('touch ' + MARKER)",
    "try": "try:\n    {open}\nexcept Exception:\n    pass",
    "with": "with open(MARKER, 'w') as f:\n    f.write('x')",
    "while": "while True:\n    {open}",
    "assert": "assert {open}",
    "condition": "if {open}:\n    model = dict()",
    "condition_of_expression": "x = 1 if {open} else 2",
    "loop": "for i in {open}:\n    pass",
    "subscript": "x = dict()\nx[{open}] = 1",
    "slice": "x = [1, 2][{open}:]",
    "keyword": "x = dict(a={open})",
    "unpacked": "x = dict(**{open})",
    "starred": "x = [*{open}]",
    "annotation": "x: {open} = {open}",
    "delete": "x = dict()\ndel x[{open}]",
    "sorted_key": "x = sorted([1, 2], key=lambda i: {open})",
    "star_import": "from os import *\nsystem('touch ' + MARKER)",
    "base": "_base_ = {open}",
    "base_call": "_base_ = [__import__('os').system('touch ' + MARKER)]",
    "template": "x = '{{_base_.__class__.__init__}}'",
    "read_base": "with read_base():\n    import os\n    os.system('touch ' + MARKER)",
    "await": "x = await {open}",
    "yield": "x = yield {open}",
    "match": "match 1:\n    case _:\n        {open}",
    "print": "print({open})",
    "copy": "import copy\nx = copy.deepcopy({open})",
    "copyreg": "import copy\nx = copy._reconstruct(1, {open})",
    "shadowed": "dict = 1\nx = dict(a=1)",
    "type": "x = type('A', (), dict(a={open}))",
    "own_class": "from mine import Head\nmodel = dict(type=Head)",
    "package_call": "from mmengine.config import Config\nx = Config.fromfile('a.py')",
}

# Each wants memory, time or depth without end.
BOMBS = {
    "power": "x = 9**9**9",
    "power_of_float": "x = 9.0**99999",
    "negative_power": "x = (-8) ** 0.5",
    "shift": "x = 1 << 10**9",
    "product": "x = 10**1000\ny = x*x*x*x*x",
    "text": "x = 'a' * 10**10",
    "text_left": "x = 10**10 * 'a'",
    "list": "x = [0] * 10**10",
    "nested_list": "x = [[0] * 1000] * 10**6",
    "doubling": "x = 'a' * 1000\n" + "x = x + x\n" * 40,
    "doubling_list": "x = [1]\n" + "x = x + x\n" * 40,
    "doubling_in_place": "x = [1]\n" + "x += x\n" * 40,
    "extend": "x = [1]\n" + "x.extend(x)\n" * 40,
    "sharing": "x = [1]\n" + "x = [x, x]\n" * 45 + "y = x == x",
    "sharing_dict": "model = dict()\n" + "model = dict(a=model, b=model, c=model)\n" * 45,
    "itself": "model = dict()\nmodel['a'] = model",
    "itself_in_a_list": "x = []\nx.append(x)\ny = str(x)",
    "itself_merged": "x = []\nx += [x]\ny = x == [x]",
    "range": "x = range(10**12)",
    "ranges": "x = [range(99999) for i in range(9999)]",
    "large_tree": "model = dict(a=[list(range(99)) for i in range(1400)])",
    "range_of_text": "x = list(range(10**30))",
    "loops": "x = [0 for a in range(9999) for b in range(9999) for c in range(9999)]",
    "loop": "for a in range(99999):\n    for b in range(99999):\n        x = 1",
    "growing_loop": "x = [1]\nfor a in x:\n    x.append(a)\nfor a in range(99999):\n    x = x + x",
    "sum": "x = sum([[1] * 9999] * 9999, [])",
    "join": "x = ('a' * 9999).join(['b'] * 9999)",
    "replace": "x = ('a' * 9999).replace('a', 'b' * 9999)",
    "width": "x = '%999999999d' % 1",
    "width_of_format": "x = '{:999999999}'.format(1)",
    "width_of_f_string": "x = f'{1:999999999}'",
    "width_of_value": "x = '%*d' % (999999999, 1)",
    "precision": "x = '%.999999999f' % 1",
    "nested_spec": "x = '{:{}}'.format(1, 999999999)",
    "round": "x = round(1, -10**9)",
    "int": "x = int('9' * 99999)",
    "int_base": "x = int('f' * 99999, 16)",
    "digits": "x = 1" + "0" * 5000,
    "brackets": "x = " + "[" * 5000 + "]" * 5000,
    "parentheses": "x = " + "(" * 150 + "1" + ")" * 150,
    "dicts": "model = " + "dict(a=" * 95 + "1" + ")" * 95,
    "minus": "x = " + "-" * 50000 + "1",
    "plus": "x = " + "1 + " * 30000 + "1",
    "nots": "x = " + "not " * 30000 + "1",
    "attributes": "x = a" + ".b" * 50000,
    "calls": "x = a" + "()" * 50000,
    "subscripts": "x = a" + "[0]" * 40000,
    "conditions": "x = " + "1 if 1 else " * 10000 + "1",
    "powers": "x = " + "2 ** " * 5000 + "2",
    "many": "x = [" + "0, " * 49000 + "]",
    "assignments": "x = 1\n" * 24000,
    "bytes": "x = " + "0," * 200_000,
    "blocks": "".join(" " * i + "if 1:\n" for i in range(120)) + " " * 120 + "x = 1",
    "f_strings": "x = 'a' * 99\n" + "".join("x = f'{x}{x}{x}'\n" for _ in range(30)),
    "comprehension_of_texts": "x = ['a' * 99999 for i in range(99999)]",
    "product_of_zip": "x = [zip(range(99999), range(99999)) for i in range(999)]",
    "sorted": "x = [sorted(range(99999)) for i in range(9999)]",
    "min": "x = [min(range(99999)) for i in range(9999)]",
    "in": "x = list(range(99999))\ny = [-1 in x for i in range(99999)]",
    "index": "x = list(range(9999))\ny = [x.index(9998) for i in range(9999)]",
    "insert": "x = list(range(9999))\nfor i in range(99999):\n    x.insert(0, i)",
    "slices": "x = list(range(9999))\ny = [x[:] for i in range(9999)]",
    "deepcopy": "import copy\nx = [1]\n" + "x = [x, x]\n" * 40 + "y = copy.deepcopy(x)",
    "keys": "x = dict(zip(range(9999), range(9999)))\ny = [x.items() for i in range(9999)]",
}

# Files that are no Python configs at all.
ODD = {
    "nul": b"model = dict()\0",
    "utf16": "model = dict()".encode("utf-16"),
    "latin": b"x = '\xe9'",
    "syntax": b"model = dict(",
    "indent": b"  model = dict()",
    "python2": b"print 'a'",
    "huge": b"#" * 300_000,
    "binary": bytes(range(256)) * 40,
    "yaml": b"model:\n  type: QueryInst\n",
    "no_base": b"_base_ = 'nothing.py'",
    "odd_base": b"_base_ = [1]",
    "empty_base": b"_base_ = ''",
    "package_base": b"_base_ = 'mmdet::queryinst/nothing.py'",
    "own_base": b"_base_ = 'config.py'",
    "folder_base": b"_base_ = '.'",
    "nul_base": b"_base_ = 'a\\0b'",
    "long_base": b"_base_ = 'a' * 9999",
    "late_base": b"if 1:\n    _base_ = 'nothing.py'",
    "bad_code_line": b"# -*- coding: nonsense -*-\nmodle = dict()",
    "modle": b"modle = dict(type='QueryInst')",
    "base": b"base_ = ['../_base_/default_runtime.py']",
    "twice": b"model = dict(type='QueryInst', type='QueryInst')",
    "break": b"break",
    "wrong_value": b"train_dataloader = dict(batch_size='many')",
}


def told(path):
    """The fault lines of a file, within the limits of time."""
    started = time.process_time()
    with pytest.raises(InputError) as caught:
        load_queryinst_config(str(path))
    assert time.process_time() - started < SLOWEST_S
    assert all(fault.isprintable() and len(fault) < 2100 for fault in caught.value.faults)
    assert all(fault.startswith(str(path.parent)) for fault in caught.value.faults)
    return caught.value.faults


def written(folder, text):
    path = folder / "config.py"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize("name", RUN)
def test_nothing_is_run(name, tmp_path):
    marker = tmp_path / "marker"
    code = RUN[name].replace("{open}", OPEN).replace("MARKER", repr(str(marker)))
    path = written(tmp_path, code)
    faults = told(path)
    assert "cannot read" in faults[0] or "no value" in faults[0], faults
    assert len(faults) <= 2
    assert not marker.exists()
    assert "config" not in sys.modules


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_small(name, tmp_path):
    faults = told(written(tmp_path, BOMBS[name]))
    assert len(faults) <= 42  # a line each, where each line of the file is one


@pytest.mark.parametrize("name", ODD)
def test_odd_files(name, tmp_path):
    assert len(told(written(tmp_path, ODD[name]))) == 1


def test_a_folder(tmp_path):
    (tmp_path / "config.py").mkdir()
    (fault,) = told(tmp_path / "config.py")
    assert fault.endswith("a folder, and a config is a file")


def test_bases_without_end(tmp_path):
    for i in range(150):
        (tmp_path / f"a{i}.py").write_text(f"_base_ = ['a{i + 1}.py', 'a{i + 2}.py']")
    assert told(tmp_path / "a0.py")
    (tmp_path / "b.py").write_text(f"_base_ = {[f'c{i}.py' for i in range(200)]}")
    for i in range(200):
        (tmp_path / f"c{i}.py").write_text("work_dir = 'a'")
    assert told(tmp_path / "b.py")


def test_broken_files_are_told(tmp_path):
    """Words of configs and of the files above in any order: read, or refused in lines."""
    shutil.copytree(ROOT / "tests" / "mmdetection", tmp_path / "configs")
    short = [text for text in BOMBS.values() if len(text) < 500]
    sources = [path.read_text() for path in (tmp_path / "configs").rglob("*.py")]
    sources += [*RUN.values(), *short]
    cut = re.compile(r"\w+|'[^'\n]*'|[^\w\s]|\n *| ")
    chance = random.Random(7)
    path = tmp_path / "configs" / "queryinst" / "broken.py"
    faults: list[str] = []
    refused = 0
    for _ in range(BROKEN):
        words = cut.findall(chance.choice(sources))
        for _ in range(chance.randint(1, 4)):
            i = chance.randrange(len(words))
            others = cut.findall(chance.choice(sources))
            words[i:i + chance.randint(0, 2)] = others[:chance.choice((0, 1, 1, 30))]
            words = words or ["x"]
        path.write_text("".join(words))
        started = time.process_time()
        try:
            load_queryinst_config(str(path))
        except InputError as error:
            refused += 1
            faults += error.faults
        assert time.process_time() - started < SLOWEST_S
    assert refused > BROKEN / 2
    assert all(fault.isprintable() for fault in faults)


def test_all_bombs_together_fit_in_memory(tmp_path):
    """In a process of its own, whose memory is bounded on top of what it has after its imports."""
    for name, text in BOMBS.items():
        (tmp_path / f"{name}.py").write_text(text)
    code = f"""
import resource, sys
from pathlib import Path
from runtime.errors import InputError
from settings.queryinst.recipes import load_queryinst_config
before = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
limit = before + {MOST_MB} * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for path in sorted(Path(sys.argv[1]).glob("*.py")):
    try:
        load_queryinst_config(str(path))
        print("read", path.stem)
    except InputError as error:
        assert error.faults
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, text=True,
                          capture_output=True, timeout=100)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_script_ends_with_one_line(tmp_path):
    marker = tmp_path / "marker"
    path = written(tmp_path, f"import os\nos.system('touch {marker}')")
    done = subprocess.run([sys.executable, "train_queryinst.py", str(path), "--device", "cpu"],
                          cwd=ROOT, text=True, capture_output=True, timeout=100)
    assert done.returncode == 2
    assert done.stderr.startswith(f"train_queryinst: {path}:2: cannot read os.system(")
    assert done.stderr.count("\n") == 1
    assert not marker.exists()
