"""The five QueryInst configs in MMDetection's form give our recipes: as they stand in its folder,
in its lazy style, as a run's dump, and edited as its users edit them.
"""

import importlib.util
import re
import shutil
from pathlib import Path

import pytest

from runtime.errors import InputError
from runtime.launch.launcher import read_command
from settings.files import read_file
from settings.foreign import Note
from settings.loading import to_dict
from settings.nodes import Node, literal
from settings.queryinst.recipes import RECIPES, load_queryinst_config

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "tests" / "mmdetection"  # facts of MMDetection 3.3.0's, in files of our own
FIVE = sorted(path.stem for path in (CONFIGS / "queryinst").glob("*.py"))
ONE_X = "queryinst_r50_fpn_1x_coco"
CLASSES = {"CocoDataset": "mmdet.datasets", "AdamW": "torch.optim", "QueryInst": "mmdet.models",
           "LoadAnnotations": "mmdet.datasets.transforms", "CocoMetric": "mmdet.evaluation",
           "RandomChoiceResize": "mmcv.transforms", "DIIHead": "mmdet.models.roi_heads"}


def config_of(path, notes=None):
    return load_queryinst_config(str(path), notes=notes)


def recipe(name, **edits):
    return to_dict(load_queryinst_config(name, **edits))


@pytest.fixture
def tree(tmp_path):
    """A copy of the folder, to edit."""
    shutil.copytree(CONFIGS, tmp_path / "configs")
    return tmp_path / "configs"


def edit(path, old, new):
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


def test_all_five_are_here():
    assert sorted(path.stem for path in RECIPES.glob("*_coco.yaml")) == FIVE


@pytest.mark.parametrize("name", FIVE)
def test_as_they_stand(name):
    notes: list[Note] = []
    assert to_dict(config_of(CONFIGS / "queryinst" / f"{name}.py", notes)) == recipe(name)
    assert "env_cfg" in {note.key for note in notes}
    assert not {"data_root", "train_pipeline", "model"} & {note.key for note in notes}


def lazy(text, folder):
    """A file of `folder` in MMDetection's lazy style: bases are imported, classes are values."""
    bases = re.search(r"_base_ = (\[[^]]*\]|'.*')\n", text)
    lines = ["from mmengine.config import read_base"]
    names = []
    if bases:
        names = re.findall(r"'([^']*)'", bases[1])
        text = text.replace(bases[0], "")
        lines.append("with read_base():")
        for name in names:
            parts = name.removesuffix(".py").removeprefix("./").split("/")
            level = 1 + parts.count("..")
            module = ".".join(part for part in parts if part != "..").replace("-", "_")
            lines.append(f"    from {'.' * level}{module} import *")
    for word in CLASSES:
        if f"type='{word}'" in text:
            lines.append(f"from {CLASSES[word]} import {word}")
            text = text.replace(f"type='{word}'", f"type={word}")
    text = text.replace("{{_base_.backend_args}}", "backend_args")
    inherited = "train_dataloader|train_cfg|optim_wrapper" + ("" if len(names) > 1 else "|model")
    if names:
        text = re.sub(rf"^({inherited}) = dict\(", r"\1.update(", text, flags=re.MULTILINE)
    return "\n".join([*lines, text])


@pytest.mark.parametrize("name", FIVE)
def test_in_the_lazy_style(name, tree):
    for path in list(tree.rglob("*.py")):
        text = lazy(path.read_text(), path.parent)
        path.unlink()
        path.with_name(path.name.replace("-", "_")).write_text(text)
    path = tree / "queryinst" / f"{name}.py".replace("-", "_")
    assert "_base_ =" not in path.read_text()
    assert to_dict(config_of(path)) | {"name": name} == recipe(name)


def as_python(node):
    """A tree as mmengine dumps it."""
    if isinstance(node.value, dict):
        keys = [f"{key}={as_python(item)}" if key.isidentifier() else f"**{{{key!r}: "
                f"{as_python(item)}}}" for key, item in node.value.items()]
        return f"dict({', '.join(keys)})"
    if isinstance(node.value, list):
        return f"[{', '.join(map(as_python, node.value))}]"
    return repr(node.value if node.quoted else literal(node))


def dumped(path: Path) -> str:
    """What a run of MMDetection leaves in its work folder of the config at `path`."""
    faults: list[str] = []
    tree = read_file(path, faults)
    assert not faults
    values: dict[str, Node] = tree.value
    lines = [f"{key} = {as_python(node)}" for key, node in sorted(values.items())]
    return "\n".join([*lines, "launcher = 'none'", "work_dir = './work_dirs/a'"])


@pytest.mark.parametrize("name", FIVE)
def test_dumped_by_a_run(name, tmp_path):
    path = tmp_path / f"{name}.py"
    path.write_text(dumped(CONFIGS / "queryinst" / f"{name}.py"))
    assert "_base_" not in path.read_text()
    assert "data_root" in path.read_text()
    assert to_dict(config_of(path)) == recipe(name, work_dir="./work_dirs/a")


@pytest.mark.parametrize("name", FIVE)
def test_edited_as_the_document_does(name, tree):
    edit(tree / "_base_" / "default_runtime.py",
         "checkpoint=dict(type='CheckpointHook', interval=1)",
         "checkpoint=dict(type='CheckpointHook',\n"
         "        interval=100, by_epoch=False, max_keep_ckpts=2,\n"
         "        out_dir='/home/user/mmdetection/work_dirs/a')")
    edit(tree / "_base_" / "datasets" / "coco_instance.py",
         "train_dataloader = dict(\n    batch_size=2,",
         "train_dataloader = dict(\n    batch_size=4,")
    assert to_dict(config_of(tree / "queryinst" / f"{name}.py")) == recipe(
        name, train_dataloader={"batch_size": 4}, default_hooks={"checkpoint": {
            "interval": 100, "by_epoch": False, "max_keep_ckpts": 2,
            "out_dir": "/home/user/mmdetection/work_dirs/a"}})


def test_another_data_root(tree):
    edit(tree / "_base_" / "datasets" / "coco_instance.py", "'data/coco/'", "'/data/mine/'")
    cfg = config_of(tree / "queryinst" / f"{ONE_X}.py")
    for loader, part in ((cfg.train_dataloader, "train"), (cfg.val_dataloader, "val")):
        assert loader.dataset.info_path == f"/data/mine/annotations/instances_{part}2017.json"
        assert loader.dataset.images_path == f"/data/mine/{part}2017"
    assert cfg.val_evaluator.ann_file in (None, "/data/mine/annotations/instances_val2017.json")


def test_a_config_of_ones_own_over_them(tree):
    mine = tree / "queryinst" / "mine.py"
    mine.write_text(f"""\
_base_ = './{ONE_X}.py'
classes = ('cat', 'dog')
model = dict(roi_head=dict(
    bbox_head=[dict(type='DIIHead', num_classes=2) for _ in range(6)],
    mask_head=[dict(type='DynamicMaskHead', num_classes=2) for _ in range(6)]))
train_dataloader = dict(dataset=dict(metainfo=dict(classes=classes), data_root='cats/'))
train_cfg = dict(max_epochs=3)
default_hooks = dict(checkpoint=dict(type='CheckpointHook', interval=5, max_keep_ckpts=2))
""")
    cfg = config_of(mine)
    assert (cfg.name, cfg.model.num_classes, cfg.train_cfg.max_epochs) == ("mine", 2, 3)
    assert cfg.train_dataloader.dataset.metainfo.classes == ("cat", "dog")
    assert cfg.train_dataloader.dataset.data_root == "cats/"
    hook = cfg.default_hooks.checkpoint
    assert (hook.interval, hook.max_keep_ckpts, hook.by_epoch) == (5, 2, True)


def test_without_schedules_the_rate_stays(tree):
    alone = tree / "alone.py"
    alone.write_text("train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=3)\n")
    assert config_of(alone).param_scheduler == ()
    over = tree / "queryinst" / "over.py"
    over.write_text(f"_base_ = './{ONE_X}.py'\n")
    assert config_of(over).param_scheduler == load_queryinst_config(ONE_X).param_scheduler
    ours = tree / "ours.yaml"
    ours.write_text("train_cfg: {max_epochs: 3}\n")
    assert config_of(ours).param_scheduler  # a YAML file is changes to the recipe


def test_a_slip_is_told_where_it_stands(tree):
    base = tree / "_base_" / "default_runtime.py"
    edit(base, "logger=dict(type='LoggerHook', interval=50)",
         "logger=dict(type='LoggerHook', intervall=50)")
    with pytest.raises(InputError) as caught:
        config_of(tree / "queryinst" / f"{ONE_X}.py")
    assert caught.value.faults == [
        f"{base}:5: unknown key default_hooks.logger.intervall. "
        "Did you mean default_hooks.logger.interval?"]


def test_a_yaml_file_over_one(tree):
    (tree / "mine.yaml").write_text(f"_base_: queryinst/{ONE_X}.py\ntrain_cfg: {{max_epochs: 5}}\n")
    cfg = load_queryinst_config(tree / "mine.yaml")
    assert to_dict(cfg) == recipe(ONE_X, train_cfg={"max_epochs": 5}) | {"name": "mine"}


@pytest.mark.parametrize("word", ["configs/queryinst/{}.py", "./configs/queryinst/{}.py", "{}.py"])
def test_through_dist_train(word):
    word = word.format(ONE_X)
    command = read_command([word, "3", "--resume"], {})
    assert command.script.name == "train_queryinst.py"
    assert command.arguments == [word, "--resume"]


def test_those_of_an_installed_mmdetection():
    """The files themselves, where the package is installed; it is no requirement of ours."""
    package = importlib.util.find_spec("mmdet")
    if package is None or not package.submodule_search_locations:
        pytest.skip("mmdet is not installed")
    folder = Path(package.submodule_search_locations[0]) / ".mim" / "configs" / "queryinst"
    for name in FIVE:
        assert to_dict(config_of(folder / f"{name}.py")) == recipe(name)
