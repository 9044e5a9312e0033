"""Checkpoints of more outputs than the data have classes: whose output is which."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from common.checkpoint import save_checkpoint
from common.checkpoint.series import resnest_series
from data.imagenet.folders import ClassFolders
from models import resnest
from models.facts import with_facts
from runtime.errors import InputError
from settings.resnest import load_resnest_config


@pytest.fixture
def folders(tmp_path):
    """Folders of the classes b and d, of one image each."""
    for name in ("b", "d"):
        (tmp_path / "train" / name).mkdir(parents=True)
        (tmp_path / "train" / name / "1.jpg").write_bytes(b"")
    return ClassFolders(tmp_path / "train")


def joined(folders, path, evaluates=True):
    lines = []
    resnest.join_outputs(SimpleNamespace(log=lines.append), [folders],
                         resnest_series(path.parent, 1), str(path), evaluates)
    return lines


def head(count):
    return {"fc.weight": torch.zeros(count, 2), "fc.bias": torch.zeros(count)}


@pytest.mark.parametrize("evaluates", [True, False])
def test_without_names_the_classes_are_the_first_outputs(folders, tmp_path, evaluates):
    save_checkpoint(tmp_path / "w.pth", {"state_dict": head(4), "epoch": 0})
    lines = joined(folders, tmp_path / "w.pth", evaluates)
    assert folders.classes == ("b", "d", "output 2", "output 3")
    assert np.array_equal(folders.labels, [0, 1])
    assert lines == [f"{tmp_path / 'w.pth'} has 4 outputs, which stay; the data's 2 classes are "
                     "taken for its first outputs, as the original does."]
    assert folders.counts().tolist() == [1, 1, 0, 0]


def test_outputs_with_names_are_joined_by_name(folders, tmp_path):
    facts = resnest.facts_of(load_resnest_config(None, []), ("a", "b", "c", "d"))
    save_checkpoint(tmp_path / "w.pth", with_facts(head(4), facts))
    fingerprint = folders.fingerprint
    assert "are joined by name" in joined(folders, tmp_path / "w.pth")[0]
    assert folders.classes == ("a", "b", "c", "d")
    assert np.array_equal(folders.labels, [1, 3])
    assert folders.fingerprint == fingerprint  # the data are the same


@pytest.mark.parametrize("count", [1, 2])
def test_as_many_outputs_or_fewer_change_nothing(folders, tmp_path, count):
    save_checkpoint(tmp_path / "w.pth", head(count))
    assert joined(folders, tmp_path / "w.pth") == []
    assert folders.classes == ("b", "d")


def test_a_training_from_the_beginning_has_the_datas_classes(folders, tmp_path):
    resnest.join_outputs(SimpleNamespace(log=print), [folders], resnest_series(tmp_path, 1), None,
                         False)
    assert folders.classes == ("b", "d")
    with pytest.raises(InputError, match="no checkpoint"):
        resnest.join_outputs(SimpleNamespace(log=print), [folders],
                             resnest_series(tmp_path / "none", 1), None, True)
