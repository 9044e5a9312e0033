"""Parameter groups and learning rates of a QueryInst config.

Source: [queryinst.md: Optimizer], [queryinst.md: Learning rate].
"""

from typing import Any

import torch
from torch import nn

from models.queryinst.ordered import OrderedAdamW, OrderedSGD
from models.queryinst.schedule import RateAt

_NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm,
          nn.modules.instancenorm._InstanceNorm)
Optimizer = OrderedAdamW | OrderedSGD


def param_groups(net: Any) -> list[dict[str, Any]]:
    """Groups for the optimizer: `params`, `lr`, `base_lr` (the same), `weight_decay`.

    The multipliers are those of the config's paramwise_cfg. Parameters of equal rate and decay
    share a group, in the order in which the network first has one of it, so the backbone's is the
    first. Frozen parameters are in none.
    differs: the original has a group for each parameter [queryinst.md: Optimizer]
    Way back: none, the updates are the same.
    """
    wrapper = net.cfg.optim_wrapper
    base_lr, base_decay = wrapper.optimizer.lr, wrapper.optimizer.decay
    groups: dict[tuple[float, float], list] = {}
    for prefix, module in net.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad:
                lr_mult, decay_mult = 1.0, 1.0
                if wrapper.paramwise_cfg is not None:
                    lr_mult, decay_mult = _multipliers(
                        wrapper.paramwise_cfg, f"{prefix}.{name}", name, parameter,
                        is_norm=isinstance(module, _NORMS))
                key = base_lr * lr_mult, base_decay * decay_mult
                groups.setdefault(key, []).append(parameter)
    return [{"params": parameters, "lr": lr, "base_lr": lr, "weight_decay": decay}
            for (lr, decay), parameters in groups.items()]


def _multipliers(
    rules: Any, dotted: str, name: str, parameter: torch.Tensor, is_norm: bool
) -> tuple[float, float]:
    """(of the rate, of the decay) for one parameter.

    rules: a paramwise_cfg; dotted: the parameter's whole name; name: the last word of it
    """
    ordered = sorted(sorted(rules.custom_keys), key=len, reverse=True)
    custom = next((rules.custom_keys[key] for key in ordered if key in dotted), None)
    if custom is not None:
        return custom.lr_mult, custom.decay_mult
    is_bias = name == "bias"
    lr_mult = 1.0 if rules.bias_lr_mult is None or is_norm or not is_bias else rules.bias_lr_mult
    # parity: a rule that is not given leaves the parameter to the next one, so that a norm's bias
    # may follow bias_decay_mult or flat_decay_mult [queryinst.md: Optimizer]
    candidates = ((is_norm, rules.norm_decay_mult), (is_bias, rules.bias_decay_mult),
                  (parameter.ndim == 1, rules.flat_decay_mult))
    decays = (decay for applies, decay in candidates if applies and decay is not None)
    return lr_mult, next(decays, 1.0)


def build_optimizer(net: Any, processes: int) -> tuple[Optimizer, str]:
    """(the optimizer, with each group's `base_lr` as `auto_scale` has it, the line of that)."""
    scale, line = auto_scale(net.cfg, processes)
    groups = param_groups(net)
    for group in groups:
        group["base_lr"] *= scale
    trained = [parameter for parameter in net.parameters() if parameter.requires_grad]
    settings = net.cfg.optim_wrapper.optimizer
    kind = OrderedAdamW if settings.type == "AdamW" else OrderedSGD
    return kind(groups, trained, lr=settings.lr, **settings.options), line


def set_rates(
    optimizer: torch.optim.Optimizer, cfg: Any, rate_at: RateAt, iteration: int
) -> tuple[float, float]:
    """Each group's rate is what `lr_schedule` makes of its `base_lr`; in place.

    Returns what the log shows: (what it makes of the config's rate, the first group's rate).
    """
    for group in optimizer.param_groups:
        group["lr"] = rate_at(group["base_lr"], iteration)
    return (rate_at(cfg.optim_wrapper.optimizer.lr, iteration), optimizer.param_groups[0]["lr"])


def auto_scale(cfg: Any, processes: int) -> tuple[float, str]:
    """(what every rate is multiplied by, a line that says so and why).

    Without auto_scale_lr.enable it is 1, and the line says what the rule would make of the rate.
    """
    base, rate = cfg.auto_scale_lr.base_batch_size, cfg.optim_wrapper.optimizer.lr
    batch = cfg.train_dataloader.batch_size * processes
    scaled = rate * batch / base
    line = f"{batch} images a batch over all processes, the rate {rate:g} is for {base}: "
    if batch == base:
        return 1.0, f"{batch} images a batch over all processes, which the rate {rate:g} is for"
    if cfg.auto_scale_lr.enable:
        return batch / base, f"{line}scaled to {scaled:g}"
    return 1.0, f"{line}left as it is; --auto-scale-lr would make it {scaled:g}"
