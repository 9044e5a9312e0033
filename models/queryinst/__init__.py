from models.queryinst.config import QueryInstConfig
from models.queryinst.recipes import load_queryinst_config

__all__ = ["QueryInstConfig", "load_queryinst_config"]
