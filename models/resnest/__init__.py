"""ResNeSt networks, their weights and configs."""

from models.resnest.zoo import MODEL_NAMES, build_resnest, param_groups

__all__ = ["MODEL_NAMES", "build_resnest", "param_groups"]
