"""Checkpoints of MMDetection's runner, rebuilt here with a HistoryBuffer like its own."""

import collections
import os
import sys
import types

import numpy as np
import pytest
import torch

from common.checkpoint import load_checkpoint
from common.checkpoint.files import load_any_checkpoint
from runtime.errors import InputError


@pytest.fixture
def history_buffer(monkeypatch):
    """A class under the name of mmengine's, which must never be looked up when a file is read."""
    module = types.ModuleType("mmengine.logging.history_buffer")

    class HistoryBuffer:
        def __init__(self, values):
            self._log_history, self._count_history = np.array(values), np.ones(len(values))

        def __getstate__(self):
            return vars(self) | {"statistics_methods": {"mean": HistoryBuffer.mean}}

        def __setstate__(self, state):
            raise AssertionError("a class of the file was built")

        def mean(self):
            return self._log_history.mean()

    HistoryBuffer.__module__ = module.__name__
    HistoryBuffer.__qualname__ = "HistoryBuffer"
    HistoryBuffer.mean.__module__ = module.__name__
    HistoryBuffer.mean.__qualname__ = "HistoryBuffer.mean"
    module.HistoryBuffer = HistoryBuffer
    for name in ("mmengine", "mmengine.logging"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return HistoryBuffer


def checkpoint(buffer):
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    optimizer = torch.optim.AdamW([{"params": [p]} for p in net.parameters()], lr=1e-3)
    net(torch.randn(5, 3)).sum().backward()
    optimizer.step()
    return {
        "meta": {"epoch": 2, "iter": 28, "cfg": "model = dict()", "seed": 7,
                 "dataset_meta": {"CLASSES": ("a", "b")}},
        "state_dict": net.state_dict(),
        "message_hub": {"log_scalars": collections.OrderedDict(
            {"train/loss": buffer([1.0, 0.5]), "train/lr": buffer(np.arange(1000.0))}),
            "runtime_info": collections.OrderedDict(iter=28)},
        "optimizer": optimizer.state_dict(),
        "param_schedulers": [{"milestones": collections.Counter([8, 11]), "last_step": 28}],
        "shared": net[0].weight.detach().t(),
    }


def test_weights_and_optimizer_come_out_whole(tmp_path, history_buffer):
    state = checkpoint(history_buffer)
    path = tmp_path / "iter_28.pth"
    torch.save(state, path)
    with pytest.raises(InputError, match="HistoryBuffer"):
        load_checkpoint(path)
    found = load_any_checkpoint(path)
    assert found["meta"] == state["meta"]
    assert list(found["state_dict"]) == list(state["state_dict"])
    for key, value in state["state_dict"].items():
        assert torch.equal(found["state_dict"][key], value), key
        assert found["state_dict"][key].dtype == value.dtype
    assert torch.equal(found["shared"], state["shared"])  # a strided view
    for i, moments in state["optimizer"]["state"].items():
        assert torch.equal(found["optimizer"]["state"][i]["exp_avg"], moments["exp_avg"])
    assert found["optimizer"]["param_groups"][1]["params"] == [1]
    assert found["message_hub"]["log_scalars"] == {"train/loss": None, "train/lr": None}
    assert found["param_schedulers"][0]["milestones"] is None


def test_ordinary_files_are_read_as_ever(tmp_path):
    torch.save({"state_dict": {"a": torch.ones(2)}}, tmp_path / "a.pth")
    assert load_any_checkpoint(tmp_path / "a.pth")["state_dict"]["a"].tolist() == [1, 1]
    with pytest.raises(InputError, match="does not exist"):
        load_any_checkpoint(tmp_path / "b.pth")


class _Hostile:
    def __reduce__(self):
        return os.system, ("touch harmed",)


def test_other_names_are_refused(tmp_path, history_buffer, monkeypatch):
    monkeypatch.chdir(tmp_path)
    state = checkpoint(history_buffer) | {"meta": _Hostile()}
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(InputError, match=r"posix\.system|nt\.system"):
        load_any_checkpoint(tmp_path / "a.pth")
    assert not (tmp_path / "harmed").exists()


def test_a_damaged_file_is_named(tmp_path, history_buffer):
    path = tmp_path / "a.pth"
    torch.save(checkpoint(history_buffer), path)
    data = bytearray(path.read_bytes())
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"a\.pth"):
        load_any_checkpoint(path)
