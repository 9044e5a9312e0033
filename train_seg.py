"""Train semantic segmentation: every encoder, decoder and config of CSAIL's project.

    python train_seg.py --cfg configs/seg/shapes.yaml                   # CPU; draws its own scenes
    python train_seg.py --cfg config/ade20k-hrnetv2.yaml --gpus 0-3       # four GPUs, one process
    torchrun --nproc_per_node 4 train_seg.py --cfg ade20k-resnet50-upernet   # a process for each
    python train_seg.py --cfg ... TRAIN.lr_encoder 0.01 DIR ckpt/mine     # KEY VALUE pairs
    python train_seg.py --cfg ... --resume latest                         # carry on after any stop
    python train_seg.py --cfg ... --eval-only                             # mean IoU of the best
    python train_seg.py --cfg ... --predict photos/ TEST.result pictures  # pictures of predictions

Data: data/ADEChallengeData2016 with its .odgt lists, or your own: DATASET.root_dataset DIR,
DATASET.list_train and list_val (an .odgt file, or a folder of images beside one of labels),
DATASET.num_class N; labels are 8-bit PNGs, 0 unlabelled, 1 ... N. Everything a run writes goes to
DIR. Mean IoU to expect on ADE20K, several scales: mobilenetv2dilated-c1_deepsup 33.8,
resnet18dilated-ppm_deepsup 38.8, resnet50dilated-ppm_deepsup 42.1, hrnetv2 43.2.
"""

import os
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

SCRIPT = "train_seg"
PROJECT = Path(__file__).resolve().parent
DEFAULT_GPUS = "0-3"
PRETRAINED = ("pretrained", "weights", PROJECT / "weights")  # the original's place comes first
EVAL_WORKERS = 5  # the original's
PICTURED = 6  # images in the grid of predictions


def flag(names, help, **limits):
    return typer.Option(*names.split(), help=help, **limits)


def flags(
    # --- the originals': train.py, eval.py, eval_multipro.py and test.py
    opts: cli.Pairs = None,
    cfg: Annotated[str, flag("--cfg", "Config file, or the name of one in configs/seg")]
    = "config/ade20k-resnet50dilated-ppm_deepsup.yaml",
    gpus: Annotated[str, flag("--gpus --gpu", "GPUs of one process: 0-3, 0,2, gpu1-gpu2, cpu")]
    = DEFAULT_GPUS,
    predict: Annotated[str | None, flag("--predict --imgs", "Image or folder to write predictions "
                                        "of to TEST.result")] = None,
    # --- additions
    resume: Annotated[str | None, flag("--resume", "latest, interrupt or a checkpoint's file",
                                       rich_help_panel=cli.ADDITIONS)] = None,
    device: cli.Device = None, amp: cli.Amp = "off", compile: cli.Compile = False,
    channels_last: cli.ChannelsLast = False, accumulate: cli.Accumulate = 1,
    clip_grad: cli.ClipGrad = None, ema: cli.Ema = None, seed: cli.Seed = None,
    workers: cli.Workers = None,
    max_iters: cli.MaxIters = None, log_every: cli.LogEvery = None,
    save_every: cli.SaveEvery = None, force_resume: cli.ForceResume = False,
    pretrained: cli.Pretrained = None, eval_only: cli.EvalOnly = False, export: cli.Export = None,
    dry_run: cli.DryRun = False, check_data: cli.CheckData = False,
    bad_images: cli.BadImages = "stop", nan: cli.Nan = "stop", cfg_options: cli.CfgOptions = None,
    tensorboard: cli.Tensorboard = False, dist_timeout: cli.Timeout = 600, debug: cli.Debug = False,
):
    """Train, evaluate or apply semantic segmentation networks."""
    return SimpleNamespace(**locals())


if __name__ == "__main__":
    FLAGS = cli.read_flags(flags, SCRIPT)  # --help and misspelt flags end here, before torch
    STOP = StopSignals()  # from here on a signal lets the present update finish

import torch

from common.checkpoint.seg_files import BEST, NETS, NetCheckpoints, updates_of
from common.checkpoint.state import check_same_run, pack_state, restore_state
from common.optim.ema import average_of
from common.optim.optimizers import Optimizers
from common.optim.precision import Precision
from common.optim.sgd import SGD
from common.optim.steps import to_floats
from common.parallel import (
    UserScatteredDataParallel,
    check_one_process,
    pick_gpus,
    to_device,
    user_scattered_collate,
)
from common.schedulers import poly
from data import segmentation
from data.drawn.shapes import with_drawn_scenes
from data.loading import ResumableLoader, ordered_batches
from data.segmentation import pictures as seg_pictures
from metrics import SegmentationMeter
from models import segmentation as models
from models.export import check_export, export_once
from runtime.files import write_text
from runtime.pictures import plot_curves
from runtime.run.guard import NonFiniteGuard, SkippedImages, skips_text
from runtime.run.meter import EpochMeans, Meter
from runtime.run.rescue import Rescue
from runtime.run.run import start_run
from settings.loading import to_yaml


@dataclass
class Job:
    """What the functions below share: one session of training, evaluation or prediction."""

    flags: SimpleNamespace
    run: Any  # runtime.run.run.Run
    cfg: Any  # SegConfig
    gpus: list  # that this process drives, if any
    lists: dict  # {"train": SegList, "val": SegList}: those that are needed
    batches: Any = None
    loader: Any = None
    module: Any = None  # SegmentationModule
    step_net: Any = None  # the training step, compiled, and wrapped for several devices
    norms: Any = None  # NormMomentum
    optimizers: Any = None
    precision: Any = None
    ema: Any = None  # AveragedModel with --ema
    rescue: Any = None  # Rescue: what is saved when the session ends early
    source: Any = None  # file of the checkpoint that the session goes on from
    skipped: Any = None  # SkippedImages
    resumed: bool = False  # with its training state
    history: dict = field(default_factory=lambda: {"train": {"epoch": [], "loss": [], "acc": []}})
    means: EpochMeans = field(default_factory=EpochMeans)
    best: float = -1.0  # mean IoU of the best checkpoint
    validated_at: int = -1  # iteration of the last validation
    metrics: Any = None

    @property
    def folder(self):
        return Path(self.cfg.DIR)

    @property
    def checkpoints(self):
        return NetCheckpoints(self.folder)

    @property
    def num_devices(self):
        return max(self.run.world_size, len(self.gpus), 1)

    @property
    def scored(self):
        """What is validated and exported: the average of the weights where there is one."""
        return self.ema.module if self.ema else self.module


def main(flags, stop):
    """One run, from the flags to the closed files."""
    flags.trains = not (flags.eval_only or flags.export or flags.predict)
    cfg = read_config(flags)
    device, gpus = pick_gpus(flags.gpus, DEFAULT_GPUS, flags.device)
    run = start_run(SCRIPT, device, cfg.TRAIN.seed, stop, dist_timeout_s=flags.dist_timeout)
    flags.layout = torch.channels_last if flags.channels_last else torch.contiguous_format
    try:
        session(flags, run, cfg, gpus)
    finally:
        run.close()


def session(flags, run, cfg, gpus):
    """Settle, build, find the start, then do what was asked."""
    if flags.export:
        check_export(flags.export)
    if flags.predict:
        flags.images = seg_pictures.find_images(flags.predict, cfg.TEST.result)
    parts = ["train"] if flags.trains else []
    if flags.eval_only or flags.check_data or (flags.trains and cfg.VAL.interval):
        parts.append("val")
    (dataset, lists), _ = run.from_main(lambda: (segmentation.open_lists(
        with_drawn_scenes(cfg.DATASET, PROJECT, "ade"), parts, cfg.DIR, run.log,
        deep=flags.check_data, bad_images=flags.bad_images, warn=run.warn), None))
    if flags.check_data:
        return
    cfg = replace(cfg, DATASET=dataset)
    job = Job(flags, run, cfg, gpus, lists, rescue=Rescue(run), skipped=SkippedImages(run))
    build(job)
    start = load_start(job)
    if flags.predict:
        predict(job)
    elif flags.export:
        side = cfg.DATASET.imgSizes[0] // cfg.DATASET.padding_constant or 1
        side *= cfg.DATASET.padding_constant
        with models.scoring(job.scored):
            export_once(run, job.scored, torch.zeros(1, 3, side, side), flags.export,
                        method="class_probabilities")
    elif flags.eval_only:
        evaluate_only(job, start)
    else:
        job.rescue = Rescue(run, job.module, None if flags.dry_run else
                            partial(save, job, interrupt=True), start, job.source)
        with job.rescue.watching():
            train(job, start)


# --- settings


def read_config(flags):
    """The frozen config: file < KEY VALUE pairs < --cfg-options < flags."""
    pairs = models.pairs_to_overrides(flags.opts or [])
    options = flags.cfg_options or []
    # a checkpoint that the command line names is what is meant, whatever is newer or better
    flags.named = {*pairs, *(option.partition("=")[0].strip() for option in options)}
    cfg = models.load_seg_config(flags.cfg, [*pairs.items(), *options])
    # differs: no more workers than cores; the batches do not depend on their number
    # [segmentation.md: Config keys]. Way back: --workers 16.
    given = {"seed": cfg.TRAIN.seed, "workers": min(cfg.TRAIN.workers, os.cpu_count() or 1)}
    given |= {key: vars(flags)[key] for key in given if vars(flags)[key] is not None}
    return replace(cfg, TRAIN=replace(cfg.TRAIN, **given))


# --- building


def build(job):
    """Networks, data, optimizers and wrappers, in place."""
    flags, run, cfg = job.flags, job.run, job.cfg
    model, settings = cfg.MODEL, cfg.TRAIN
    job.precision = Precision(flags.amp, run.device, run.warn)
    job.module = models.SegmentationModule(
        models.build_encoder(model.arch_encoder, model.fc_dim),
        models.build_decoder(model.arch_decoder, model.fc_dim, cfg.DATASET.num_class),
        torch.nn.NLLLoss(ignore_index=segmentation.IGNORED),
        settings.deep_sup_scale if model.is_deep_supervised else None,
    ).to(run.device, memory_format=flags.layout)
    if not flags.trains:
        return
    check_one_process(len(job.gpus), flags.compile)
    is_synchronised = run.world_size > 1 and settings.sync_bn and not settings.fix_bn
    if is_synchronised:
        job.module = models.synchronise_norms(job.module, run.device)
    models.check_batch(model.arch_decoder, settings, is_synchronised)
    job.norms = models.NormMomentum(job.module, model.bn_momentum, models.is_corrected(
        settings.bn_average, job.num_devices, flags.compile))
    job.optimizers = Optimizers({
        net: SGD(models.group_weight(getattr(job.module, net)), lr=lr, momentum=settings.beta1,
                 weight_decay=settings.weight_decay)
        for net, lr in zip(NETS, (settings.lr_encoder, settings.lr_decoder), strict=True)})
    job.batches = segmentation.TrainBatches(
        job.lists["train"], cfg.DATASET, batch_size=settings.batch_size_per_gpu,
        batches_per_epoch=settings.epoch_iters * flags.accumulate * job.num_devices,
        seed=settings.seed, bad_images=flags.bad_images)
    job.loader = ResumableLoader(
        job.batches, job.num_devices, seed=settings.seed, workers=settings.workers,
        rank=run.rank, world_size=run.world_size, collate=user_scattered_collate, shuffle=False,
        pin_memory=run.device.type == "cuda")
    step_net = models.TrainingStep(job.module)
    if flags.compile:
        step_net = torch.compile(step_net, dynamic=True)  # nearly every batch has its own size
    job.step_net = run.wrap(step_net)
    if len(job.gpus) > 1:
        job.step_net = UserScatteredDataParallel(step_net, job.gpus)


# --- where to start


def load_start(job):
    """Load what the flags name, say what was taken, and return the iteration to start from.

    Precedence: own checkpoint > --pretrained > MODEL.weights_* > ImageNet's file > random weights.
    """
    flags, run = job.flags, job.run
    if not flags.trains:
        # a checkpoint that the command line names is what is meant, whatever is better or newer
        part, section = ("TEST", job.cfg.TEST) if flags.predict else ("VAL", job.cfg.VAL)
        return load_trained(job, *job.checkpoints.find_trained(
            flags.resume, section.checkpoint, f"{part}.checkpoint" in flags.named, run.warn))
    if not flags.dry_run:
        run.claim(job.folder / ".lock")
    found = job.checkpoints.find_start(flags.resume, job.cfg.TRAIN.start_epoch, run.warn)
    if found:
        name, weights, state = found
        run.log(f"Resuming from {name}")
        job.source = name.replace("*", NETS[0])
        load_weights(job, name, weights)
    else:
        if flags.resume:
            run.log(f"Nothing to resume in {job.folder}: starting from the beginning.")
        models.start_weights(run, job.module, job.cfg.MODEL, flags.pretrained, PRETRAINED)
    if flags.ema:
        job.ema = average_of(job.module, flags.ema)
    if not found:
        return 0
    iteration = state["iteration"] if state else updates_of(name, job.cfg.TRAIN.epoch_iters)
    if state is None:
        run.warn(f"{name} have no training state beside them: momentum starts at zero")
        return iteration
    check_same_run(state["identity"], identity(job), flags.force_resume, run.warn)
    restore_state(state, job.optimizers, job.precision.scaler, job.ema)
    job.best, job.validated_at, job.resumed = state["best"], state["validated_at"], True
    job.history, job.means = state["history"], EpochMeans(**state["means"])
    return iteration


def load_trained(job, name, weights, state):
    """A checkpoint to use; the averaged weights where training kept an average."""
    load_weights(job, name, weights)
    if state and state["ema"]:
        job.ema = average_of(job.module, decay=0.0)
        job.ema.load_state_dict(state["ema"])
    iteration = state["iteration"] if state else updates_of(name, job.cfg.TRAIN.epoch_iters)
    job.run.log(f"Loaded {name}, iteration {iteration}.")
    return iteration


def load_weights(job, name, weights):
    for net in NETS:
        models.load_original_state_dict(getattr(job.module, net), weights[net],
                                        name.replace("*", net))


def identity(job):
    """What a continuation must share with the run it continues, or its batches would differ."""
    settings = job.cfg.TRAIN
    return {"batch_size_per_gpu": settings.batch_size_per_gpu, "devices": job.num_devices,
            "accumulate": job.flags.accumulate, "epoch_iters": settings.epoch_iters,
            "seed": settings.seed, "num_images": len(job.lists["train"]),
            "num_class": job.cfg.DATASET.num_class, "data": job.lists["train"].fingerprint}


# --- training


def train(job, start):
    """The updates from `start` on, with saves and validations, and the last of both."""
    flags, run, settings = job.flags, job.run, job.cfg.TRAIN
    total = settings.epoch_iters * settings.num_epoch
    stop_at = max(start, min(flags.max_iters or total, total))
    if flags.dry_run:
        stop_at = start + 2
    else:
        open_run_folder(job, start)
        if run.is_main:
            seg_pictures.save_training_grid(job.batches, job.cfg.DATASET,
                                            job.folder / "train_samples.png")
    images = settings.batch_size_per_gpu * job.num_devices * flags.accumulate
    run.log(f"1 Epoch = {settings.epoch_iters} iters")
    run.log(f"Iterations {start} to {stop_at}, {images} images each on {job.num_devices} x "
            f"{run.device.type}; lr {settings.lr_encoder} / {settings.lr_decoder}, not scaled")
    guard = NonFiniteGuard(run, flags.nan, job.precision.is_scaled)
    meter = Meter(run.device, images, settings.disp_iter, run.warn)
    lr_at = {net: poly(lr, total, settings.lr_pow)
             for net, lr in zip(NETS, (settings.lr_encoder, settings.lr_decoder), strict=True)}
    if validation_due(job, start):  # stopped between an epoch's last update and its validation
        validate(job, start)
        if job.resumed:
            save(job, start)  # with the score in the state

    # parity: fix_bn stops dropout as well [segmentation.md: Training loop]
    job.module.train(not settings.fix_bn)
    meter.restart_clock()
    updates = job.loader.steps(start, stop_at, flags.accumulate)
    with closing(updates), run.progress(stop_at, start) as progress:
        for step, epoch, batches in updates:
            meter.data_ready()
            lrs = {net: lr_at[net](step) for net in NETS}
            for net, lr in lrs.items():
                job.optimizers.set_lr(net, lr)
            run.seed_step(step)  # dropout depends on seed, step and rank alone
            job.rescue.begins()

            own_terms = backward(job, batches, step)
            norm = job.precision.grad_norm(job.optimizers)
            losses, grad_norm = to_floats(run.mean(own_terms), norm)  # the loop's one wait
            accuracy = losses.pop("accuracy")
            names = segmentation.image_names(batches)
            if guard.allows_update(losses, own_terms, names, step, grad_norm):
                job.rescue.changes()
                job.precision.step(job.optimizers, flags.clip_grad, norm)
                if job.ema:
                    job.ema.update_parameters(job.module)
            else:
                job.rescue.undo()
                job.precision.skip()
            iteration = step + 1
            job.rescue.done(iteration)
            run.any()  # a stop signal to one rank stops all of them after the same update

            meter.updated(losses)
            progress.update()
            report(job, meter, step, epoch, lrs, losses, accuracy, grad_norm, batches)
            epoch_ends = iteration % settings.epoch_iters == 0
            if iteration < stop_at and not flags.dry_run and (
                    epoch_ends or (flags.save_every and iteration % flags.save_every == 0)):
                save(job, iteration)
                meter.restart_clock()
            if run.stop_requested:
                job.rescue.leave(iteration)
            if iteration < stop_at and validation_due(job, iteration):
                validate(job, iteration)
                save(job, iteration)  # with the score in the state
                meter.restart_clock()
    if flags.dry_run:
        run.log(f"Dry run done: all fits, the last update took {meter.elapsed_s:.3f} s.")
    else:
        finish(job, stop_at, guard)


def backward(job, batches, step):
    """Forward and backward of one update. Returns its terms {name: 0-d tensor}."""
    flags, run = job.flags, job.run
    job.optimizers.zero_grad()
    sums = {}
    for i, pieces in enumerate(batches):  # pieces: a batch for each device of this process
        job.norms.set(step * len(batches) + i)
        feeds = [{"img_data": piece["img_data"].to(memory_format=flags.layout),
                  "seg_label": piece["seg_label"]} for piece in pieces]
        scatters = isinstance(job.step_net, UserScatteredDataParallel)
        # gradients travel between processes once an update
        with run.no_sync(job.step_net) if i + 1 < len(batches) else nullcontext():
            with job.precision.autocast():
                terms = job.step_net(feeds if scatters else to_device(feeds[0], run.device))
            terms = {name: value.mean() / len(batches) for name, value in terms.items()}
            loss = sum(value for name, value in terms.items() if name != "accuracy")
            job.precision.scaler.scale(loss).backward()
        sums = {name: sums.get(name, 0) + value.detach() for name, value in terms.items()}
    return sums


def report(job, meter, step, epoch, lrs, losses, accuracy, grad_norm, batches):
    """The original's console line and history, and the metrics line of an update, as due."""
    run, settings = job.run, job.cfg.TRAIN
    job.skipped.in_training(
        step, [fault for batch in batches for piece in batch for fault in piece["skipped"]])
    i, total = step % settings.epoch_iters, sum(losses.values())
    if i == 0:
        job.means = EpochMeans()
    job.means.add(total, accuracy, meter)
    if i % settings.disp_iter == 0:
        point = {"epoch": step / settings.epoch_iters, "loss": total, "acc": accuracy}
        for name, value in point.items():
            job.history["train"][name].append(value)
    if i % (job.flags.log_every or settings.disp_iter) == 0:
        run.record(meter.train_event(step, epoch, lrs["encoder"], losses, grad_norm)
                   | {"lr_decoder": lrs["decoder"], "accuracy": accuracy})
        times, scores = job.means.line()
        run.log(f"Epoch: [{epoch + 1}][{i}/{settings.epoch_iters}], {times}, "
                f"lr_encoder: {lrs['encoder']:.6f}, lr_decoder: {lrs['decoder']:.6f}, {scores}")


def finish(job, iteration, guard):
    """After the last update: save, validate, draw, and say where everything is."""
    run = job.run
    save(job, iteration, last=True)
    if "val" in job.lists and job.validated_at != iteration:
        validate(job, iteration, table=True)  # after the save: a fault must not cost the weights
        save(job, iteration, last=True)  # with the score in the state
    draw_curves(job)
    for line in skips_text(guard, job.skipped):
        run.log(line)
    run.log(f"Training Done!\nWeights, log and metrics are in {job.folder}.")
    if job.metrics:
        run.log(f"mean IoU {job.metrics['mean_iou']:.2f}")
    for picture in sorted(job.folder.glob("*.png")):
        run.log(f"{picture}")


# --- run folder and checkpoints


def open_run_folder(job, start=None):
    """Begin to write the run's files; `start` None is an evaluation, which only appends."""
    run, cfg = job.run, job.cfg
    run.log(f"Config {job.flags.cfg}, in force:\n{to_yaml(cfg)}Everything goes to {job.folder}")
    # a validation that comes again is cut too
    resume_from = start - 0.5 * validation_due(job, start) if start else None
    run.open_folder(job.folder, to_yaml(cfg), resume_from, append=start is None,
                    tensorboard=job.flags.tensorboard)
    if run.is_main:
        for found in job.lists.values():
            segmentation.cache_made_list(found, job.folder)
    if start:
        run.record({"event": "resume", "iteration": start})


def save(job, iteration, last=False, interrupt=False):
    """The epoch's files, or those of an iteration inside one; rank 0 writes.

    Returns the file of the encoder's weights.
    """
    if not job.run.is_main:
        return None
    epoch, rest = divmod(iteration, job.cfg.TRAIN.epoch_iters)
    is_epoch = rest == 0 and epoch > 0 and not interrupt
    if not interrupt:
        job.run.log("Saving checkpoints...")
    suffix = f"epoch_{epoch}.pth" if is_epoch else f"iter_{iteration}.pth"
    path = job.checkpoints.save(suffix, models.original_weights(job.module),
                                training_state(job, iteration), job.history if is_epoch else None)
    job.rescue.saved(iteration, path)
    # what an epoch's or the last files replace goes; inside an epoch the one before stays, too
    job.checkpoints.prune(suffix, also_previous=not (is_epoch or last))
    return path


def training_state(job, iteration):
    """What lies beside the weights after `iteration` updates."""
    return pack_state(
        iteration=iteration, per_epoch=job.cfg.TRAIN.epoch_iters, optimizer=job.optimizers,
        scaler=job.precision.scaler, ema=job.ema, world_size=job.run.world_size,
        identity=identity(job), config=to_yaml(job.cfg),
        extra={"best": job.best, "validated_at": job.validated_at, "history": job.history,
               "means": job.means.saved()})


def draw_curves(job):
    """Losses, rate and scores over the iterations."""
    if job.run.is_main:
        plot_curves(job.folder / "metrics.jsonl", job.folder / "curves.png",
                    ["mean_iou", "pixel_accuracy"], job.folder.name)


# --- evaluation


def validation_due(job, iteration):
    """Whether a validated epoch ends with `iteration` updates."""
    epoch, rest = divmod(iteration, job.cfg.TRAIN.epoch_iters)
    due = "val" in job.lists and rest == 0 and epoch > 0 and job.validated_at != iteration
    return due and epoch % job.cfg.VAL.interval == 0 and not job.flags.dry_run


def validate(job, iteration, table=False):
    """Score the network, write it down, keep the best weights."""
    run = job.run
    metrics = run.broadcast(evaluate(job, iteration, table))
    job.validated_at, job.metrics = iteration, metrics
    epoch = max(iteration - 1, 0) // job.cfg.TRAIN.epoch_iters
    run.record({"event": "eval", "iteration": iteration, "epoch": epoch, "metrics": metrics})
    if metrics["mean_iou"] > job.best:
        job.best = metrics["mean_iou"]
        if run.is_main:
            job.checkpoints.save(BEST, models.original_weights(job.scored),
                                 training_state(job, iteration))
    draw_curves(job)


def evaluate(job, iteration, table=True, visualize=False):
    """Scores over the validation images: on rank 0, None on the others.

    table:     print the line of each class, too
    visualize: write each image's picture
    After a stop signal the state is saved and Stopped raised.
    """
    run, dataset, records = job.run, job.cfg.DATASET, job.lists["val"]
    meter, seconds, pictures = SegmentationMeter(dataset.num_class), [], []
    apart = max(1, len(records) // PICTURED)
    for item in scored_items(job, records, iteration):
        label = item["seg_label"][0].numpy()
        meter.update(item["prediction"], label)
        seconds.append(item["seconds"])
        triple = item["img_ori"], label, item["prediction"]
        if item["number"] % apart == 0 and len(pictures) < PICTURED:
            pictures.append(triple)
        if visualize:
            seg_pictures.save_beside(item["info"], job.folder / "result", dataset.num_class,
                                     *triple)
    for other in (run.gather(meter) or [])[1:]:
        meter.merge(other)
    if not run.is_main:
        return None
    seg_pictures.save_prediction_grid(pictures, dataset.num_class, job.folder / "predictions.png")
    metrics = meter.compute()
    if table:
        run.log("\n".join(meter.table()))
        names = seg_pictures.class_names(dataset)
        write_text(job.folder / "classes.txt", "\n".join(meter.table(names)) + "\n")
    run.log(meter.summary(seconds if run.world_size == 1 else []))
    return metrics


def scored_items(job, records, iteration):
    """This rank's share of `records`: `eval_item`'s dict with the `prediction` [h, w] over all
    scales, the record's `number`, and the `seconds` that the networks took.
    """
    run, module = job.run, job.scored
    run.share_buffers(module)  # each rank's BatchNorm statistics are of its own batches
    own = range(run.rank, len(records), run.world_size)
    items = ordered_batches(
        segmentation.EvalItems(records, job.cfg.DATASET, job.flags.bad_images), own, 1,
        collate=user_scattered_collate, workers=min(EVAL_WORKERS, job.cfg.TRAIN.workers))
    with closing(items), models.scoring(module), run.progress(len(own)) as progress:
        for i, batch in enumerate(run.in_step(items, len(records), 1)):
            if run.stop_requested:
                job.rescue.leave(iteration)
            progress.update()
            (item,) = batch
            if "skipped" in item:
                job.skipped.in_validation(item["skipped"])
                continue
            begin = time.perf_counter()
            images = to_device(item.pop("img_data"), run.device)
            with job.precision.autocast():
                scores = models.average_scores(module, images, item["img_ori"].shape[:2])
            prediction = seg_pictures.as_classes(scores)
            yield {**item, "prediction": prediction, "number": own[i],
                   "seconds": time.perf_counter() - begin}


def evaluate_only(job, iteration):
    """--eval-only: one evaluation, appended to the run folder's metrics."""
    open_run_folder(job)
    metrics = job.run.broadcast(evaluate(job, iteration, visualize=job.cfg.VAL.visualize))
    job.run.record({"event": "eval", "iteration": iteration, "epoch": None, "metrics": metrics})
    job.run.log("Evaluation Done!")


def predict(job):
    """--predict: the classes of each image, and the image beside its prediction in TEST.result."""
    dataset, folder = job.cfg.DATASET, job.cfg.TEST.result
    names = seg_pictures.class_names(dataset)
    records = [{"fpath_img": path} for path in job.flags.images]
    for item in scored_items(job, records, iteration=0):
        shares = seg_pictures.class_shares(item["prediction"], names)
        job.run.log("\n".join([f"Predictions in [{item['info']}]:", *shares]))
        seg_pictures.save_beside(item["info"], folder, dataset.num_class, item["img_ori"],
                                 item["prediction"])
    job.run.log("Inference done!")


if __name__ == "__main__":
    cli.run(main, SCRIPT, FLAGS, STOP, memory_keys="TRAIN.batch_size_per_gpu")
