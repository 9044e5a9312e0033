"""YOLACT's schedule, and what its trainer changes in a config because of batch size and flags.

Source: [yolact.md: Batch size], [yolact.md: Learning rate].
"""

from dataclasses import replace

from common.checkpoint.series import yolact_series
from common.schedulers import AUTOSCALE_BASE_BATCH, autoscale, warmup_multistep
from runtime.errors import InputError
from runtime.options.values import AUTO
from runtime.sizing import paced, settled_batch
from settings.shared_flags import (
    check_patience,
    check_size,
    longest_warmup,
    named_in_faults,
    say_changes,
    usable_workers,
)
from settings.yolact_recipes import about

LEAST_SIZE = 32  # px: what the deepest stage of a backbone makes one cell of
FEWEST_FOR_BATCH_NORM = 6  # images a device; below, its statistics are left alone


def schedule(cfg):
    """lr_at(iteration) of the config in force."""
    return warmup_multistep(cfg.lr, cfg.lr_steps, cfg.gamma, cfg.lr_warmup_until,
                            cfg.lr_warmup_init)


def scaled_to_batch(cfg, batch_size, log):
    """The config with lr, steps and length scaled by batch_size / 8; `log` is told in one line.

    batch_size: images behind one update, over all devices
    """
    if batch_size == AUTOSCALE_BASE_BATCH:
        return cfg
    lr, steps, max_iter = autoscale(batch_size, cfg.lr, cfg.lr_steps, cfg.max_iter)
    factor = batch_size / AUTOSCALE_BASE_BATCH
    log(f"Scaling parameters by {factor:.2f} to account for a batch size of {batch_size}.")
    return replace(cfg, lr=lr, lr_steps=steps, max_iter=max_iter)


def delayed_settings(delayed, step, owners, log):
    """Whether some of `delayed` are due at the update `step`: they are taken out of the list and
    put into the `cfg` of each of `owners`, and `log` is told.

    delayed: (step, {key: value}) each, in order
    """
    due = [changes for at, changes in delayed if step >= at]
    del delayed[:len(due)]
    for changes in due:
        for owner in owners:  # the network and the loss, for all who read it
            owner.cfg = replace(owner.cfg, **changes)
        log(f"Delayed settings are in force: {changes}")
    return bool(due)


def with_batch_norm_rule(cfg, per_device, log):
    """The config with freeze_bn on where a device sees too few images at once."""
    if per_device >= FEWEST_FOR_BATCH_NORM or cfg.freeze_bn:
        return cfg
    log(f"{per_device} images a device are too few for batch norm: its layers are frozen.")
    return replace(cfg, freeze_bn=True)


def with_given(cfg, values, *keys):
    """The config with those of `keys` that are not None in `values`, the command line's flags."""
    return replace(cfg, **{key: values[key] for key in keys if values[key] is not None})


def fitted_to_batch(flags, run, cfg, trial):
    """The config for the batch of the flags, and with their rates over it; `run` is told.

    flags: a batch_size of "auto" is replaced by the number (all ranks)
    trial: makes the Trial. Raises InputError as `settled_batch`, and beside --batch_alloc
    """
    devices = run.num_devices(flags.device)
    if flags.batch_size == AUTO:
        flags.batch_size = (_settled(flags, run, cfg, trial, devices) if flags.trains
                            else AUTOSCALE_BASE_BATCH)
    if not flags.no_autoscale:
        cfg = scaled_to_batch(cfg, flags.batch_size * flags.accumulate, run.log)
    cfg = with_batch_norm_rule(cfg, flags.batch_size // devices, run.log)
    return with_given(cfg, vars(flags), "lr", "momentum", "decay", "gamma")


def _settled(flags, run, cfg, trial, devices):
    if flags.batch_alloc:
        raise InputError(f"--batch_alloc {flags.batch_alloc}: the images of each GPU want a number "
                         "for --batch_size, which auto is not")
    series = yolact_series(flags.save_folder, str(cfg.name), flags.save_interval, per_epoch=1)
    rates = "The rates are the config's." if flags.no_autoscale else ""
    return settled_batch(run, flags, trial(), series, key="batch_size", shown="--batch_size {}",
                         devices=devices, counted=devices, rates=rates)


def epochs_between_validations(cfg, flags, per_epoch, log):
    """--validation_epoch, or more epochs where these are short and it is not given; `log` is told.

    per_epoch: updates in an epoch
    """
    # differs: the original validates every second epoch, however short [yolact.md: Training loop]
    # Way back: --validation_epoch 2.
    return paced(per_epoch, cfg.max_iter, flags.validation_epoch,
                 "validation_epoch" in flags.given, log, "validates",
                 f"--validation_epoch {flags.validation_epoch}")


def with_flags(cfg, flags, log):
    """The config with --image-size and --mirror; `log` is told what changes with the size.

    Raises InputError for a size that the network cannot take, naming the smallest one, and for
    --patience without validations.
    """
    check_patience(flags.patience, flags.validation_epoch > 0,
                   "--validation_epoch is 0; give the epochs between two")
    check_patience(flags.patience, cfg.dataset.has_gt,
                   "dataset.has_gt is false, the truth is elsewhere")
    if flags.mirror is not None:
        cfg = replace(cfg, augment_random_mirror=flags.mirror)
    size, backbone = flags.image_size, cfg.backbone
    if size is None:
        return cfg
    scales = backbone.pred_scales if backbone else ()
    if backbone and backbone.use_pixel_scales:  # as the original's im400 and im700 have them
        scales = tuple(tuple(float(max(1, int(scale / cfg.max_size * size))) for scale in level)
                       for level in scales)
    check_size(size, LEAST_SIZE, "the deepest stage makes one cell of that")
    with named_in_faults(f"--image-size {size}"):
        sized = replace(cfg, max_size=size,
                        backbone=backbone and replace(backbone, pred_scales=scales))
    say_changes(log, "--image-size", {"max_size": (cfg.max_size, size), "backbone.pred_scales": (
        backbone.pred_scales if backbone else (), scales)})
    return sized


def limit_workers(flags, log):
    """At most a data worker for each core, unless the command line says how many."""
    # differs: no more workers than cores; the batches do not depend on their number
    # [yolact.md: Command line]. Way back: --num_workers 4.
    given = flags.num_workers if "num_workers" in flags.given else None
    flags.num_workers = usable_workers(flags.num_workers, given, "--num_workers", log,
                                       "--num_workers")


def with_epochs(flags, run, loader, *owners):
    """(the config of the `owners` with --epochs as its length, updates in an epoch of `loader`).

    owners: network and loss, whose `cfg` it becomes
    All that is counted in iterations moves with the length, and that is told by `run`.
    The warm-up stays as long as it was, but for at most half of the training.
    """
    cfg, per_epoch = owners[0].cfg, loader.steps_per_epoch(flags.accumulate)
    if flags.epochs is None:
        return cfg, per_epoch
    length = flags.epochs * per_epoch
    factor = length / cfg.max_iter
    changed = replace(
        cfg, max_iter=length, lr_steps=tuple(round(step * factor) for step in cfg.lr_steps),
        lr_warmup_until=longest_warmup(cfg.lr_warmup_until, length),
        delayed_settings=tuple((round(at * factor), changes)
                               for at, changes in cfg.delayed_settings))
    keys = ("max_iter", "lr_steps", "lr_warmup_until", "delayed_settings")
    say_changes(run.log, "--epochs", {key: (vars(cfg)[key], vars(changed)[key])
                                      for key in keys})
    run.describe(**about(flags.config, changed))
    for owner in owners:
        owner.cfg = changed
    return changed, per_epoch
