"""What the page shows of each script: which score leads, and how its files are called."""

import re
from dataclasses import dataclass
from functools import lru_cache

PICTURES = {  # files of a run folder, in the page's order, and what they show
    "predictions.png": "Predictions on validation images",
    "extremes.png": "The validation images with the worst and the best score",
    "mistakes.png": "Validation images that were taken for something else, the surest first",
    "confusion.png": "Confusion matrix: what each class was taken for",
    "confusion_box.png": "Confusion matrix of boxes at IoU 0.5",
    "confusion_mask.png": "Confusion matrix of masks at IoU 0.5",
    "precision_recall.png": "Precision over recall",
    "train_samples.png": "Training images as the network sees them, after augmentation",
}
_STAGE = re.compile(r"s\d+\.(.+)")  # losses that each stage of a cascade has


@dataclass(frozen=True)
class Family:
    """One script's ways.

    leading:   the metric by which a checkpoint is the best; "" where it is not known
    scores:    metrics that are drawn; empty: all
    weights:   patterns of the files that are the best and the final weights; {run} is the run
               folder's name
    """

    leading: str = ""
    scores: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()


FAMILIES = {
    "train_yolact": Family("mask/all", ("mask/all", "mask/50", "box/all", "box/50"),
                           ("{run}_best.pth",)),
    "train_seg": Family("mean_iou", ("mean_iou", "pixel_accuracy"), ("encoder_best.pth",)),
    "train_resnest": Family("top1", ("top1", "top5"), (
        "model_best.pth", "checkpoint_final.pth", "model_weights.pth")),
    "train_queryinst": Family("coco/segm_mAP", (
        "coco/segm_mAP", "coco/segm_mAP_50", "coco/bbox_mAP", "coco/bbox_mAP_50"),
        ("best_*.pth",)),
}


def family_of(script: object) -> Family:
    """The ways of a script by its name; those of none for any other."""
    return FAMILIES.get(str(script), Family())


@lru_cache(maxsize=1000)
def term_of(loss: str) -> str:
    """The curve that a loss term is added up to: "s0.loss_cls" is one of all stages."""
    found = _STAGE.fullmatch(loss)
    return f"{found[1]} of all stages" if found else loss


def unit_of(metric: str) -> str:
    """The unit of an evaluation's number, by its name in metrics.jsonl."""
    fractions = ("coco/", "mean_iou", "pixel_accuracy")
    return "fraction of 1" if metric.startswith(fractions) else "%"
