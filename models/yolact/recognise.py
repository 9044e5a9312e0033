"""Which config a file of YOLACT weights belongs to: told by the names and shapes in it.

Networks that differ in no shape, yolact_base and yolact_im700 for one, are told apart by what the
file says of itself (`models.facts`), else by its name, `<config>_<epoch>_<iteration>.pth`.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from common.checkpoint.files import load_checkpoint, load_pair
from common.checkpoint.names import parse_checkpoint_name
from models.facts import facts_in
from models.load_report import compare_weights
from models.yolact.facts import FAMILY
from models.yolact.network import Yolact
from models.yolact.weights import bare_names, num_classes_in
from runtime.errors import InputError
from settings.yolact import YolactConfig
from settings.yolact_recipes import RECIPES, load_yolact_config

DEFAULT = "yolact_base"  # the original's
KEYWORDS = (None, "latest", "interrupt")  # of --resume, which name no file
BEST = "_best.pth"

Log = Callable[[str], object]


def load_fitting_config(
    named: str | None, resume: str | None, options: Iterable[str], log: Log
) -> YolactConfig:
    """The config `named`; without a name that of the weights to begin with, else yolact_base.

    resume:  what --resume says; a file is read for its names and shapes, its tensors are not kept
    options: texts KEY=VALUE over the config, as `load_yolact_config`
    log:     told which config was chosen
    Raises InputError as `load_yolact_config`, for a file that cannot be read, and where file and
    config do not fit; the line names the config that would. Classes may differ: the data have them.
    """
    options = list(options)
    if resume in KEYWORDS or Path(str(resume)).is_dir():
        return load_yolact_config(named or DEFAULT, options=options)
    path = Path(str(resume))
    try:
        loaded = load_checkpoint(path, "meta")
    except InputError:
        load_pair(path)  # names what is wrong with either of the two files
        raise
    state, said = bare_names(loaded), facts_in(loaded, FAMILY)
    name = said.config if said else _name_in(path)
    if named is not None:
        cfg = load_yolact_config(named, options=options)
        misfit = _misfit(cfg, state, path)
        others = _fitting(state, path, name, options) if misfit else []
        if others:
            raise InputError(f"{path}: these are weights of {others[0].name}, not of config "
                             f"{cfg.name}; use --config {others[0].name}")
        if misfit:
            raise InputError(f"{path}: does not fit config {cfg.name}, nor another of ours: "
                             f"{misfit}; use the config that it was trained with, or start from "
                             f"what fits of it: --pretrained {path}")
        return cfg
    found = _fitting(state, path, name, options)
    if not found:
        misfit = _misfit(load_yolact_config(DEFAULT, options=options), state, path)
        raise InputError(f"{path}: fits no config of ours, {DEFAULT} for example: {misfit}; name "
                         "its own by --config")
    first, *alike = (str(cfg.name) for cfg in found)
    doubt = f" The same network is that of {', '.join(alike)}: --config chooses." if alike else ""
    log(f"{path}: these are weights of {first}, whose config is taken.{doubt}")
    return found[0]


def _fitting(
    state: Mapping[str, Any], path: Path, likely: str, options: list[str]
) -> list[YolactConfig]:
    """The configs whose network has these names and shapes, the likeliest first.

    likely: the config's name that the file gives; if that one fits, it is the only one
    """
    names = sorted({each.stem for each in RECIPES.glob("*.yaml")} - {"coco_base"})
    found, classes = [], num_classes_in(state)
    for name in sorted(names, key=lambda name: (name != likely, name != DEFAULT)):
        cfg = load_yolact_config(name, options=options)
        if not _misfit(cfg, state, path):
            if name == likely:
                return [cfg]
            found.append(cfg)
    return sorted(found, key=lambda cfg: cfg.num_classes != classes)


def _name_in(path: Path) -> str:
    """The config's name in a file's name, without `_config`; "" where it has another form."""
    parsed = parse_checkpoint_name(path)
    name = parsed[0] if parsed else path.name.removesuffix(BEST) if BEST in path.name else ""
    return name.removesuffix("_config")


def _misfit(cfg: YolactConfig, state: Mapping[str, Any], path: Path) -> str:
    """Why the weights are not of the config's network, whatever their classes; "" if they are."""
    classes = num_classes_in(state)
    if classes is None:
        return "it holds no YOLACT network"
    with torch.device("meta"):
        net = Yolact(replace(cfg, num_classes=classes))
    try:
        _, report = compare_weights(net, bare_names(state, cfg), str(path))
    except InputError as error:
        return error.faults[0].removeprefix(f"{path}: ")
    return "; ".join(report.lines()[1:])
