"""The config in force for a command line of QueryInst, and the flags that it fills in."""

from dataclasses import replace
from types import SimpleNamespace

from runtime.cli import trackers
from settings.foreign import Note
from settings.queryinst.config import QueryInstConfig
from settings.queryinst.recipes import load_queryinst_config


def read_settings(flags: SimpleNamespace) -> tuple[QueryInstConfig, list[Note]]:
    """The config with the flags over it, and its keys that change nothing here.

    The flags' open values are filled in from the config.
    """
    notes: list[Note] = []
    cfg = load_queryinst_config(
        flags.config, options=flags.cfg_options or [], notes=notes)
    if flags.eval_only:
        cfg = cfg.for_test
    if cfg.resume and not flags.resume and not flags.predict:
        flags.resume = cfg.load_from or "latest"
    flags.compile |= cfg.compile
    flags.tensorboard |= cfg.visualizer is not None and cfg.visualizer.tensorboard
    trackers(flags)  # a missing package is told before anything is made
    if flags.auto_scale_lr:
        cfg = replace(cfg, auto_scale_lr=replace(cfg.auto_scale_lr, enable=True))
    for name, value in cfg.for_flags.items():
        # what a training begins with is not what it has come to
        if vars(flags)[name] is None and not (flags.predict and name == "pretrained"):
            vars(flags)[name] = value
    return cfg, notes + cfg.notes
