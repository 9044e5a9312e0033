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

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from runtime import cli
from runtime.cli import Flags, flag
from runtime.launch.signals import StopSignals

SCRIPT = "train_seg"
PROJECT = Path(__file__).resolve().parent
DEFAULT_GPUS = "0-3"
PRETRAINED = ("pretrained", "weights", PROJECT / "weights")  # the original's place comes first
EVAL_WORKERS = 5  # the original's
PICTURED = 6  # images in the grid of predictions
CURVES = ("mean_iou", "pixel_accuracy")  # scores that are drawn


@cli.with_shared("predict", "score_threshold", "top_k", "export_detections")
def flags(
    # --- the originals': train.py, eval.py, eval_multipro.py and test.py
    opts: cli.Pairs = None,
    cfg: Annotated[str, flag("--cfg", "Config file, or the name of one in configs/seg")]
    = "config/ade20k-resnet50dilated-ppm_deepsup.yaml",
    gpus: Annotated[str, flag("--gpus --gpu", "GPUs of one process: 0-3, 0,2, gpu1-gpu2, cpu")]
    = DEFAULT_GPUS,
    predict: Annotated[str | None, flag(
        "--predict --imgs", "Image, folder, 'pattern*', video, or - for a list on stdin: what the "
        "network finds there, as pictures and label maps.", metavar="PATH")] = None,
    # --- additions
    resume: Annotated[str | None, flag("--resume", "go on from", metavar=cli.RESUME,
                                       rich_help_panel=cli.ADDITIONS)] = None,
) -> None:
    """Train, evaluate or apply semantic segmentation networks."""


if __name__ == "__main__":
    FLAGS = cli.read_flags(flags, SCRIPT)  # --help and misspelt flags end here, before torch
    STOP = StopSignals(max_hours=FLAGS.max_hours)  # a signal lets an update finish from here on

import torch

from common import parallel
from common.checkpoint.forms import NETS
from common.checkpoint.series import Occasion, seg_series
from common.optim import Learner, Precision, accumulated, add_terms, trained_average
from common.optim.steps import Optimizers
from common.schedulers import poly
from data import segmentation
from data.drawn.shapes import with_drawn_scenes
from data.loading import ResumableLoader, ordered_batches
from data.predicting import Photos
from data.segmentation import pictures
from data.segmentation.predicting import LABEL_MAPS, LabelMaps, photo_item, reader_of
from metrics.segmentation import SegmentationScores
from models import segmentation as models
from models.export import check_export
from runtime.files import write_text
from runtime.launch.gpus import pick_gpus
from runtime.predicting import plan_predictions, predict_all
from runtime.run.ending import PicturesOfBest, draw_curves, say_done
from runtime.run.guard import NonFiniteGuard
from runtime.run.meter import Meter
from runtime.run.rescue import Rescue
from runtime.run.run import Run, start_run
from runtime.run.scores import Scores
from runtime.run.seg_history import SegHistory
from runtime.run.timetable import Timetable, last_iteration
from runtime.sizing import ModelSize, Trial, with_batch_size
from settings.loading import to_yaml
from settings.segmentation import SegConfig

SegLearner = Learner[models.SegmentationModule]
Lists = dict[str, segmentation.SegList]  # of the parts that are needed: "train", "val"


def main(flags: Flags, stop: StopSignals) -> None:
    """One run, from the flags to the closed files."""
    flags.trains = not (flags.eval_only or flags.export or flags.predict)
    flags.layout = torch.channels_last if flags.channels_last else torch.contiguous_format
    cfg = read_settings(flags)
    device, flags.gpu_numbers = pick_gpus(flags.gpus, DEFAULT_GPUS, flags.device)
    run = start_run(SCRIPT, device, cfg.TRAIN.seed, stop, dist_timeout_s=flags.dist_timeout,
                    tf32=flags.tf32)
    with closing(run):
        cli.say_notes(flags, run.log)
        flags.export = check_export(flags.export, flags.export_format)
        if flags.predict:
            return predict(flags, run, cfg)
        parts = ["train"] if flags.trains else []
        if flags.eval_only or flags.check_data or (flags.trains and cfg.VAL.interval):
            parts.append("val")
        (dataset, lists), _ = run.from_main(lambda: (segmentation.open_lists(
            with_drawn_scenes(cfg.DATASET, PROJECT, "ade"), parts, cfg.DIR, run.log,
            deep=flags.check_data, bad_images=flags.bad_images, warn=run.warn), None))
        if not flags.check_data:
            cfg = models.fitted_to_batch(flags, run, replace(cfg, DATASET=dataset), lambda: Trial(
                segmentation.TrainBatches.one_by_one(lists["train"], dataset),
                lambda flags, run: build_training(flags, run, cfg, 1),
                lambda flags, run, built, data: backward(
                    flags, run, built[0], built[1], built[2], [data], 0), least=2))
            run.describe(network=models.facts_of(cfg).plain(), **models.about(flags.cfg, cfg),
                         data=segmentation.data_facts(lists))
            (train if flags.trains else use_trained)(flags, run, cfg, lists)


def read_settings(flags: Flags) -> SegConfig:
    """The frozen config: file < KEY VALUE pairs < --cfg-options < flags."""
    options = cli.paired(flags.opts) + (flags.cfg_options or [])
    # a checkpoint that the command line names is what is meant, whatever is newer or better
    flags.named = {option.partition("=")[0].strip() for option in options}
    cfg = models.load_seg_config(
        flags.cfg, with_batch_size(options, "TRAIN.batch_size_per_gpu", flags))
    return models.with_flags(cfg, flags)


def build_training(flags: Flags, run: Run, cfg: SegConfig, num_devices: int
                   ) -> tuple[SegLearner, models.NormMomentum, torch.nn.Module]:
    """(networks and optimizers, what sets the norms' momentum, the wrapped training step)."""
    settings = cfg.TRAIN
    precision = Precision(flags.amp, run.device, run.warn)
    module = models.build_module(cfg, run.device, flags.layout)
    parallel.check_one_process(len(flags.gpu_numbers), flags.compile)
    is_synchronised = run.world_size > 1 and settings.sync_bn and not settings.fix_bn
    if is_synchronised:
        module = models.synchronise_norms(module, run.device)
    models.check_batch(cfg.MODEL.arch_decoder, settings, is_synchronised)
    norms = models.NormMomentum(module, cfg.MODEL.bn_momentum, models.is_corrected(
        settings.bn_average, num_devices, flags.compile))
    optimizers = Optimizers({
        net: torch.optim.SGD(models.group_weight(getattr(module, net)), lr=lr,
                             momentum=settings.beta1, weight_decay=settings.weight_decay)
        for net, lr in zip(NETS, (settings.lr_encoder, settings.lr_decoder), strict=True)})
    step_net: torch.nn.Module = models.TrainingStep(module)
    if flags.compile:  # nearly every batch has its own size
        step_net.compile(dynamic=True)
    if len(flags.gpu_numbers) > 1:
        step_net = parallel.UserScatteredDataParallel(step_net, flags.gpu_numbers)
    return Learner(module, optimizers, precision), norms, run.wrap(step_net)


def train(flags: Flags, run: Run, cfg: SegConfig, lists: Lists) -> None:
    """Data, networks, where to start, the run's files, and then the loop."""
    settings, folder, per_epoch = cfg.TRAIN, Path(cfg.DIR), cfg.TRAIN.epoch_iters
    num_devices = max(run.world_size, len(flags.gpu_numbers), 1)
    learner, norms, step_net = build_training(flags, run, cfg, num_devices)
    batches = segmentation.TrainBatches(
        lists["train"], cfg.DATASET, batch_size=settings.batch_size_per_gpu,
        batches_per_epoch=per_epoch * flags.accumulate * num_devices,
        seed=settings.seed, bad_images=flags.bad_images)
    loader = ResumableLoader(
        batches, num_devices, seed=settings.seed, workers=settings.workers, rank=run.rank,
        world_size=run.world_size, collate=parallel.user_scattered_collate, shuffle=False,
        pin_memory=run.device.type == "cuda")

    # where to start
    if not flags.dry_run:
        run.claim(folder / ".lock")
    checkpoints = seg_series(folder, per_epoch, flags.save_every, run.writer)
    # what a continuation must share with the run it continues, or its batches would differ
    identity = {"batch_size_per_gpu": settings.batch_size_per_gpu, "devices": num_devices,
                "accumulate": flags.accumulate, "epoch_iters": per_epoch,
                "seed": settings.seed, "num_images": len(lists["train"]),
                "num_class": cfg.DATASET.num_class, "data": lists["train"].fingerprint,
                "classes": list(models.facts_of(cfg).classes)}
    scores = Scores("mean_iou", flags.patience)
    history = SegHistory(per_epoch, settings.disp_iter)
    learner, start, source = models.find_start(
        flags, run, cfg, checkpoints, learner, scores, history, identity, PRETRAINED)
    stop_at = last_iteration(start, per_epoch * settings.num_epoch, flags.max_iters, flags.dry_run)
    timetable = Timetable(
        start, stop_at, per_epoch, flags.log_every or settings.disp_iter,
        checkpoints.due, validate_every=cfg.VAL.interval, validate_end="val" in lists,
        logs_by_epoch=True, is_dry=flags.dry_run)

    # the run's files
    if not flags.dry_run:
        run.open_folder(cfg.DIR, to_yaml(cfg), timetable.keeps_metrics_to(scores.validated_at),
                        trackers=cli.trackers(flags))
        segmentation.cache_made_lists(run, lists)
        if run.is_main:
            pictures.save_training_grid(batches, cfg.DATASET, folder / "train_samples.png")
    images = settings.batch_size_per_gpu * num_devices * flags.accumulate
    meter = Meter(run.device, images, settings.disp_iter, run.warn)
    run.log(f"1 Epoch = {per_epoch} iters\n"
            f"Iterations {start} to {stop_at}, {images} images each on {num_devices} x "
            f"{run.device.type}; lr {settings.lr_encoder} / {settings.lr_decoder}, not scaled")

    def save(iteration: int, occasion: Occasion = Occasion.REGULAR) -> Path | None:
        """Rank 0 writes weights, state and an epoch's history; returns the encoder's file."""
        if not run.is_main:
            return None
        if occasion in (Occasion.REGULAR, Occasion.LAST):
            run.log("Saving checkpoints...")
        net = learner.scored if occasion is Occasion.BEST else learner.net
        weights = models.weights_of(net, cfg)
        state = learner.state(
            iteration, per_epoch, world_size=run.world_size, identity=identity,
            config=to_yaml(cfg), **scores.pack(), **history.pack())
        return checkpoints.save(iteration, weights, state, occasion, history=history.curves)

    rescue = Rescue(run, learner.net, partial(save, occasion=Occasion.STOP), start, source,
                    is_dry=flags.dry_run)
    drawn = PicturesOfBest(partial(pictures.save_findings, run))

    def validate(iteration: int, occasion: Occasion = Occasion.REGULAR) -> None:
        metrics, found = evaluate(flags, run, cfg, learner.scored, learner.precision,
                                  lists["val"], rescue, table=occasion is Occasion.LAST)
        run.record_scores(iteration, timetable.epoch_of(iteration), metrics, found.by_class())
        if is_best := scores.validated(iteration, metrics):
            save(iteration, Occasion.BEST)
        if iteration > start or history.is_resumed or occasion is Occasion.LAST:
            rescue.saved(iteration, save(iteration, occasion))  # with the score
        drawn.validated(found, iteration, is_best, scores.is_over or iteration == stop_at)
        draw_curves(run, CURVES, folder.name)

    with rescue.watching():
        if timetable.saves_at(start) and checkpoints.missed(start, source):
            rescue.saved(start, save(start))
        loop(flags, run, cfg, learner, norms, step_net, loader, timetable, meter, scores, history,
             rescue, save, validate)


def loop(
    flags: Flags, run: Run, cfg: SegConfig, learner: SegLearner, norms: models.NormMomentum,
    step_net: torch.nn.Module, loader: ResumableLoader, timetable: Timetable, meter: Meter,
    scores: Scores, history: SegHistory, rescue: Rescue, save: Callable[..., Path | None],
    validate: Callable[..., None],
) -> None:
    """The updates of a session, with saves and validations, and the last of both."""
    settings, optimizers, precision = cfg.TRAIN, learner.optimizer, learner.precision
    start = timetable.start
    guard = NonFiniteGuard(run, flags.nan, precision.is_scaled)
    lr_at = {net: poly(lr, settings.epoch_iters * settings.num_epoch, settings.lr_pow)
             for net, lr in zip(NETS, (settings.lr_encoder, settings.lr_decoder), strict=True)}

    if timetable.validates_at(start, scores.validated_at):
        validate(start)  # stopped between an epoch's last update and its validation
    timetable = scores.ends(timetable, start, run.log)
    # parity: fix_bn stops dropout as well [segmentation.md: Training loop]
    learner.net.train(not settings.fix_bn)
    size = ModelSize(run, flags, learner, step_net, loader)
    meter.begin(run.log if flags.compile else None)
    updates = loader.steps(start, timetable.stop_at, flags.accumulate)
    with closing(updates), run.progress(timetable.stop_at, start) as progress:
        for step, epoch, batches in updates:
            meter.data_ready()
            lrs = {net: lr_at[net](step) for net in NETS}
            optimizers.set_lr(lrs)
            run.seed_step(step)  # dropout depends on seed, step and rank alone
            rescue.begins()

            own_terms = backward(flags, run, learner, norms, step_net, batches, step)
            norm = precision.grad_norm(optimizers)
            losses, grad_norm = run.read_means(own_terms, norm)  # the loop's one wait
            accuracy = losses.pop("accuracy")
            names = segmentation.image_names(batches)
            if guard.allows_update(losses, own_terms, names, step, grad_norm):
                rescue.changes()
                learner.update(flags.clip_grad, norm, grad_norm)
            else:
                rescue.undo()
                precision.skip()
            iteration = step + 1
            rescue.done(iteration)
            run.stop_as_read()

            meter.updated(losses)
            progress.update()
            run.skipped.in_training(step, [piece for batch in batches for piece in batch])
            history.updated(step, sum(losses.values()), accuracy, meter)
            if timetable.logs_at(step):
                run.record(meter.train_event(step, epoch, lrs["encoder"], losses, grad_norm)
                           | {"lr_decoder": lrs["decoder"], "accuracy": accuracy})
                run.log(history.line(step, lrs))
            rescue.leave_if_stopped()
            if timetable.saves_at(iteration):
                rescue.saved(iteration, save(iteration))
                meter.restart_clock()
            if timetable.validates_now(iteration, scores.validated_at):
                validate(iteration)
                meter.restart_clock()
                timetable = scores.ends(timetable, iteration, run.log)
                if iteration == timetable.stop_at:
                    break
    if flags.dry_run:
        return size.tell_dry_run(meter)
    stop_at = timetable.stop_at
    rescue.saved(stop_at, save(stop_at, Occasion.LAST))
    if timetable.validates_end(scores.validated_at):
        validate(stop_at, Occasion.LAST)  # after the save: a fault must not cost the weights
    draw_curves(run, CURVES, run.folder.name)
    lines = [f"Training Done!\nWeights, log and metrics are in {cfg.DIR}."]
    if scores.metrics:
        lines += [f"mean IoU {scores.metrics['mean_iou']:.2f}"]
    say_done(run, guard, lines)


def backward(
    flags: Flags, run: Run, learner: SegLearner, norms: models.NormMomentum,
    step_net: torch.nn.Module, batches: list[list[dict[str, Any]]], step: int,
) -> dict[str, torch.Tensor]:
    """Forward and backward of one update. Returns its terms {name: 0-d tensor}.

    batches: each a list with one batch for each device of this process
    """
    learner.optimizer.zero_grad()
    sums: dict[str, torch.Tensor] = {}
    for i, pieces in enumerate(accumulated(step_net, batches)):
        norms.set(step * len(batches) + i)
        feeds = [{key: piece[key] for key in ("img_data", "seg_label")} for piece in pieces]
        scatters = isinstance(step_net, parallel.UserScatteredDataParallel)
        if not scatters:  # which copies each GPU's own part
            feeds = parallel.to_device(feeds, run.device, flags.layout)
        with learner.precision.autocast():
            terms = step_net(feeds if scatters else feeds[0])
        terms = {name: value.mean() / len(batches) for name, value in terms.items()}
        loss = sum(value for name, value in terms.items() if name != "accuracy")
        learner.precision.scaler.scale(loss).backward()
        add_terms(sums, terms)
    return sums


def evaluate(
    flags: Flags, run: Run, cfg: SegConfig, module: models.SegmentationModule, precision: Precision,
    records: segmentation.SegList, rescue: Rescue, table: bool = True, visualize: bool = False,
) -> tuple[dict[str, float], SegmentationScores]:
    """(scores over the validation images, the same on every rank; what rank 0 found them from).

    table:     print the line of each class, too
    visualize: write each image's picture
    """
    dataset, folder = cfg.DATASET, Path(cfg.DIR)
    found = SegmentationScores(pictures.class_names(dataset), len(records), PICTURED)
    for item in scored_items(flags, run, cfg, module, precision, records, rescue):
        triple = item["img_ori"], item["seg_label"][0].numpy(), item["prediction"]
        found.update(item["number"], item["info"], triple, item["seconds"])
        if visualize:
            pictures.save_beside(item["info"], folder / "result", dataset.num_class, *triple)
    for other in (run.gather(found) or [])[1:]:
        found.merge(other)
    if run.is_main:
        if table:
            run.log("\n".join(found.meter.table()))
        write_text(folder / "classes.txt", "\n".join(found.meter.table(found.names)) + "\n")
        run.log(found.meter.summary(found.seconds if run.world_size == 1 else []))
    return run.broadcast(found.meter.compute() if run.is_main else None), found


def scored_items(
    flags: Flags, run: Run, cfg: SegConfig, module: models.SegmentationModule,
    precision: Precision, records: Any, rescue: Rescue,
) -> Iterator[dict[str, Any]]:
    """This rank's share of `records`: `eval_item`'s dict with the `prediction` [h, w] over all
    scales, the record's `number`, and the `seconds` that the networks took.
    """
    run.share_buffers(module)  # each rank's BatchNorm statistics are of its own batches
    own = range(run.rank, len(records), run.world_size)
    items = ordered_batches(
        segmentation.EvalItems(records, cfg.DATASET, flags.bad_images), own, 1,
        collate=parallel.user_scattered_collate, workers=min(EVAL_WORKERS, cfg.TRAIN.workers))
    with closing(items), models.scoring(module):
        for i, (item,) in enumerate(rescue.in_step(items, len(records), 1)):
            if "skipped" in item:
                run.skipped.in_validation(item["skipped"])
                continue
            begin = time.perf_counter()
            images = parallel.to_device(item.pop("img_data"), run.device)
            with precision.autocast():
                scores = models.average_scores(module, images, item["img_ori"].shape[:2])
            prediction = pictures.as_classes(scores)
            yield {**item, "prediction": prediction, "number": own[i],
                   "seconds": time.perf_counter() - begin}


def use_trained(flags: Flags, run: Run, cfg: SegConfig, lists: Lists) -> None:
    """--eval-only, appended to the run folder's metrics, or --export."""
    module = models.build_module(cfg, run.device, flags.layout)
    checkpoints = seg_series(cfg.DIR, cfg.TRAIN.epoch_iters)
    # a checkpoint that the command line names is what is meant, whatever is better or newer
    found = checkpoints.find_trained(flags.resume or flags.pretrained, run.warn, cfg.VAL.checkpoint,
                                     "VAL.checkpoint" in flags.named)
    name = models.load_both(module, found.weights, found.path)
    iteration = checkpoints.iteration_of(found)
    module = trained_average(module, found.state)
    run.log(f"Loaded {name}, iteration {iteration}.")
    facts = models.said_in(found.weights, cfg)
    if flags.export:
        models.export_trained(run, module, facts, flags.export)
        return
    rescue = Rescue(run, start=iteration)
    how = (flags, run, cfg, module, Precision(flags.amp, run.device, run.warn))
    facts.warn_of_size(models.facts_of(cfg), run.warn)
    facts.warn_of_others(cfg.DATASET.class_names, run.warn)
    run.open_folder(cfg.DIR, to_yaml(cfg), append=True, trackers=cli.trackers(flags))
    segmentation.cache_made_lists(run, lists)
    metrics, seen = evaluate(*how, lists["val"], rescue, visualize=cfg.VAL.visualize)
    run.record_scores(iteration, None, metrics, seen.by_class())
    pictures.save_findings(run, seen, f"{name}, iteration {iteration}")
    run.log("Evaluation Done!")


def predict(flags: Flags, run: Run, cfg: SegConfig) -> None:
    """--predict: the classes of images' or of a video's pixels, as pictures and label maps."""
    # differs: test.py puts pictures into the present folder [segmentation.md: Pictures]
    # Way back: TEST.result ./ on the command line.
    named = "TEST.result" in flags.named or cfg.TEST.result != SegConfig().TEST.result
    plan = plan_predictions(run, flags, cfg.DIR, pictures.picture_name, (LABEL_MAPS,),
                            cfg.TEST.result if named else None)
    module, cfg = models.predicting_module(flags, run, cfg)
    precision, dataset = Precision(flags.amp, run.device, run.warn), cfg.DATASET

    def forward(samples: list[dict[str, Any]]) -> list[torch.Tensor]:
        with precision.autocast():
            return [models.average_scores(
                module, parallel.to_device(each["img_data"], run.device), each["size"])
                for each in samples]

    def finish(scores: list[torch.Tensor], samples: list[dict[str, Any]]) -> list[Any]:
        return list(map(pictures.as_classes, scores))

    photos = Photos(plan, reader_of(dataset), partial(photo_item, dataset_cfg=dataset))
    with models.scoring(module):
        predict_all(run, plan, photos, 1, min(EVAL_WORKERS, cfg.TRAIN.workers), forward, finish,
                    LabelMaps(dataset, run.log))
    run.log("Inference done!")


if __name__ == "__main__":
    cli.run(main, SCRIPT, FLAGS, STOP, memory_keys="TRAIN.batch_size_per_gpu")
