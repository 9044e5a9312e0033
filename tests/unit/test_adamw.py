"""The optimizer's file form is MMDetection's, whatever groups it computes with."""

import pytest
import torch

from models.queryinst.ordered import OrderedAdamW


def build(seed=0):
    torch.manual_seed(seed)
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2), torch.nn.Linear(2, 2))
    a, b, c = (list(layer.parameters()) for layer in net)
    groups = [{"params": b, "lr": 1e-3}, {"params": a + c, "lr": 1e-2}]
    return net, OrderedAdamW(groups, list(net.parameters()), lr=1e-3, betas=(0.9, 0.999))


def train(net, optimizer, steps, first=0):
    for i in range(first, first + steps):
        x = torch.randn(5, 3, generator=torch.Generator().manual_seed(i))
        optimizer.zero_grad()
        net(x).square().sum().backward()
        optimizer.step()


def reference(net):
    """MMDetection's: a group for each parameter."""
    lrs = [1e-2] * 2 + [1e-3] * 2 + [1e-2] * 2
    return torch.optim.AdamW([{"params": [p], "lr": lr}
                              for p, lr in zip(net.parameters(), lrs, strict=True)])


def test_the_state_is_that_of_one_group_a_parameter():
    net, optimizer = build()
    train(net, optimizer, 3)
    other, _ = build()
    original = reference(other)
    train(other, original, 3)
    ours, theirs = optimizer.state_dict(), original.state_dict()
    assert [group["params"] for group in ours["param_groups"]] == [[i] for i in range(6)]
    assert [g["lr"] for g in ours["param_groups"]] == [g["lr"] for g in theirs["param_groups"]]
    assert list(ours["state"]) == list(theirs["state"])
    for i, moments in theirs["state"].items():
        for key, value in moments.items():
            # the fused kernel may round differently
            torch.testing.assert_close(ours["state"][i][key], value, rtol=1e-5, atol=1e-9)


def test_either_form_is_taken_up():
    whole_net, whole = build()
    train(whole_net, whole, 6)
    net, optimizer = build()
    train(net, optimizer, 3)
    again, resumed = build(seed=1)
    again.load_state_dict(net.state_dict())
    resumed.load_state_dict(optimizer.state_dict())
    train(again, resumed, 3, first=3)
    for a, b in zip(again.parameters(), whole_net.parameters(), strict=True):
        assert torch.equal(a, b)
    assert [group["lr"] for group in resumed.param_groups] == [1e-3, 1e-2]

    original = reference(build()[0])  # one group of all parameters has the same order
    _, taken = build()
    train(*build(), 1)
    state = original.state_dict()
    taken.load_state_dict(state)
    assert taken.state_dict()["state"] == {}


def test_what_does_not_fit_is_refused():
    _, optimizer = build()
    state = optimizer.state_dict()
    with pytest.raises(ValueError, match="of 5 parameters, the network trains 6"):
        optimizer.load_state_dict(state | {"param_groups": state["param_groups"][:5]})
    net, trained = build()
    train(net, trained, 1)
    state = trained.state_dict()
    state["state"][2], state["state"][4] = state["state"][4], state["state"][2]
    with pytest.raises(ValueError, match="parameter 2 has the shape"):
        optimizer.load_state_dict(state)
    with pytest.raises(ValueError, match="same parameters"):
        OrderedAdamW([{"params": list(net.parameters())}], list(net.parameters())[1:], lr=1.0,
                     betas=(0.9, 0.999))
