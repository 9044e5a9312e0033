"""ResNeSt networks, their weights and configs."""

from models.load_report import bare_state_dict
from models.resnest.exporting import export_trained
from models.resnest.facts import facts_of, said_in, weights_of
from models.resnest.network import ResNeSt
from models.resnest.starting import find_start, load_trained
from models.resnest.training import (
    announce,
    find_weights_once,
    fitted_to_batch,
    join_outputs,
    load_all,
    paced_series,
    schedule,
    start_weights,
)
from models.resnest.weights import (
    PRETRAINED_FILES,
    WeightsReport,
    find_weights,
    load_weights,
    pretrained_file,
)
from models.resnest.zoo import build_network, build_resnest, param_groups
from settings.resnest import MODEL_NAMES, ResNeStConfig, about, load_resnest_config, with_flags

__all__ = [
    "MODEL_NAMES",
    "PRETRAINED_FILES",
    "ResNeSt",
    "ResNeStConfig",
    "WeightsReport",
    "about",
    "announce",
    "bare_state_dict",
    "build_network",
    "build_resnest",
    "export_trained",
    "facts_of",
    "find_start",
    "find_weights",
    "find_weights_once",
    "fitted_to_batch",
    "join_outputs",
    "load_all",
    "load_resnest_config",
    "load_trained",
    "load_weights",
    "paced_series",
    "param_groups",
    "pretrained_file",
    "said_in",
    "schedule",
    "start_weights",
    "weights_of",
    "with_flags",
]
