"""Losses, one file per model family: tensors and a small options object in, named scalars out."""

from runtime.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(__name__, {
    "LabelSmoothing": "common.losses.classification",
    "MultiBoxLoss": "common.losses.multibox",
    "NLLMultiLabelSmooth": "common.losses.classification",
    "NetLoss": "common.losses.net_loss",
    "cutmix": "common.losses.classification",
    "dice_loss": "common.losses.set_prediction",
    "draw_cutmix": "common.losses.classification",
    "draw_mixup": "common.losses.classification",
    "generalized_iou": "common.losses.set_matching",
    "hungarian_match": "common.losses.set_matching",
    "mask_targets": "common.losses.set_prediction",
    "match_cost": "common.losses.set_matching",
    "mix": "common.losses.classification",
    "mixup": "common.losses.classification",
    "sigmoid_focal": "common.losses.set_prediction",
})
