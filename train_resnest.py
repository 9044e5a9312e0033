"""Train ResNeSt and its relatives: image classification on folders of images.

    python train_resnest.py --config-file configs/resnest/shapes.yaml      # CPU; draws its own data
    python train_resnest.py --config-file configs/resnest/resnest50.yaml DATA.ROOT imagenet
    torchrun --nproc_per_node 8 train_resnest.py --config-file configs/resnest/resnest50.yaml
    python train_resnest.py --world-size 2 --rank 0 --dist-url tcp://HOST:23456 --config-file ...
    python train_resnest.py --config-file ... --resume latest              # carry on after any stop
    python train_resnest.py --config-file ... --eval-only --resume resnest50-528c19ca.pth

Without torchrun or srun it starts one process for each GPU, on --world-size nodes, as the original
does. Data: DATA.ROOT/{train,val}/<class>/*.jpg; the class count is the data's. Checkpoints, log,
metrics and pictures go to --outdir. Rates and batch sizes are per process, as in the recipes.
ImageNet Top-1 to expect: resnest50 81.0, 101 82.8, 200 83.8, 269 84.5.
"""

import math
import sys
import time
from contextlib import closing, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import typer

from runtime import cli
from runtime.launch.signals import StopSignals

SCRIPT = "train_resnest"
PROJECT = Path(__file__).resolve().parent
MIN_SHARE = 2  # the norms inside split attention need two images in a process's batch
PICTURED = 16  # images in each grid
PICTURES_S = 60  # seconds, at least, between drawings


def flag(names, help, **limits):
    return typer.Option(*names.split(), help=help, **limits)


def flags(
    # --- the original's flags; names, defaults and meaning are its own
    config_file: Annotated[str | None, flag("--config-file", "YAML file over the defaults")] = None,
    outdir: Annotated[str, flag("--outdir", "checkpoints, log, metrics")] = "output",
    resume: Annotated[str | None, flag("--resume", "latest, interrupt or a checkpoint")] = None,
    world_size: Annotated[int, flag("--world-size", "number of nodes", min=1)] = 1,
    rank: Annotated[int, flag("--rank", "number of this node", min=0)] = 0,
    dist_url: Annotated[str, flag("--dist-url", "where nodes meet")] = "tcp://localhost:23456",
    dist_backend: Annotated[str, flag("--dist-backend", "nccl or gloo, on GPUs", metavar="NAME",
                                      callback=cli.one_of("nccl", "gloo"))] = "nccl",
    eval_only: cli.EvalOnly = False, export: cli.Export = None,
    pairs: cli.Pairs = None,
    # --- additions
    device: cli.Device = None, amp: cli.Amp = "off", compile: cli.Compile = False,
    channels_last: cli.ChannelsLast = True, accumulate: cli.Accumulate = 1,
    clip_grad: cli.ClipGrad = None, ema: cli.Ema = None, seed: cli.Seed = None,
    workers: cli.Workers = None, max_iters: cli.MaxIters = None, log_every: cli.LogEvery = 100,
    save_every: cli.SaveEvery = None, force_resume: cli.ForceResume = False,
    pretrained: cli.Pretrained = None, dry_run: cli.DryRun = False,
    check_data: cli.CheckData = False, bad_images: cli.BadImages = "stop", nan: cli.Nan = "stop",
    cfg_options: cli.CfgOptions = None, tensorboard: cli.Tensorboard = False,
    dist_timeout: cli.Timeout = 600, debug: cli.Debug = False,
):
    """Train ResNeSt on class folders."""
    return SimpleNamespace(**locals())


if __name__ == "__main__":
    FLAGS = cli.read_flags(flags, SCRIPT)  # --help and misspelt flags end here, before torch
    STOP = StopSignals()  # from here on a signal lets the present update finish

import torch

from common.checkpoint import save_checkpoint
from common.checkpoint.resnest_files import EpochFolder
from common.checkpoint.start import find_start, find_trained
from common.checkpoint.state import check_same_run, pack_state, restore_state
from common.losses import LabelSmoothing, NLLMultiLabelSmooth, mix
from common.optim.ema import average_of
from common.optim.precision import Precision
from common.optim.steps import set_lr, to_floats
from common.schedulers import per_epoch
from data.drawn.shapes import with_drawn_scenes
from data.imagenet import (
    ClassificationDataset,
    collate_classes,
    open_class_folders,
    save_class_samples,
    save_mistakes,
    transforms_of,
)
from data.loading import ResumableLoader, ordered_batches, whole_batches
from metrics import ClassHistory, ClassScores
from models import resnest
from models.export import PACKAGES, check_export, export_once
from runtime.curves import plot_confusion, plot_curves
from runtime.errors import InputError
from runtime.files import write_json
from runtime.launch.ranks import limit_threads
from runtime.launch.spawn import start_ranks
from runtime.run.guard import NonFiniteGuard, SkippedImages, skips_text
from runtime.run.meter import Meter
from runtime.run.rescue import Rescue
from runtime.run.run import start_run
from settings.loading import to_yaml


@dataclass
class Job:
    """What the functions below share: one session of training or evaluation."""

    flags: SimpleNamespace
    run: Any  # runtime.run.run.Run
    cfg: Any  # ResNeStConfig
    classes: tuple = ()
    train_set: Any = None
    val_set: Any = None
    loader: Any = None
    per_epoch: int = 0  # updates
    net: Any = None  # the bare network
    criterion: Any = None
    step_net: Any = None  # the network, compiled, and wrapped for several processes
    optimizer: Any = None
    precision: Any = None
    ema: Any = None  # AveragedModel with --ema
    rescue: Any = None  # Rescue: what is saved when the session ends early
    source: Any = None  # file of the checkpoint that the session goes on from
    skipped: Any = None  # SkippedImages
    resumed: bool = False
    history: ClassHistory = field(default_factory=ClassHistory)
    metrics: Any = None  # scores of the last validation
    scores: Any = None  # what it found: ClassScores, on rank 0 of all ranks
    drawn_at: float = -math.inf

    @property
    def folder(self):
        return Path(self.flags.outdir)

    @property
    def scored_net(self):
        """What is validated and exported: the average of the weights where there is one."""
        return self.ema.module if self.ema else self.net


def main(flags, stop):
    """One run, from the flags to the closed files; or its ranks, one for each GPU."""
    flags.trains = not (flags.eval_only or flags.export)
    cfg = read_config(flags)
    gpus = torch.cuda.device_count() if flags.device in (None, "cuda") else 0
    status = start_ranks(stop, max(1, gpus), flags.world_size, flags.rank, flags.dist_url)
    if status is not None:
        sys.exit(status)
    run = start_run(SCRIPT, flags.device, cfg.SEED, stop, flags.dist_backend, clock=True,
                    dist_timeout_s=flags.dist_timeout)
    limit_threads(cfg.TRAINING.THREADS)
    try:
        session(flags, run, cfg)
    finally:
        run.close()


def session(flags, run, cfg):
    """Settle, build, find the start, then do what was asked: check, evaluate, export or train."""
    job = Job(flags, run, cfg, rescue=Rescue(run), skipped=SkippedImages(run))
    if flags.export:
        export_network(job)
        return
    folders, _ = run.from_main(lambda: (open_data(job), None))
    if flags.check_data:
        run.log(f"{cfg.DATA.ROOT}: {' and '.join(str(len(part)) for part in folders)} images of "
                f"{len(folders[0].classes)} classes, no fault found.")
        return
    build(job, *folders)
    start = load_start(job)
    if flags.eval_only:
        evaluate_only(job, start)
    else:
        job.rescue = Rescue(run, job.net, None if flags.dry_run else
                            partial(save, job, interrupt=True), start, job.source)
        with job.rescue.watching():
            train(job, start)


# --- settings


def read_config(flags):
    """The frozen config in force: file, then KEY VALUE pairs and --cfg-options, then flags."""
    if flags.export and flags.export.suffix not in PACKAGES:
        flags.export = flags.export.with_name(f"{flags.export.name}.pth")  # the original's prefix
    overrides = cli.paired(flags.pairs) + (flags.cfg_options or [])
    cfg = resnest.load_resnest_config(flags.config_file, overrides)
    root = Path(cfg.DATA.ROOT).expanduser()
    workers = cfg.TRAINING.WORKERS if flags.workers is None else flags.workers
    return replace(cfg, SEED=cfg.SEED if flags.seed is None else flags.seed,
                   DATA=replace(cfg.DATA, ROOT=str(root)),
                   TRAINING=replace(cfg.TRAINING, WORKERS=workers))


def open_data(job):
    """(train, val) ClassFolders, checked; every image too with --check-data."""
    section = with_drawn_scenes(job.cfg.DATA, PROJECT, "classes")
    return open_class_folders(section.ROOT, deep=job.flags.check_data, log=job.run.log,
                                   warn=job.run.warn, run_folder=job.folder)


# --- building


def build(job, train_folders, val_folders):
    """Data sets, network, optimizer and wrappers, in place."""
    flags, run, cfg = job.flags, job.run, job.cfg
    job.classes = train_folders.classes
    options = {"seed": cfg.SEED, "bad_images": flags.bad_images}
    augmentation, centre_crop = transforms_of(cfg.DATA)
    job.train_set = ClassificationDataset(train_folders, augmentation, train=True, **options)
    job.val_set = ClassificationDataset(val_folders, centre_crop, train=False, **options)
    job.loader = ResumableLoader(
        job.train_set, cfg.TRAINING.BATCH_SIZE * run.world_size, seed=cfg.SEED,
        workers=cfg.TRAINING.WORKERS, rank=run.rank, world_size=run.world_size,
        collate=collate_classes, min_last=MIN_SHARE, pin_memory=run.device.type == "cuda")
    job.per_epoch = job.loader.steps_per_epoch(flags.accumulate)

    job.precision = Precision(flags.amp, run.device, run.warn)
    job.net = resnest.build_network(cfg, len(job.classes)).to(run.device)
    if flags.channels_last:
        job.net.to(memory_format=torch.channels_last)
    groups = resnest.param_groups(job.net, cfg.OPTIMIZER.WEIGHT_DECAY, cfg.OPTIMIZER.DISABLE_BN_WD)
    job.optimizer = torch.optim.SGD(groups, lr=cfg.OPTIMIZER.LR, momentum=cfg.OPTIMIZER.MOMENTUM)
    loss = NLLMultiLabelSmooth if job.cfg.DATA.mixes else LabelSmoothing
    job.criterion = loss(cfg.DATA.LABEL_SMOOTHING)
    job.step_net = run.wrap(torch.compile(job.net) if flags.compile else job.net)


# --- where to start


def load_start(job):
    """Load what the flags name, say what was taken, and return the iteration to start from.

    Precedence: own or the original's checkpoint > --pretrained > random weights.
    """
    flags, run, cfg = job.flags, job.run, job.cfg
    if flags.eval_only:
        return load_trained(job, trained_file(job))
    if not flags.dry_run:
        run.claim(job.folder / ".lock")
    found = find_start(job.folder, None, flags.resume, run.warn)
    if found is None:
        if flags.resume:
            run.log(f"Nothing to resume in {flags.outdir}: starting from the beginning.")
        if flags.pretrained:
            run.log(str(resnest.load_weights(job.net, pretrained_file(job), cfg.MODEL.NAME,
                                             log=run.log)))
        else:
            run.log("Starting from random weights.")
    else:
        load_all(job, *found[:2])
        job.source = found[0]
    if flags.ema:
        job.ema = average_of(job.net, flags.ema)
    if found:
        return resume(job, *found[:2])
    return cfg.TRAINING.START_EPOCHS * job.per_epoch


def pretrained_file(job):
    """The path of --pretrained; rank 0 fetches what is missing, then it is there for the others."""
    named, folder = job.flags.pretrained, PROJECT / "weights"
    return job.run.from_main(lambda: (resnest.find_weights(named, folder), None))[0]


def load_all(job, path, saved):
    """Every weight of a checkpoint or bare state dict; InputError when the classes differ."""
    report = resnest.load_weights(job.net, path, job.cfg.MODEL.NAME, saved)
    if report.fresh:
        raise InputError(f"{path}: weights for {report.file_classes} classes, the data have "
                         f"{len(job.classes)}; to start from them all the same: --pretrained")
    job.run.log(str(report))


def resume(job, path, saved):
    """Take up the training state of a checkpoint, ours or the original's. Returns the iteration."""
    run = job.run
    if "optimizer" not in saved or "epoch" not in saved:
        raise InputError(f"{path}: bare weights, no training to resume; "
                         f"start from them with --pretrained {path}")
    if "iteration" in saved:
        check_same_run(saved["identity"], identity(job), job.flags.force_resume, run.warn)
        iteration = saved["iteration"]
    else:
        # parity: a START_EPOCHS of the config counts more than the file's epoch
        # [resnest.md: Checkpoints]
        iteration = (job.cfg.TRAINING.START_EPOCHS or saved["epoch"] + 1) * job.per_epoch
    restore_state({"scaler": None, "ema": None, **saved}, job.optimizer, job.precision.scaler,
                  job.ema)
    job.history, job.resumed = ClassHistory.unpack(saved, iteration), True
    run.log(f"Resuming {path} at iteration {iteration}, epoch {iteration // job.per_epoch}.")
    return iteration


def trained_file(job):
    """(path, content) of what to evaluate or export."""
    named = job.flags.resume
    if job.flags.pretrained and not named:
        named = str(pretrained_file(job))
    found = find_trained(job.folder, None, named, job.folder / "model_best.pth", job.run.warn)
    return found[:2]


def load_trained(job, found):
    """A trained network; the averaged weights where training kept an average."""
    path, saved = found
    load_all(job, path, saved)
    if saved.get("ema"):
        job.ema = average_of(job.net, decay=0.0)
        job.ema.load_state_dict(saved["ema"])
    if "iteration" in saved:
        return saved["iteration"]
    return (saved["epoch"] + 1) * job.per_epoch if isinstance(saved.get("epoch"), int) else 0


def identity(job):
    """What a continuation must share with the run it continues, or its batches would differ."""
    return {"batch_size": job.cfg.TRAINING.BATCH_SIZE * job.run.world_size,
            "accumulate": job.flags.accumulate, "seed": job.cfg.SEED,
            "num_images": len(job.train_set), "num_classes": len(job.classes),
            "data": job.train_set.folders.fingerprint}


# --- training


def train(job, start):
    """The updates from `start` on, with saves and validations, and the last of both."""
    flags, run, cfg = job.flags, job.run, job.cfg
    total = cfg.TRAINING.EPOCHS * job.per_epoch
    stop_at = start + 2 if flags.dry_run else max(start, min(flags.max_iters or total, total))
    if not flags.dry_run:
        open_run_folder(job, start)
        if run.is_main:
            save_class_samples(job.train_set, job.folder / "train_samples.png", PICTURED)
    lr_at = announce(job, start, stop_at)
    guard = NonFiniteGuard(run, flags.nan, job.precision.is_scaled)
    images = cfg.TRAINING.BATCH_SIZE * run.world_size * flags.accumulate
    meter = Meter(run.device, images, flags.log_every, run.warn)
    if job.resumed and start > 0 and start % job.per_epoch == 0 and not flags.dry_run:
        end_epoch(job, start, 0.0)  # what a stop may have left undone there

    job.net.train()
    meter.restart_clock()
    epoch_began = time.perf_counter()
    updates = job.loader.steps(start, stop_at, flags.accumulate)
    with closing(updates), run.progress(stop_at, start) as progress:
        for step, epoch, batches in updates:
            meter.data_ready()
            lr = lr_at(step)
            set_lr(job.optimizer, lr)
            run.seed_step(step)  # dropout depends on seed, step and rank alone
            job.rescue.begins()

            own = backward(job, batches, step)
            norm = job.precision.grad_norm(job.optimizer)
            losses, grad_norm = to_floats(run.mean(own), norm)  # the loop's one wait
            top1 = losses.pop("top1", None)
            own.pop("top1", None)
            names = (job.train_set.folders.name(i)
                     for batch in batches for i in batch["indices"].tolist())
            if guard.allows_update(losses, own, names, step, grad_norm):
                job.rescue.changes()
                job.precision.step(job.optimizer, flags.clip_grad, norm)
                if job.ema:
                    job.ema.update_parameters(job.net)
                job.history.add(losses["cross_entropy"], top1)
            else:
                job.rescue.undo()
                job.precision.skip()
            iteration = step + 1
            job.rescue.done(iteration)
            run.any()  # a stop signal to one rank stops all of them after the same update

            meter.updated(losses)
            progress.update()
            report(job, meter, step, epoch, lr, losses, top1, grad_norm, batches)
            if run.stop_requested:
                job.rescue.leave(iteration)
            if flags.dry_run:
                continue
            if iteration % job.per_epoch == 0:
                end_epoch(job, iteration, time.perf_counter() - epoch_began)
                epoch_began = time.perf_counter()
                meter.restart_clock()
            elif iteration == stop_at or (flags.save_every and iteration % flags.save_every == 0):
                save(job, iteration)
                meter.restart_clock()
    if flags.dry_run:
        run.log(f"Dry run done: all fits, the last update took {meter.elapsed_s:.3f} s.")
        return
    finish(job, stop_at, guard)


def announce(job, start, stop_at):
    """Say in which steps and at which rate is trained; returns lr_at(iteration)."""
    run, training, optimizer = job.run, job.cfg.TRAINING, job.cfg.OPTIMIZER
    world, accumulate = run.world_size, job.flags.accumulate
    lr = optimizer.LR * world
    run.log(f"Learning rate {optimizer.LR:g} x {world} processes = {lr:g}. "
            f"Batch {training.BATCH_SIZE} x {world} processes x {accumulate} accumulated = "
            f"{training.BATCH_SIZE * world * accumulate}.")
    if optimizer.DISABLE_BN_WD:
        spared, decayed = (len(group["params"]) for group in job.optimizer.param_groups)
        run.log(" Weight decay NOT applied to BN parameters ")
        run.log(f"len(parameters): {spared + decayed} = {spared} + {decayed}")
    run.log(f"Begin training! Iterations {start} to {stop_at}, {job.per_epoch} an epoch, "
            f"{len(job.train_set)} images of {len(job.classes)} classes.")
    return per_epoch(
        optimizer.LR_SCHEDULER, lr, training.EPOCHS, job.per_epoch, optimizer.WARMUP_EPOCHS,
        optimizer.LR_STEP, optimizer.MILESTONES, optimizer.GAMMA)


def backward(job, batches, step):
    """Forward and backward of one update. Returns 0-d tensors: cross_entropy and, unless images
    are mixed, top1 in percent."""
    job.optimizer.zero_grad(set_to_none=True)
    count = sum(len(batch["labels"]) for batch in batches)
    sums = {"cross_entropy": 0.0} if job.cfg.DATA.mixes else {"cross_entropy": 0.0, "top1": 0.0}
    for i, batch in enumerate(batches):
        images, labels = on_device(job, batch["images"]), batch["labels"].to(job.run.device)
        share = len(labels) / count  # an epoch's last batch may be a shorter one
        targets = labels
        if job.cfg.DATA.mixes:
            images, targets = mix(images, labels, len(job.classes), job.cfg.DATA.MIXUP,
                                  job.cfg.DATA.CUTMIX, job.run.step_rng(step, i))
        # gradients travel between processes once an update
        with job.run.no_sync(job.step_net) if i + 1 < len(batches) else nullcontext():
            with job.precision.autocast():
                logits = job.step_net(images)
            loss = share * job.criterion(logits.float(), targets)
            job.precision.scaler.scale(loss).backward()
        sums["cross_entropy"] += loss.detach()
        if not job.cfg.DATA.mixes:
            sums["top1"] += 100.0 * share * (logits.argmax(1) == labels).float().mean()
    return sums


def on_device(job, images):
    """Images [B, 3, n, n] where and how the network wants them."""
    layout = torch.channels_last if job.flags.channels_last else torch.contiguous_format
    return images.to(job.run.device, memory_format=layout, non_blocking=True)


def report(job, meter, step, epoch, lr, losses, top1, grad_norm, batches):
    """The metrics line and the original's log line of an update, as due."""
    run, position = job.run, step % job.per_epoch
    job.skipped.in_training(step, [fault for batch in batches for fault in batch["skipped"]])
    if position % job.flags.log_every == 0:
        event = meter.train_event(step, epoch, lr, losses, grad_norm)
        run.record(event if top1 is None else event | {"top1": top1})
        mean_loss, mean_top1 = job.history.means()
        accuracy = "" if job.cfg.DATA.mixes else f" | Top1: {mean_top1:.3f}"
        run.log(f"Batch: {position}| Loss: {mean_loss:.3f}{accuracy}")


def end_epoch(job, iteration, seconds):
    """Book the epoch, save it, validate it; what was done before a stop is not done again."""
    run, epoch = job.run, iteration // job.per_epoch - 1
    is_last = epoch == job.cfg.TRAINING.EPOCHS - 1
    is_validated = epoch % job.cfg.TRAINING.EVAL_EVERY == 0 or is_last
    if job.history.closed_at != iteration:
        job.history.close_epoch(iteration)
        run.log(f"Epoch: {epoch}, Time cost: {seconds}")
        save(job, iteration)  # a fault in the validation must not cost the epoch
    if is_validated and job.history.validated_at != iteration:
        validate(job, iteration)
        save(job, iteration)  # with its scores


def finish(job, iteration, guard):
    """The last validation, the final files and what to tell at the end."""
    run, folder = job.run, job.folder
    if job.history.validated_at != iteration:  # --max-iters ended it inside an epoch
        validate(job, iteration)
        save(job, iteration)
    if run.is_main:
        save_checkpoint(folder / "checkpoint_final.pth", checkpoint(job, iteration))
        save_checkpoint(folder / "model_weights.pth", job.scored_net.state_dict())
    draw(job)
    for line in skips_text(guard, job.skipped):
        run.log(line)
    run.log(f"Done. Weights, log and metrics are in {folder}. Best Top1: {job.history.best:.3f}")
    run.log(f"Pictures: {', '.join(str(path) for path in sorted(folder.glob('*.png')))}")


# --- run folder and checkpoints


def open_run_folder(job, start=None):
    """Begin to write the run's files; `start` None is an evaluation, which only appends."""
    resume_from = None
    if job.resumed:  # a validation that comes again is cut too
        is_due = start % job.per_epoch == 0 and job.history.validated_at != start
        resume_from = start - 0.5 * is_due
    job.run.open_folder(job.folder, to_yaml(job.cfg), resume_from, append=start is None,
                        tensorboard=job.flags.tensorboard)
    if job.resumed:
        job.run.record({"event": "resume", "iteration": start})


def checkpoint(job, iteration):
    """The original's checkpoint dict, with the training state under keys of its own."""
    state = pack_state(
        iteration=iteration, per_epoch=job.per_epoch, optimizer=job.optimizer,
        scaler=job.precision.scaler, ema=job.ema, world_size=job.run.world_size,
        identity=identity(job), config=to_yaml(job.cfg), extra=job.history.pack())
    # the last whole epoch, as the original counts
    return state | {"epoch": iteration // job.per_epoch - 1, "state_dict": job.net.state_dict()}


def save(job, iteration, interrupt=False):
    """checkpoint_<epoch>.pth, or checkpoint_iter_<iteration>.pth inside an epoch; by rank 0.

    Returns the file.
    """
    if not job.run.is_main:
        return None
    folder = EpochFolder(job.folder, job.per_epoch, job.flags.save_every)
    path = folder.save(checkpoint(job, iteration), iteration, interrupt)
    job.rescue.saved(iteration, path)
    return path


# --- evaluation


def validate(job, iteration):
    """Score the network, write it down, keep the best checkpoint."""
    run = job.run
    evaluate(job, iteration)
    is_best = job.history.validated(iteration, job.metrics["top1"])
    run.record({"event": "eval", "iteration": iteration, "metrics": job.metrics,
                "epoch": max(iteration - 1, 0) // job.per_epoch})
    if is_best and run.is_main:
        save_checkpoint(job.folder / "model_best.pth", checkpoint(job, iteration))
    if time.perf_counter() - job.drawn_at > PICTURES_S:
        draw(job)
    job.net.train()


def evaluate(job, iteration):
    """Put Top-1 and Top-5 in percent into `job.metrics` and metrics.json, each image counted once.

    After a stop signal the state is saved and Stopped raised.
    """
    run, net = job.run, job.scored_net
    size, count = job.cfg.TRAINING.TEST_BATCH_SIZE, len(job.val_set)
    chosen = whole_batches(count, size, run.rank, run.world_size)
    batches = ordered_batches(job.val_set, chosen, size, collate=collate_classes,
                                   workers=job.cfg.TRAINING.WORKERS)
    scores = ClassScores(len(job.classes), PICTURED)
    run.share_buffers(net)
    net.eval()
    with closing(batches), torch.no_grad():
        for batch in run.in_step(batches, count, size):  # a stop signal to one rank reaches all
            if run.stop_requested:
                job.rescue.leave(iteration)
            job.skipped.in_validation(batch["skipped"])
            if not len(batch["labels"]):
                continue
            with job.precision.autocast():
                logits = net(on_device(job, batch["images"]))
            scores.update(logits.float().cpu(), batch["labels"], batch["indices"])
    for other in (run.gather(scores) or [])[1:]:
        scores.merge(other)
    job.scores = scores
    job.metrics = run.broadcast(scores.top.compute())
    if run.is_main:
        write_json(job.folder / "metrics.json", job.metrics)
    run.log(f"Validation: Top1: {job.metrics['top1']:.3f} | Top5: {job.metrics['top5']:.3f}")


def evaluate_only(job, iteration):
    """--eval-only: one evaluation, appended to the run folder's metrics, and metrics.json."""
    open_run_folder(job)
    evaluate(job, iteration)
    job.run.record({"event": "eval", "iteration": iteration, "epoch": None,
                    "metrics": job.metrics})
    draw(job)


def export_network(job):
    """--export: the trained network, in the format that the file's name asks for, without data."""
    check_export(job.flags.export)
    path, saved = trained_file(job)
    weights = resnest.bare_state_dict(saved)
    if not torch.is_tensor(weights.get("fc.weight")):
        raise InputError(f"{path}: no weights of a classifier in it")
    job.classes = tuple(range(len(weights["fc.weight"])))
    job.net = resnest.build_network(job.cfg, len(job.classes))
    load_trained(job, (path, saved))
    side = job.cfg.DATA.CROP_SIZE
    example = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    export_once(job.run, job.scored_net, example, job.flags.export, output_names=["logits"])


def draw(job):
    """Curves, confusion matrix and the most confident mistakes so far."""
    job.drawn_at = time.perf_counter()
    if not job.run.is_main:
        return
    plot_curves(job.folder / "metrics.jsonl", job.folder / "curves.png", ["top1", "top5"],
                job.cfg.MODEL.NAME)
    if job.scores and job.scores.matrix:
        title = f"Top-1 {job.metrics['top1']:.2f} %"
        plot_confusion(job.scores.matrix.compute().numpy(), job.classes,
                       job.folder / "confusion.png", title)
    if job.scores:
        save_mistakes(job.scores.mistakes.rows, job.val_set, job.folder / "mistakes.png")


if __name__ == "__main__":
    cli.run(main, SCRIPT, FLAGS, STOP, memory_keys="TRAINING.BATCH_SIZE")
