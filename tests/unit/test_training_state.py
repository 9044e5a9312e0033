import copy

import pytest
import torch

from common.checkpoint.state import check_same_run, pack_state, restore_state
from common.optim.learner import MovingAverage
from runtime.errors import InputError


def trained(steps, seed=0):
    torch.manual_seed(seed)
    net = torch.nn.Linear(3, 2)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    ema = MovingAverage(net, 0.5)
    for _ in range(steps):
        step(net, optimizer, ema)
    return net, optimizer, ema


def step(net, optimizer, ema):
    optimizer.zero_grad()
    net(torch.ones(1, 3)).square().sum().backward()
    optimizer.step()
    ema.update_parameters(net)


def test_training_goes_on_from_a_packed_state_as_if_never_stopped():
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    net, optimizer, ema = trained(3)
    state = pack_state(iteration=3, per_epoch=2, optimizer=optimizer, scaler=scaler, ema=ema,
                       world_size=1, identity={"seed": 0}, config="lr: 1", extra={"best": 7.0})
    assert (state["epoch"], state["position"], state["best"]) == (1, 1, 7.0)
    state = copy.deepcopy(state)  # as through a file: it must not follow the live optimizer

    other, other_optimizer, other_ema = trained(0, seed=1)
    other.load_state_dict(net.state_dict())
    restore_state(state, other_optimizer, scaler, other_ema)
    step(net, optimizer, ema)
    step(other, other_optimizer, other_ema)
    assert torch.equal(net.weight, other.weight)  # momentum went along
    assert torch.equal(ema.module.weight, other_ema.module.weight)


def test_a_state_of_a_fused_update_goes_on_in_this_process_own_way():
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    net, optimizer, _ = trained(3)
    state = copy.deepcopy(optimizer.state_dict())
    for group in state["param_groups"]:
        group.update(fused=True)  # as ours wrote them while their SGD was fused
    other, other_optimizer, _ = trained(0, seed=1)
    other.load_state_dict(net.state_dict())
    restore_state({"optimizer": state, "scaler": {}, "ema": None}, other_optimizer, scaler, None)
    assert [group["fused"] for group in other_optimizer.param_groups] == [None]
    for each, own in ((net, optimizer), (other, other_optimizer)):
        own.zero_grad()
        each(torch.ones(1, 3)).square().sum().backward()
        own.step()
    assert torch.equal(net.weight, other.weight)


def test_an_optimizer_of_another_network_is_refused():
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    _, optimizer, _ = trained(1)
    state = pack_state(iteration=1, per_epoch=1, optimizer=optimizer, scaler=scaler, ema=None,
                       world_size=1, identity={}, config="", extra={})
    other = torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=0.1)
    with pytest.raises(InputError, match="optimizer state does not fit"):
        restore_state(state, other, scaler, None)


def test_another_run_is_named_and_can_be_forced():
    said = []
    saved, now = {"seed": 0, "batch_size": 8}, {"seed": 1, "batch_size": 8}
    with pytest.raises(InputError, match="seed was 0, is now 1"):
        check_same_run(saved, now, False, said.append)
    check_same_run(saved, now, True, said.append)
    check_same_run(saved, saved, False, said.append)
    assert said == ["resumed by force: seed was 0, is now 1"]


def test_changed_annotations_are_said_and_go_on():
    said = []
    saved = {"num_images": 3, "data": "abc"}
    check_same_run(saved, {"num_images": 3, "data": "abc"}, False, said.append)
    check_same_run({"num_images": 3}, {"num_images": 3, "data": "abc"}, False, said.append)
    assert said == []  # the second was written before there was a fingerprint
    check_same_run(saved, {"num_images": 3, "data": "abd"}, False, said.append)
    assert len(said) == 1
    assert "data have changed" in said[0]
    with pytest.raises(InputError, match="num_images was 3, is now 4"):
        check_same_run(saved, {"num_images": 4, "data": "abd"}, False, said.append)
