"""MultiBoxLoss against the original's values (golden/yolact_loss.json)."""

import numpy as np
import pytest
import torch
from goldens import calm, image_batch, load_golden

from common.losses import MultiBoxLoss
from common.losses.boxes import encode
from common.losses.multibox import hard_negatives
from common.losses.multibox_match import NEUTRAL, match, split_crowds
from models.yolact import build_yolact, load_yolact_config
from models.yolact.priors import make_priors

GOLDEN = load_golden("yolact_loss")
BASE = GOLDEN["criterion_only"]["yolact_base_config"]
# Values are recorded with 9 digits; float32 sums in another order differ by a few 1e-6.
CLOSE = {"rtol": 1e-5}

CFG = load_yolact_config("yolact_base_config")


def ellipse(box, size):
    x1, y1, x2, y2 = box[:4]
    at = np.arange(size) + 0.5
    dx = (at - (x1 + x2) / 2 * size) / ((x2 - x1) / 2 * size)
    dy = (at - (y1 + y2) / 2 * size) / ((y2 - y1) / 2 * size)
    return torch.from_numpy((dx[None] ** 2 + dy[:, None] ** 2 <= 1).astype(np.uint8))


@pytest.fixture(scope="module")
def truth():
    size = GOLDEN["image_size"]
    targets = [torch.tensor(rows) for rows in GOLDEN["objects"]]
    masks = [torch.stack([ellipse(box, size) for box in rows]) for rows in GOLDEN["objects"]]
    for image, counts in zip(masks, GOLDEN["mask_pixel_counts"], strict=True):
        assert image.sum((1, 2)).tolist() == counts
    return targets, masks, GOLDEN["num_crowds"]


@pytest.fixture(scope="module")
def predictions():
    priors = make_priors(CFG, [(69, 69), (35, 35), (18, 18), (9, 9), (5, 5)])
    p = len(priors)
    assert p == BASE["num_priors"]
    made = {
        "loc": 0.5 * image_batch("yolact_loss:loc", 2, p, 4),
        "conf": image_batch("yolact_loss:conf", 2, p, 81),
        "mask": torch.tanh(image_batch("yolact_loss:mask", 2, p, 32)),
        "proto": torch.relu(image_batch("yolact_loss:proto", 2, 138, 138, 32)),
        "segm": image_batch("yolact_loss:segm", 2, 80, 69, 69),
    }
    return {k: v.requires_grad_() for k, v in made.items()} | {"priors": priors}


@pytest.fixture(scope="module")
def losses(predictions, truth):
    return MultiBoxLoss(CFG)(None, predictions, *truth)


def test_losses(losses):
    assert list(losses) == list(BASE["losses"])
    for name, value in BASE["losses"].items():
        np.testing.assert_allclose(losses[name].item(), value, **CLOSE)
    np.testing.assert_allclose(sum(losses.values()).item(), BASE["total"], **CLOSE)


@pytest.mark.parametrize("term", BASE["losses"])
def test_gradient_norm(losses, predictions, term):
    names = list(BASE["grad_l2_per_term"][term])
    inputs = [predictions[name] for name in names]
    grads = torch.autograd.grad(losses[term], inputs, retain_graph=True, allow_unused=True)
    for name, grad in zip(names, grads, strict=True):
        expected = BASE["grad_l2_per_term"][term][name]
        if expected is None:
            assert grad is None, name
        else:
            np.testing.assert_allclose(grad.double().norm().item(), expected, **CLOSE)


def test_rows_in_c(losses, predictions):
    grad, = torch.autograd.grad(losses["C"], predictions["conf"], retain_graph=True)
    assert (grad != 0).any(2).sum(1).tolist() == BASE["rows_in_C"]


def test_matching(predictions, truth):
    priors = predictions["priors"]
    objects, crowds = split_crowds(*truth)
    classes, prior_object = match(objects, crowds, priors, CFG)
    first_object = [0, objects.counts[0]]
    for image, record in enumerate(BASE["matching"]):
        positive = (classes[image] > 0).nonzero()[:, 0]
        own = prior_object[image, positive]
        neutral = (classes[image] == NEUTRAL).nonzero()[:, 0]
        assert positive.tolist() == record["pos_prior_indices"]
        assert (own - first_object[image]).tolist() == record["pos_gt_index"]
        assert torch.equal(classes[image, positive], objects.labels[own] + 1)
        assert len(positive) == record["num_pos"]
        assert len(neutral) == record["num_neutral"]
        assert neutral.sum().item() == record["neutral_index_sum"]
        assert (classes[image] == 0).sum().item() == record["num_background"]
        target = encode(objects.boxes[own], priors[positive]).double()
        # A sum that nearly cancels keeps float32's absolute error of its parts (about 1e-5).
        np.testing.assert_allclose(target.sum().item(), record["loc_t_pos_sum"], atol=2e-5)
        np.testing.assert_allclose(target.abs().sum().item(), record["loc_t_pos_abs_sum"], **CLOSE)


def test_hard_negatives_are_three_per_positive(predictions, truth):
    objects, crowds = split_crowds(*truth)
    classes, _ = match(objects, crowds, predictions["priors"], CFG)
    counts = (classes > 0).sum(1).tolist()
    chosen = hard_negatives(predictions["conf"].detach(), classes, counts, 3)
    per_image = torch.bincount(chosen // classes.shape[1]).tolist()
    assert [n + p for n, p in zip(per_image, counts, strict=True)] == BASE["rows_in_C"]
    assert (classes.flatten()[chosen] == 0).all()


# --- the whole network ---

END_TO_END = GOLDEN["end_to_end"]["yolact_resnet50_config"]


@pytest.fixture(scope="module")
def network():
    net = build_yolact("yolact_resnet50_config")
    net.load_state_dict(calm(net.state_dict()))
    net.freeze_bn()
    return net.train()


@pytest.fixture(scope="module")
def trace(network, truth):
    """Losses before each of the three steps, and the gradients of the first."""
    record = END_TO_END["sgd_trace"]
    options = {key: record[key] for key in ("lr", "momentum", "weight_decay")}
    trainable = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trainable, **options)
    images = image_batch("yolact_loss:image", 2, 3, 550, 550)
    losses, first_grads = [], {}
    for _ in record["losses_before_each_step"]:
        optimizer.zero_grad()
        terms = MultiBoxLoss(network.cfg)(network, network(images), *truth)
        sum(terms.values()).backward()
        first_grads = first_grads or {
            name: p.grad.double().norm().item()
            for name, p in network.named_parameters() if p.grad is not None}
        optimizer.step()
        losses.append({name: value.item() for name, value in terms.items()})
    return losses, first_grads


# The golden file's own allowance; from CPU to CPU it is about 1e-5.
LOSS_RTOL, GRAD_RTOL = 1e-3, 1e-2


def test_losses_of_the_network(trace):
    losses, _ = trace
    assert losses[0] == pytest.approx(END_TO_END["losses"], rel=LOSS_RTOL)
    assert sum(losses[0].values()) == pytest.approx(END_TO_END["total"], rel=LOSS_RTOL)


def test_gradients_of_the_network(network, trace):
    _, grads = trace
    assert len(grads) == END_TO_END["num_params_with_grad"]
    assert len(list(network.parameters())) == END_TO_END["num_params"]
    named = {name: grads[name] for name in END_TO_END["grad_l2"]}
    assert named == pytest.approx(END_TO_END["grad_l2"], rel=GRAD_RTOL)
    total = np.sqrt(sum(norm**2 for norm in grads.values()))
    assert total == pytest.approx(END_TO_END["grad_l2_all"], rel=GRAD_RTOL)


def test_sgd_trace(trace):
    losses, _ = trace
    expected = END_TO_END["sgd_trace"]["losses_before_each_step"]
    for step, record in zip(losses, expected, strict=True):
        assert step | {"T": sum(step.values())} == pytest.approx(record, rel=LOSS_RTOL)
