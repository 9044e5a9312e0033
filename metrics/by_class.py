"""Scores of each class from a confusion matrix: the same table for pixels, images and instances."""

from collections.abc import Sequence

import numpy as np


def class_scores(counts: np.ndarray, names: Sequence[str]) -> dict[str, dict[str, float | None]]:
    """{class name: precision, recall, f1 as fractions, and `support`, how often it is there}.

    counts: [K, K] whole numbers, row: what it is, column: what it was taken for; or [K + 1, K + 1],
            where the last row is what is nothing and the last column what was taken for nothing
    A quotient by 0 is None: precision of a class that was never predicted, recall of one that is
    never there. A name that stands twice gets its number behind it.
    """
    counts = np.asarray(counts, np.float64)
    k = len(names)
    if counts.shape not in ((k, k), (k + 1, k + 1)):
        raise ValueError(f"{counts.shape} counts for {k} classes")
    right = counts.diagonal()[:k]
    support, predicted = counts.sum(1)[:k], counts.sum(0)[:k]
    return {name: {
        "precision": _quotient(right[i], predicted[i]),
        "recall": _quotient(right[i], support[i]),
        "f1": _quotient(2 * right[i], predicted[i] + support[i]),
        "support": int(support[i])} for i, name in enumerate(distinct(names))}


def distinct(names: Sequence[str]) -> list[str]:
    """The names, each once: repeated ones get their number behind them."""
    seen: dict[str, int] = {}
    for name in names:
        seen[name] = seen.get(name, 0) + 1
    return [name if seen[name] == 1 else f"{name} ({i})" for i, name in enumerate(names)]


def _quotient(part: float, whole: float) -> float | None:
    return float(part / whole) if whole else None
