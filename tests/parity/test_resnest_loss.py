"""Losses and mixup of the classifier against the original's recorded values."""

import pytest
import torch
from goldens import load_golden
from torch.nn import functional as F

from common.losses.classification import LabelSmoothing, NLLMultiLabelSmooth, mixup

GOLDEN = {k: v for k, v in load_golden("resnest_loss").items() if isinstance(v, dict)}


def inputs(record):
    rows, classes = record["B"], record["C"]
    i, j = torch.arange(rows).double()[:, None], torch.arange(classes).double()
    return 3 * torch.sin(0.7 * i + 0.37 * j), (7 * torch.arange(rows) + 3) % classes


def loss_of(name, logits, labels):
    kind = name.split("_B")[0]
    if kind == "ce":
        return F.cross_entropy(logits, labels)
    if kind.startswith("label_smooth_"):
        return LabelSmoothing(float(kind.rsplit("_", 1)[1]))(logits, labels)
    classes = logits.shape[1]
    if "eval" in kind:
        return NLLMultiLabelSmooth(0.1).eval()(logits, labels)
    smoothing = float(kind.split("_")[2])
    if kind.endswith("onehot"):
        return NLLMultiLabelSmooth(smoothing)(logits, F.one_hot(labels, classes).float())
    perm = list(range(len(labels)))[::-1]
    _, targets = mixup(logits.detach(), labels, classes, 0.3, perm)
    return NLLMultiLabelSmooth(smoothing)(logits, targets)


@pytest.mark.parametrize("name", list(GOLDEN))
def test_loss(name):
    record = GOLDEN[name]
    logits, labels = inputs(record)
    logits = logits.float().requires_grad_()
    loss = loss_of(name, logits, labels)
    # a float32 near 3 has steps of 2.4e-7; sums over 1000 classes cost a few
    assert loss.item() == pytest.approx(record["loss_f32"], rel=1e-6)
    # the record in float64; ours is in float32
    assert loss.item() == pytest.approx(record["loss_f64"], rel=1e-6)
    loss.backward()
    flat, wanted = logits.grad.flatten(), record["grad_f32"]
    n = flat.numel()
    index = range(n) if n <= 64 else [k * (n - 1) // 63 for k in range(64)]
    # the gradients are at most 0.2: float32's rounding of the softmax
    assert flat[list(index)].tolist() == pytest.approx(wanted["samples"], abs=1e-7)
    assert flat.abs().max().item() == pytest.approx(wanted["absmax"], abs=1e-7)
    assert flat.double().std(unbiased=False).item() == pytest.approx(wanted["std"], abs=1e-7)


@pytest.mark.parametrize("name", [name for name in GOLDEN if name.startswith(("ce", "label"))])
def test_loss_in_float64(name):
    logits, labels = inputs(GOLDEN[name])
    loss = loss_of(name, logits, labels).item()
    assert loss == pytest.approx(GOLDEN[name]["loss_f64"], rel=1e-12)  # both in float64
