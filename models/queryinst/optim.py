"""Parameter groups and learning rates of a QueryInst config.

Source: [queryinst.md: Optimizer], [queryinst.md: Learning rate].
"""

from typing import Any

import torch

from common.schedulers import LrAt, warmup_multistep
from models.queryinst.adamw import OrderedAdamW


def param_groups(net: Any) -> list[dict[str, Any]]:
    """Groups for AdamW: `params`, `lr`, `base_lr` (the same), `weight_decay`.

    The multipliers are those of the config's paramwise_cfg. Parameters of equal rate and decay
    share a group, in the order in which the network first has one of it, so the backbone's is the
    first. Frozen parameters are in none.
    differs: the original has a group for each parameter [queryinst.md: Optimizer]
    Way back: none, the updates are the same.
    """
    wrapper = net.cfg.optim_wrapper
    optimizer, keys = wrapper.optimizer, wrapper.paramwise_cfg.custom_keys
    ordered = sorted(sorted(keys), key=len, reverse=True)
    groups: dict[tuple[float, float], list] = {}
    for name, parameter in net.named_parameters():
        if not parameter.requires_grad:
            continue
        lr, decay = optimizer.lr, optimizer.weight_decay
        key = next((key for key in ordered if key in name), None)
        if key is not None:
            lr, decay = lr * keys[key].lr_mult, decay * keys[key].decay_mult
        groups.setdefault((lr, decay), []).append(parameter)
    return [{"params": parameters, "lr": lr, "base_lr": lr, "weight_decay": decay}
            for (lr, decay), parameters in groups.items()]


def build_optimizer(net: Any, processes: int) -> tuple[OrderedAdamW, str]:
    """(the optimizer, with each group's `base_lr` as `auto_scale` has it, the line of that)."""
    scale, line = auto_scale(net.cfg, processes)
    groups = param_groups(net)
    for group in groups:
        group["base_lr"] *= scale
    trained = [parameter for parameter in net.parameters() if parameter.requires_grad]
    settings = net.cfg.optim_wrapper.optimizer
    return OrderedAdamW(groups, trained, lr=settings.lr, betas=settings.betas), line


def set_rates(optimizer: torch.optim.Optimizer, cfg: Any, factor: float) -> tuple[float, float]:
    """Each group's rate is its `base_lr` times the factor; in place.

    Returns what the log shows: (the config's rate times it, the first group's rate).
    """
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor
    return cfg.optim_wrapper.optimizer.lr * factor, optimizer.param_groups[0]["lr"]


def lr_factor(cfg: Any, iters_per_epoch: int) -> LrAt:
    """What every group's base rate is multiplied by, as a function of the iteration."""
    last, start = cfg.warmup
    milestones, gamma = cfg.steps
    steps = [epoch * iters_per_epoch for epoch in milestones]
    return warmup_multistep(1.0, steps, gamma, last, start, during_warmup="multiply")


def auto_scale(cfg: Any, processes: int) -> tuple[float, str]:
    """(what every rate is multiplied by, a line that says so and why).

    Without auto_scale_lr.enable it is 1, and the line says what the rule would make of the rate.
    """
    base, rate = cfg.auto_scale_lr.base_batch_size, cfg.optim_wrapper.optimizer.lr
    batch = cfg.train_dataloader.batch_size * processes
    scaled = rate * batch / base
    line = f"{batch} images a batch over all processes, the rate {rate:g} is for {base}: "
    if cfg.auto_scale_lr.enable:
        return batch / base, f"{line}scaled to {scaled:g}"
    return 1.0, f"{line}left as it is; --auto-scale-lr would make it {scaled:g}"
