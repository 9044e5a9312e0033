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

import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from runtime import cli
from runtime.cli import Flags, flag
from runtime.launch.signals import StopSignals

SCRIPT = "train_resnest"
PROJECT = Path(__file__).resolve().parent
WEIGHTS = PROJECT / "weights"  # where published ones are fetched to
MIN_SHARE = 2  # the norms inside split attention need two images in a process's batch
PICTURED = 16  # images in each grid
CURVES = ("top1", "top5")  # scores that are drawn


@cli.with_shared("export_detections", channels_last=True, log_every=100)
def flags(
    # --- the original's flags; names, defaults and meaning are its own
    config_file: Annotated[str | None, flag("--config-file", "YAML file over the defaults")] = None,
    outdir: Annotated[str, flag("--outdir", "checkpoints, log, metrics")] = "output",
    resume: Annotated[str | None, flag("--resume", "go on from", metavar=cli.RESUME)] = None,
    world_size: Annotated[int, flag("--world-size", "number of nodes", min=1)] = 1,
    rank: Annotated[int, flag("--rank", "number of this node", min=0)] = 0,
    dist_url: Annotated[str, flag("--dist-url", "where nodes meet")] = "tcp://localhost:23456",
    dist_backend: Annotated[str, flag("--dist-backend", "nccl or gloo, on GPUs", metavar="NAME",
                                      callback=cli.one_of("nccl", "gloo"))] = "nccl",
    pairs: cli.Pairs = None,
) -> None:
    """Train ResNeSt on class folders."""


if __name__ == "__main__":
    FLAGS = cli.read_flags(flags, SCRIPT)  # --help and misspelt flags end here, before torch
    STOP = StopSignals(max_hours=FLAGS.max_hours)  # a signal lets an update finish from here on

import torch

from common.checkpoint import save_checkpoint
from common.checkpoint.series import Occasion, resnest_series
from common.losses import LabelSmoothing, NLLMultiLabelSmooth, mix
from common.optim import Precision, accumulated, add_terms, set_lr
from common.optim.learner import Learner
from common.parallel import to_device
from data import imagenet
from data.drawn.shapes import with_drawn_scenes
from data.imagenet.folders import (
    ClassFolders,
    ClassificationDataset,
    collate_classes,
    folder_names,
)
from data.imagenet.predicting import ClassResults, Found, as_sample, surest_classes
from data.loading import ResumableLoader, ordered_batches, whole_batches
from data.predicting import RGB, Photos, stacked
from metrics import ClassHistory, ClassScores
from models import resnest
from models.export import PACKAGES, check_export
from runtime.files import write_json
from runtime.launch.ranks import limit_threads
from runtime.launch.spawn import start_ranks
from runtime.predicting import plan_predictions, predict_all
from runtime.run.ending import PicturesOfBest, draw_curves, say_done
from runtime.run.guard import NonFiniteGuard
from runtime.run.meter import Meter
from runtime.run.rescue import Rescue
from runtime.run.run import Run, start_run
from runtime.run.timetable import Timetable, last_iteration
from runtime.sizing import ModelSize, Trial, with_batch_size
from settings.loading import to_yaml
from settings.resnest import ResNeStConfig

ResNeStLearner = Learner[resnest.ResNeSt]


def main(flags: Flags, stop: StopSignals) -> None:
    """One run, from the flags to the closed files; or its ranks, one for each GPU."""
    flags.layout = torch.channels_last if flags.channels_last else torch.contiguous_format
    cfg = read_settings(flags)
    starts_ranks = flags.device in (None, "cuda") and not flags.predict
    gpus = torch.cuda.device_count() if starts_ranks else 0
    status = start_ranks(stop, max(1, gpus), flags.world_size, flags.rank, flags.dist_url)
    if status is not None:
        sys.exit(status)
    run = start_run(SCRIPT, flags.device, cfg.SEED, stop, flags.dist_backend, clock=True,
                    dist_timeout_s=flags.dist_timeout, tf32=flags.tf32, fixed_shapes=True)
    limit_threads(cfg.TRAINING.THREADS)
    with closing(run):
        cli.say_notes(flags, run.log)
        flags.export = check_export(flags.export, flags.export_format)
        applies = flags.eval_only or flags.export or flags.predict
        if applies and flags.pretrained and not flags.resume:
            flags.resume = str(resnest.find_weights_once(run, flags.pretrained, WEIGHTS))
        if flags.export:
            return export_network(flags, run, cfg)
        if flags.predict:
            return predict(flags, run, cfg)
        folders, _ = run.from_main(lambda: (imagenet.open_class_folders(
            with_drawn_scenes(cfg.DATA, PROJECT, "classes").ROOT, deep=flags.check_data,
            log=run.log, warn=run.warn, run_folder=flags.outdir), None))
        if flags.check_data:
            run.log(f"{cfg.DATA.ROOT}: {' and '.join(str(len(part)) for part in folders)} images "
                    f"of {len(folders[0].classes)} classes, no fault found.")
            return
        resnest.join_outputs(run, folders, resnest_series(flags.outdir, per_epoch=1), flags.resume,
                             flags.eval_only)
        cfg = resnest.fitted_to_batch(flags, run, cfg, lambda: Trial(
            build_data(flags, run, cfg, *folders)[0],
            lambda flags, run: build_network(flags, run, cfg, len(folders[0].classes)),
            lambda flags, run, built, data: backward(
                flags, run, cfg, built[0], built[1], built[2], data, 0), MIN_SHARE))
        run.describe(network=resnest.facts_of(cfg, folders[0].classes).plain(),
                     data=imagenet.data_facts(folders), **resnest.about(flags.config_file, cfg))
        data = build_data(flags, run, cfg, *folders)
        (evaluate_only if flags.eval_only else train)(flags, run, cfg, *data)


# --- settings, data, network


def read_settings(flags: Flags) -> ResNeStConfig:
    """The frozen config in force: file, then KEY VALUE pairs and --cfg-options, then flags."""
    if flags.export and not flags.export_format and flags.export.suffix not in PACKAGES:
        flags.export = flags.export.with_name(f"{flags.export.name}.pth")  # the original's prefix
    flags.options = cli.paired(flags.pairs) + (flags.cfg_options or [])
    overrides = with_batch_size(flags.options, "TRAINING.BATCH_SIZE", flags)
    cfg = resnest.with_flags(resnest.load_resnest_config(flags.config_file, overrides), flags)
    return replace(cfg, DATA=replace(cfg.DATA, ROOT=str(Path(cfg.DATA.ROOT).expanduser())))


def build_data(flags: Flags, run: Run, cfg: ResNeStConfig, *folders: ClassFolders
               ) -> tuple[ClassificationDataset, ResumableLoader, ClassificationDataset]:
    """(images to train on, batches of them, images to validate on); folders: train and val."""
    train_set, val_set = (
        ClassificationDataset(part, transform, train=part is folders[0], seed=cfg.SEED,
                              bad_images=flags.bad_images)
        for part, transform in zip(folders, imagenet.transforms_of(cfg.DATA), strict=True))
    loader = ResumableLoader(
        train_set, cfg.TRAINING.BATCH_SIZE * run.world_size, seed=cfg.SEED,
        workers=cfg.TRAINING.WORKERS, rank=run.rank, world_size=run.world_size,
        collate=collate_classes, min_last=MIN_SHARE, pin_memory=run.device.type == "cuda")
    return train_set, loader, val_set


def build_network(flags: Flags, run: Run, cfg: ResNeStConfig, num_classes: int
                  ) -> tuple[ResNeStLearner, torch.nn.Module, torch.nn.Module]:
    """(network and optimizer, the loss, the network as it is trained: compiled, wrapped)."""
    precision = Precision(flags.amp, run.device, run.warn)
    net = resnest.build_network(cfg, num_classes).to(run.device)
    net.to(memory_format=flags.layout)  # type: ignore[call-overload]  # torch lacks that one
    groups = resnest.param_groups(net, cfg.OPTIMIZER.WEIGHT_DECAY, cfg.OPTIMIZER.DISABLE_BN_WD)
    optimizer = torch.optim.SGD(groups, lr=cfg.OPTIMIZER.LR, momentum=cfg.OPTIMIZER.MOMENTUM)
    loss = NLLMultiLabelSmooth if cfg.DATA.mixes else LabelSmoothing
    step_net: Any = torch.compile(net) if flags.compile else net
    return Learner(net, optimizer, precision), loss(cfg.DATA.LABEL_SMOOTHING), run.wrap(step_net)


# --- training


def train(flags: Flags, run: Run, cfg: ResNeStConfig, train_set: ClassificationDataset,
          loader: ResumableLoader, val_set: ClassificationDataset) -> None:
    """Network, where to start, the run's files, and then the loop."""
    per_epoch = loader.steps_per_epoch(flags.accumulate)
    names = list(train_set.folders.classes)
    learner, criterion, step_net = build_network(flags, run, cfg, len(names))

    # where to start
    folder = Path(flags.outdir)
    if not flags.dry_run:
        run.claim(folder / ".lock")
    checkpoints, every = resnest.paced_series(flags, run, cfg, folder, per_epoch)
    # what a continuation must share with the run it continues, or its batches would differ
    identity = {"batch_size": cfg.TRAINING.BATCH_SIZE * run.world_size,
                "accumulate": flags.accumulate, "seed": cfg.SEED, "num_images": len(train_set),
                "num_classes": len(names), "classes": names, "data": train_set.folders.fingerprint}
    history, epochs = ClassHistory(flags.patience), cfg.TRAINING.EPOCHS
    learner, start, source = resnest.find_start(
        flags, run, cfg, checkpoints, learner, history, identity, per_epoch, WEIGHTS)
    stop_at = last_iteration(start, epochs * per_epoch, flags.max_iters, flags.dry_run)
    timetable = Timetable(
        start, stop_at, per_epoch, flags.log_every, checkpoints.due, logs_by_epoch=True,
        is_dry=flags.dry_run, validate_every=every, validate_after=1, validate_last=epochs,
        validate_end=True)

    # the run's files
    if not flags.dry_run:
        run.open_folder(folder, to_yaml(cfg), trackers=cli.trackers(flags), resume_from=None
                        if source is None else timetable.keeps_metrics_to(history.validated_at))
        if run.is_main:
            imagenet.save_class_samples(train_set, folder / "train_samples.png", PICTURED)

    def save(iteration: int, occasion: Occasion = Occasion.REGULAR) -> Path | None:
        """Rank 0 writes a checkpoint and returns its file; at the run's end the last two files."""
        if not run.is_main:
            return None
        # the original's dict, with the training state under keys of its own
        content = learner.state(iteration, per_epoch, world_size=run.world_size, identity=identity,
                                config=to_yaml(cfg), **history.pack())
        content["epoch"] = iteration // per_epoch - 1  # the last whole one, as the original counts
        content["state_dict"] = resnest.weights_of(learner.net, cfg, names)
        if occasion is Occasion.LAST:
            save_checkpoint(folder / "checkpoint_final.pth", content)
            save_checkpoint(folder / "model_weights.pth",
                            resnest.weights_of(learner.scored, cfg, names))
            return None
        return checkpoints.save(iteration, content, occasion=occasion)

    rescue = Rescue(run, learner.net, partial(save, occasion=Occasion.STOP), start, source,
                    is_dry=flags.dry_run)
    pictures = PicturesOfBest(lambda found, which: imagenet.save_findings(
        run, found, val_set, which))

    def validate(iteration: int) -> None:
        metrics, found = evaluate(flags, run, cfg, learner.scored, learner.precision, val_set,
                                  rescue)
        run.record_scores(iteration, timetable.epoch_of(iteration), metrics, found.by_class(names))
        if is_best := history.validated(iteration, metrics):
            save(iteration, Occasion.BEST)
        rescue.saved(iteration, save(iteration))  # with its scores
        pictures.validated(found, iteration, is_best, history.is_over or iteration == stop_at)
        draw_curves(run, CURVES, cfg.MODEL.NAME)
        learner.net.train()

    resnest.announce(run, cfg, flags.accumulate, learner.optimizer.param_groups)
    run.log(f"Begin training! Iterations {start} to {stop_at}, {per_epoch} an epoch, "
            f"{len(train_set)} images of {len(names)} classes.")
    with rescue.watching():
        if timetable.saves_at(start) and checkpoints.missed(start, source):
            rescue.saved(start, save(start))
        if source is not None and timetable.validates_at(start, history.validated_at):
            validate(start)  # stopped between an epoch's last update and its validation
        loop(flags, run, cfg, learner, criterion, step_net, loader, train_set, timetable, history,
             rescue, save, validate)


def loop(
    flags: Flags, run: Run, cfg: ResNeStConfig, learner: ResNeStLearner, criterion: torch.nn.Module,
    step_net: torch.nn.Module, loader: ResumableLoader, train_set: ClassificationDataset,
    timetable: Timetable, history: ClassHistory, rescue: Rescue,
    save: Callable[..., Path | None], validate: Callable[[int], None],
) -> None:
    """The updates of a session, with saves and validations, and the last of both."""
    net, optimizer, precision = learner.net, learner.optimizer, learner.precision
    guard = NonFiniteGuard(run, flags.nan, precision.is_scaled)
    images = cfg.TRAINING.BATCH_SIZE * run.world_size * flags.accumulate
    meter = Meter(run.device, images, flags.log_every, run.warn)
    lr_at = resnest.schedule(cfg, run.world_size, timetable.per_epoch)
    timetable = history.ends(timetable, timetable.start, run.log)
    start = timetable.start

    net.train()
    seconds = 0.0  # of this session's updates in the present epoch
    size = ModelSize(run, flags, learner, step_net, loader)
    meter.begin(run.log if flags.compile else None)
    updates = loader.steps(start, timetable.stop_at, flags.accumulate)
    with closing(updates), run.progress(timetable.stop_at, start) as progress:
        for step, epoch, batches in updates:
            meter.data_ready()
            lr = lr_at(step)
            set_lr(optimizer, lr)
            run.seed_step(step)  # dropout depends on seed, step and rank alone
            rescue.begins()

            own = backward(flags, run, cfg, learner, criterion, step_net, batches, step)
            norm = precision.grad_norm(optimizer)
            losses, grad_norm = run.read_means(own, norm)  # the loop's one wait
            top1 = losses.pop("top1", None)
            indices = (i for batch in batches for i in batch["indices"].tolist())
            names = map(train_set.folders.name, indices)
            if guard.allows_update(losses, own, names, step, grad_norm):
                rescue.changes()
                learner.update(flags.clip_grad, norm, grad_norm)
                history.add(losses["cross_entropy"], top1)
            else:
                rescue.undo()
                precision.skip()
            iteration = step + 1
            rescue.done(iteration)
            run.stop_as_read()

            meter.updated(losses)
            progress.update()
            run.skipped.in_training(step, batches)
            if timetable.logs_at(step):
                event = meter.train_event(step, epoch, lr, losses, grad_norm)
                run.record(event if top1 is None else event | {"top1": top1})
                run.log(history.line(step % timetable.per_epoch, top1 is None))
            seconds += meter.elapsed_s
            if timetable.ends_epoch(iteration) and not flags.dry_run:
                history.close_epoch(iteration)
                run.log(f"Epoch: {epoch}, Time cost: {seconds}")
                seconds = 0.0
            rescue.leave_if_stopped()
            if timetable.saves_at(iteration):
                rescue.saved(iteration, save(iteration))
                meter.restart_clock()
            if timetable.validates_now(iteration, history.validated_at):
                validate(iteration)
                meter.restart_clock()
                timetable = history.ends(timetable, iteration, run.log)
                if iteration == timetable.stop_at:
                    break
    if flags.dry_run:
        return size.tell_dry_run(meter)
    stop_at = timetable.stop_at
    rescue.saved(stop_at, save(stop_at))
    if timetable.validates_end(history.validated_at):
        validate(stop_at)  # after the save: a fault in it must not cost the last weights
    save(stop_at, Occasion.LAST)
    draw_curves(run, CURVES, cfg.MODEL.NAME)
    say_done(run, guard, [f"Done. Weights, log and metrics are in {run.folder}. "
                          f"Best Top1: {history.best:.3f}"])


def backward(
    flags: Flags, run: Run, cfg: ResNeStConfig, learner: ResNeStLearner, criterion: torch.nn.Module,
    step_net: torch.nn.Module, batches: list[dict[str, Any]], step: int,
) -> dict[str, torch.Tensor]:
    """Forward and backward of one update. Returns 0-d tensors: cross_entropy and, unless images
    are mixed, top1 in percent."""
    learner.optimizer.zero_grad(set_to_none=True)
    count = sum(len(batch["labels"]) for batch in batches)
    sums: dict[str, torch.Tensor] = {}
    for i, batch in enumerate(accumulated(step_net, batches)):
        images, labels = to_device([batch["images"], batch["labels"]], run.device, flags.layout)
        share = len(labels) / count  # an epoch's last batch may be a shorter one
        targets = labels
        if cfg.DATA.mixes:
            images, targets = mix(images, labels, learner.net.fc.out_features, cfg.DATA.MIXUP,
                                  cfg.DATA.CUTMIX, run.step_rng(step, i))
        with learner.precision.autocast():
            logits = step_net(images)
        loss = share * criterion(logits.float(), targets)
        learner.precision.scaler.scale(loss).backward()
        terms = {"cross_entropy": loss}
        if not cfg.DATA.mixes:
            terms["top1"] = 100.0 * share * (logits.argmax(1) == labels).float().mean()
        add_terms(sums, terms)
    return sums


# --- evaluation


def evaluate(
    flags: Flags, run: Run, cfg: ResNeStConfig, net: torch.nn.Module, precision: Precision,
    val_set: ClassificationDataset, rescue: Rescue,
) -> tuple[dict[str, float], ClassScores]:
    """(Top-1 and Top-5 in percent, each image counted once; what rank 0 found them from).

    After a stop signal the state is saved and Stopped raised.
    """
    size, count = cfg.TRAINING.TEST_BATCH_SIZE, len(val_set)
    chosen = whole_batches(count, size, run.rank, run.world_size)
    batches = ordered_batches(val_set, chosen, size, collate=collate_classes,
                              workers=cfg.TRAINING.WORKERS)
    found = ClassScores(len(val_set.folders.classes), PICTURED)
    run.share_buffers(net)  # each rank's BatchNorm statistics are of its own batches
    net.eval()
    with closing(batches), torch.no_grad():
        for batch in rescue.in_step(batches, count, size):
            run.skipped.in_validation(batch["skipped"])
            if not len(batch["labels"]):
                continue
            images = batch["images"].to(run.device, memory_format=flags.layout, non_blocking=True)
            with precision.autocast():
                logits = net(images)
            found.update(logits.float().cpu(), batch["labels"], batch["indices"])
    for other in (run.gather(found) or [])[1:]:
        found.merge(other)
    metrics = run.broadcast(found.top.compute())
    if run.is_main:
        write_json(run.folder / "metrics.json", metrics)
    run.log(f"Validation: Top1: {metrics['top1']:.3f} | Top5: {metrics['top5']:.3f}")
    return metrics, found


def evaluate_only(flags: Flags, run: Run, cfg: ResNeStConfig, train_set: ClassificationDataset,
                  loader: ResumableLoader, val_set: ClassificationDataset) -> None:
    """--eval-only: one evaluation, appended to the run folder's metrics, and metrics.json."""
    learner, _, _ = build_network(flags, run, cfg, len(train_set.folders.classes))
    per_epoch = loader.steps_per_epoch(flags.accumulate)
    net, iteration, facts = resnest.load_trained(
        flags, run, cfg, per_epoch, learner.net)
    facts.warn_of_others(val_set.folders.classes, run.warn)
    run.open_folder(flags.outdir, to_yaml(cfg), append=True, trackers=cli.trackers(flags))
    metrics, found = evaluate(flags, run, cfg, net, learner.precision, val_set,
                              Rescue(run, start=iteration))
    run.record_scores(iteration, None, metrics, found.by_class(val_set.folders.classes))
    draw_curves(run, CURVES, cfg.MODEL.NAME)
    imagenet.save_findings(run, found, val_set, f"iteration {iteration}")


def export_network(flags: Flags, run: Run, cfg: ResNeStConfig) -> None:
    """--export: the trained network, in the format that the file's name asks for, without data."""
    net, _, facts = resnest.load_trained(flags, run, cfg)
    resnest.export_trained(run, net, facts, flags.export)


def predict(flags: Flags, run: Run, cfg: ResNeStConfig) -> None:
    """--predict: the surest classes of images or of a video's frames, drawn, and as a table."""
    plan = plan_predictions(run, flags, flags.outdir)
    trained, _, facts = resnest.load_trained(flags, run, cfg,
                                             names=folder_names(cfg.DATA.ROOT))
    net = trained.to(run.device).to(memory_format=flags.layout).eval()  # type: ignore[call-overload]
    precision = Precision(flags.amp, run.device, run.warn)

    def forward(samples: list[dict[str, Any]]) -> torch.Tensor:
        with precision.autocast():
            return net(stacked(samples, run.device, flags.layout))

    def finish(logits: torch.Tensor, samples: list[dict[str, Any]]) -> list[Found]:
        return surest_classes(logits.float().softmax(1), flags.top_k, flags.score_threshold)

    photos = Photos(plan, RGB, partial(as_sample, transform=imagenet.transforms_of(cfg.DATA)[1]))
    predict_all(run, plan, photos, cfg.TRAINING.TEST_BATCH_SIZE, cfg.TRAINING.WORKERS, forward,
                finish, ClassResults(facts.names(), run.log))


if __name__ == "__main__":
    cli.run(main, SCRIPT, FLAGS, STOP, memory_keys="TRAINING.BATCH_SIZE")
