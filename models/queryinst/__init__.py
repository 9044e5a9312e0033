from models.queryinst.boxes import decode_boxes, roi_levels
from models.queryinst.config import QueryInstConfig
from models.queryinst.network import QueryInst, build_queryinst
from models.queryinst.recipes import load_queryinst_config

__all__ = [
    "QueryInst",
    "QueryInstConfig",
    "build_queryinst",
    "decode_boxes",
    "load_queryinst_config",
    "roi_levels",
]
