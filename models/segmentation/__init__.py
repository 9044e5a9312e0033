"""Semantic segmentation networks of CSAIL's trainer, under its names and state-dict keys."""

from models.segmentation.config import SegConfig, load_seg_config, pairs_to_overrides
from models.segmentation.network import (
    SegmentationModule,
    average_scores,
    build_decoder,
    build_encoder,
    group_weight,
    pixel_accuracy,
)
from models.segmentation.norm_momentum import NormMomentum, corrected_momentum
from models.segmentation.weights import (
    IMAGENET_FILES,
    imagenet_file,
    load_original_state_dict,
    load_weights_file,
    to_original_state_dict,
)

__all__ = [
    "IMAGENET_FILES",
    "NormMomentum",
    "SegConfig",
    "SegmentationModule",
    "average_scores",
    "build_decoder",
    "build_encoder",
    "corrected_momentum",
    "group_weight",
    "imagenet_file",
    "load_original_state_dict",
    "load_seg_config",
    "load_weights_file",
    "pairs_to_overrides",
    "pixel_accuracy",
    "to_original_state_dict",
]
