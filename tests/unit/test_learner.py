"""common.optim: what an update changes, accumulation, means; runtime.run.scores."""

import copy

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from common.optim import Learner, Precision, accumulated, add_terms, trained_average
from common.optim.learner import MovingAverage
from runtime.errors import InputError
from runtime.run.scores import Scores


def learner_of(decay=None):
    torch.manual_seed(0)
    net = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    return Learner(net, optimizer, Precision("off", torch.device("cpu"))).averaging(decay)


def update(learner, clip_grad=None):
    learner.optimizer.zero_grad()
    learner.net(torch.ones(3, 2)).sum().backward()
    learner.update(clip_grad, learner.precision.grad_norm(learner.optimizer))


def state_of(learner, iteration=1, **identity):
    return learner.state(iteration, 4, world_size=1, identity=identity, config="a: 1\n", best=0.5)


def test_without_an_average_the_network_itself_is_scored():
    learner = learner_of()
    assert learner.ema is None
    assert learner.scored is learner.net


def test_the_average_follows_the_updates():
    learner = learner_of(decay=0.5)
    first = learner.net.weight.detach().clone()
    update(learner)  # the first one takes the weights as they are then
    after_one = learner.net.weight.detach().clone()
    update(learner)
    assert not torch.equal(first, after_one)
    torch.testing.assert_close(learner.scored.weight, (after_one + learner.net.weight) / 2)


def test_the_average_is_torchs():
    torch.manual_seed(1)
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    own = MovingAverage(net, 0.9)
    wanted = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    for _ in range(12):
        net(torch.rand(2, 1, 5, 5))  # changes the norm's statistics and its count of batches
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.add_(torch.rand_like(parameter))
        own.update_parameters(net)
        wanted.update_parameters(net)
    assert own.state_dict().keys() == wanted.state_dict().keys()
    for name, value in wanted.state_dict().items():
        assert torch.equal(own.state_dict()[name], value), name


def test_gradients_are_clipped_by_their_norm():
    free, clipped = learner_of(), learner_of()
    before = free.net.weight.detach().clone()
    update(free)
    update(clipped, clip_grad=1e-3)
    assert (free.net.weight - before).norm() > 100 * (clipped.net.weight - before).norm()


def test_a_state_brings_back_optimizer_and_average():
    learner = learner_of(decay=0.5)
    update(learner)
    state, weights = copy.deepcopy(state_of(learner)), copy.deepcopy(learner.net.state_dict())
    update(learner)
    again = learner_of(decay=0.5)
    again.net.load_state_dict(weights)
    again.resume(state, {}, force=False, warn=print)
    update(again)
    assert torch.equal(again.net.weight, learner.net.weight)
    assert torch.equal(again.scored.weight, learner.scored.weight)
    assert (state["iteration"], state["best"], state["config"]) == (1, 0.5, "a: 1\n")


def test_a_state_of_another_run_is_refused():
    learner = learner_of()
    with pytest.raises(InputError, match="seed was 1, is now 2"):
        learner.resume(state_of(learner, seed=1), {"seed": 2}, force=False, warn=print)


def test_what_a_checkpoint_scored():
    learner = learner_of(decay=0.5)
    update(learner)
    update(learner)
    net = learner_of().net
    assert trained_average(net, None) is net
    assert trained_average(net, {"ema": None}) is net
    averaged = trained_average(net, state_of(learner))
    assert torch.equal(averaged.weight, learner.scored.weight)


def test_gradients_travel_with_the_last_batch(monkeypatch):
    class Parallel(nn.Module):  # as DistributedDataParallel says it
        synchronises = True

        def no_sync(self):
            module = self

            class Off:
                def __enter__(self):
                    module.synchronises = False

                def __exit__(self, *_):
                    module.synchronises = True

            return Off()

    monkeypatch.setattr("common.optim.steps.DistributedDataParallel", Parallel)
    module = Parallel()
    seen = [(batch, module.synchronises) for batch in accumulated(module, ["a", "b", "c"])]
    assert seen == [("a", False), ("b", False), ("c", True)]
    assert module.synchronises
    assert list(accumulated(nn.Linear(1, 1), ["a"])) == ["a"]


def test_sums_of_terms():
    sums = {}
    weight = torch.tensor(1.0, requires_grad=True)
    for factor in (1.0, 3.0):
        add_terms(sums, {"B": weight * factor})
    assert not sums["B"].requires_grad
    assert sums["B"] == 4


def test_scores_keep_the_best_and_when():
    scores = Scores("mask/all")
    assert scores.validated(3, {"mask/all": 0.0})  # also a first score of nothing
    assert not scores.validated(6, {"mask/all": 0.0})
    assert scores.validated(9, {"mask/all": 2.5})
    assert not scores.validated(12, {})  # the truth is elsewhere
    assert scores.pack() == {"best": 2.5, "waited": 0, "validated_at": 12}
    again = Scores("mask/all")
    again.restore({**scores.pack(), "optimizer": {}})
    assert (again.best, again.validated_at, again.metrics) == (2.5, 12, None)
