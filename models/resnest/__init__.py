"""ResNeSt networks, their weights and configs."""

from models.resnest.config import ResNeStConfig, load_resnest_config
from models.resnest.weights import (
    PRETRAINED_FILES,
    WeightsReport,
    bare_state_dict,
    load_weights,
    pretrained_file,
)
from models.resnest.zoo import MODEL_NAMES, build_resnest, param_groups

__all__ = [
    "MODEL_NAMES",
    "PRETRAINED_FILES",
    "ResNeStConfig",
    "WeightsReport",
    "bare_state_dict",
    "build_resnest",
    "load_resnest_config",
    "load_weights",
    "param_groups",
    "pretrained_file",
]
