from models.queryinst.boxes import decode_boxes, roi_levels
from models.queryinst.exporting import export_trained
from models.queryinst.facts import facts_of, said_in, weights_of
from models.queryinst.mmengine_form import MmengineForm
from models.queryinst.network import QueryInst, build_queryinst, of_all_stages
from models.queryinst.optim import (
    auto_scale,
    build_optimizer,
    param_groups,
    set_rates,
)
from models.queryinst.schedule import fitted_to_data, lr_schedule, with_pace
from models.queryinst.series import held_by, publish, queryinst_series
from models.queryinst.starting import (
    find_start,
    fitted_to_batch,
    in_parts,
    predicting_network,
)
from models.queryinst.weights import (
    backbone_file,
    checkpoint_of,
    load_backbone,
    load_weights,
    scored_of,
    start_weights,
)
from settings.queryinst.config import QueryInstConfig
from settings.queryinst.flags import read_settings, with_epochs
from settings.queryinst.recipes import about, load_queryinst_config

__all__ = [
    "MmengineForm",
    "QueryInst",
    "QueryInstConfig",
    "about",
    "auto_scale",
    "backbone_file",
    "build_optimizer",
    "build_queryinst",
    "checkpoint_of",
    "decode_boxes",
    "export_trained",
    "facts_of",
    "find_start",
    "fitted_to_batch",
    "fitted_to_data",
    "held_by",
    "in_parts",
    "load_backbone",
    "load_queryinst_config",
    "load_weights",
    "lr_schedule",
    "of_all_stages",
    "param_groups",
    "predicting_network",
    "publish",
    "queryinst_series",
    "read_settings",
    "roi_levels",
    "said_in",
    "scored_of",
    "set_rates",
    "start_weights",
    "weights_of",
    "with_epochs",
    "with_pace",
]
