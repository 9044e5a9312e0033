from models.yolact.detect import detect
from models.yolact.exporting import export_trained
from models.yolact.facts import facts_of, said_in, weights_of
from models.yolact.masks import postprocess
from models.yolact.matching import matching
from models.yolact.network import Yolact, build_yolact, objects_without_prior
from models.yolact.recognise import load_fitting_config
from models.yolact.schedule import (
    delayed_settings,
    epochs_between_validations,
    fitted_to_batch,
    limit_workers,
    scaled_to_batch,
    schedule,
    with_batch_norm_rule,
    with_epochs,
    with_flags,
    with_given,
)
from models.yolact.starting import (
    find_start,
    found_in_parts,
    in_coco_names,
    predicting_network,
)
from models.yolact.weights import load_weights, start_weights
from settings.yolact_recipes import about, load_dataset_config, load_yolact_config

__all__ = [
    "Yolact",
    "about",
    "build_yolact",
    "delayed_settings",
    "detect",
    "epochs_between_validations",
    "export_trained",
    "facts_of",
    "find_start",
    "fitted_to_batch",
    "found_in_parts",
    "in_coco_names",
    "limit_workers",
    "load_dataset_config",
    "load_fitting_config",
    "load_weights",
    "load_yolact_config",
    "matching",
    "objects_without_prior",
    "postprocess",
    "predicting_network",
    "said_in",
    "scaled_to_batch",
    "schedule",
    "start_weights",
    "weights_of",
    "with_batch_norm_rule",
    "with_epochs",
    "with_flags",
    "with_given",
]
