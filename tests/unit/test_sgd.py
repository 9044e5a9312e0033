"""The fused update gives the bits of torch's plain one, whatever state it begins with."""

import copy

import pytest
import torch
from torch import nn

from common.optim.sgd import SGD


def make():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1))
    net.to(memory_format=torch.channels_last)
    return net, [{"params": list(net[0].parameters()), "lr": 0.05}, {"params": net[2].parameters()},
                 {"params": net[1].parameters(), "weight_decay": 0.0}]


def update(net, optimizer, number):
    """One update; the last layer has no gradient in the first two."""
    torch.manual_seed(number)
    images = torch.randn(2, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    optimizer.zero_grad()
    features = net[1](net[0](images))
    (net[2](features) if number >= 2 else features).square().mean().backward()
    optimizer.step()


def same(ours, theirs):
    return all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(),
                                                 strict=True))


@pytest.mark.parametrize("momentum", [0.9, 0.0])
def test_bits_are_those_of_torch(momentum):
    settings = {"lr": 0.1, "momentum": momentum, "weight_decay": 0.01}
    (ours, own_groups), (theirs, groups) = make(), make()
    optimizer, reference = SGD(own_groups, **settings), torch.optim.SGD(groups, **settings)
    assert all(group["fused"] for group in optimizer.param_groups)
    for number in range(5):
        update(ours, optimizer, number)
        update(theirs, reference, number)
        assert same(ours, theirs), number


def test_state_of_an_update_that_was_not_fused():
    settings = {"lr": 0.1, "momentum": 0.9}
    (ours, own_groups), (theirs, groups) = make(), make()
    reference = torch.optim.SGD(groups, **settings)
    update(theirs, reference, 0)
    ours.load_state_dict(theirs.state_dict())
    optimizer = SGD(own_groups, **settings)
    optimizer.load_state_dict(copy.deepcopy(reference.state_dict()))
    assert all(group["fused"] for group in optimizer.param_groups)
    for number in range(1, 4):
        update(ours, optimizer, number)
        update(theirs, reference, number)
    assert same(ours, theirs)

    plain = torch.optim.SGD(make()[1], lr=1.0)  # and torch's own takes up ours
    plain.load_state_dict(optimizer.state_dict())
    assert plain.param_groups[0]["momentum"] == 0.9


def test_away_from_the_cpu_it_is_torchs_default():
    optimizer = SGD([nn.Parameter(torch.zeros(2, device="meta"))], lr=0.1, momentum=0.9)
    assert optimizer.param_groups[0]["fused"] is None
