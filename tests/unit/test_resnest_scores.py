"""Top-k, confusion matrix, confident mistakes; losses' options, mixup, CutMix."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from common.losses.classification import (
    LabelSmoothing,
    NLLMultiLabelSmooth,
    cutmix,
    draw_cutmix,
    draw_mixup,
    mix,
    mixup,
)
from metrics import ClassScores, classification
from metrics.classification import ConfidentMistakes, ConfusionMatrix, TopK


def batch(seed, rows=40, classes=7):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, classes, generator=generator)
    return logits, torch.randint(classes, (rows,), generator=generator)


def test_top_k_counts():
    logits, labels = batch(0)
    meter = TopK((1, 3))
    meter.update(logits, labels)
    best = logits.argsort(1, descending=True)
    wanted = {
        f"top{k}": 100 * (best[:, :k] == labels[:, None]).any(1).double().mean().item()
        for k in (1, 3)
    }
    assert meter.compute() == pytest.approx(wanted, rel=1e-12)


@given(st.integers(1, 39))
def test_top_k_of_parts(cut):
    logits, labels = batch(1)
    whole, first, second = TopK(), TopK(), TopK()
    whole.update(logits, labels)
    first.update(logits[:cut], labels[:cut])
    second.update(logits[cut:], labels[cut:])
    first.merge(second)
    assert first.compute() == whole.compute()
    assert first.total == 40


def test_top_k_edges():
    meter = TopK()
    assert meter.compute() == {"top1": 0.0, "top5": 0.0}
    meter.update(*batch(0, rows=0))
    assert meter.total == 0
    logits, labels = batch(0, classes=2)
    meter.update(logits, labels)
    assert meter.compute()["top5"] == 100.0  # fewer classes than five
    constant, diverged = TopK((1,)), TopK((1, 5))
    constant.update(torch.zeros(4, 3), torch.tensor([0, 1, 2, 0]))
    assert constant.compute() == {"top1": 50.0}
    diverged.update(torch.full((2, 3), float("nan")), torch.tensor([0, 1]))
    assert diverged.compute() == {"top1": 0.0, "top5": 0.0}


def test_confusion_matrix():
    matrix, other = ConfusionMatrix(3), ConfusionMatrix(3)
    matrix.update(torch.eye(3)[[0, 1, 1]], torch.tensor([0, 0, 1]))
    other.update(torch.eye(3)[[2]], torch.tensor([1]))
    matrix.merge(other)
    assert matrix.counts.tolist() == [[1, 1, 0], [0, 1, 1], [0, 0, 0]]
    assert matrix.compute().tolist() == [[0.5, 0.5, 0.0], [0.0, 0.5, 0.5], [0.0, 0.0, 0.0]]


def test_confident_mistakes():
    logits, labels = batch(2)
    indices = torch.arange(100, 140)
    whole, first, second = (ConfidentMistakes(5) for _ in range(3))
    whole.update(logits, labels, indices)
    second.update(logits[:9], labels[:9], indices[:9])
    first.update(logits[9:], labels[9:], indices[9:])
    first.merge(second)
    assert first.rows == whole.rows
    assert len(whole.rows) == 5
    probabilities = [row[0] for row in whole.rows]
    assert probabilities == sorted(probabilities, reverse=True)
    for probability, index, label, predicted in whole.rows:
        own = logits[index - 100]
        assert label == labels[index - 100] != predicted == own.argmax()
        assert probability == pytest.approx(own.softmax(0).max().item(), rel=1e-5)  # float32


def test_losses_are_torchs():
    logits, labels = batch(3)
    for e in (0.0, 0.1, 1.0):
        smooth = F.cross_entropy(logits, labels, label_smoothing=e)
        assert torch.equal(LabelSmoothing(e)(logits, labels), smooth)
        _, targets = mixup(logits, labels, 7, 0.3, torch.arange(39, -1, -1))
        soft = NLLMultiLabelSmooth(e)(logits, targets)
        # another order of sums, float32
        assert soft.item() == pytest.approx(
            F.cross_entropy(logits, targets, label_smoothing=e).item(), rel=1e-6
        )
    with pytest.raises(ValueError, match="fraction"):
        LabelSmoothing(1.5)


def test_soft_loss_computes_in_float32():
    logits, labels = batch(4)
    coarse, targets = logits.bfloat16(), F.one_hot(labels, 7)
    loss = NLLMultiLabelSmooth(0.1)(coarse, targets.bfloat16())
    assert loss.dtype == torch.float32
    assert torch.equal(loss, NLLMultiLabelSmooth(0.1)(coarse.float(), targets.float()))
    assert NLLMultiLabelSmooth(0.1).eval()(logits, labels) == F.cross_entropy(logits, labels)


def test_mixup():
    images, labels = torch.randn(4, 3, 2, 2), torch.tensor([0, 1, 2, 1])
    mixed, targets = mixup(images, labels, 5, 0.25, [3, 2, 1, 0])
    assert torch.equal(mixed, 0.25 * images + 0.75 * images.flip(0))
    assert targets.dtype == torch.float32
    assert targets[0].tolist() == [0.25, 0.75, 0, 0, 0]
    assert targets[2].tolist() == [0, 0.75, 0.25, 0, 0]


def test_draws():
    c, perm = draw_mixup(0.2, 6, np.random.RandomState(0))
    again = draw_mixup(0.2, 6, np.random.RandomState(0))
    assert (c, perm.tolist()) == (again[0], again[1].tolist())
    assert sorted(perm.tolist()) == list(range(6))
    draws = [draw_mixup(0.2, 2, np.random.RandomState(seed))[0] for seed in range(200)]
    assert min(draws) < 0.1  # not folded to the upper half
    assert max(draws) > 0.9


def test_cutmix():
    images, labels = torch.randn(2, 3, 8, 10), torch.tensor([0, 1])
    mixed, targets = cutmix(images, labels, 2, (2, 1, 7, 5), [1, 0])
    assert torch.equal(mixed[0, :, 1:5, 2:7], images[1, :, 1:5, 2:7])
    outside = torch.ones(8, 10, dtype=torch.bool)
    outside[1:5, 2:7] = False
    assert torch.equal(mixed[:, :, outside], images[:, :, outside])
    assert targets.tolist() == [[0.75, 0.25], [0.25, 0.75]]  # 20 of 80 pixels
    empty, targets = cutmix(images, labels, 2, (3, 3, 3, 3), [1, 0])
    assert torch.equal(empty, images)
    assert targets.tolist() == [[1, 0], [0, 1]]


@given(st.integers(0, 10**6))
def test_cutmix_boxes_lie_inside(seed):
    (x0, y0, x1, y1), perm = draw_cutmix(1.0, 3, 20, 30, np.random.RandomState(seed))
    assert 0 <= x0 <= x1 <= 30
    assert 0 <= y0 <= y1 <= 20
    assert sorted(perm.tolist()) == [0, 1, 2]


def test_mix_does_what_the_alphas_say():
    images, labels = torch.randn(4, 3, 8, 8), torch.arange(4)

    def mixed(mixup_alpha, cutmix_alpha, seed):
        return mix(images, labels, 4, mixup_alpha, cutmix_alpha, np.random.RandomState(seed))

    c, perm = draw_mixup(0.2, 4, np.random.RandomState(5))
    assert torch.equal(mixed(0.2, 0.0, 5)[0], mixup(images, labels, 4, c, perm)[0])
    # CutMix leaves every pixel as it is in one of the images
    seen = torch.isin(mixed(0.0, 1.0, 5)[0], images)
    assert seen.all()
    kinds = {bool(torch.isin(mixed(0.2, 1.0, seed)[0], images).all()) for seed in range(12)}
    assert kinds == {True, False}


def test_class_scores_add_up_over_processes(monkeypatch):
    logits, labels = batch(2)
    indices = torch.arange(len(labels))
    whole, first, second = (ClassScores(7, limit=3) for _ in range(3))
    whole.update(logits, labels, indices)
    first.update(logits[:11], labels[:11], indices[:11])
    second.update(logits[11:], labels[11:], indices[11:])
    first.merge(second)
    assert first.top.compute() == whole.top.compute()
    assert torch.equal(first.matrix.counts, whole.matrix.counts)
    assert first.mistakes.rows == whole.mistakes.rows
    monkeypatch.setattr(classification, "MATRIX_CLASSES", 5)
    many = ClassScores(7)
    many.update(logits, labels, indices)
    many.merge(many)
    assert many.matrix is None
