"""Classification scores: counts that add up over batches and processes."""

from collections.abc import Sequence

import torch

from metrics.by_class import class_scores

MATRIX_CLASSES = 2000  # a confusion matrix of more classes would only cost memory


class TopK:
    """Share of images whose label is among the k highest logits, in percent.

    ks: the k's; one larger than the number of classes counts every image as right
    """

    def __init__(self, ks: Sequence[int] = (1, 5)):
        self.ks = tuple(ks)
        self.correct = dict.fromkeys(self.ks, 0)
        self.total = 0

    def update(self, logits: torch.Tensor, labels: torch.Tensor) -> None:
        """logits: [B, K] float; labels: [B] integer"""
        # The label's rank is the number of higher logits. Of equal ones the lower class comes
        # first, so a constant output is right for class 0 alone. A non-finite row is never right.
        own = logits.gather(1, labels[:, None])
        classes = torch.arange(logits.shape[1], device=logits.device)
        tied_before = (logits == own) & (classes < labels[:, None])
        rank = ((logits > own) | tied_before).sum(1)
        rank = torch.where(logits.isnan().any(1), logits.shape[1] + max(self.ks), rank)
        for k in self.ks:
            self.correct[k] += int((rank < k).sum())
        self.total += len(labels)

    def merge(self, other: "TopK") -> None:
        """Add another process's counts."""
        for k in self.ks:
            self.correct[k] += other.correct[k]
        self.total += other.total

    def compute(self) -> dict[str, float]:
        """{"top1": percent, ...}; 0 before the first image."""
        return {f"top{k}": 100.0 * self.correct[k] / max(1, self.total) for k in self.ks}


class ConfusionMatrix:
    """`.counts` [K, K] int64: images of class row that were taken for class column."""

    def __init__(self, num_classes: int):
        self.counts = torch.zeros(num_classes, num_classes, dtype=torch.int64)

    def update(self, logits: torch.Tensor, labels: torch.Tensor) -> None:
        """logits: [B, K] float; labels: [B] integer"""
        num_classes = len(self.counts)
        cells = labels.cpu() * num_classes + logits.argmax(1).cpu()
        found = torch.bincount(cells, minlength=num_classes**2)
        self.counts += found.reshape(num_classes, num_classes)

    def merge(self, other: "ConfusionMatrix") -> None:
        """Add another process's counts."""
        self.counts += other.counts

    def compute(self) -> torch.Tensor:
        """Shares of each class's images, [K, K] float64; rows of absent classes are 0."""
        totals = self.counts.sum(1, keepdim=True).clamp(min=1)
        return self.counts.double() / totals

    def by_class(self, names: Sequence[str]) -> dict[str, dict[str, float | None]]:
        """{class name: precision, recall, f1 as fractions, support in images}."""
        return class_scores(self.counts.numpy(), names)


class ConfidentMistakes:
    """The `limit` wrongly classified images with the highest probability for the wrong class.

    `.rows`: (probability, image index, label, predicted class), most confident first
    """

    def __init__(self, limit: int = 16):
        self.limit = limit
        self.rows: list[tuple[float, int, int, int]] = []

    def update(self, logits: torch.Tensor, labels: torch.Tensor, indices: torch.Tensor) -> None:
        """logits: [B, K] float; labels, indices (of the images): [B] integer"""
        probs, predicted = logits.float().softmax(1).max(1)
        wrong = predicted != labels
        columns = (probs, indices, labels, predicted)
        self._keep(zip(*(column[wrong].tolist() for column in columns), strict=True))

    def merge(self, other: "ConfidentMistakes") -> None:
        """Take over another process's where they are more confident."""
        self._keep(other.rows)

    def _keep(self, rows):
        # by index among equals: the same list however the images were split over processes
        self.rows = sorted([*self.rows, *rows], key=lambda row: (-row[0], row[1]))[: self.limit]


class ClassScores:
    """What one validation finds: `.top` (TopK), `.matrix` (ConfusionMatrix, or None when there are
    more than MATRIX_CLASSES classes) and `.mistakes` (ConfidentMistakes)."""

    def __init__(self, num_classes: int, limit: int = 16):
        self.top = TopK()
        self.matrix = ConfusionMatrix(num_classes) if num_classes <= MATRIX_CLASSES else None
        self.mistakes = ConfidentMistakes(limit)

    def update(self, logits: torch.Tensor, labels: torch.Tensor, indices: torch.Tensor) -> None:
        """logits: [B, K] float; labels, indices (of the images): [B] integer"""
        self.top.update(logits, labels)
        self.mistakes.update(logits, labels, indices)
        if self.matrix is not None:
            self.matrix.update(logits, labels)

    def merge(self, other: "ClassScores") -> None:
        """Add another process's."""
        self.top.merge(other.top)
        self.mistakes.merge(other.mistakes)
        if self.matrix is not None:
            self.matrix.merge(other.matrix)

    def by_class(self, names: Sequence[str]) -> dict[str, dict[str, float | None]] | None:
        """`ConfusionMatrix.by_class`, or None without a matrix."""
        return self.matrix.by_class(names) if self.matrix is not None else None
