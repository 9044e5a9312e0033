"""The public face of `settings`: what notebooks, outside checks and public losses ask of it."""

from pathlib import Path
from typing import Any

from runtime.errors import InputError
from settings.loading import load_config, to_yaml

__all__ = ["InputError", "load_config", "to_yaml"]


def yolact_config(cfg: Any) -> Any:
    """A YOLACT config by its name or path; a loaded one is returned as it is."""
    if not isinstance(cfg, (str, Path)):
        return cfg
    from settings.yolact_recipes import load_yolact_config  # which other families do without

    return load_yolact_config(cfg)
