"""Finds and loads QueryInst configs: recipe names, also MMDetection's old ones, and files."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from runtime.errors import InputError, did_you_mean
from settings.changes import about_config, is_own
from settings.foreign import Note
from settings.loading import load_config, to_dict
from settings.nodes import is_file, is_folder
from settings.queryinst.config import QueryInstConfig
from settings.queryinst.data import DataLoaderConfig
from settings.queryinst.evaluating import EvaluatorConfig

RECIPES = Path(__file__).resolve().parents[2] / "configs" / "queryinst"

# MMDetection 2.x's spelling of parts of the names, and today's.
_OLD_SPELLING = {
    "300_proposals": "300-proposals",
    "crop_mstrain": "crop-ms",
    "mstrain": "ms",
    "ms_480-800_3x": "ms-480-800-3x",
}


def load_queryinst_config(
    cfg: str | Path | QueryInstConfig, *, options: Iterable[str | tuple[str, Any]] = (),
    notes: list[Note] | None = None, **overrides: Any,
) -> QueryInstConfig:
    """The frozen config that `cfg` stands for.

    cfg:       a recipe's name, also in MMDetection 2.x's spelling; the path of a YAML file or of a
               Python config, which is read and never run; the path that MMDetection's file of a
               recipe had, when no file is there; or a config
    options:   texts KEY=VALUE with dotted keys, or pairs (dotted key, value), applied last
    notes:     gets MMDetection's keys that are accepted and change nothing
    overrides: values by key; a mapping changes only the keys of its section that it names

    Raises InputError with every fault found.
    """
    path, changes = None, {}
    if isinstance(cfg, QueryInstConfig):
        changes = to_dict(cfg)
    else:
        path = _file_of(str(cfg))
    loaded = load_config(
        QueryInstConfig, path, [*changes.items(), *overrides.items(), *options], notes
    )
    if loaded.name is None and path is not None:
        loaded = replace(loaded, name=path.stem)
    return _in_few_words(loaded)


def _in_few_words(cfg: QueryInstConfig) -> QueryInstConfig:
    """`cfg` without what says nothing of its own.

    MMDetection's files name the annotation file twice, have the validation's sections again for
    the test, and a visualizer that writes the scalars which are written anyway.
    """
    tested = cfg.test_dataloader or cfg.val_dataloader
    evaluators = {key: _without_file(evaluator, loader) for key, evaluator, loader in (
        ("val_evaluator", cfg.val_evaluator, cfg.val_dataloader),
        ("test_evaluator", cfg.test_evaluator, tested))}
    if evaluators["test_evaluator"] == evaluators["val_evaluator"]:
        evaluators["test_evaluator"] = None
    return replace(
        cfg, **evaluators,
        test_dataloader=None if tested == cfg.val_dataloader else tested,
        visualizer=cfg.visualizer if cfg.visualizer and cfg.visualizer.tensorboard else None)


def _without_file(evaluator: EvaluatorConfig | None, loader: DataLoaderConfig | None
                  ) -> EvaluatorConfig | None:
    """The evaluator without the annotation file that is its loader's."""
    is_same = (evaluator is not None and loader is not None and evaluator.ann_file is not None
               and Path(evaluator.ann_file) == Path(loader.dataset.info_path))
    return replace(evaluator, ann_file=None) if evaluator and is_same else evaluator


def sets_own(key: str, cfg: str, options: Iterable[str]) -> bool:
    """Whether a dotted key is the user's own: in the texts KEY=VALUE, or in a file of theirs.

    What a Python config of MMDetection has set is its recipe's, as all of them set everything.
    """
    path = _file_of(cfg)
    return is_own(key, None if path.suffix == ".py" else path, options)


def _file_of(cfg: str) -> Path:
    return Path(cfg) if _is_file_name(cfg) else _recipe(cfg)


def _is_file_name(cfg: str) -> bool:
    """Whether `cfg` is a file's path, and not a recipe's name or where MMDetection has its file."""
    is_yaml = cfg.endswith((".yaml", ".yml"))
    return is_yaml or (
        cfg.endswith(".py") and (is_file(Path(cfg)) or is_folder(Path(cfg))))


def _recipe(name: str) -> Path:
    """The recipe file of a config's name, or of the path of a Python config that is not there."""
    recipes = {path.stem: path for path in sorted(RECIPES.glob("*.yaml"))}
    stem = Path(name).name.removesuffix(".py") if name.endswith(".py") else name
    for old, new in _OLD_SPELLING.items():
        if stem not in recipes:
            stem = stem.replace(old, new)
    if stem not in recipes:
        hint = did_you_mean(stem, recipes) or f" There are: {', '.join(recipes)}."
        if name.endswith(".py"):
            raise InputError(f"{name}: no such file, and none of our recipes has its name.{hint}")
        raise InputError(f"no config named {name}.{hint}")
    return recipes[stem]


def about(name: str, cfg: QueryInstConfig) -> dict[str, Any]:
    """Facts for `Run.describe` of a config in force: what it has other than the recipe `name`."""
    return about_config(name, cfg, load_queryinst_config)
