"""Train YOLACT and YOLACT++ (real-time instance segmentation) on any COCO-format data.

    python train_yolact.py --config yolact_shapes                   # CPU; draws its own scenes
    python train_yolact.py --config yolact_base --batch_size 8      # one GPU, or all of them
    torchrun --nproc_per_node 4 train_yolact.py --batch_size 32     # one process per GPU
    torchrun --nnodes 2 --nproc_per_node 8 --rdzv_backend c10d --rdzv_endpoint HOST:29500 \\
        train_yolact.py --batch_size 128
    python train_yolact.py --config yolact_resnet50 --resume latest # carry on after any stop
    python train_yolact.py --config yolact_resnet50 --eval-only --resume weights/FILE.pth

Data: data/coco/images, data/coco/annotations/instances_{train,val}2017.json, or your own files by
--cfg-options dataset.train_images=DIR dataset.train_info=FILE.json, valid_* likewise; classes and
label map then come from the file. Weights go to weights/, the run's log, metrics and pictures to
logs/<config name>/. Mask mAP to expect on COCO test-dev: yolact_resnet50 28.2, base 29.8, im700
31.2, plus_base 34.6.
"""

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

SCRIPT = "train_yolact"
PROJECT = Path(__file__).resolve().parent
AVERAGED = 100  # iterations behind the means of a console line, as the original
EVAL_BATCH = 8  # images per forward pass of an evaluation
CACHE = "cache"  # in the run folder: annotation indexes, mapped into memory at the next start
PICTURED = 9  # images in each grid
SHOWN_SCORE = 0.3  # predictions below it are not drawn


def flag(names, help, **limits):
    return typer.Option(*names.split(), help=help, **limits)


def flags(
    # --- the original's training flags; names, defaults and meaning are its own
    config: Annotated[str, flag("--config", "Config name, YAML file, or NAME.copy({...})")]
    = "yolact_base_config",
    dataset: Annotated[str | None, flag("--dataset", "data set name, over the config's")] = None,
    batch_size: Annotated[int, flag("--batch_size", "images a batch, over all GPUs", min=1)] = 8,
    lr: Annotated[float | None, flag("--lr --learning_rate", "base rate, as is", min=0)] = None,
    momentum: Annotated[float | None, flag("--momentum", "of SGD", min=0)] = None,
    decay: Annotated[float | None, flag("--decay --weight_decay", "weight decay", min=0)] = None,
    gamma: Annotated[float | None, flag("--gamma", "lr factor at each step", min=0)] = None,
    resume: Annotated[str | None, flag("--resume", "latest, interrupt or a weights file")] = None,
    start_iter: Annotated[int, flag("--start_iter", "count from; -1: the file's own", min=-1)] = -1,
    num_workers: Annotated[int, flag("--num_workers", "processes that load data", min=0)] = 4,
    cuda: Annotated[str, cli.bool_option("--cuda", help="use a GPU when there is one")] = "True",
    save_folder: Annotated[str, flag("--save_folder", "where weights are")] = "weights/",
    log_folder: Annotated[str, flag("--log_folder", "holds the run folder")] = "logs/",
    save_interval: Annotated[int, flag("--save_interval", "between saves", min=1)] = 10000,
    validation_size: Annotated[int, flag("--validation_size", "images, at most", min=1)] = 5000,
    validation_epoch: Annotated[int, flag("--validation_epoch", "epochs between; 0: never")] = 2,
    keep_latest: Annotated[bool, flag("--keep_latest", "delete the save before the last")] = False,
    keep_latest_interval: Annotated[int, flag("--keep_latest_interval",
                                              "... but keep multiples of this")] = 100000,
    no_log: Annotated[bool, flag("--no_log", "do not write <name>.log")] = False,
    log_gpu: Annotated[bool, flag("--log_gpu", "put nvidia-smi's numbers into it")] = False,
    no_interrupt: Annotated[bool, flag("--no_interrupt", "do not save on Ctrl-C")] = False,
    batch_alloc: Annotated[str | None, flag("--batch_alloc", "images of each GPU: 5,3")] = None,
    no_autoscale: Annotated[bool, flag("--no_autoscale", "schedule as for batch 8")] = False,
    # --- its evaluation flags
    fast_nms: Annotated[str, cli.bool_option("--fast_nms", help="False: traditional NMS")] = "True",
    cross_class_nms: Annotated[str, cli.bool_option("--cross_class_nms",
                                                    help="one NMS over all classes")] = "False",
    score_threshold: Annotated[float, flag("--score_threshold", "drop scores up to", min=0)] = 0.0,
    output_coco_json: Annotated[bool, flag("--output_coco_json", "write what is found")] = False,
    bbox_det_file: Annotated[str, flag("--bbox_det_file", "path")] = "results/bbox_detections.json",
    mask_det_file: Annotated[str, flag("--mask_det_file", "path")] = "results/mask_detections.json",
    # --- additions
    loss_norm: Annotated[str, flag("--loss_norm", "whose positives divide the losses: each "
                                   "process's own, or all", metavar="rank|global",
                                   callback=cli.one_of("rank", "global"),
                                   rich_help_panel=cli.ADDITIONS)] = "rank",
    device: cli.Device = None, amp: cli.Amp = "off", compile: cli.Compile = False,
    channels_last: cli.ChannelsLast = False, accumulate: cli.Accumulate = 1,
    clip_grad: cli.ClipGrad = None, ema: cli.Ema = None, seed: cli.Seed = 0,
    max_iters: cli.MaxIters = None, log_every: cli.LogEvery = 10,
    save_every: cli.SaveEvery = None, force_resume: cli.ForceResume = False,
    pretrained: cli.Pretrained = None, eval_only: cli.EvalOnly = False, export: cli.Export = None,
    dry_run: cli.DryRun = False, check_data: cli.CheckData = False,
    bad_images: cli.BadImages = "stop", nan: cli.Nan = "stop", cfg_options: cli.CfgOptions = None,
    tensorboard: cli.Tensorboard = False, dist_timeout: cli.Timeout = 600, debug: cli.Debug = False,
):
    """Train YOLACT or YOLACT++ on COCO-format instance masks."""
    return SimpleNamespace(**locals())


if __name__ == "__main__":
    FLAGS = cli.read_flags(flags, SCRIPT)  # --help and misspelt flags end here, before torch
    STOP = StopSignals()  # from here on a signal lets the present update finish

import torch

from common.checkpoint import save_pair
from common.checkpoint.start import find_start, find_trained, iteration_of
from common.checkpoint.state import check_same_run, pack_state, restore_state
from common.checkpoint.yolact_files import CheckpointFolder
from common.losses import MultiBoxLoss, NetLoss
from common.optim.ema import average_of
from common.optim.precision import Precision
from common.optim.sgd import SGD
from common.optim.steps import set_lr, to_floats
from common.parallel import CustomDataParallel, check_one_process, parse_batch_alloc, to_device
from data.coco_format import open_coco, share_indexes
from data.coco_format.summary import show_checked
from data.drawn.shapes import with_drawn_scenes
from data.loading import ResumableLoader, ordered_batches
from data.yolact import InstanceDataset, collate_instances, save_predictions, save_samples
from metrics import CocoEvaluator, format_table
from models import yolact
from models.export import check_export, export_once
from runtime.pictures import plot_curves
from runtime.pretrained import find_pretrained_once, read_weights
from runtime.run.guard import NonFiniteGuard, SkippedImages, skips_text
from runtime.run.meter import Meter
from runtime.run.rescue import Rescue
from runtime.run.run import start_run
from runtime.run.yolact_log import SessionLog, console_line
from settings.loading import to_yaml


@dataclass
class Job:
    """What the functions below share: one session of training or evaluation."""

    flags: SimpleNamespace
    run: Any  # runtime.run.run.Run
    cfg: Any  # the config in force; replaced when a delayed setting is due
    indexes: dict  # {"train": ..., "valid": ...}: annotation indexes of the parts that are needed
    train_set: Any = None
    loader: Any = None
    valid_set: Any = None
    net: Any = None  # the bare network
    criterion: Any = None
    step_net: Any = None  # network and loss, compiled, and wrapped for several devices
    optimizer: Any = None
    precision: Any = None
    ema: Any = None  # AveragedModel with --ema
    session_log: Any = None  # the original's <name>.log
    rescue: Any = None  # Rescue: what is saved when the session ends early
    source: Any = None  # file of the checkpoint that the session goes on from
    skipped: Any = None  # SkippedImages
    best: float = -1.0  # mask AP of the best checkpoint, percent
    validated_at: int = -1  # iteration of the last validation
    metrics: Any = None  # its scores

    @property
    def folder(self):
        return Path(self.flags.log_folder) / self.cfg.name

    @property
    def scored_net(self):
        """What is validated and exported: the average of the weights where there is one."""
        return self.ema.module if self.ema else self.net

    @property
    def checkpoints(self):
        flags = self.flags
        return CheckpointFolder(Path(flags.save_folder), self.cfg.name, flags.save_interval,
                                flags.save_every, flags.keep_latest, flags.keep_latest_interval)


def main(flags, stop):
    """One run, from the flags to the closed files."""
    flags.cfg_options = flags.cfg_options or []
    flags.trains = not (flags.eval_only or flags.export)
    flags.writes = not (flags.dry_run or flags.check_data)
    device = flags.device or (None if flags.cuda else "cpu")
    run = start_run(SCRIPT, device, flags.seed, stop, dist_timeout_s=flags.dist_timeout)
    try:
        session(flags, run)
    finally:
        run.close()


def session(flags, run):
    """Settle, build, find the start, then do what was asked: check, evaluate, export or train."""
    if flags.export:
        check_export(flags.export)
    cfg, own_indexes = run.from_main(lambda: read_settings(flags, run))
    if flags.check_data:
        images = cfg.dataset.train_images, cfg.dataset.valid_images
        show_checked(run, own_indexes, images, Path(flags.log_folder) / cfg.name,
                          lambda boxes: yolact.objects_without_prior(cfg, boxes))
        return
    job = Job(flags, run, cfg, share_indexes(run, cfg.dataset, own_indexes),
              rescue=Rescue(run), skipped=SkippedImages(run))
    build(job)
    start = load_start(job)
    if flags.export:
        example = torch.zeros(1, 3, cfg.max_size, cfg.max_size)
        export_once(run, job.scored_net, example, flags.export, method="forward_heads")
    elif flags.eval_only:
        evaluate_only(job, start)
    else:
        job.rescue = Rescue(run, job.net, None if flags.dry_run else
                            partial(save, job, interrupt=True), start, job.source)
        with job.rescue.watching():
            train(job, start)


# --- settings


def read_settings(flags, run):
    """The frozen config in force and the checked annotation indexes {"train": ..., "valid": ...}.

    Order of the original: config, --dataset, autoscale, flags; the data's own classes come between.
    """
    cfg = yolact.load_yolact_config(flags.config, options=flags.cfg_options)
    dataset = yolact.load_dataset_config(flags.dataset) if flags.dataset else cfg.dataset
    dataset = with_drawn_scenes(dataset, PROJECT, "coco")
    own_data = any(option.startswith("dataset.train_info=") for option in flags.cfg_options)
    # the training file is also where the classes are, when the config does not name them
    parts = ["train"] if flags.trains or own_data or not dataset.class_names else []
    if flags.eval_only or flags.check_data or (flags.trains and flags.validation_epoch > 0):
        parts.append("valid")
    cache = Path(flags.log_folder) / cfg.name / CACHE
    dataset, indexes = open_coco(dataset, parts, own_data=own_data, deep=flags.check_data,
                                      run=run, cache_folder=cache if flags.writes else None)
    cfg = replace(cfg, dataset=dataset, num_classes=len(dataset.class_names) + 1)
    if not flags.no_autoscale:
        cfg = yolact.scaled_to_batch(cfg, flags.batch_size * flags.accumulate, run.log)
    per_device = flags.batch_size // run.num_devices(flags.device)
    cfg = yolact.with_batch_norm_rule(cfg, per_device, run.log)
    given = {key: vars(flags)[key] for key in ("lr", "momentum", "decay", "gamma")}
    cfg = replace(cfg, **{key: value for key, value in given.items() if value is not None})
    return cfg, indexes


# --- building


def build(job):
    """Data sets, network, optimizer and wrappers, in place."""
    flags, run, cfg = job.flags, job.run, job.cfg
    devices, shares = run.num_devices(flags.device), None
    check_one_process(devices if run.world_size == 1 else 1, flags.compile)
    if flags.batch_alloc:
        shares = parse_batch_alloc(flags.batch_alloc, devices, flags.batch_size)
    options = {"seed": flags.seed, "bad_images": flags.bad_images,
               "include_empty": cfg.dataset.include_empty, "trained": job.indexes.get("train")}
    if flags.trains:
        job.train_set = InstanceDataset(
            job.indexes["train"], cfg.dataset.train_images, cfg, train=True, **options)
        job.loader = ResumableLoader(
            job.train_set, flags.batch_size, seed=flags.seed, workers=flags.num_workers,
            rank=run.rank, world_size=run.world_size, collate=collate_instances,
            shares=shares if run.world_size > 1 else None, pin_memory=run.device.type == "cuda")
    if "valid" in job.indexes:
        job.valid_set = InstanceDataset(
            job.indexes["valid"], cfg.dataset.valid_images, cfg, train=False, **options)

    job.precision = Precision(flags.amp, run.device, run.warn)
    job.net = yolact.build_yolact(cfg).to(run.device)
    if flags.channels_last:
        job.net.to(memory_format=torch.channels_last)
    job.optimizer = SGD(job.net.parameters(), lr=cfg.lr, momentum=cfg.momentum,
                        weight_decay=cfg.decay)
    job.criterion = MultiBoxLoss(cfg, flags.loss_norm)
    net = torch.compile(job.net) if flags.compile else job.net
    job.step_net = run.wrap(NetLoss(net, job.criterion))
    if run.world_size == 1 and devices > 1:
        job.step_net = CustomDataParallel(job.step_net, batch_alloc=shares)


# --- where to start


def load_start(job):
    """Load what the flags name, say what was taken, and return the iteration to start from.

    Precedence: own checkpoint > --pretrained > backbone file > random weights.
    """
    flags, run, name = job.flags, job.run, job.cfg.name
    if flags.eval_only or flags.export:
        return load_trained(job, *find_trained(flags.save_folder, name, flags.resume,
                                               job.checkpoints.best_path, run.warn))
    if not flags.dry_run:
        run.claim(job.folder / ".lock", Path(flags.save_folder) / f".{name}.lock")
    found = find_start(flags.save_folder, name, flags.resume, run.warn)
    if found is None:
        if flags.resume:
            run.log(f"Nothing to resume in {flags.save_folder}: starting from the beginning.")
        initialise(job)
    else:
        run.log(f"Resuming training, loading {found[0]}...")
        job.source = found[0]
        yolact.load_weights(job.net, found[1], source=found[0])
    if flags.ema:
        job.ema = average_of(job.net, flags.ema)
    return resume(job, found[0], found[2]) if found else max(flags.start_iter, 0)


def initialise(job):
    """Weights from --pretrained, else the backbone's file, else random ones."""
    flags = job.flags
    job.run.log("Initializing weights...")
    if flags.pretrained:
        weights = read_weights(flags.pretrained, job.run.log)
        job.net.init_weights()  # for what the file lacks
        report = yolact.load_weights(job.net, weights, partial=True, source=flags.pretrained)
    else:
        file = job.cfg.backbone.path
        report = job.net.init_weights(
            find_pretrained_once(job.run, file, flags.save_folder) if file else None)
    for line in report:
        job.run.log(line)


def load_trained(job, path, weights, state):
    """A checkpoint to evaluate or export; the averaged weights where training kept an average."""
    yolact.load_weights(job.net, weights, source=path)
    if state and state["ema"]:
        job.ema = average_of(job.net, decay=0.0)
        job.ema.load_state_dict(state["ema"])
    iteration = iteration_of(path, state)
    job.run.log(f"Loaded {path}, iteration {iteration}.")
    return iteration


def resume(job, path, state):
    """Take up the training state of the checkpoint at `path`, if any. Returns the iteration."""
    flags, run = job.flags, job.run
    iteration = iteration_of(path, state)
    if flags.start_iter not in (-1, iteration):
        run.log(f"Counting from --start_iter {flags.start_iter}, with a fresh optimizer.")
        return flags.start_iter
    if state is None:
        run.warn(f"{path} has no training state beside it: momentum starts at zero")
        return iteration
    check_same_run(state["identity"], identity(job), flags.force_resume, run.warn)
    restore_state(state, job.optimizer, job.precision.scaler, job.ema)
    job.best, job.validated_at = state["best"], state["validated_at"]
    return iteration


def identity(job):
    """What a continuation must share with the run it continues, or its batches would differ."""
    return {"batch_size": job.flags.batch_size, "accumulate": job.flags.accumulate,
            "seed": job.flags.seed, "num_images": len(job.train_set),
            "num_classes": job.cfg.num_classes, "data": job.indexes["train"].fingerprint}


# --- training


def train(job, start):
    """The updates from `start` on, with saves and validations, and the last of both."""
    flags, run = job.flags, job.run
    stop_at = max(start, min(flags.max_iters or job.cfg.max_iter, job.cfg.max_iter))
    if flags.dry_run:
        stop_at = start + 2
    else:
        open_run_folder(job, start)
        if run.is_main:
            save_samples(job.train_set, job.cfg, job.folder / "train_samples.png", PICTURED)
    per_epoch = job.loader.steps_per_epoch(flags.accumulate)
    run.log(f"Begin training! Iterations {start} to {stop_at}, {per_epoch} an epoch, "
            f"{flags.batch_size * flags.accumulate} of {len(job.train_set)} images each.")
    guard = NonFiniteGuard(run, flags.nan, job.precision.is_scaled)
    meter = Meter(run.device, flags.batch_size * flags.accumulate, AVERAGED, run.warn)
    lr_at = yolact.schedule(job.cfg)
    delayed = sorted(job.cfg.delayed_settings, key=lambda due: due[0])
    if validation_due(job, start):  # stopped between an epoch's last update and its validation
        validate(job, start)

    job.net.train()
    meter.restart_clock()
    updates = job.loader.steps(start, stop_at, flags.accumulate)
    with closing(updates), run.progress(stop_at, start) as progress:
        for step, epoch, batches in updates:
            meter.data_ready()
            while delayed and step >= delayed[0][0]:
                apply_settings(job, delayed.pop(0)[1])
                lr_at = yolact.schedule(job.cfg)
            lr = lr_at(step)
            set_lr(job.optimizer, lr)
            run.seed_step(step)  # random choices in the loss depend on seed, step, rank alone
            job.rescue.begins()

            own_losses = backward(job, batches)
            norm = job.precision.grad_norm(job.optimizer)
            losses, grad_norm = to_floats(run.mean(own_losses), norm)  # the loop's one wait
            image_ids = [i for batch in batches for i in batch["image_ids"]]
            if guard.allows_update(losses, own_losses, image_ids, step, grad_norm):
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
            progress.update()
            report(job, meter, step, epoch, lr, losses, grad_norm, batches, stop_at)
            if run.stop_requested:
                leave(job, iteration)
            if iteration < stop_at and job.checkpoints.due(iteration) and not flags.dry_run:
                save(job, iteration)
                meter.restart_clock()
            if iteration < stop_at and validation_due(job, iteration):
                validate(job, iteration)
                meter.restart_clock()
    if flags.dry_run:
        run.log(f"Dry run done: all fits, the last update took {meter.elapsed_s:.3f} s.")
        return
    save(job, stop_at)
    if job.valid_set and job.validated_at != stop_at:
        validate(job, stop_at)  # after the save: a fault in it must not cost the last weights
        save(job, stop_at)  # with the best score in the state
    draw_curves(job)
    for line in skips_text(guard, job.skipped):
        run.log(line)
    run.log(f"Done. Weights are in {flags.save_folder}, log and metrics in {job.folder}.")
    if job.metrics:
        run.log(f"mask AP {job.metrics['mask/all'] / 100:.2f}, at IoU 0.5 "
                f"{job.metrics['mask/50'] / 100:.2f}, box AP {job.metrics['box/all'] / 100:.2f}")
    for picture in sorted(job.folder.glob("*.png")):
        run.log(f"{picture}")


def apply_settings(job, settings):
    """A delayed setting is due: the config in force changes for all who read it."""
    job.cfg = replace(job.cfg, **settings)
    job.net.cfg = job.criterion.cfg = job.cfg
    job.run.log(f"Delayed settings are in force: {settings}")


def backward(job, batches):
    """Forward and backward of one update. Returns its losses {name: 0-d tensor}."""
    job.optimizer.zero_grad(set_to_none=True)
    sums = {}
    for i, batch in enumerate(batches):
        inputs = [batch[key] for key in ("images", "targets", "masks", "num_crowds")]
        if not isinstance(job.step_net, CustomDataParallel):  # which copies each GPU's own part
            inputs = to_device(inputs, job.run.device)
        if job.flags.channels_last:
            inputs[0] = inputs[0].to(memory_format=torch.channels_last)
        # gradients travel between processes once an update
        with job.run.no_sync(job.step_net) if i + 1 < len(batches) else nullcontext():
            with job.precision.autocast():
                losses = job.step_net(*inputs)
            losses = {name: value / len(batches) for name, value in losses.items()}
            job.precision.scaler.scale(sum(losses.values())).backward()
        sums = {name: sums.get(name, 0) + value.detach() for name, value in losses.items()}
    return sums


def report(job, meter, step, epoch, lr, losses, grad_norm, batches, stop_at):
    """The original's log line, the metrics line and the console line of an update, as due."""
    run = job.run
    job.skipped.in_training(step, [fault for batch in batches for fault in batch["skipped"]])
    if job.session_log:
        total = sum(losses.values())
        job.session_log.train(losses, total, epoch, step, lr, round(meter.elapsed_s, 2))
    if step % job.flags.log_every == 0:
        run.record(meter.train_event(step, epoch, lr, losses, grad_norm))
        run.log(console_line(epoch, step, meter.means(), meter.eta(stop_at - step - 1),
                             meter.elapsed_s))


# --- run folder and checkpoints


def open_run_folder(job, start=None):
    """Begin to write the run's files; `start` None is an evaluation, which only appends."""
    flags, run = job.flags, job.run
    training = start is not None
    # a validation that comes again is cut too
    resume_from = start - 0.5 * validation_due(job, start) if training and start > 0 else None
    run.open_folder(job.folder, to_yaml(job.cfg), resume_from, append=not training,
                    tensorboard=flags.tensorboard)
    if run.is_main:
        for index in job.indexes.values():
            index.keep(job.folder / CACHE)
    if training and start > 0:
        run.record({"event": "resume", "iteration": start})
    if training and run.is_main and not flags.no_log:
        path = Path(flags.log_folder) / f"{job.cfg.name}.log"
        job.session_log = SessionLog(path, vars(flags), flags.log_gpu)


def save(job, iteration, interrupt=False):
    """The periodic, the last, or (with `interrupt`) the interrupted state; rank 0 writes.

    Returns the file of the weights.
    """
    if not job.run.is_main:
        return None
    if not interrupt:
        job.run.log(f"Saving state, iter: {iteration}")
    path = job.checkpoints.save(job.net.state_dict(), training_state(job, iteration),
                                epoch_of(job, iteration), iteration, interrupt, job.run.log)
    job.rescue.saved(iteration, path)
    return path


def training_state(job, iteration):
    """What lies beside the weights after `iteration` updates."""
    return pack_state(
        iteration=iteration, per_epoch=job.loader.steps_per_epoch(job.flags.accumulate),
        optimizer=job.optimizer, scaler=job.precision.scaler, ema=job.ema,
        world_size=job.run.world_size, identity=identity(job), config=to_yaml(job.cfg),
        extra={"best": job.best, "validated_at": job.validated_at})


def epoch_of(job, iteration):
    """The 0-based epoch that the last of `iteration` updates belongs to."""
    return max(iteration - 1, 0) // job.loader.steps_per_epoch(job.flags.accumulate)


def leave(job, iteration):
    """A stop signal has come: save, note it, and end with its exit status."""
    wanted = not (job.flags.no_interrupt and job.run.stop_requested == "SIGINT")
    job.rescue.leave(iteration, wanted)


# --- evaluation


def validation_due(job, iteration):
    """Whether a validated epoch ends with `iteration` updates; never epoch 0 (spec, section 9)."""
    ended, rest = divmod(iteration, job.loader.steps_per_epoch(job.flags.accumulate))
    due = job.valid_set and rest == 0 and ended > 1 and job.validated_at != iteration
    return bool(due) and not job.flags.dry_run and (ended - 1) % job.flags.validation_epoch == 0


def validate(job, iteration):
    """Score the network, write it down, keep the best weights."""
    run = job.run
    run.log("Computing validation mAP (this may take a while)...")
    begin = time.perf_counter()
    metrics = run.broadcast(evaluate(job, iteration))
    epoch = epoch_of(job, iteration)
    job.validated_at, job.metrics = iteration, metrics
    run.record({"event": "eval", "iteration": iteration, "epoch": epoch, "metrics": metrics})
    if job.session_log:
        job.session_log.val(metrics, epoch, iteration, round(time.perf_counter() - begin, 2))
    if metrics["mask/all"] > job.best:
        job.best = metrics["mask/all"]
        if run.is_main:
            save_pair(job.checkpoints.best_path, job.scored_net.state_dict(),
                      training_state(job, iteration))
    draw_curves(job)
    job.net.train()


def evaluate(job, iteration):
    """COCO scores in percent over the validation images: on rank 0, None on the others.

    After a stop signal the state is saved and Stopped raised.
    """
    flags, run, cfg, net = job.flags, job.run, job.cfg, job.scored_net
    chosen = job.valid_set.scattered(flags.validation_size)
    batches = ordered_batches(job.valid_set, chosen[run.rank::run.world_size], EVAL_BATCH,
                                   collate=collate_instances, workers=flags.num_workers)
    evaluator, pictures = CocoEvaluator(cfg.dataset.valid_info), []
    run.share_buffers(net)  # each rank's BatchNorm statistics are of its own batches
    net.eval()
    with closing(batches), torch.no_grad():
        for batch in run.in_step(batches, len(chosen), EVAL_BATCH):
            if run.stop_requested:
                leave(job, iteration)
            job.skipped.in_validation(batch["skipped"])
            if not batch["image_ids"]:
                continue
            with job.precision.autocast():
                predictions = net.forward_heads(batch["images"].to(run.device))
            detections = yolact.detect(predictions, cfg, flags.fast_nms, flags.cross_class_nms)
            for i, detection in enumerate(detections):
                height, width = batch["sizes"][i]
                found = yolact.postprocess(detection, width, height, net, flags.score_threshold)
                evaluator.update({batch["image_ids"][i]: {
                    "boxes": found["box"], "scores": found["score"], "masks": found["mask"],
                    "labels": job.valid_set.category_ids[found["class"].cpu()],
                    "mask_scores": found["mask_score"]}})
                if len(pictures) < PICTURED:
                    size = cfg.max_size
                    found = yolact.postprocess(detection, size, size, net, SHOWN_SCORE)
                    truth = (batch[key][i] for key in ("images", "targets", "masks"))
                    pictures.append((*truth, found))
    for part in run.gather(evaluator.results()) or []:
        evaluator.merge(part)
    if not run.is_main:
        return None
    save_predictions(pictures, cfg, job.folder / "predictions.png")
    if flags.eval_only and flags.output_coco_json:
        evaluator.write_detections(flags.bbox_det_file, flags.mask_det_file)
        run.log(f"Detections are in {flags.bbox_det_file} and {flags.mask_det_file}.")
    if not cfg.dataset.has_gt:
        return {}  # test-dev: the scores are the server's
    metrics = evaluator.compute(evaluator.image_ids)  # those that could be read
    run.log(format_table(metrics))
    return metrics


def evaluate_only(job, iteration):
    """--eval-only: one evaluation, appended to the run folder's metrics."""
    open_run_folder(job)
    metrics = job.run.broadcast(evaluate(job, iteration))
    job.run.record({"event": "eval", "iteration": iteration, "epoch": None, "metrics": metrics})


def draw_curves(job):
    """Losses, rate and AP over the iterations."""
    if job.run.is_main:
        plot_curves(job.folder / "metrics.jsonl", job.folder / "curves.png",
                    ["mask/all", "mask/50", "box/all", "box/50"], job.cfg.name)


if __name__ == "__main__":
    cli.run(main, SCRIPT, FLAGS, STOP, memory_keys="--batch_size")
