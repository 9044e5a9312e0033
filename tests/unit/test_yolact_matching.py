"""Matching where a batch is loaded: the loss is the same, bit by bit."""

from dataclasses import replace

import pytest
import torch
from test_multibox import NET, config, leaves, make_inputs

from common.losses import MultiBoxLoss
from common.parallel import scatter_batch
from models.yolact import build_yolact, load_yolact_config, matching
from models.yolact.matching import match_images
from models.yolact.network import priors_of


def graded(cfg, predictions, *truth):
    torch.manual_seed(5)  # of the random subset of masks
    losses = MultiBoxLoss(cfg)(NET, predictions, *truth)
    return [*losses.values(), *torch.autograd.grad(sum(losses.values()), leaves(predictions))]


@pytest.mark.parametrize("counts, num_crowds", [
    ((3, 1), [0, 0]),
    ((12, 0, 5), [2, 0, 1]),  # an image without objects, crowds
    ((2, 4), [2, 0]),  # an image with crowds only
    ((0, 0), [0, 0]),
    ((40,), [0]),  # more objects than can have a good prior
])
@pytest.mark.parametrize("most", [100, 4])
def test_the_loss_is_the_same(counts, num_crowds, most):
    cfg = config(use_maskiou=True, masks_to_train=most)
    predictions, targets, masks = make_inputs(counts)
    truth = targets, masks, num_crowds
    matched = match_images(targets, num_crowds, priors=predictions["priors"], cfg=cfg)
    wanted = graded(cfg, predictions, *truth)
    found = graded(cfg, predictions, *truth, matched)
    assert all(map(torch.equal, found, wanted))


def test_a_batch_may_be_cut_over_gpus():
    cfg = config()
    predictions, targets, masks = make_inputs((3, 0, 7))
    truth = targets, masks, [0, 0, 1]
    matched = match_images(targets, truth[2], priors=predictions["priors"], cfg=cfg)
    pieces = scatter_batch((torch.zeros(3, 1), *truth, matched), ["cpu", "cpu"])
    for (images, *own), first in zip(pieces, (0, 2), strict=True):
        part = {name: value if name == "priors" else
                value[first:first + len(images)].detach().requires_grad_()
                for name, value in predictions.items()}
        assert all(map(torch.equal, graded(cfg, part, *own), graded(cfg, part, *own[:3])))


@pytest.fixture(scope="module")
def net():
    cfg = load_yolact_config("yolact_shapes")
    return build_yolact(replace(cfg, max_size=64)).train()


def test_the_priors_are_those_of_the_outputs(net):
    before = {name: value.clone() for name, value in net.state_dict().items()}
    priors = priors_of(net)
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert torch.equal(priors, net.forward_heads(torch.rand(2, 3, 64, 64))["priors"])
    targets = [torch.tensor([[0.1, 0.1, 0.6, 0.5, 0.0]])]
    (found,) = matching(net)(targets, [0])
    (wanted,) = match_images(targets, [0], priors=priors, cfg=net.cfg)
    assert all(torch.equal(found[key], wanted[key]) for key in wanted)


def test_thresholds_that_change_in_mid_run_are_left_to_the_loss(net):
    cfg = net.cfg
    try:
        net.cfg = replace(cfg, delayed_settings=((5, {"conf_alpha": 2.0}),))
        assert matching(net) is not None
        net.cfg = replace(cfg, delayed_settings=((5, {"positive_iou_threshold": 0.6}),))
        assert matching(net) is None
    finally:
        net.cfg = cfg
