"""Python configs, read and never run: what an expression is worth, how files merge."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from runtime.errors import InputError
from settings.files import read_file
from settings.foreign import Note
from settings.loading import load_config
from settings.nodes import Node, literal
from settings.queryinst.recipes import load_queryinst_config

# Read, and beside it run by Python: both must give the same values.
SNIPPETS = {
    "scalars": """
a = 1
b = -1.5e-4
c = 'x'
d = None
e = True
f = 'a' 'b'
g = 1_000
h = +2
i = ~5
""",
    "containers": """
a = [1, (2, 3), {'k': 4, 5: 6}]
b = ()
c = [*a, *b]
d = {**a[2], 'z': 1}
""",
    "dicts": """
a = dict(x=1, y=dict(z=2))
b = dict(**a, w=3)
c = dict([('p', 1)], q=2)
d = dict(a)
""",
    "names": """
a = b = 3
c, (d, e) = 1, (2, a)
[f, g] = [d, e]
""",
    "annotated": """
a: int = 3
b: str
c = a
""",
    "arithmetic": """
a = 1 + 2 * 3 - 4 / 5
b = 7 // 2
c = 7 % 4
d = 2 ** 10
e = 1 << 4
f = 6 & 3 | 8 ^ 1
""",
    "texts": """
a = 'x' + 'y' * 3
b = f'{a}-{1 + 1:03d}'
c = '{}/{n}'.format(a, n=2)
d = '%s %05.2f' % (a, 1)
""",
    "more_texts": """
a = 'a,b'.split(',')
b = '-'.join(a)
c = 'x.py'.replace('.py', '')
d = 'A'.lower()
e = f'{a}'
g = '%d%%' % 5
h = '%(k)s' % dict(k=1)
i = '{0}{0!r}'.format('q')
""",
    "comparisons": """
a = 1 < 2 < 3
b = 1 in [1]
c = 'x' not in dict(y=1)
d = None is None
e = [1] == [1]
""",
    "logic": """
a = 1 and 2
b = 0 or 'x'
c = not a
d = 1 if a > 1 else 2
e = None or [] or dict()
""",
    "items": """
a = [1, 2, 3, 4]
b = a[-1]
c = a[1:3]
d = a[::-1]
e = dict(k=a)['k'][0]
f = 'abc'[1]
""",
    "comprehensions": """
a = [i * j for i in range(3) for j in (1, 2) if i != j]
b = {str(i): i for i in range(2)}
c = tuple((s, 1333) for s in range(480, 801, 32))
d = sum(x for x in [1, 2])
e = [k for k, v in dict(a=1, b=0).items() if v]
""",
    "functions": """
a = len([1])
b = list(range(3))
c = int('7') + int(2.5)
d = float(1)
e = str(2)
f = min(1, 2) + max([3, 4])
g = abs(-1)
h = round(2.567, 1)
i = sorted([2, 1], reverse=True)
j = list(zip([1], [2]))
k = list(enumerate('ab', 1))
l = any([0, 1])
m = all([])
n = bool(0)
o = list(reversed([1, 2]))
p = tuple('ab')
""",
    "changes": """
a = dict(x=dict(y=1))
a['x']['y'] = 2
a['z'] = [1]
a['z'][0] = 5
a.update(x=dict(w=1))
b = [1]
b.append(2)
b.extend([3])
b.insert(0, 0)
c = b.pop()
b += [9]
d = 1
d += 2
b.remove(9)
b.reverse()
e = a.pop('z')
f = a.get('no', 4)
a.setdefault('n', 1)
g = list(a.keys())
del a['n']
h = a.copy()
h['q'] = 1
i = 'x'
i += 'y'
del b[0]
""",
    "shared": """
a = [dict(k=1)]
b = dict(p=a)
a[0].update(k=2)
a.append(3)
c = list(a)
c.append(4)
""",
    "copies": """
import copy
a = [dict(k=1)]
b = copy.deepcopy(a)
c = copy.copy(a)
a[0]['k'] = 2
a.append(1)
""",
    "deepcopy": """
from copy import deepcopy
a = dict(b=[1])
c = deepcopy(a)
a['b'].append(2)
""",
    "conditions": """
a = 3
if a > 2:
    b = 1
elif a:
    b = 2
else:
    b = 3
""",
    "loops": """
a = []
for i in range(5):
    if i == 1:
        continue
    if i == 3:
        break
    a.append(dict(n=i))
else:
    b = 1
for k, v in dict(x=1).items():
    c = (k, v)
""",
    "deleted": """
a = 1
b = 2
del a
""",
    "unused_imports": """
import os.path as osp
from numpy import array
a = 1
""",
    "documentation": """
'''text'''
a = 1
'text again'
""",
    "or_of_dicts": """
a = dict(x=1) | dict(y=2)
a |= dict(z=3)
""",
    "sets": """
a = sorted({3, 1, 3})
b = len({1})
""",
}


def plain(node: Node) -> Any:
    """A tree as plain values, sequences as lists."""
    if isinstance(node.value, dict):
        return {key: plain(item) for key, item in node.value.items()}
    if isinstance(node.value, list):
        return [plain(item) for item in node.value]
    return node.value if node.quoted else literal(node)


def listed(value: Any) -> Any:
    """A Python value in the form that `plain` gives."""
    if isinstance(value, dict):
        return {str(key): listed(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, range)):
        return [listed(item) for item in value]
    return value


def write(folder: Path, **files: str) -> Path:
    """Files NAME.py, and the path of the first."""
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    return folder / f"{next(iter(files))}.py"


def read(path: Path) -> dict[str, Any]:
    """What a file gives, when it has no fault."""
    faults: list[str] = []
    tree = read_file(path, faults)
    assert not faults
    return plain(tree)


@pytest.mark.parametrize("name", SNIPPETS)
def test_as_python_has_it(name, tmp_path):
    expected: dict[str, Any] = {}
    exec(SNIPPETS[name], expected)
    modules = ("__builtins__", "copy", "deepcopy", "osp", "array", "__annotations__",
               "__doc__")
    expected = {key: listed(value) for key, value in expected.items() if key not in modules}
    assert read(write(tmp_path, a=SNIPPETS[name])) == expected


BASE = """\
data_root = 'data/coco/'
pipeline = [dict(type='A'), dict(type='Resize', scale=(1333, 800))]
model = dict(type='Q', backbone=dict(depth=50, init=dict(c='x')), heads=[dict(n=1), dict(n=2)])
loader = dict(batch=2, dataset=dict(root=data_root, pipeline=pipeline))
"""


def test_bases_merge_as_mmengine_merges_them(tmp_path):
    got = read(write(tmp_path, child="""\
_base_ = ['./base.py', 'other.py']
model = dict(backbone=dict(depth=101, init=dict(_delete_=True, d='y')))
loader = dict(dataset=dict(pipeline=[dict(type='B')]))
""", base=BASE, other="top = dict(a=1)\n"))
    assert got["model"]["backbone"] == {"depth": 101, "init": {"d": "y"}}
    assert got["model"]["heads"] == [{"n": 1}, {"n": 2}]
    assert got["loader"] == {"batch": 2, "dataset": {"root": "data/coco/",
                                                     "pipeline": [{"type": "B"}]}}
    assert got["top"] == {"a": 1}


def test_numbers_name_items_of_a_list(tmp_path):
    got = read(write(tmp_path, child="_base_ = 'base.py'\nmodel = dict(heads={'1': dict(m=3)})",
                     base=BASE))
    assert got["model"]["heads"] == [{"n": 1}, {"n": 2, "m": 3}]


def test_words_of_the_base_and_of_the_file(tmp_path, monkeypatch):
    monkeypatch.setenv("SET_HERE", "/data")
    got = read(write(tmp_path, child="""\
_base_ = 'base.py'
a = _base_.model.backbone
b = {{_base_.pipeline}}
c = '{{_base_.model.backbone.depth}}'
d = '{{ fileBasenameNoExtension }}/{{_base_.data_root}}'
e = '{{fileDirname}}|{{fileBasename}}|{{fileExtname}}'
f = '{{$SET_HERE:none}}/{{$NOT_SET_HERE:none}}'
g = {{$NOT_SET_HERE:12}}
h = f'{{fileBasename}}'
i = dict(pipeline=_base_.pipeline[1:] + [dict(type='C')])
_base_.pipeline[0].update(k=1)
_base_.model.backbone.depth = 18
del _base_.loader.batch
""", base=BASE))
    assert "batch" not in got["loader"]
    assert got["a"] == {"depth": 18, "init": {"c": "x"}}  # the same dict, changed below
    assert [step["type"] for step in got["b"]] == ["A", "Resize"]
    assert got["c"] == 50
    assert got["d"] == "child/data/coco/"
    assert got["e"] == f"{tmp_path}|child.py|.py"
    assert got["f"] == "/data/none"
    assert got["g"] == 12
    assert got["h"] == "child.py"
    assert [step["type"] for step in got["i"]["pipeline"]] == ["Resize", "C"]
    assert got["pipeline"][0] == {"type": "A", "k": 1}
    assert got["model"]["backbone"]["depth"] == 18


def test_the_lazy_style(tmp_path):
    (tmp_path / "sub").mkdir()
    write(tmp_path, base=BASE)
    got = read(write(tmp_path / "sub", child="""\
from mmengine.config import read_base
with read_base():
    from ..base import *
    from .part import one as uno, two
from mmdet.datasets import CocoDataset
from torch.optim import AdamW
import torch.nn as nn
model.update(dict(backbone=dict(depth=101)))
model.backbone.init.c = 'z'
loader.update(dataset=dict(type=CocoDataset))
optimizer = dict(type=AdamW, act=dict(type=nn.ReLU))
plain = dict(a=dict(b=1))
plain.update(a=dict(c=2))
""", part="one = 1\ntwo = 2\nthree = 3\n"))
    assert got["model"]["backbone"] == {"depth": 101, "init": {"c": "z"}}
    assert got["loader"]["dataset"]["type"] == "CocoDataset"
    assert got["loader"]["dataset"]["root"] == "data/coco/"
    assert got["optimizer"] == {"type": "AdamW", "act": {"type": "ReLU"}}
    assert got["plain"] == {"a": {"c": 2}}  # a dict of the file's own, as Python has it
    assert (got["uno"], got["two"], "three" in got) == (1, 2, False)


def test_dotted_types_of_a_dump(tmp_path):
    got = read(write(tmp_path, a="model = dict(type='mmdet.models.detectors.queryinst.QueryInst')\n"
                                 "work_dir = 'mmdet.work'"))
    assert got == {"model": {"type": "QueryInst"}, "work_dir": "mmdet.work"}


def test_yaml_and_python_name_each_other(tmp_path):
    write(tmp_path, base=BASE, last="_base_ = 'middle.yaml'\nb = _base_.a + 1\nc = _base_.model.d")
    (tmp_path / "middle.yaml").write_text("_base_: base.py\na: 1\nmodel: {d: '5'}\n")
    got = read(tmp_path / "last.py")
    assert (got["a"], got["b"], got["c"]) == (1, 2, "5")
    assert got["model"]["type"] == "Q"


@dataclass(frozen=True)
class Small:
    """A schema with two sections."""

    model: dict[str, Any] = field(default_factory=dict)
    work_dir: str = ""


def loaded(path, notes=None):
    return load_config(Small, path, notes=notes)


def test_variables_are_no_keys(tmp_path):
    path = write(tmp_path, child="""\
_base_ = 'base.py'
root = 'here/'
_hidden = 1
max_epochs = 3
model = dict(a=_base_.width, b=root)
for number in range(2):
    model[f'n{number}'] = number
""", base="width = 8\nroot = 'there/'\nwork_dir = root + 'w'\n")
    notes: list[Note] = []
    cfg = loaded(path, notes)
    assert cfg.model == {"a": 8, "b": "here/", "n0": 0, "n1": 1}
    assert cfg.work_dir == "there/w"
    assert [note.key for note in notes] == ["max_epochs"]


def test_a_variable_of_the_base_changes_nothing_afterwards(tmp_path):
    path = write(tmp_path, child="_base_ = 'base.py'\nroot = 'mine/'\n",
                 base="root = 'there/'\nwork_dir = root\n")
    notes: list[Note] = []
    assert loaded(path, notes).work_dir == "there/"
    assert [note.key for note in notes] == ["root"]
    assert "used its own value" in notes[0].why


@pytest.mark.parametrize("text, message", [
    ("modle = dict()", ":1: unknown key modle. Did you mean model?"),
    ("modle = dict()\nmodle['a'] = 1", ":1: unknown key modle. Did you mean model?"),
    ("modle = dict()\nmodle.update(a=1)", ":1: unknown key modle. Did you mean model?"),
    ("base_ = 'a.py'", ":1: unknown key base_. Did you mean _base_?"),
    ("model = dict(a=widht)", ":1: cannot read widht: nothing above gives widht a value."),
    ("width = 1\nwork_dir = what(width)", ":2: cannot read what(width): the function what is not"),
    ("width = 1\nmodel = dict(\n  a=widht)", ":3: cannot read widht: nothing above gives widht a "
                                              "value. Did you mean width?"),
    ("work_dir = dict()", ":1: work_dir wants text, got a mapping"),
    ("_base_ = 'no.py'", ":1: _base_ names "),
    ("import os\nwork_dir = os.environ['A']", ":2: cannot read os: what os has is not known"),
    ("model = dict(a=[1][3])", ":1: cannot read [1][3]: list index out of range"),
    ("model = dict()\nwork_dir = model['b']", ":2: cannot read model['b']: there is no key b"),
    ("_base_ = 'mmdet::smal/nothing.py'", ":1: _base_ names mmdet::smal/nothing.py, a config of"),
    ("with read_base():\n    from mmdet.configs import *", ":2: cannot read from mmdet.configs"),
    ("_base_ = 'a.py'", ":1: _base_ names a.py, which is based on this file itself"),
])
def test_faults_have_file_and_line(text, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as caught:
        loaded(write(tmp_path, a=text).name)
    (fault,) = caught.value.faults
    assert fault.startswith(f"a.py{message}")


def test_what_stands_on_a_fault_is_not_told_again(tmp_path):
    path = write(tmp_path, a="x = open('a')\ny = x + 1\nmodel = dict(a=y)\nz = eval('1')")
    with pytest.raises(InputError) as caught:
        loaded(path)
    assert [fault.split(":")[1] for fault in caught.value.faults] == ["1", "4"]


def test_every_value_has_its_line(tmp_path):
    path = write(tmp_path, child="_base_ = 'base.py'\nmodel = dict(\n  a=1,\n  b=[\n    2])",
                 base="work_dir = 'x'\nmodel = dict(c=1)")
    faults: list[str] = []
    tree = read_file(path, faults)
    model = tree.value["model"].value
    base = path.with_name("base.py")
    assert tree.value["work_dir"].where == f"{base}:1"
    assert (model["a"].where, model["c"].where) == (f"{path}:3", f"{base}:2")
    assert model["b"].value[0].where == f"{path}:5"


def test_a_recipe_of_ours_as_base_of_a_package(tmp_path):
    path = write(tmp_path, mine="""\
_base_ = 'mmdet::queryinst/queryinst_r50_fpn_1x_coco.py'
train_dataloader = dict(batch_size=7)
train_cfg = dict(max_epochs=_base_.train_cfg.max_epochs * 2)
""")
    cfg = load_queryinst_config(str(path))
    assert (cfg.name, cfg.train_dataloader.batch_size, cfg.train_cfg.max_epochs) == ("mine", 7, 24)
    ours = load_queryinst_config("queryinst_r50_fpn_1x_coco")
    assert cfg.param_scheduler == ours.param_scheduler


def test_a_byte_order_mark_and_line_ends(tmp_path):
    path = tmp_path / "a.py"
    path.write_bytes("\ufeffwork_dir = 'x'\r\nmodle = 1\r\n".encode())
    with pytest.raises(InputError, match=":2: unknown key modle"):
        loaded(path)


def test_a_path_is_read_or_stands_for_a_recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = "configs/queryinst/queryinst_r50_fpn_1x_coco.py"
    assert load_queryinst_config(name) == load_queryinst_config("queryinst_r50_fpn_1x_coco")
    os.makedirs("configs/queryinst")
    Path(name).write_text("train_dataloader = dict(batch_size=9)")
    for path in (name, str(tmp_path / name), f"./{name}"):
        cfg = load_queryinst_config(path)
        assert (cfg.name, cfg.train_dataloader.batch_size) == ("queryinst_r50_fpn_1x_coco", 9)
    with pytest.raises(InputError, match=r"no such file, and none of our recipes.*Did you mean"):
        load_queryinst_config("configs/queryinst/queryinst_r50_fpn_1x_cocco.py")


def test_yaml_merges_stay_as_they_were(tmp_path):
    (tmp_path / "a.yaml").write_text(yaml.safe_dump({"_base_": "b.yaml", "model": {"a": 1}}))
    (tmp_path / "b.yaml").write_text(yaml.safe_dump({"model": {"b": [1, 2]}}))
    assert loaded(tmp_path / "a.yaml").model == {"a": 1, "b": (1, 2)}
