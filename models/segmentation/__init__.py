"""Semantic segmentation networks of CSAIL's trainer, under its names and state-dict keys."""

from models.segmentation.exporting import export_trained
from models.segmentation.facts import facts_of, said_in, weights_of
from models.segmentation.network import (
    SegmentationModule,
    TrainingStep,
    average_scores,
    build_decoder,
    build_encoder,
    build_module,
    group_weight,
    pixel_accuracy,
    scoring,
)
from models.segmentation.norm_momentum import NormMomentum, corrected_momentum, is_corrected
from models.segmentation.recognise import load_both
from models.segmentation.starting import find_start, fitted_to_batch, predicting_module
from models.segmentation.weights import (
    IMAGENET_FILES,
    find_imagenet_file,
    imagenet_file,
    load_original_state_dict,
    load_partly,
    load_weights_file,
    original_weights,
    start_weights,
    to_original_state_dict,
)
from models.sync_norm import synchronise_norms
from settings.segmentation import (
    SegConfig,
    about,
    check_batch,
    load_seg_config,
    with_flags,
)

__all__ = [
    "IMAGENET_FILES",
    "NormMomentum",
    "SegConfig",
    "SegmentationModule",
    "TrainingStep",
    "about",
    "average_scores",
    "build_decoder",
    "build_encoder",
    "build_module",
    "check_batch",
    "corrected_momentum",
    "export_trained",
    "facts_of",
    "find_imagenet_file",
    "find_start",
    "fitted_to_batch",
    "group_weight",
    "imagenet_file",
    "is_corrected",
    "load_both",
    "load_original_state_dict",
    "load_partly",
    "load_seg_config",
    "load_weights_file",
    "original_weights",
    "pixel_accuracy",
    "predicting_module",
    "said_in",
    "scoring",
    "start_weights",
    "synchronise_norms",
    "to_original_state_dict",
    "weights_of",
    "with_flags",
]
