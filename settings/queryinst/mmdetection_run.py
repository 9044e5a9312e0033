"""A config's run sections as MMDetection's own plain dicts.

What equals MMEngine's default is left out, but for what MMDetection's configs always say.
Source: [queryinst.md: Configs].
"""

import dataclasses
from typing import Any

from settings.loading import to_dict
from settings.queryinst.config import QueryInstConfig
from settings.queryinst.evaluating import EvaluatorConfig
from settings.queryinst.optimizing import OptimWrapperConfig, SchedulerConfig
from settings.schema import default_of

_ALWAYS = {"type", "interval", "by_epoch", "begin", "enable", "base_batch_size", "lr",
           "weight_decay", "window_size", "max_epochs", "val_interval"}


def run_keys(cfg: QueryInstConfig) -> dict[str, Any]:
    """{section: its dict, list or value} of a whole run but for model, data and evaluators.

    Only dicts, lists, texts, numbers and None. `val_cfg` is None for a run without validation.
    """
    hooks = cfg.default_hooks
    default_hooks = {
        "timer": {"type": "IterTimerHook"}, "logger": _keys(hooks.logger),
        "param_scheduler": {"type": "ParamSchedulerHook"}, "checkpoint": _keys(hooks.checkpoint),
        "sampler_seed": {"type": "DistSamplerSeedHook"},
        "visualization": {"type": "DetVisualizationHook"}}
    if hooks.early_stopping is not None:
        default_hooks["early_stopping"] = _keys(hooks.early_stopping)
    backends = [{"type": "LocalVisBackend"}]
    if cfg.visualizer is not None and cfg.visualizer.tensorboard:
        backends.append({"type": "TensorboardVisBackend"})
    keys = {
        "default_scope": "mmdet",
        "default_hooks": default_hooks,
        "custom_hooks": to_dict(cfg.custom_hooks or ()),
        "env_cfg": {"cudnn_benchmark": False, "mp_cfg": {"mp_start_method": "fork",
                                                         "opencv_num_threads": 0},
                    "dist_cfg": {"backend": "nccl"}},
        "vis_backends": backends,
        "visualizer": {"type": "DetLocalVisualizer", "vis_backends": backends,
                       "name": "visualizer"},
        "log_processor": _keys(cfg.log_processor),
        "log_level": "INFO",
        "load_from": cfg.load_from,
        "resume": cfg.resume,
        "train_cfg": _keys(cfg.train_cfg),
        "val_cfg": None if cfg.val_cfg is None else _keys(cfg.val_cfg),
        "test_cfg": None if cfg.test_cfg is None else _keys(cfg.test_cfg),
        "optim_wrapper": _optim_wrapper(cfg.optim_wrapper),
        "param_scheduler": [_scheduler(each) for each in cfg.param_scheduler],
        "auto_scale_lr": _keys(cfg.auto_scale_lr),
        "randomness": _keys(cfg.randomness),
        "launcher": "none",
        "work_dir": cfg.work_dir or f"./work_dirs/{cfg.name}",
    }
    own = {"find_unused_parameters": cfg.finds_unused, "sync_bn": cfg.sync_bn,
           "compile": cfg.compile, "experiment_name": cfg.experiment_name}
    return keys | {key: value for key, value in own.items() if value}


def evaluator_keys(evaluator: EvaluatorConfig, info_path: str) -> dict[str, Any]:
    """The dict of a val_evaluator or test_evaluator.

    info_path: the annotation file of its data, for one that names none
    """
    return {"type": "CocoMetric", "ann_file": evaluator.ann_file or info_path,
            "metric": list(evaluator.metric), "format_only": evaluator.format_only,
            "backend_args": None,
            **{key: value for key, value in _keys(evaluator).items()
               if key not in ("type", "ann_file", "metric", "format_only")}}


def _keys(section: Any) -> dict[str, Any]:
    """What a section says and its class's default does not, and what is always said."""
    found = {}
    for field in dataclasses.fields(section):
        value = getattr(section, field.name)
        if value is not None and (field.name in _ALWAYS or value != default_of(field)):
            is_section = dataclasses.is_dataclass(value)
            found[field.name] = _keys(value) if is_section else to_dict(value)
    return found


def _optim_wrapper(wrapper: OptimWrapperConfig) -> dict[str, Any]:
    keys: dict[str, Any] = {"type": wrapper.type, "optimizer": _keys(wrapper.optimizer)}
    if wrapper.paramwise_cfg is not None:
        keys["paramwise_cfg"] = _keys(wrapper.paramwise_cfg)
    if wrapper.clip_grad is not None:
        keys["clip_grad"] = _keys(wrapper.clip_grad) | {"norm_type": wrapper.clip_grad.norm_type}
    if wrapper.accumulative_counts > 1:
        keys["accumulative_counts"] = wrapper.accumulative_counts
    if wrapper.type == "AmpOptimWrapper":
        keys["loss_scale"] = to_dict(wrapper.loss_scale)
        keys |= {} if wrapper.dtype is None else {"dtype": wrapper.dtype}
    return keys


def _scheduler(schedule: SchedulerConfig) -> dict[str, Any]:
    keys = _keys(schedule) | {"by_epoch": schedule.in_epochs}
    if schedule.type == "MultiStepLR":
        keys.setdefault("gamma", 0.1)
    return keys
