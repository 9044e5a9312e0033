"""Mean IoU and pixel accuracy as the original counts them. [segmentation.md: Scores]."""

from collections.abc import Sequence

import numpy as np

_EPS = 1e-10  # the original's, in every quotient


class SegmentationMeter:
    """Adds up intersections and unions of each class over images.

    intersection, union: [num_class] int64, pixels so far
    """

    def __init__(self, num_class: int):
        self.num_class = num_class
        self.intersection = np.zeros(num_class, np.int64)
        self.union = np.zeros(num_class, np.int64)
        self.num_labelled = 0
        self.num_right = 0

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
        right = pred[pred == label]
        in_both, in_pred, in_label = (self._count(x) for x in (right, pred, label))
        self.intersection += in_both
        self.union += in_pred + in_label - in_both
        self.num_labelled += len(label)
        self.num_right += len(right)

    def merge(self, other: "SegmentationMeter") -> None:
        """Add what another process counted."""
        self.intersection += other.intersection
        self.union += other.union
        self.num_labelled += other.num_labelled
        self.num_right += other.num_right

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
            "pixel_accuracy": self.num_right / (self.num_labelled + _EPS),
        }

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

    def _count(self, classes):
        if len(classes) and not 0 <= classes.min() <= classes.max() < self.num_class:
            raise ValueError(
                f"classes from {classes.min()} to {classes.max()}, want 0 to {self.num_class - 1}"
            )
        return np.bincount(classes.astype(np.int64), minlength=self.num_class)
