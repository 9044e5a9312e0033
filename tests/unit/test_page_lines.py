"""Every command line of README and docs/ is one that the script takes: flags, config, overrides.

docs/commands.md has a test of its own, and README's lines for own data are run by
tests/scripts/test_readme_lines.py.
"""

import re

import pytest
from page_lines import PAGES, ROOT, check, command_lines, started

from runtime.errors import InputError


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_lines_of_the_page_can_be_typed(page, monkeypatch):
    monkeypatch.chdir(ROOT)
    for line in command_lines(page):
        assert "..." not in line, f"{page.name}: write it in full: {line}"
        try:
            check(*started(line))
        except InputError as error:
            pytest.fail(f"{page.name}: {line}: {error.faults}")


@pytest.mark.parametrize("name", ["README", "yolact", "segmentation", "resnest", "queryinst"])
def test_lines_are_found(name):
    page = next(page for page in PAGES if page.stem == name)
    assert len(command_lines(page)) >= 8


@pytest.mark.parametrize("line, start", [
    ("python train_seg.py --cfg a.yaml   # why", ("train_seg", ["--cfg", "a.yaml"])),
    ("torchrun --nproc_per_node 4 train_yolact.py --lr 1", ("train_yolact", ["--lr", "1"])),
    ("PORT=1 ./dist_train.sh train_seg.py 4 --cfg a", ("train_seg", ["--cfg", "a"])),
    ("./dist_train.sh name 3 --resume", ("train_queryinst", ["name", "--resume"])),
    ("sbatch --nodes=2 slurm_train.sh train_seg.py A 1", ("train_seg", ["A", "1"])),
    ("GPUS=8 ./slurm_train.sh part job name dir", ("train_queryinst",
                                                    ["name", "--work-dir", "dir"])),
    ("find . | python train_yolact.py --predict - > log", ("train_yolact", ["--predict", "-"])),
    ("python tools/split_coco.py a.json --val 1", ("split_coco", ["a.json", "--val", "1"])),
    ("make demo", None),
    ("train_seg.py    the script", None),
])
def test_what_a_line_starts(line, start):
    assert started(line) == start


@pytest.mark.parametrize("line", [
    "python train_yolact.py --batchsize 4",
    "python train_yolact.py --config yolact_bose",
    "python train_yolact.py --cfg-options dataset.train_imagse=photos",
    "python train_seg.py --cfg ade20k-hrnetv3",
    "python train_seg.py --cfg ade20k-hrnetv2 TRAIN.lr 1",
    "python train_resnest.py --config-file configs/resnest/resnest51.yaml",
    "python train_queryinst.py queryinst_r50_fpn_9x_coco",
    "python train_yolact.py --benchmark",
    "python tools/split_coco.py a.json --share 1",
])
def test_a_line_that_would_be_refused_is_found(line, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(InputError):
        check(*started(line))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_of_the_page_lead_somewhere(page):
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []
