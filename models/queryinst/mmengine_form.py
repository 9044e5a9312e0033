"""A checkpoint's entries as MMEngine's runner writes them, so that MMDetection goes on from it.

Source: [queryinst.md: Checkpoints].
"""

import pprint
import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch

from models.queryinst.schedule import lr_schedule
from runtime.pictures import instance_colours
from settings.queryinst.mmdetection import to_mmdetection

VERSION = "0.10.7"  # the MMEngine whose form this is
_FOREVER = 10**9  # `end` of a schedule without one


class MmengineForm:
    """What all checkpoints of a run say in MMEngine's words; made once for a run.

    net:       the bare network; names: of its classes
    seed:      of the run
    per_epoch: updates in an epoch

    Tensors and plain values only. MMEngine's own files hold its classes too, which is why PyTorch's
    safe loading refuses them; without those its runner resumes as well: the means in its log begin
    anew. A checkpoint inside an epoch resumes there at its iteration and rate, but at the epoch's
    first batch: MMEngine has no position in the epoch.
    """

    def __init__(self, net: Any, names: Sequence[str], seed: int, per_epoch: int):
        self.net, self.names = net, tuple(names)
        self._seed, self._per_epoch = seed, per_epoch
        config = to_mmdetection(net.cfg, self.names)
        self._config = config | {"randomness": {**config["randomness"], "seed": seed}}
        self._rate_at = lr_schedule(net.cfg, per_epoch)

    @cached_property
    def text(self) -> str:
        """The config as Python text, which `mmengine.Config.fromstring(text, ".py")` reads."""
        lines = [f"{key} = {pprint.pformat(value, width=100, sort_dicts=False)}\n"
                 for key, value in self._config.items()]
        return "".join(lines)

    @cached_property
    def _about_data(self) -> dict[str, Any]:
        return {"classes": self.names, "palette": instance_colours(len(self.names))}

    def meta(self, iteration: int) -> dict[str, Any]:
        """`meta` after so many updates."""
        return {"epoch": iteration // self._per_epoch, "iter": iteration, "cfg": self.text,
                "seed": self._seed, "experiment_name": str(self.net.cfg.name),
                "time": time.strftime("%Y%m%d_%H%M%S"), "mmengine_version": VERSION,
                "dataset_meta": self._about_data}

    def message_hub(self, iteration: int, best: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
        """What its hooks remember, without the history of the logged values, which begins anew.

        best: {metric: [value, name of its file]}
        """
        loop = self.net.cfg.train_cfg
        info: dict[str, Any] = {
            "cfg": self.text, "seed": self._seed, "experiment_name": str(self.net.cfg.name),
            "mmengine_version": VERSION, "loop_stage": "train",
            "epoch": max(iteration - 1, 0) // self._per_epoch, "iter": max(iteration - 1, 0),
            "max_epochs": loop.max_epochs, "max_iters": loop.iterations(self._per_epoch),
            "dataset_meta": self._about_data,
        }
        for metric, (value, file) in best.items():
            of = f"_{metric}" if len(best) > 1 else ""
            info |= {f"best_score{of}": value, f"best_ckpt{of}": file}
        return {"log_scalars": {}, "runtime_info": info,
                "resumed_keys": dict.fromkeys(info, True)}

    def optimizer(
        self, saved: Mapping[str, Any], scaler: Mapping[str, Any] | None, iteration: int
    ) -> dict[str, Any]:
        """The optimizer's state, with the rates that the next update has.

        saved:  its `state_dict`: a group for each trained parameter, in order, with its `base_lr`
        scaler: the loss scaler's state, None or empty without one
        """
        found = saved["param_groups"]
        rates = self._rates([group["base_lr"] for group in found], iteration)
        groups = [_group(group, group["base_lr"], rate)
                  for group, rate in zip(found, rates, strict=True)]
        state, extra = saved["state"], {"loss_scaler": dict(scaler)} if scaler else {}
        if self._is_one_group:
            every = list(self.net.parameters())  # the frozen ones too
            trained = [i for i, parameter in enumerate(every) if parameter.requires_grad]
            state = {trained[i]: moments for i, moments in state.items()}
            groups = [{**groups[0], "params": list(range(len(every)))}]
        else:
            asked = self.net.cfg.optim_wrapper.optimizer
            (rate,) = self._rates([asked.lr], iteration)
            extra["base_param_settings"] = _group(groups[0], asked.lr, rate) | {
                "params": torch.zeros(1), "weight_decay": asked.decay}
        return {"state": state, "param_groups": groups, **extra}

    def param_schedulers(self, saved: Mapping[str, Any], iteration: int) -> list[dict[str, Any]]:
        """The state of each of the config's schedules; saved: as in `optimizer`."""
        bases = [group["base_lr"] for group in saved["param_groups"]]
        # the settings that no parameter changes, from which the log has its rate, are one more
        asked = self.net.cfg.optim_wrapper.optimizer.lr
        bases = bases[:1] if self._is_one_group else [*bases, asked]
        rates = self._rates(bases, iteration)
        return [self._schedule(each, iteration) | {"base_values": bases, "_last_value": rates}
                for each in self.net.cfg.param_scheduler]

    @property
    def _is_one_group(self) -> bool:
        """Without rules for single parameters MMEngine makes one group of all."""
        return not self._config["optim_wrapper"].get("paramwise_cfg")

    def _rates(self, bases: Sequence[float], iteration: int) -> list[float]:
        known = {base: self._rate_at(base, iteration) for base in set(bases)}
        return [known[base] for base in bases]

    def _schedule(self, schedule: Any, iteration: int) -> dict[str, Any]:
        is_converted = schedule.in_epochs and schedule.convert_to_iter_based
        by_epoch = schedule.in_epochs and not is_converted
        scale = self._per_epoch if is_converted else 1
        begin = schedule.begin * scale
        end = _FOREVER if schedule.end is None else schedule.end * scale
        moves = iteration // self._per_epoch if by_epoch else iteration
        return {**_numbers(schedule, scale, end - begin), "param_name": "lr", "begin": begin,
                "end": end, "by_epoch": by_epoch,
                "last_step": max(min(moves, end - 1) - begin, -1), "_global_step": moves,
                "verbose": False}


def _group(group: Mapping[str, Any], base: float, rate: float) -> dict[str, Any]:
    settings = {key: value for key, value in group.items() if key != "base_lr"}
    # how torch loops over the parameters is the reader's choice
    return {**settings, "lr": rate, "initial_lr": base, "foreach": None, "fused": None}


def _numbers(schedule: Any, scale: int, length: int) -> dict[str, Any]:
    """What a schedule's type alone has, under MMEngine's names, with MMEngine's defaults.

    scale: its moves in one of the config's numbers; length: all its moves
    """
    kind, number = schedule.type, schedule.number
    if kind == "LinearLR":
        return {"start_factor": number("start_factor"), "end_factor": number("end_factor"),
                "total_iters": length - 1}
    if kind == "ConstantLR":
        return {"factor": number("factor"), "total_iters": length - 1}
    if kind == "CosineAnnealingLR":
        t_max = schedule.T_max * scale if schedule.T_max else length
        low = schedule.eta_min if schedule.eta_min_ratio else number("eta_min")
        return {"T_max": t_max, "eta_min": low, "eta_min_ratio": schedule.eta_min_ratio}
    if kind == "PolyLR":
        return {"eta_min": number("eta_min"), "power": number("power"),
                "total_iters": length - 1}
    gamma = {"gamma": number("gamma")}
    if kind == "MultiStepLR":
        return {"milestones": {each * scale: 1 for each in schedule.milestones}, **gamma}
    return {"step_size": schedule.step_size * scale, **gamma} if kind == "StepLR" else gamma
