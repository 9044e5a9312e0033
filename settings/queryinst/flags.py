"""The config in force for a command line of QueryInst, and the flags that it fills in."""

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

from runtime.cli import trackers
from runtime.sizing import with_batch_size
from settings.foreign import Note, note_lines
from settings.queryinst.config import QueryInstConfig
from settings.queryinst.data import DataLoaderConfig
from settings.queryinst.hooks import EarlyStoppingHookConfig
from settings.queryinst.optimizing import SchedulerConfig
from settings.queryinst.pipeline import (
    PackStep,
    RandomChoiceResizeStep,
    RandomChoiceStep,
    RandomCropStep,
    RandomFlipStep,
    ResizeStep,
)
from settings.queryinst.recipes import about, load_queryinst_config
from settings.shared_flags import (
    check_patience,
    check_size,
    longest_warmup,
    named_in_faults,
    say_changes,
    usable_workers,
)

LOADERS = ("train_dataloader", "val_dataloader", "test_dataloader")
STRICTLY = 1e-6  # more than nothing, and less than the last digit of a score
Steps = tuple[Any, ...]


def read_settings(flags: SimpleNamespace) -> QueryInstConfig:
    """The config with the flags over it, whose open values are filled in from the config.

    `flags.notes` gets a line for each flag that changes more than its own key, and for the keys
    that change nothing here.
    """
    notes: list[Note] = []
    options = with_batch_size(flags.cfg_options or [], "train_dataloader.batch_size", flags)
    cfg = load_queryinst_config(flags.config, options=options, notes=notes)
    if flags.eval_only:
        cfg = cfg.for_test
    if cfg.resume and not flags.resume and not flags.predict:
        flags.resume = cfg.load_from or "latest"
    flags.compile |= cfg.compile
    flags.tensorboard |= cfg.visualizer is not None and cfg.visualizer.tensorboard
    trackers(flags)  # a missing package is told before anything is made
    cfg = _with_flags(cfg, flags)
    if flags.auto_scale_lr:
        cfg = replace(cfg, auto_scale_lr=replace(cfg.auto_scale_lr, enable=True))
    for name, value in cfg.for_flags.items():
        # what a training begins with is not what it has come to
        if vars(flags)[name] is None and not (flags.predict and name == "pretrained"):
            vars(flags)[name] = value
    flags.notes += note_lines(notes + cfg.notes)
    return cfg


def _with_flags(cfg: QueryInstConfig, flags: SimpleNamespace) -> QueryInstConfig:
    """The config with --workers, --image-size, --mirror and --patience.

    What they change beyond their own key goes to `flags.notes`, a line each.
    Raises InputError for a size that the network cannot take, and for --patience without
    validations.
    """
    flags.notes = []
    say = flags.notes.append
    if flags.predict:  # also where the config has no validation
        cfg = replace(cfg, test_dataloader=cfg.predicted_by)
    for key in LOADERS:
        loader = vars(cfg)[key]
        if loader is None:
            continue
        # differs: no more workers than cores; the batches do not depend on their number
        # [queryinst.md: Loader]. Way back: --workers 2.
        given = flags.workers if key == "train_dataloader" else None
        workers = usable_workers(loader.num_workers, given, f"{key}.num_workers", say)
        cfg = replace(cfg, **{key: replace(loader, num_workers=workers)})
        if flags.image_size is not None:
            cfg = _of_size(cfg, key, flags.image_size, say)
    if flags.mirror is not None:
        loader = cfg.train_dataloader
        cfg = replace(cfg, train_dataloader=_with_pipeline(
            loader, _mirrored(loader.dataset.pipeline, flags.mirror)))
    return cfg if flags.patience is None else _patient(cfg, flags.patience, say)


def _with_pipeline(loader: DataLoaderConfig, pipeline: Steps) -> DataLoaderConfig:
    return replace(loader, dataset=replace(loader.dataset, pipeline=pipeline))


def _each_step(change: Callable[[Any], Any], steps: Steps) -> Steps:
    """The steps, also those of a choice, with `change` applied to each."""
    return tuple(
        replace(step, transforms=tuple(_each_step(change, each) for each in step.lists))
        if isinstance(step, RandomChoiceStep) else change(step) for step in steps)


def _flat(steps: Steps) -> list[Any]:
    found: list[Any] = []
    _each_step(lambda step: found.append(step) or step, steps)
    return found


def _scales_of(steps: Steps) -> list[tuple[int, int]]:
    """The sizes of all resizing steps."""
    return [scale for step in _flat(steps) if isinstance(step, (ResizeStep, RandomChoiceResizeStep))
            for scale in (step.scales if isinstance(step, RandomChoiceResizeStep)
                          else [step.scale])]


def _of_size(cfg: QueryInstConfig, key: str, size: int, say: Callable[[str], object]
             ) -> QueryInstConfig:
    """With `size` as the largest shorter side of a loader's images, and all other sizes of its
    pipeline in the same proportion, those of crops as well."""
    loader = vars(cfg)[key]
    before = loader.dataset.pipeline
    scales = _scales_of(before)
    if not scales:
        return cfg
    least = cfg.model.data_preprocessor.pad_size_divisor
    check_size(size, least, f"what is smaller is padded to {least}")
    factor = size / max(map(min, scales))

    def sized(pixels: Any) -> tuple[int, ...]:
        return tuple(max(1, round(each * factor)) for each in pixels)

    def change(step: Any) -> Any:
        if isinstance(step, ResizeStep):
            return replace(step, scale=sized(step.scale))
        if isinstance(step, RandomChoiceResizeStep):
            return replace(step, scales=tuple(map(sized, step.scales)))
        if isinstance(step, RandomCropStep) and step.crop_type.startswith("absolute"):
            return replace(step, crop_size=sized(step.crop_size))
        return step

    with named_in_faults(f"--image-size {size}"):
        after = _each_step(change, before)
    say_changes(say, "--image-size", {f"{key}.dataset.pipeline's scale": (
        _once(scales), _once(_scales_of(after)))})
    return replace(cfg, **{key: _with_pipeline(loader, after)})


def _once(scales: list[tuple[int, int]]) -> object:
    unique = list(dict.fromkeys(scales))
    return unique[0] if len(unique) == 1 else unique


def _mirrored(steps: Steps, mirror: bool) -> Steps:
    """The steps with images mirrored left to right, every other time where none was; or never."""

    def never(step: Any) -> Any:
        if not isinstance(step, RandomFlipStep):
            return step
        odds = tuple(0.0 if side == "horizontal" else chance for side, chance in step.chances)
        return replace(step, prob=odds if isinstance(step.direction, tuple) else odds[0])

    if not mirror:
        return _each_step(never, steps)
    if any(side == "horizontal" and chance > 0 for step in _flat(steps)
           if isinstance(step, RandomFlipStep) for side, chance in step.chances):
        return steps
    end = next(i for i, step in enumerate(steps) if isinstance(step, PackStep))
    return (*steps[:end], RandomFlipStep(prob=0.5), *steps[end:])


def _patient(cfg: QueryInstConfig, patience: int, say: Callable[[str], object]) -> QueryInstConfig:
    """With an EarlyStoppingHook of that patience: the config's own, or one by the first score that
    is kept the best of, else by mask AP, else box AP; and with the best weights kept."""
    check_patience(patience, cfg.val_cfg is not None,
                   "val_cfg, val_dataloader and val_evaluator are None")
    kept, own = cfg.default_hooks.checkpoint, cfg.early_stopping
    _, rules = cfg.scored_by
    monitor = f"coco/{'segm' if 'segm' in rules.metric else 'bbox'}_mAP"
    if kept.watched and "auto" not in kept.watched:
        monitor = kept.watched[0]
    if own is None:
        own = EarlyStoppingHookConfig(monitor, rule=kept.rules.get(monitor), min_delta=STRICTLY)
    if not kept.watched:
        say(f"--patience: default_hooks.checkpoint.save_best becomes {own.monitor}, so that the "
            "best weights are kept.")
        kept = replace(kept, save_best=own.monitor, rule=own.rule)
    elsewhere = tuple({**hook, "patience": patience} if hook.get("type") == own.type else hook
                      for hook in cfg.custom_hooks or ())  # where one counts more
    return replace(cfg, custom_hooks=cfg.custom_hooks and elsewhere, default_hooks=replace(
        cfg.default_hooks, checkpoint=kept, early_stopping=replace(own, patience=patience)))


def with_epochs(cfg: QueryInstConfig, flags: SimpleNamespace, run: Any, loader: Any
                ) -> QueryInstConfig:
    """The config with --epochs as its length, in epochs of `loader`.

    Drops and ends of the rates move with the length, and that is told by `run`. Drops that would
    fall inside an epoch are counted in iterations then. A warm-up stays as long as it was, but for
    at most half of the training.
    """
    per_epoch = loader.steps_per_epoch(flags.accumulate)
    if flags.epochs is None:
        return cfg
    rules, unit = cfg.train_cfg, 1 if cfg.train_cfg.in_epochs else per_epoch
    before = rules.max_epochs if rules.in_epochs else rules.max_iters
    length = flags.epochs * unit
    key = "max_epochs" if rules.in_epochs else "max_iters"
    total = flags.epochs * per_epoch
    factor = Fraction(total, rules.iterations(per_epoch))
    lengths = {True: flags.epochs, False: total}
    warm = {(each.in_epochs, each.end): longest_warmup(each.end, lengths[each.in_epochs]) or 1
            for each in cfg.param_scheduler if each.end and _warms_up(each)}
    schedules = tuple(_stretched(each, factor, warm, per_epoch) for each in cfg.param_scheduler)
    changed = replace(cfg, train_cfg=replace(rules, **{key: length}), param_scheduler=schedules)
    changes = {f"train_cfg.{key}": (before, length)}
    for i, (old, new) in enumerate(zip(cfg.param_scheduler, schedules, strict=True)):
        changes |= {f"param_scheduler.{i}.{name}": (vars(old)[name], vars(new)[name])
                    for name in vars(old)}
    say_changes(run.log, "--epochs", changes)
    run.describe(**about(flags.config, changed))
    return changed


def _warms_up(schedule: SchedulerConfig) -> bool:
    """Whether it only raises the rate at the beginning."""
    is_linear = schedule.type == "LinearLR"
    rises = schedule.number("start_factor") < schedule.number("end_factor")
    return schedule.begin == 0 and (schedule.type == "ConstantLR" or (is_linear and rises))


def _stretched(schedule: SchedulerConfig, factor: Fraction, warm: dict[tuple[bool, int], int],
               per_epoch: int) -> SchedulerConfig:
    """A schedule in a training that is `factor` times as long.

    warm: {(in epochs, the end of a warm-up): its end now}
    """
    unit = schedule.in_epochs
    if _warms_up(schedule):
        return replace(schedule, end=schedule.end and warm[unit, schedule.end])
    drops = (*(schedule.milestones or ()), *([schedule.step_size] if schedule.step_size else ()))
    if unit and any((drop * factor) % 1 for drop in drops):
        return _stretched(_by_iteration(schedule, per_epoch), factor,
                          {(False, end * per_epoch): now * per_epoch
                           for (_, end), now in warm.items()}, per_epoch)

    def moved(number: int | None) -> int | None:
        return number and max(1, round(number * factor))

    begin = warm.get((unit, schedule.begin), moved(schedule.begin) or 0)
    end = schedule.end and max(begin + 1, moved(schedule.end) or 1)
    half = moved(schedule.T_max)
    if schedule.end and end and schedule.T_max == schedule.end - schedule.begin:
        half = end - begin  # a whole cosine stays one
    return replace(
        schedule, begin=begin, end=end, T_max=half, step_size=moved(schedule.step_size),
        milestones=schedule.milestones and tuple(moved(each) or 1 for each in schedule.milestones))


def _by_iteration(schedule: SchedulerConfig, per_epoch: int) -> SchedulerConfig:
    """The same drops, counted in iterations instead of epochs."""
    many = {name: value and value * per_epoch for name, value in vars(schedule).items()
            if name in ("begin", "end", "step_size")}
    milestones = schedule.milestones and tuple(each * per_epoch for each in schedule.milestones)
    return replace(schedule, **many, milestones=milestones, by_epoch=False,
                   convert_to_iter_based=False)
