"""Losses of the classifier, mixup and CutMix. Source: [resnest.md: Losses]."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

Permutation = torch.Tensor | Sequence[int]  # B indices


class LabelSmoothing(nn.Module):
    """Mean over the batch of (1-e) (-log p_target) + e mean_k (-log p_k), in the logits' dtype.

    smoothing: e in [0, 1]; 0 is cross-entropy
    Called with logits [B, K] and targets [B] int64; returns a 0-d tensor.
    """

    def __init__(self, smoothing: float = 0.0):
        super().__init__()
        self.smoothing = _checked(smoothing)

    def forward(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(logits, targets, label_smoothing=self.smoothing)


class NLLMultiLabelSmooth(nn.Module):
    """The same for soft targets [B, K], computed in float32; they need not be one-hot.

    In eval mode it is plain cross-entropy on integer targets [B], in the logits' dtype.
    """

    def __init__(self, smoothing: float = 0.0):
        super().__init__()
        self.smoothing = _checked(smoothing)

    def forward(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return F.cross_entropy(logits, targets)
        log_probs = F.log_softmax(logits.float(), dim=1)
        hard = -(targets.float() * log_probs).sum(1)
        uniform = -log_probs.mean(1)
        return ((1.0 - self.smoothing) * hard + self.smoothing * uniform).mean()


def mixup(
    images: torch.Tensor, labels: torch.Tensor, num_classes: int, c: float, perm: Permutation
) -> tuple[torch.Tensor, torch.Tensor]:
    """(c x + (1-c) x[perm], soft targets [B, num_classes] float32 mixed likewise).

    images: [B, ...]; labels: [B] int64; perm: B indices. Nothing is drawn here.
    Source: mixup, arXiv:1710.09412.
    """
    perm = _on_device(perm, images.device)
    return c * images + (1.0 - c) * images[perm], mixed_targets(labels, num_classes, c, perm)


def mixed_targets(
    labels: torch.Tensor, num_classes: int, c: float, perm: torch.Tensor
) -> torch.Tensor:
    """c onehot(labels) + (1-c) onehot(labels[perm]), [B, num_classes] float32."""
    one_hot = F.one_hot(labels, num_classes).float()
    return c * one_hot + (1.0 - c) * one_hot[perm]


def draw_mixup(
    alpha: float, batch_size: int, rng: np.random.RandomState
) -> tuple[float, torch.Tensor]:
    """(c, perm): c from Beta(alpha, alpha), not folded to >= 0.5, and a permutation, int64."""
    c = float(rng.beta(alpha, alpha))  # parity: one for the whole batch [resnest.md: Losses]
    return c, torch.from_numpy(rng.permutation(batch_size))


def cutmix(
    images: torch.Tensor,
    labels: torch.Tensor,
    num_classes: int,
    box: tuple[int, int, int, int],
    perm: Permutation,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Images with `box` taken from images[perm], and targets mixed by the areas, as from `mixup`.

    images: [B, C, H, W]; box: (x0, y0, x1, y1) pixels. Nothing is drawn here.
    Source: CutMix, arXiv:1905.04899.
    """
    perm = _on_device(perm, images.device)
    x0, y0, x1, y1 = box
    images = images.clone(memory_format=torch.preserve_format)
    images[:, :, y0:y1, x0:x1] = images[perm, :, y0:y1, x0:x1]
    kept = 1.0 - (x1 - x0) * (y1 - y0) / (images.shape[2] * images.shape[3])
    return images, mixed_targets(labels, num_classes, kept, perm)


def draw_cutmix(
    alpha: float, batch_size: int, height: int, width: int, rng: np.random.RandomState
) -> tuple[tuple[int, int, int, int], torch.Tensor]:
    """(box, perm): a box of the image's shape, clipped by its border, and a permutation.

    Its area before clipping is 1 - Beta(alpha, alpha) of the image's.
    """
    side = (1.0 - rng.beta(alpha, alpha)) ** 0.5
    half_width, half_height = int(width * side) // 2, int(height * side) // 2
    x, y = int(rng.randint(width)), int(rng.randint(height))
    box = (
        max(0, x - half_width),
        max(0, y - half_height),
        min(width, x + half_width),
        min(height, y + half_height),
    )
    return box, torch.from_numpy(rng.permutation(batch_size))


def mix(
    images: torch.Tensor,
    labels: torch.Tensor,
    num_classes: int,
    mixup_alpha: float,
    cutmix_alpha: float,
    rng: np.random.RandomState,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(images, soft targets) after mixup or CutMix; an alpha of 0 is off, with both `rng` picks."""
    if cutmix_alpha > 0 and (mixup_alpha == 0 or rng.random_sample() < 0.5):
        height, width = images.shape[2:]
        box, perm = draw_cutmix(cutmix_alpha, len(images), height, width, rng)
        return cutmix(images, labels, num_classes, box, perm)
    return mixup(images, labels, num_classes, *draw_mixup(mixup_alpha, len(images), rng))


def _on_device(perm: Permutation, device: torch.device) -> torch.Tensor:
    # a blocking copy would wait for the device
    return torch.as_tensor(perm).to(device, non_blocking=True)


def _checked(smoothing: float) -> float:
    if not 0.0 <= smoothing <= 1.0:
        raise ValueError(f"label smoothing is a fraction in [0, 1], got {smoothing}")
    return smoothing
