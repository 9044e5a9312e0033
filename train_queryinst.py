"""Train QueryInst (query-based instance segmentation) on any COCO-format data.

    python train_queryinst.py queryinst_shapes                       # CPU; draws its own scenes
    python train_queryinst.py queryinst_r50_fpn_1x_coco              # one GPU
    ./dist_train.sh queryinst_r50_fpn_1x_coco 8 --resume             # one process per GPU
    NNODES=2 NODE_RANK=0 MASTER_ADDR=HOST PORT=29500 ./dist_train.sh queryinst_r50_fpn_1x_coco 8
    python train_queryinst.py CONFIG --eval-only --resume work_dirs/CONFIG/epoch_12.pth
    ... --cfg-options default_hooks.checkpoint.interval=100 default_hooks.checkpoint.by_epoch=False

Data: data/coco/{train2017,val2017}, data/coco/annotations/instances_*2017.json, or your own by
--cfg-options train_dataloader.dataset.data_root=DIR train_dataloader.dataset.ann_file=FILE.json
train_dataloader.dataset.data_prefix.img=SUBFOLDER, val_dataloader.* likewise; the classes then
come from the file. Everything goes to work_dirs/<config name>/: checkpoints as epoch_N.pth or
iter_N.pth, metrics.jsonl, pictures, and a time-stamped folder with MMDetection's scalars.json for
each run. Mask AP to expect on COCO val2017: r50 1x 37.5, 300 proposals 41.7, r101 42.9.
"""

import os
import time
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import typer

from runtime import cli
from runtime.launch.signals import StopSignals

SCRIPT = "train_queryinst"
PROJECT = Path(__file__).resolve().parent
WEIGHTS = PROJECT / "weights"  # pretrained backbones
CACHE = "cache"  # in the work directory: annotation indexes, mapped into memory at the next start
PICTURED = 9  # images in each grid
SHOWN_SCORE = 0.3  # predictions below it are not drawn
LAUNCHERS = ("none", "pytorch", "slurm", "mpi")


def flag(names, help, **limits):
    return typer.Option(*names.split(), help=help, **limits)


def flags(
    # --- MMDetection's flags; names, defaults and meaning are its own
    config: Annotated[str, typer.Argument(help="Config name or YAML file.")],
    work_dir: Annotated[str | None, flag("--work-dir", "where everything is written")] = None,
    resume: Annotated[str | None, flag("--resume", "checkpoint; without a value the newest",
                                       metavar="[latest|interrupt|FILE]")] = None,
    amp: cli.Amp = None,
    auto_scale_lr: Annotated[bool, flag("--auto-scale-lr", "rate x images a batch / base")] = False,
    cfg_options: cli.CfgOptions = None,
    launcher: Annotated[str, flag("--launcher", "who started the processes",
                                  metavar="|".join(LAUNCHERS),
                                  callback=cli.one_of(*LAUNCHERS))] = "none",
    local_rank: Annotated[int | None, flag("--local_rank", "of old launchers", min=0)] = None,
    # --- additions
    device: cli.Device = None, compile: cli.Compile = False,
    channels_last: cli.ChannelsLast = False, accumulate: cli.Accumulate = None,
    clip_grad: cli.ClipGrad = None, ema: cli.Ema = None, seed: cli.Seed = None,
    workers: cli.Workers = None, max_iters: cli.MaxIters = None, log_every: cli.LogEvery = None,
    save_every: cli.SaveEvery = None, force_resume: cli.ForceResume = False,
    pretrained: cli.Pretrained = None, eval_only: cli.EvalOnly = False, export: cli.Export = None,
    dry_run: cli.DryRun = False, check_data: cli.CheckData = False,
    bad_images: cli.BadImages = "stop", nan: cli.Nan = "stop",
    tensorboard: cli.Tensorboard = False, dist_timeout: cli.Timeout = 600, debug: cli.Debug = False,
):
    """Train QueryInst on COCO-format instance masks."""
    return SimpleNamespace(**locals())


if __name__ == "__main__":
    FLAGS = cli.read_flags(flags, SCRIPT)  # --help and misspelt flags end here, before torch
    STOP = StopSignals()  # from here on a signal lets the present update finish

import torch

from common.checkpoint.foreign import load_any_checkpoint
from common.checkpoint.series import checkpoint_rules, find_single
from common.checkpoint.state import check_same_run, pack_state, restore_state
from common.checkpoint.weights import read_weights
from common.optim.adamw import OrderedAdamW
from common.optim.ema import average_of
from common.optim.precision import Precision
from common.optim.steps import to_floats
from common.parallel import to_device
from data.coco_format import share_indexes
from data.coco_format.summary import show_checked
from data.drawn.shapes import with_drawn_scenes
from data.loading import ordered_batches
from data.queryinst import (
    AspectRatioLoader,
    QueryInstDataset,
    network_input,
    open_query_data,
    save_query_predictions,
    save_query_samples,
)
from metrics import CocoEvaluator, mmdetection_names
from models import queryinst
from models.export import check_export, export_once
from runtime.curves import plot_curves
from runtime.errors import InputError
from runtime.launch.ranks import take_launcher
from runtime.pretrained import find_pretrained_once
from runtime.run.guard import NonFiniteGuard, SkippedImages, skips_text
from runtime.run.meter import Meter
from runtime.run.mmdetection_log import MMLog, new_stamp
from runtime.run.rescue import Rescue
from runtime.run.run import start_run
from settings.loading import to_yaml


@dataclass
class Job:
    """What the functions below share: one session of training or evaluation."""

    flags: SimpleNamespace
    run: Any  # runtime.run.run.Run
    cfg: Any  # the config in force
    names: tuple  # the classes
    indexes: dict  # {"train": ..., "valid": ...}: annotation indexes of the needed parts
    folder: Path  # the work directory
    series: Any  # the regular checkpoints
    best: Any  # the best ones
    train_set: Any = None
    loader: Any = None
    per_epoch: int = 1  # updates
    valid_set: Any = None
    net: Any = None  # the bare network
    step_net: Any = None  # wrapped for several processes
    optimizer: Any = None
    precision: Any = None
    ema: Any = None  # AveragedModel with --ema
    log: Any = None  # lines and scalars in MMDetection's form
    rescue: Any = None  # Rescue: what is saved when the session ends early
    source: Any = None  # file of the checkpoint that the session goes on from
    skipped: Any = None  # SkippedImages
    saved_at: int = -1  # iteration of the last checkpoint
    validated_at: int = -1  # iteration of the last validation
    metrics: Any = None  # its scores

    @property
    def scored_net(self):
        """What is validated and exported: the average of the weights where there is one."""
        return self.ema.module if self.ema else self.net


def main(flags, stop):
    """One run, from the flags to the closed files."""
    flags.trains = not (flags.eval_only or flags.export)
    flags.writes = not (flags.dry_run or flags.check_data)
    cfg = read_config(flags)
    take_launcher(flags.launcher, flags.local_rank, os.environ)
    run = start_run(SCRIPT, flags.device, flags.seed, stop, dist_timeout_s=flags.dist_timeout)
    try:
        session(flags, cfg, run)
    finally:
        run.close()


def session(flags, cfg, run):
    """Build, find the start, then do what was asked: check, evaluate, export or train."""
    if flags.export:
        check_export(flags.export)
    if flags.config.endswith(".py"):
        run.log(f"{flags.config}: Python configs are not run; this is our recipe {cfg.name}.")
    folder = Path(flags.work_dir or cfg.work_dir or Path("work_dirs") / cfg.name)
    (cfg, names), own = run.from_main(lambda: open_data(flags, cfg, folder, run))
    learnt, scored = cfg.train_dataloader.dataset, cfg.val_dataloader.dataset
    if flags.check_data:
        show_checked(run, own, (learnt.images_path, scored.images_path), folder)
        return
    files = SimpleNamespace(train_info=learnt.info_path, valid_info=scored.info_path)
    known = mmdetection_names(cfg.val_evaluator.metric)
    series, best = checkpoint_rules(cfg.default_hooks.checkpoint, folder, known, flags.save_every)
    job = Job(flags, run, cfg, names, share_indexes(run, files, own), folder, series, best,
              rescue=Rescue(run), skipped=SkippedImages(run))
    build(job)
    start = load_start(job)
    if flags.export:
        divisor = cfg.model.data_preprocessor.pad_size_divisor
        export_once(run, job.scored_net, torch.zeros(1, 3, 8 * divisor, 8 * divisor), flags.export,
                    method="forward_heads")
    elif flags.eval_only:
        evaluate_only(job, start)
    else:
        job.rescue = Rescue(run, job.net, None if flags.dry_run else
                            partial(save_once, job), start, job.source)
        with job.rescue.watching():
            train(job, start)


# --- settings


def read_config(flags):
    """The config with the flags over it; the flags' open values are filled in from the config."""
    cfg = queryinst.load_queryinst_config(flags.config, options=flags.cfg_options or [])
    if cfg.resume and not flags.resume:
        flags.resume = cfg.load_from or "latest"
    if flags.auto_scale_lr:
        cfg = replace(cfg, auto_scale_lr=replace(cfg.auto_scale_lr, enable=True))
    loader, wrapper = cfg.train_dataloader, cfg.optim_wrapper
    given = {"seed": cfg.randomness.seed or 0, "workers": loader.num_workers,
             "accumulate": wrapper.accumulative_counts,
             "clip_grad": wrapper.clip_grad and wrapper.clip_grad.max_norm,
             "log_every": cfg.default_hooks.logger.interval, "pretrained": cfg.load_from,
             "amp": wrapper.amp}
    for name, value in given.items():
        if vars(flags)[name] is None:
            vars(flags)[name] = value
    return cfg


def open_data(flags, cfg, folder, run):
    """((config with the data's classes, class names), checked annotation indexes by part)."""
    parts = {"train": "train_dataloader", "valid": "val_dataloader"}
    for key in parts.values():
        loader = vars(cfg)[key]
        dataset = with_drawn_scenes(loader.dataset, PROJECT, "coco")
        cfg = replace(cfg, **{key: replace(loader, dataset=dataset)})
    datasets = {part: vars(cfg)[key].dataset for part, key in parts.items()}
    if not flags.trains and not Path(datasets["train"].info_path).is_file():
        del datasets["train"]  # then the classes are the validation file's
    cache = folder / CACHE
    is_kept = flags.writes and cache.is_dir()
    names, indexes = open_query_data(
        datasets, cache_folder=cache if is_kept else None, deep=flags.check_data, run=run)
    return (replace(cfg, model=replace(cfg.model, num_classes=len(names))), names), indexes


# --- building


def build(job):
    """Data sets, network, optimizer and wrappers, in place."""
    flags, run, cfg = job.flags, job.run, job.cfg
    options = {"divisor": cfg.model.data_preprocessor.pad_size_divisor, "seed": flags.seed,
               "bad_images": flags.bad_images}
    if flags.trains:
        job.train_set = QueryInstDataset(
            job.indexes["train"], cfg.train_dataloader.dataset, job.names, train=True, **options)
        job.loader = AspectRatioLoader(
            job.train_set, job.train_set.portrait, cfg.train_dataloader.batch_size,
            seed=flags.seed, workers=flags.workers, rank=run.rank, world_size=run.world_size,
            collate=job.train_set.collate, pin_memory=run.device.type == "cuda")
        job.per_epoch = job.loader.steps_per_epoch(flags.accumulate)
    job.valid_set = QueryInstDataset(
        job.indexes["valid"], cfg.val_dataloader.dataset, job.names, train=False, **options)
    job.precision = Precision(flags.amp, run.device, run.warn)
    job.net = queryinst.build_queryinst(cfg).to(run.device)
    if flags.channels_last:
        job.net.to(memory_format=torch.channels_last)
    trained = [parameter for parameter in job.net.parameters() if parameter.requires_grad]
    settings = cfg.optim_wrapper.optimizer
    scale, line = queryinst.auto_scale(cfg, run.world_size)
    if flags.trains:
        run.log(line)
    groups = queryinst.param_groups(job.net)
    for group in groups:
        group["base_lr"] *= scale
    job.optimizer = OrderedAdamW(groups, trained, lr=settings.lr, betas=settings.betas)
    job.log = MMLog(run, cfg.name, per_epoch=job.per_epoch, max_epochs=cfg.train_cfg.max_epochs,
                    interval=flags.log_every, window=cfg.log_processor.window_size)
    if flags.compile:  # what lies before the matching, which is no tensor work
        for part in (job.net.backbone, job.net.neck, *job.net.roi_head["bbox_head"]):
            part.compile()
    job.step_net = run.wrap(job.net.train())


# --- where to start


def load_start(job):
    """Load what the flags name, say what was taken, and return the iteration to start from.

    Precedence: own checkpoint > --pretrained or load_from > backbone file > random weights.
    """
    flags, run = job.flags, job.run
    wanted = flags.resume
    if not flags.trains and wanted is None:
        wanted = str(job.best.newest() or "latest")
    if flags.trains and not flags.dry_run:
        run.claim(job.folder / ".lock", job.series.folder / ".lock")
    found = find_single(wanted, job.folder, job.series.folder, run.warn, load_any_checkpoint)
    if found:
        path, saved = found
        run.log(f"Load checkpoint from {path}")
        job.source = path
        queryinst.load_weights(job.net, saved, source=str(path))
    elif not flags.trains:
        raise InputError(f"{job.folder} holds no checkpoint: name one with --resume FILE")
    else:
        if wanted:
            run.log(f"Nothing to resume in {job.folder}: starting from the beginning.")
        initialise(job)
    if flags.ema and flags.trains:
        job.ema = average_of(job.net, flags.ema)
    return resume(job, path, saved) if found else 0


def initialise(job):
    """Weights from --pretrained or load_from, else the backbone's file, else random ones."""
    flags, run = job.flags, job.run
    file = queryinst.backbone_file(job.cfg.model.backbone)
    if flags.pretrained:
        report = queryinst.load_weights(job.net, read_weights(flags.pretrained, run.log),
                                        partial=True, source=flags.pretrained)
        run.log(f"Weights from {flags.pretrained}")
    elif file:
        path = Path(file) if Path(file).is_file() else find_pretrained_once(run, file, WEIGHTS)
        report = queryinst.load_backbone(job.net, path)
        run.log(f"Backbone from {path}")
    else:
        report = ["Random weights"]
    for line in report:
        run.log(line)


def resume(job, path, saved):
    """Take up the training state of a checkpoint, in place. Returns its iteration."""
    flags, run, meta = job.flags, job.run, saved.get("meta") or {}
    state = saved.get("training")
    iteration = state["iteration"] if state else int(meta.get("iter", 0))
    if not flags.trains:
        if state and state["ema"]:
            job.ema = average_of(job.net, decay=0.0)
            job.ema.load_state_dict(state["ema"])
        return iteration
    if state is None:
        run.warn(f"{path} is not of this script: its sample order is not known")
    else:
        check_same_run(state["identity"], identity(job), flags.force_resume, run.warn)
        job.validated_at = state["validated_at"]
        if path.absolute().parent == job.series.folder.absolute():
            job.series.restore(state["series"])
            job.best.restore(state["best"])
    state = state or {"scaler": None, "ema": None}
    if saved.get("optimizer"):
        restore_state(state | {"optimizer": saved["optimizer"]}, job.optimizer,
                      job.precision.scaler, job.ema)
    else:
        run.warn(f"{path} has no optimizer state: the moments start at zero")
    job.saved_at = iteration
    run.log(f"resumed epoch: {iteration // job.per_epoch}, iter: {iteration}; the rates are those "
            "of the present config")
    return iteration


def identity(job):
    """What a continuation must share with the run it continues, or its batches would differ."""
    return {"batch_size": job.cfg.train_dataloader.batch_size, "processes": job.run.world_size,
            "accumulate": job.flags.accumulate, "seed": job.flags.seed,
            "num_images": len(job.train_set), "num_classes": len(job.names),
            "data": job.indexes["train"].fingerprint}


# --- training


def train(job, start):
    """The updates from `start` on, with saves and validations, and the last of both."""
    flags, run, cfg = job.flags, job.run, job.cfg
    total = cfg.train_cfg.max_epochs * job.per_epoch
    stop_at = max(start, min(flags.max_iters or total, total))
    if flags.dry_run:
        stop_at = start + 2
    job.log.stop_at = stop_at
    if not flags.dry_run:
        open_run_folder(job, start)
        if run.is_main:
            save_query_samples(job.train_set, job.folder / "train_samples.png",
                                    PICTURED)
    run.log(f"Iterations {start} to {stop_at}, {job.per_epoch} an epoch, of {len(job.train_set)} "
            f"images. Checkpoints will be saved to {job.series.folder.absolute()}.")
    guard = NonFiniteGuard(run, flags.nan, job.precision.is_scaled)
    images = cfg.train_dataloader.batch_size * run.world_size * flags.accumulate
    meter = Meter(run.device, images, cfg.log_processor.window_size, run.warn)
    factor = queryinst.lr_factor(cfg, job.per_epoch)
    if validation_due(job, start) and not flags.dry_run:
        validate(job, start)  # stopped between an epoch's last update and its validation

    job.net.train()
    meter.restart_clock()
    job.log.restart_clock()
    updates = job.loader.steps(start, stop_at, flags.accumulate)
    with closing(updates), run.progress(stop_at, start) as progress:
        for step, epoch, batches in updates:
            meter.data_ready()
            job.log.data_ready()
            for group in job.optimizer.param_groups:
                group["lr"] = group["base_lr"] * factor(step)
            lrs = (cfg.optim_wrapper.optimizer.lr * factor(step),
                   job.optimizer.param_groups[0]["lr"])
            run.seed_step(step)  # random choices in the network depend on seed, step, rank alone
            job.rescue.begins()

            own_values = backward(job, batches)
            norm = job.precision.grad_norm(job.optimizer)
            values, grad_norm = to_floats(run.mean(own_values), norm)  # the loop's one wait
            losses = {name: value for name, value in values.items() if "loss" in name}
            image_ids = [i for batch in batches for i in batch["image_ids"]]
            if guard.allows_update(losses, own_values, image_ids, step, grad_norm):
                job.rescue.changes()
                job.precision.step(job.optimizer, flags.clip_grad, norm)
                if job.ema:
                    job.ema.update_parameters(job.net)
            else:
                job.rescue.undo()
                job.precision.skip()
            iteration = step + 1
            job.rescue.done(iteration)
            run.any()  # a stop signal to one rank stops all of them after the same update

            meter.updated(losses)
            job.log.updated(step, lrs, values, grad_norm)
            progress.update()
            report(job, meter, step, epoch, lrs[0], losses, grad_norm, batches)
            if run.stop_requested:
                job.rescue.leave(iteration)
            if iteration < stop_at and not flags.dry_run:
                if job.series.due(iteration, job.per_epoch):
                    save(job, iteration)
                if validation_due(job, iteration):
                    validate(job, iteration)
                    job.log.restart_clock()
                meter.restart_clock()
    if flags.dry_run:
        run.log(f"Dry run done: all fits, the last update took {meter.elapsed_s:.3f} s.")
    else:
        finish(job, stop_at, total, guard)


def finish(job, stop_at, total, guard):
    """The last checkpoint, the last validation and the last pictures."""
    run, hook = job.run, job.cfg.default_hooks.checkpoint
    wanted = stop_at < total or hook.save_last or job.series.due(stop_at, job.per_epoch)
    if wanted and job.saved_at != stop_at:
        save(job, stop_at, is_last=stop_at == total)
    if job.validated_at != stop_at:
        validate(job, stop_at)  # after the save: a fault in it must not cost the last weights
    draw_curves(job)
    for line in skips_text(guard, job.skipped):
        run.log(line)
    run.log(f"Done. Checkpoints are in {job.series.folder}, log and metrics in {job.folder}.")
    run.log(", ".join(f"{name} {value:.3f}" for name, value in (job.metrics or {}).items()
                      if name.endswith(("mAP", "mAP_50"))))
    for picture in sorted(job.folder.glob("*.png")):
        run.log(f"{picture}")


def backward(job, batches):
    """Forward and backward of one update. Returns its losses and accuracies {name: 0-d tensor}."""
    job.optimizer.zero_grad(set_to_none=True)
    sums = {}
    for i, batch in enumerate(batches):
        images = network_input(batch, job.run.device, job.cfg.model.data_preprocessor)
        if job.flags.channels_last:
            images = images.to(memory_format=torch.channels_last)
        samples = to_device(batch["samples"], job.run.device)
        # gradients travel between processes once an update
        with job.run.no_sync(job.step_net) if i + 1 < len(batches) else nullcontext():
            with job.precision.autocast():
                values = job.step_net(images, samples)
            values = {name: value / len(batches) for name, value in values.items()}
            loss = sum(value for name, value in values.items() if "loss" in name)
            job.precision.scaler.scale(loss).backward()
        sums = {name: sums.get(name, 0) + value.detach() for name, value in values.items()}
    return sums


def report(job, meter, step, epoch, lr, losses, grad_norm, batches):
    """The metrics line of an update, when it is due, and the files it had to do without."""
    run = job.run
    job.skipped.in_training(step, [fault for batch in batches for fault in batch["skipped"]])
    if step % job.flags.log_every == 0:
        run.record(meter.train_event(step, epoch, lr, losses, grad_norm))


# --- run folder and checkpoints


def open_run_folder(job, start=None):
    """Begin to write the run's files; `start` None is an evaluation, which only appends."""
    flags, run = job.flags, job.run
    stamp = run.broadcast(new_stamp())
    # a validation that comes again is cut too
    resume_from = start - 0.5 * validation_due(job, start) if start else None
    run.open_folder(job.folder, to_yaml(job.cfg), resume_from, append=start is None,
                    tensorboard=flags.tensorboard, log_too=job.folder / stamp / f"{stamp}.log")
    if run.is_main:
        for index in job.indexes.values():
            index.keep(job.folder / CACHE)
        job.log.open_folder(job.folder, stamp, to_yaml(job.cfg))
    if start:
        run.record({"event": "resume", "iteration": start})


def save(job, iteration, is_last=False):
    """The checkpoint after `iteration` updates; rank 0 writes."""
    job.saved_at = iteration
    if job.run.is_main:
        job.run.log(f"Saving checkpoint at {iteration // job.per_epoch} epochs, "
                    f"{iteration} iterations")
        path = job.series.save(iteration, job.per_epoch,
                               lambda record: checkpoint(job, iteration, series=record), is_last)
        job.rescue.saved(iteration, path)


def save_once(job, iteration):
    """What a stop leaves: `save` where that has not been done yet. Returns the file."""
    if job.saved_at != iteration:
        save(job, iteration)
    return job.series.path(iteration, job.per_epoch)


def checkpoint(job, iteration, **record):
    """All that is known after `iteration` updates, in MMDetection's layout; ours is `training`."""
    state = pack_state(
        iteration=iteration, per_epoch=job.per_epoch, optimizer=job.optimizer,
        scaler=job.precision.scaler, ema=job.ema, world_size=job.run.world_size,
        identity=identity(job), config=to_yaml(job.cfg),
        extra={"validated_at": job.validated_at, "best": job.best.scores,
               "series": {"kept": job.series.kept, "bridges": job.series.bridges}} | record)
    meta = {"epoch": iteration // job.per_epoch, "iter": iteration, "cfg": state["config"],
            "seed": job.flags.seed, "experiment_name": job.cfg.name,
            "time": time.strftime("%Y%m%d_%H%M%S"), "dataset_meta": {"classes": job.names}}
    return {"meta": meta, "state_dict": job.net.state_dict(), "optimizer": state.pop("optimizer"),
            "training": state}


# --- evaluation


def validation_due(job, iteration):
    """Whether an epoch that is validated ends with `iteration` updates."""
    ended, rest = divmod(iteration, job.per_epoch)
    rules = job.cfg.train_cfg
    due = ended >= rules.val_begin and ended % rules.val_interval == 0
    return rest == 0 and ended > 0 and due and job.validated_at != iteration


def validate(job, iteration):
    """Score the network, write it down, keep the best weights."""
    run = job.run
    metrics = run.broadcast(evaluate(job, iteration))
    epoch, rest = divmod(iteration, job.per_epoch)
    job.validated_at, job.metrics = iteration, metrics
    run.record({"event": "eval", "iteration": iteration, "epoch": max(iteration - 1, 0)
                // job.per_epoch, "metrics": metrics})
    better = job.best.improved(metrics)
    if better:
        if run.is_main:
            suffix = f"iter_{iteration}" if rest else f"epoch_{epoch}"
            job.best.save(better, metrics, suffix, lambda scores: best_weights(job, iteration))
        job.best.scores = run.broadcast(job.best.scores)
        if job.saved_at == iteration:
            save(job, iteration, is_last=epoch == job.cfg.train_cfg.max_epochs)  # with the score
    draw_curves(job)
    job.net.train()


def best_weights(job, iteration):
    """What a best checkpoint holds: the scored weights, no optimizer."""
    content = checkpoint(job, iteration) | {"state_dict": job.scored_net.state_dict()}
    del content["optimizer"]
    return content | {"training": content["training"] | {"ema": None}}


def evaluate(job, iteration):
    """COCO scores as fractions over the validation images: on rank 0, None on the others.

    After a stop signal the state is saved and Stopped raised.
    """
    run, cfg, net = job.run, job.cfg, job.scored_net
    loader = cfg.val_dataloader
    own = range(run.rank, len(job.valid_set), run.world_size)
    batches = ordered_batches(job.valid_set, own, loader.batch_size,
                                   collate=job.valid_set.collate, workers=loader.num_workers)
    truth = cfg.val_evaluator.ann_file or loader.dataset.info_path
    evaluator, pictures, left_out = CocoEvaluator(truth, cfg.val_evaluator.metric), {}, []
    category_ids = job.valid_set.category_ids
    positions = {job.valid_set.image_id(i): i for i in own}
    log = job.log.validation(iteration // job.per_epoch, -(-len(own) // loader.batch_size))
    run.share_buffers(net)  # the mask heads' statistics are each rank's own
    net.eval()
    with closing(batches), torch.no_grad():
        for batch in run.in_step(batches, len(job.valid_set), loader.batch_size):
            if run.stop_requested:
                job.rescue.leave(iteration)
            job.skipped.in_validation(batch["skipped"])
            left_out += batch["left_out"]
            if not batch["image_ids"]:
                continue
            log.data_ready()
            images = network_input(batch, run.device, cfg.model.data_preprocessor)
            found = net.predict(images, batch["metas"])  # in float32, as the original
            for image_id, each in zip(batch["image_ids"], found, strict=True):
                each = to_device(each, "cpu")
                if len(pictures) < PICTURED:
                    pictures[positions[image_id]] = each
                evaluator.update({image_id: each | {"labels": category_ids[each["labels"]]}})
            log.done()
    for part, unread in run.gather((evaluator.results(), left_out)) or []:
        evaluator.merge(part)
        left_out += unread
    if not run.is_main:
        return None
    save_query_predictions(job.valid_set, pictures, job.folder / "predictions.png",
                                SHOWN_SCORE)
    known = [i for i in category_ids.tolist() if i >= 0]
    scored = [i for i in evaluator.ground_truth.sizes if i not in set(left_out)]
    metrics = evaluator.mmdetection_scores(scored, category_ids=known)
    log.finished(metrics)
    return metrics


def evaluate_only(job, iteration):
    """--eval-only: one evaluation, appended to the metrics."""
    open_run_folder(job)
    metrics = job.run.broadcast(evaluate(job, iteration))
    job.run.record({"event": "eval", "iteration": iteration, "epoch": None, "metrics": metrics})


def draw_curves(job):
    """Losses, rate and AP over the iterations."""
    if job.run.is_main:
        plot_curves(job.folder / "metrics.jsonl", job.folder / "curves.png",
                    ["coco/segm_mAP", "coco/segm_mAP_50", "coco/bbox_mAP"], job.cfg.name,
                    term_of=lambda name: f"{name.partition('.')[2]} of all stages")


if __name__ == "__main__":
    cli.run(main, SCRIPT, FLAGS, STOP, memory_keys="train_dataloader.batch_size")
