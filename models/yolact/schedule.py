"""YOLACT's schedule, and what its trainer changes in a config because of the batch size.

Source: [yolact.md: Batch size], [yolact.md: Learning rate].
"""

from dataclasses import replace

from common.schedulers import autoscale, warmup_multistep
from runtime.sizing.pace import paced

WRITTEN_FOR = 8  # images: the batch that learning rates and lengths of the configs are for
FEWEST_FOR_BATCH_NORM = 6  # images a device; below, its statistics are left alone


def schedule(cfg):
    """lr_at(iteration) of the config in force."""
    return warmup_multistep(cfg.lr, cfg.lr_steps, cfg.gamma, cfg.lr_warmup_until,
                            cfg.lr_warmup_init)


def scaled_to_batch(cfg, batch_size, log):
    """The config with lr, steps and length scaled by batch_size / 8; `log` is told in one line.

    batch_size: images behind one update, over all devices
    """
    if batch_size == WRITTEN_FOR:
        return cfg
    lr, steps, max_iter = autoscale(batch_size, cfg.lr, cfg.lr_steps, cfg.max_iter)
    factor = batch_size / WRITTEN_FOR
    log(f"Scaling parameters by {factor:.2f} to account for a batch size of {batch_size}.")
    return replace(cfg, lr=lr, lr_steps=steps, max_iter=max_iter)


def with_batch_norm_rule(cfg, per_device, log):
    """The config with freeze_bn on where a device sees too few images at once."""
    if per_device >= FEWEST_FOR_BATCH_NORM or cfg.freeze_bn:
        return cfg
    log(f"{per_device} images a device are too few for batch norm: its layers are frozen.")
    return replace(cfg, freeze_bn=True)


def with_given(cfg, values, *keys):
    """The config with those of `keys` that are not None in `values`, the command line's flags."""
    return replace(cfg, **{key: values[key] for key in keys if values[key] is not None})


def epochs_between_validations(cfg, flags, per_epoch, log):
    """--validation_epoch, or more epochs where these are short and it is not given; `log` is told.

    per_epoch: updates in an epoch
    """
    # differs: the original validates every second epoch, however short [yolact.md: Training loop]
    # Way back: --validation_epoch 2.
    return paced(per_epoch, cfg.max_iter, flags.validation_epoch,
                 "validation_epoch" in flags.given, log, "validates",
                 f"--validation_epoch {flags.validation_epoch}")
