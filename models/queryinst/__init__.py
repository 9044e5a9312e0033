from models.queryinst.boxes import decode_boxes, roi_levels
from models.queryinst.network import QueryInst, build_queryinst
from models.queryinst.optim import auto_scale, lr_factor, param_groups
from models.queryinst.weights import backbone_file, load_backbone, load_weights
from settings.queryinst import QueryInstConfig
from settings.queryinst_recipes import load_queryinst_config

__all__ = [
    "QueryInst",
    "QueryInstConfig",
    "auto_scale",
    "backbone_file",
    "build_queryinst",
    "decode_boxes",
    "load_backbone",
    "load_queryinst_config",
    "load_weights",
    "lr_factor",
    "param_groups",
    "roi_levels",
]
