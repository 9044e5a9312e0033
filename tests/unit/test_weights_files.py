"""Files of weights as people's training scripts write them: one function reads them all."""

import argparse
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from models.foreign_weights import read_weights
from models.queryinst.weights import load_backbone
from models.resnest import build_resnest
from models.resnest.weights import load_weights
from models.segmentation import build_decoder, build_encoder
from models.segmentation.weights import load_weights_file, start_weights
from runtime.errors import InputError


def network(seed=0):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    nn.init.normal_(net[1].running_mean)
    return net


def optimizer_state(net):
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    net(torch.randn(4, 2)).sum().backward()
    optimizer.step()
    return optimizer.state_dict()


def prefixed(prefix, state):
    return {prefix + key: value for key, value in state.items()}


PLAIN, AVERAGED = network(0).state_dict(), network(1).state_dict()


def test_weights_that_are_not_finite_are_refused(tmp_path):
    torch.save({"a.weight": torch.tensor([1.0, float("nan")])}, tmp_path / "a.pth")
    with pytest.raises(InputError, match=r"a\.pth: a\.weight holds values that are not finite"):
        read_weights(tmp_path / "a.pth")


@pytest.mark.parametrize("content, taken", [
    (PLAIN, None),
    ({"epoch": 3, "state_dict": PLAIN, "optimizer": optimizer_state(network())}, "state_dict"),
    ({"model": PLAIN, "args": argparse.Namespace(lr=0.1)}, "model"),
    ({"model_state_dict": PLAIN, "loss": 0.5}, "model_state_dict"),
    ({"net": PLAIN, "acc": 90, "epoch": 3}, "net"),
    ({"model": {"state_dict": PLAIN}}, "model"),
    (prefixed("module.", PLAIN), None),
    ({"state_dict": prefixed("module._orig_mod.", PLAIN)}, "state_dict"),
    ({"state_dict": prefixed("model.", PLAIN), "global_step": 7}, "state_dict"),
    (PLAIN | {"epoch": 3}, None),
    ({"model": PLAIN, "model_ema": AVERAGED}, "model_ema"),
    ({"state_dict": PLAIN, "ema_state_dict": AVERAGED}, "ema_state_dict"),
    ({"state_dict": PLAIN, "state_dict_ema": AVERAGED}, "state_dict_ema"),
    ({"state_dict": PLAIN, "model_ema": None}, "state_dict"),
    ({"state_dict": PLAIN, "ema": {"n_averaged": torch.tensor(9),
                                   **prefixed("module.", AVERAGED)}}, "ema"),
    # MMEngine stores the average under state_dict
    ({"meta": {"epoch": 1}, "state_dict": AVERAGED, "ema_state_dict": PLAIN}, "state_dict"),
])
def test_the_weights_in_a_wrapper(tmp_path, content, taken):
    torch.save(content, tmp_path / "a.pth")
    lines = []
    found = read_weights(tmp_path / "a.pth", lines.append)
    is_average = (taken or "").endswith("ema") or "ema_" in (taken or "") or "meta" in content
    wanted = AVERAGED if is_average else PLAIN
    assert list(found) == list(wanted)
    assert all(torch.equal(found[key], wanted[key]) for key in wanted)
    assert len(lines) == (taken is not None)
    if taken:
        assert f"under {taken} are taken" in lines[0]
        assert ("not those under" in lines[0]) == (
            sum(isinstance(value, dict) for key, value in content.items()
                if key not in ("optimizer", "meta")) > 1)


@pytest.mark.parametrize("content, words", [
    ({"epoch": 3, "optimizer": optimizer_state(network())}, "no weights in it .*epoch, optimizer"),
    ({}, "no weights in it .it holds nothing"),
    ({"state_dict": {"a": 1}}, "no weights in it"),
    ({"state_dict": None}, "no weights in it"),
    (network(), r"Sequential.*save the network's state_dict\(\) instead"),
    ([PLAIN], "no mapping"),
])
def test_no_weights(tmp_path, content, words):
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(InputError, match=rf"a\.pth: .*{words}") as caught:
        read_weights(tmp_path / "a.pth")
    assert len(caught.value.faults) == 1


def test_resnest_takes_them(tmp_path):
    net, other = build_resnest("resnest14_small", 3), build_resnest("resnest14_small", 3)
    torch.save({"model_ema": prefixed("module.", net.state_dict()), "epoch": 2},
               tmp_path / "a.pth")
    lines = []
    load_weights(other, tmp_path / "a.pth", log=lines.append)
    assert len(lines) == 1
    for key, value in net.state_dict().items():
        assert torch.equal(other.state_dict()[key], value)


def small_nets():
    return {"encoder": build_encoder("resnet10small", 256),
            "decoder": build_decoder("c1", 256, 4)}


def test_segmentation_takes_them(tmp_path):
    given, nets = small_nets(), small_nets()
    lines = []
    run = SimpleNamespace(log=lines.append)
    states = {name: net.state_dict() for name, net in given.items()}
    for i, content in enumerate((
        states, {"model": {f"{name}.{key}": value for name, state in states.items()
                           for key, value in state.items()}},
    )):
        nets = small_nets()
        torch.save(content, tmp_path / f"{i}.pth")
        start_weights(run, SimpleNamespace(**nets), None, str(tmp_path / f"{i}.pth"), [])
        for name, net in nets.items():
            assert torch.equal(next(net.parameters()), next(given[name].parameters()))
    torch.save({"state_dict": prefixed("module.", states["encoder"])}, tmp_path / "e.pth")
    net = small_nets()["encoder"]
    load_weights_file(net, tmp_path / "e.pth")  # MODEL.weights_encoder
    assert torch.equal(next(net.parameters()), next(given["encoder"].parameters()))


def test_a_wrapped_backbone(tmp_path):
    from models.queryinst import build_queryinst

    net, other = build_queryinst("queryinst_shapes"), build_queryinst("queryinst_shapes")
    torch.save({"model": net.backbone.state_dict()}, tmp_path / "a.pth")
    load_backbone(other, tmp_path / "a.pth")
    for key, value in net.backbone.state_dict().items():
        assert torch.equal(other.backbone.state_dict()[key], value)
