"""What a training begins with: its weights, the rates of its updates, and what is said of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from common import schedulers
from common.checkpoint.series import CheckpointSeries, resnest_series
from models.facts import facts_in
from models.load_report import bare_state_dict
from models.resnest.facts import FAMILY
from models.resnest.weights import find_weights, load_weights
from models.resnest.zoo import build_network, fitting_models
from runtime.errors import InputError
from runtime.options.values import AUTO
from runtime.sizing import Trial, paced, settled_batch
from settings.resnest import ResNeStConfig, sets_own


def find_weights_once(run: Any, named: str, folder: str | Path) -> Path:
    """`find_weights` of several processes: rank 0 fetches what is missing (all ranks).

    run: the Run
    """
    return run.from_main(lambda: (find_weights(named, folder), None))[0]


def start_weights(
    run: Any, cfg: ResNeStConfig, net: nn.Module, pretrained: str | None, folder: str | Path
) -> None:
    """Weights to train from, put into `net`; run.log says which and what they lack (all ranks).

    pretrained: anyone's weights, of any classes; a published file or network is fetched to `folder`
    """
    if not pretrained:
        run.log("Starting from random weights.")
        return
    path = find_weights_once(run, pretrained, folder)
    run.log(str(load_weights(net, path, cfg.MODEL.NAME, log=run.log)))


def join_outputs(
    run: Any, folders: Sequence[Any], checkpoints: CheckpointSeries, resume: str | None,
    evaluates: bool,
) -> None:
    """Have the data's classes be some of a checkpoint's outputs, where it has more outputs than
    they are (all ranks). Of ImageNet's 1000 outputs ten folders are then ten.

    folders:   ClassFolders of train and val, which `take_outputs`
    resume:    what --resume says; evaluates: without it the best or newest checkpoint counts
    Outputs that the file names are joined by name; else the classes are its first ones.
    Raises InputError as the series does.
    """
    def ignore(line: str) -> None:
        """Damaged files are told of when the one behind them is loaded."""

    found = (checkpoints.find_trained if evaluates else checkpoints.find_start)(resume, ignore)
    head = bare_state_dict(found.weights).get("fc.weight") if found else None
    names, count = folders[0].classes, len(head) if torch.is_tensor(head) and head.ndim else 0
    if found is None or count <= len(names):
        return
    facts = facts_in(found.weights, FAMILY)
    outputs = facts.classes if facts else ()
    how = "joined by name"
    if not set(names) <= set(outputs):
        # parity: label i is output i, whatever the file was trained on [resnest.md: Data]
        outputs = (*names, *(f"output {i}" for i in range(len(names), count)))
        how = "taken for its first outputs, as the original does"
    for part in folders:
        part.take_outputs(outputs)
    run.log(f"{found.path} has {count} outputs, which stay; the data's {len(names)} classes are "
            f"{how}.")


def load_all(
    run: Any, cfg: ResNeStConfig, path: Path, saved: Mapping[str, Any],
    net: nn.Module | None = None,
) -> nn.Module:
    """`net` with every weight of a checkpoint or bare state dict; run.log says what was loaded.

    saved: the content of `path`
    net:   None makes one for the file's classes, on the CPU
    Raises InputError as `load_weights`, and when the classes differ.
    """
    if net is None:
        classifier = bare_state_dict(saved).get("fc.weight")
        if not torch.is_tensor(classifier):
            raise InputError(f"{path}: no weights of a classifier in it")
        net = build_network(cfg, len(classifier))
    try:
        report = load_weights(net, path, cfg.MODEL.NAME, saved)
    except InputError as error:
        fitting = fitting_models(bare_state_dict(saved))
        if not fitting or cfg.MODEL.NAME in fitting:
            raise
        raise InputError(f"{path}: these are weights of {fitting[0]}, not of MODEL.NAME "
                         f"{cfg.MODEL.NAME}; use MODEL.NAME {' or '.join(fitting)}") from error
    if report.fresh:
        classes = len(net.state_dict()["fc.weight"])
        raise InputError(f"{path}: weights for {report.file_classes} classes, the data have "
                         f"{classes}; to start from them all the same: --pretrained")
    run.log(str(report))
    return net


def schedule(cfg: ResNeStConfig, processes: int, per_epoch: int) -> schedulers.LrAt:
    """lr_at(step): LR is a process's own, the rate theirs together; per_epoch: updates."""
    optimizer = cfg.OPTIMIZER
    return schedulers.per_epoch(
        optimizer.LR_SCHEDULER, optimizer.LR * processes, cfg.TRAINING.EPOCHS, per_epoch,
        optimizer.WARMUP_EPOCHS, optimizer.LR_STEP, optimizer.MILESTONES, optimizer.GAMMA)


def announce(
    run: Any, cfg: ResNeStConfig, accumulate: int, param_groups: Sequence[Mapping[str, Any]]
) -> None:
    """run.log says at which rate, in which batches and with which weight decay is trained."""
    lr, size, world = cfg.OPTIMIZER.LR, cfg.TRAINING.BATCH_SIZE, run.world_size
    run.log(f"Learning rate {lr:g} x {world} processes = {lr * world:g}. Batch {size} x {world} "
            f"processes x {accumulate} accumulated = {size * world * accumulate}.")
    if cfg.OPTIMIZER.DISABLE_BN_WD:
        spared, decayed = (len(group["params"]) for group in param_groups)
        run.log(" Weight decay NOT applied to BN parameters ")
        run.log(f"len(parameters): {spared + decayed} = {spared} + {decayed}")


def paced_series(
    flags: SimpleNamespace, run: Any, cfg: ResNeStConfig, folder: Path, per_epoch: int
) -> tuple[CheckpointSeries, int]:
    """(the run's checkpoints, epochs between validations): TRAINING.EVAL_EVERY and one an epoch,
    or both rarer where epochs are short and the user has not set the key; run.log says so.

    flags: config_file, options, save_every; per_epoch: updates in an epoch
    """
    rules, key = cfg.TRAINING, "TRAINING.EVAL_EVERY"
    own = sets_own(key, flags.config_file, flags.options)
    every = paced(per_epoch, rules.EPOCHS * per_epoch, rules.EVAL_EVERY, own, run.log,
                  "validates and saves", f"{key} {rules.EVAL_EVERY}")
    # a validation saves, too
    series = resnest_series(folder, per_epoch, flags.save_every, every == rules.EVAL_EVERY,
                            run.writer)
    return series, every


def fitted_to_batch(
    flags: SimpleNamespace, run: Any, cfg: ResNeStConfig, trial: Callable[[], Trial]
) -> ResNeStConfig:
    """The config with the number that --batch-size auto stands for (all ranks).

    trial: makes the Trial. Raises InputError as `settled_batch`.
    """
    if flags.batch_size != AUTO or flags.eval_only:
        return cfg
    number = settled_batch(
        run, flags, trial(), resnest_series(flags.outdir, per_epoch=1), key="batch_size",
        shown="--batch-size {}", devices=run.world_size, ranks=run.world_size,
        rates="OPTIMIZER.LR stays as it is.")
    return replace(cfg, TRAINING=replace(cfg.TRAINING, BATCH_SIZE=number))
