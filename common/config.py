"""The public face of `settings`: what notebooks and outside checks import."""

from runtime.errors import InputError
from settings.loading import load_config, to_yaml

__all__ = ["InputError", "load_config", "to_yaml"]
