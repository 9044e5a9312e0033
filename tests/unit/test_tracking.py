"""--tensorboard and --wandb: which numbers the services get, and that they end no training."""

import sys
import types

import pytest

from runtime import cli
from runtime.errors import InputError
from runtime.run.tracking import Trackers

TRAIN = {"event": "train", "iteration": 7, "epoch": 1, "lr": 0.5, "loss": 3.0,
         "losses": {"B": 1.0, "C": 2.0}, "images_per_s": 8.0, "data_s": 0.25, "memory_mb": 4.0,
         "grad_norm": None}
SCALARS = {"loss/B": 1.0, "loss/C": 2.0, "train/loss": 3.0, "train/lr": 0.5,
           "train/images_per_s": 8.0, "train/data_s": 0.25, "train/memory_mb": 4.0}
EVAL = {"event": "eval", "iteration": 8, "epoch": 1, "metrics": {"mask/all": 12.5,
                                                                "mask/50": float("nan")}}


class StandIn(types.ModuleType):
    """wandb as far as it is used; `calls` has what it was told."""

    def __init__(self, api_key, fails_in=()):
        super().__init__("wandb")
        self.api = types.SimpleNamespace(api_key=api_key)
        self.calls, self.fails_in = [], fails_in

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(name)

        def call(*args, **how):
            self.calls.append((name, args, how))
            if name in self.fails_in:
                raise ConnectionError("no\nnetwork")
            return self

        return call

    def of(self, wanted):
        return [call[1:] for call in self.calls if call[0] == wanted]


@pytest.fixture
def wandb(monkeypatch):
    def install(api_key="secret", fails_in=()):
        module = StandIn(api_key, fails_in)
        monkeypatch.setitem(sys.modules, "wandb", module)
        return module

    for name in ("WANDB_MODE", "WANDB_PROJECT", "WANDB_NAME"):
        monkeypatch.delenv(name, raising=False)
    return install


def follow(folder, *names):
    said = []
    trackers = Trackers(names, folder, "train_it", "lr: 0.5\n", said.append)
    for event in (TRAIN, EVAL, {"event": "stop", "iteration": 9}):
        trackers.write(event)
    trackers.close()
    return said


def test_wandb_gets_the_finite_scalars(tmp_path, wandb):
    service = wandb()
    assert follow(tmp_path / "night", "wandb") == []
    [(_, how)] = service.of("init")
    assert (how["project"], how["name"], how["dir"]) == ("train_it", "night",
                                                         str(tmp_path / "night"))
    assert how["config"]["config"] == "lr: 0.5\n"
    assert "mode" not in how
    assert [args for args, _ in service.of("log")] == [
        ({**SCALARS, "iteration": 7},), ({"mask/all": 12.5, "iteration": 8},)]
    assert len(service.of("finish")) == 1


def test_without_a_login_wandb_stays_offline(tmp_path, wandb, monkeypatch):
    service = wandb(api_key=None)
    [line] = follow(tmp_path, "wandb")
    assert "wandb login" in line
    assert f"{tmp_path}/wandb" in line
    assert service.of("init")[0][1]["mode"] == "offline"
    monkeypatch.setenv("WANDB_MODE", "disabled")  # the user's own word counts
    monkeypatch.setenv("WANDB_PROJECT", "cats")
    service = wandb(api_key=None)
    assert follow(tmp_path, "wandb") == []
    assert "mode" not in service.of("init")[0][1]
    assert service.of("init")[0][1]["project"] == "cats"


@pytest.mark.parametrize("place", ["init", "log", "finish"])
def test_a_fault_of_wandb_is_told_once(tmp_path, wandb, place):
    service = wandb(fails_in=[place])
    [line] = follow(tmp_path, "wandb")
    assert line.startswith("--wandb: no more is logged there (ConnectionError: no network)")
    assert len(service.of("log")) <= (2 if place == "finish" else 1)


def test_tensorboard_gets_the_same_scalars(tmp_path, monkeypatch):
    written = {}

    class SummaryWriter:
        def __init__(self, folder):
            written["folder"] = folder

        def add_scalar(self, name, value, iteration):
            written[name, iteration] = value

        def close(self):
            written["closed"] = True

    module = types.SimpleNamespace(SummaryWriter=SummaryWriter)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    assert follow(tmp_path, "tensorboard") == []
    assert written == {"folder": tmp_path / "tensorboard", "closed": True, ("mask/all", 8): 12.5,
                       **{(name, 7): value for name, value in SCALARS.items()}}


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_package_that_cannot_be_imported(tmp_path, monkeypatch, name):
    monkeypatch.setitem(sys.modules, {"tensorboard": "torch.utils.tensorboard"}.get(name, name),
                        None)
    with pytest.raises(InputError, match=f"--{name}: the package cannot be imported"):
        Trackers([name], tmp_path, "train_it", "", print)


def test_a_missing_package_is_told_with_the_command_line(monkeypatch):
    flags = cli.Flags(tensorboard=False, wandb=True)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"^--wandb: the package is not installed; pip install w"):
        cli.trackers(flags)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    assert cli.trackers(flags) == ["wandb"]
    assert cli.trackers(cli.Flags(tensorboard=True, wandb=True)) == ["tensorboard", "wandb"]
    assert cli.trackers(cli.Flags(lr=1)) == []
