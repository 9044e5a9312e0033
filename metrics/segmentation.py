"""Mean IoU and pixel accuracy as the original counts them. [segmentation.md: Scores]."""

from collections.abc import Sequence

import numpy as np

from metrics.by_class import class_scores
from metrics.extremes import Extremes

Triple = tuple[np.ndarray, np.ndarray, np.ndarray]  # image, label, prediction: [h, w, 3], [h, w]
EXTREME = 4  # of the best and of the worst images

_EPS = 1e-10  # the original's, in every quotient


class SegmentationMeter:
    """Adds up which class's pixels were taken for which, over images.

    counts: [num_class, num_class] int64, pixels of label row that were predicted as column
    """

    def __init__(self, num_class: int):
        self.num_class = num_class
        self.counts = np.zeros((num_class, num_class), np.int64)

    def update(self, pred, label) -> None:
        """Add one image, or several: integer class maps of equal shape, arrays or CPU tensors.

        pred:  0 ... num_class - 1; label: the same, -1 where pixels do not count
        Raises ValueError for another shape, type or value.
        """
        pred, label = np.asarray(pred), np.asarray(label)
        if pred.shape != label.shape:
            raise ValueError(f"prediction {pred.shape} and label {label.shape} differ in shape")
        if pred.dtype.kind not in "iu" or label.dtype.kind not in "iu":
            raise ValueError(f"class maps are integers, got {pred.dtype} and {label.dtype}")
        labelled = label >= 0
        pred, label = pred[labelled], label[labelled]
        for name, classes in (("prediction", pred), ("label", label)):
            self._check(name, classes)
        cells = label.astype(np.int64) * self.num_class + pred
        found = np.bincount(cells.ravel(), minlength=self.num_class**2)
        self.counts += found.reshape(self.counts.shape)

    def merge(self, other: "SegmentationMeter") -> None:
        """Add what another process counted."""
        self.counts += other.counts

    @property
    def intersection(self) -> np.ndarray:
        """[num_class] int64, pixels of each class that were predicted as it."""
        return self.counts.diagonal().copy()

    @property
    def union(self) -> np.ndarray:
        """[num_class] int64, pixels of each class or predicted as it."""
        return self.counts.sum(0) + self.counts.sum(1) - self.intersection

    @property
    def num_labelled(self) -> int:
        """Pixels that count."""
        return int(self.counts.sum())

    @property
    def iou(self) -> np.ndarray:
        """[num_class] float64, a fraction; 0 for a class that never occurred."""
        return self.intersection / (self.union + _EPS)

    def compute(self) -> dict[str, float]:
        """Fractions: `mean_iou` over all classes, `mean_iou_present` over those that occurred in
        a prediction or label, `pixel_accuracy` over labelled pixels.
        """
        present = self.union > 0
        return {
            # parity: a class that never occurred counts as 0 [segmentation.md: Scores]
            "mean_iou": float(self.iou.mean()),
            "mean_iou_present": float(self.iou[present].mean()) if present.any() else 0.0,
            "pixel_accuracy": float(self.intersection.sum() / (self.num_labelled + _EPS)),
        }

    def by_class(self, names: Sequence[str]) -> dict[str, dict[str, float | None]]:
        """{class name: iou and accuracy (of its pixels), precision, recall, f1, support} as
        fractions, support in pixels; None where a class never occurred."""
        rows = class_scores(self.counts, names)
        return {name: {"iou": float(iou) if union else None, "accuracy": row["recall"], **row}
                for (name, row), iou, union in zip(rows.items(), self.iou, self.union, strict=True)}

    def table(self, names: Sequence[str] = ()) -> list[str]:
        """The original's line for each class; given names, they and "(absent)" stand behind."""
        lines = []
        for i, iou in enumerate(self.iou):
            line = f"class [{i}], IoU: {iou:.4f}"
            if names:
                line += f"  {names[i]}" + "  (absent)" * bool(self.union[i] == 0)
            lines.append(line)
        return lines

    def summary(self, seconds: Sequence[float] = ()) -> str:
        """The original's two lines of mean IoU and accuracy.

        seconds: what each image took, for the mean that a single process prints as well
        """
        scores = self.compute()
        time = f", Inference Time: {sum(seconds) / len(seconds):.4f}s" if seconds else ""
        return (f"[Eval Summary]:\nMean IoU: {scores['mean_iou']:.4f}, "
                f"Accuracy: {100 * scores['pixel_accuracy']:.2f}%{time}")

    def _check(self, name, classes):
        if len(classes) and not 0 <= classes.min() <= classes.max() < self.num_class:
            raise ValueError(f"{name}: classes from {classes.min()} to {classes.max()}, want 0 to "
                             f"{self.num_class - 1}")


class SegmentationScores:
    """What one validation finds: `.meter`, and a few images with their labels and predictions.

    names:    of the classes; num_images: of the whole validation, over all processes
    pictured: images to keep from all over the set

    shown:    [(image, label, prediction)], of this process; extremes: (file, such a triple), by
              mean IoU over the classes that occur in an image
    seconds:  what the network took for each image
    """

    def __init__(self, names: Sequence[str], num_images: int, pictured: int):
        self.names = names
        self.meter = SegmentationMeter(len(names))
        self.shown: list[Triple] = []
        self.extremes: Extremes[tuple[str, Triple]] = Extremes(EXTREME)
        self.seconds: list[float] = []
        self._pictured, self._apart = pictured, max(1, num_images // pictured)

    def update(self, number: int, file: str, triple: Triple, seconds: float = 0.0) -> None:
        """One image; number: its place in the data set."""
        one = SegmentationMeter(len(self.names))
        one.update(triple[2], triple[1])
        self.meter.merge(one)
        self.seconds.append(seconds)
        if number % self._apart == 0 and len(self.shown) < self._pictured:
            self.shown.append(triple)
        self.extremes.offer(one.compute()["mean_iou_present"], number, (file, triple))

    def merge(self, other: "SegmentationScores") -> None:
        """Add what another process found; `shown` stays its own."""
        self.meter.merge(other.meter)
        self.extremes.merge(other.extremes)

    def by_class(self) -> dict[str, dict[str, float | None]]:
        """`SegmentationMeter.by_class`."""
        return self.meter.by_class(self.names)
