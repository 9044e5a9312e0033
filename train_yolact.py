"""Train YOLACT and YOLACT++ (real-time instance segmentation) on any COCO-format data.

    python train_yolact.py --config yolact_shapes                   # CPU; draws its own scenes
    python train_yolact.py --config yolact_base --batch_size 8      # one GPU, or all of them
    torchrun --nproc_per_node 4 train_yolact.py --batch_size 32     # one process per GPU
    python train_yolact.py --config yolact_resnet50 --resume latest # carry on after any stop
    python train_yolact.py --eval-only --resume weights/FILE.pth    # or --predict photos/

Data: data/coco/images, data/coco/annotations/instances_{train,val}2017.json, or your own files by
--cfg-options dataset.train_images=DIR dataset.train_info=FILE.json, valid_* likewise; classes and
label map then come from the file. Weights go to weights/, log, metrics and pictures to logs/NAME/.
Mask mAP to expect on COCO test-dev: yolact_resnet50 28.2, base 29.8, im700 31.2, plus_base 34.6.
"""

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from runtime import cli
from runtime.cli import Flags, flag
from runtime.launch.signals import StopSignals

SCRIPT = "train_yolact"
PROJECT = Path(__file__).resolve().parent
AVERAGED = 100  # iterations behind the means of a console line, as the original
EVAL_BATCH = 8  # images per forward pass of an evaluation
CACHE = "cache"  # in the run folder: annotation indexes, mapped into memory at the next start
PICTURED = 9  # images in each grid
CURVES = ("mask/all", "mask/50", "box/all", "box/50")  # scores that are drawn


@cli.with_shared("workers", "score_threshold", "batch_size", seed=0, log_every=10)
def flags(
    # --- the original's training flags; names, defaults and meaning are its own
    config: Annotated[str | None, flag("--config", "Config name, YAML file or NAME.copy({...}); "
                                       "else the --resume file's own, else yolact_base")] = None,
    dataset: Annotated[str | None, flag("--dataset", "data set name, over the config's")] = None,
    batch_size: Annotated[str, flag("--batch_size", "images a batch, over all GPUs; auto: what "
                                    "fits", metavar="N|auto", callback=cli.batch_size)] = "8",
    lr: Annotated[float | None, flag("--lr --learning_rate", "base rate, as is", min=0)] = None,
    momentum: Annotated[float | None, flag("--momentum", "of SGD", min=0)] = None,
    decay: Annotated[float | None, flag("--decay --weight_decay", "weight decay", min=0)] = None,
    gamma: Annotated[float | None, flag("--gamma", "lr factor at each step", min=0)] = None,
    resume: Annotated[str | None, flag("--resume", "go on from", metavar=cli.RESUME)] = None,
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
    score_threshold: Annotated[float, flag("--score_threshold", "drop scores up to; 0: predictions "
                                           "are drawn from 0.3 on", min=0)] = 0.0,
    output_coco_json: Annotated[bool, flag("--output_coco_json", "write what is found")] = False,
    bbox_det_file: Annotated[str, flag("--bbox_det_file", "path")] = "results/bbox_detections.json",
    mask_det_file: Annotated[str, flag("--mask_det_file", "path")] = "results/mask_detections.json",
    # --- additions
    loss_norm: Annotated[str, flag("--loss_norm", "whose positives divide the losses: each "
                                   "process's own, or all", metavar="rank|global",
                                   callback=cli.one_of("rank", "global"),
                                   rich_help_panel=cli.ADDITIONS)] = "rank",
) -> None:
    """Train YOLACT or YOLACT++ on COCO-format instance masks."""


if __name__ == "__main__":
    FLAGS = cli.read_flags(flags, SCRIPT)  # --help and misspelt flags end here, before torch
    STOP = StopSignals(max_hours=FLAGS.max_hours)  # a signal lets an update finish from here on

import torch

from common.checkpoint.series import Occasion, yolact_series
from common.losses import MultiBoxLoss, NetLoss
from common.optim import Precision, accumulated, add_terms, set_lr
from common.optim.learner import Learner, trained_average
from common.parallel import CustomDataParallel, check_one_process, parse_batch_alloc, to_device
from data.coco_format import CocoIndex, keep_indexes, open_coco, share_indexes
from data.coco_format.summary import show_checked
from data.drawn.shapes import with_drawn_scenes
from data.loading import ResumableLoader, ordered_batches
from data.predicting import BGR, Photos, stacked
from data.predicting.findings import classes_of, save_findings
from data.predicting.instances import InstanceResults, compact
from data.yolact import INPUTS, InstanceDataset, collate_instances, save_samples
from data.yolact.transform import YolactTransform
from metrics.coco import CocoEvaluator, format_table, score_lines
from metrics.instances import SHOWN_SCORE, InstanceScores
from models import yolact
from models.export import check_export
from runtime.predicting import plan_predictions, predict_all
from runtime.run.ending import PicturesOfBest, draw_curves, say_done
from runtime.run.guard import NonFiniteGuard
from runtime.run.meter import Meter
from runtime.run.rescue import Rescue
from runtime.run.run import Run, start_run
from runtime.run.scores import Scores
from runtime.run.timetable import Timetable, last_iteration
from runtime.run.yolact_log import LEGEND, SessionLog, console_line, open_session_log
from runtime.sizing import ModelSize, Trial
from settings.loading import to_yaml
from settings.yolact import YolactConfig

YolactLearner = Learner[yolact.Yolact]
Indexes = dict[str, CocoIndex]  # annotations of the parts that are needed: "train", "valid"


def main(flags: Flags, stop: StopSignals) -> None:
    """One run, from the flags to the closed files."""
    flags.cfg_options = flags.cfg_options or []
    flags.trains = not (flags.eval_only or flags.export or flags.predict)
    flags.layout = torch.channels_last if flags.channels_last else torch.contiguous_format
    device = flags.device or (None if flags.cuda else "cpu")
    run = start_run(SCRIPT, device, flags.seed, stop, dist_timeout_s=flags.dist_timeout,
                    tf32=flags.tf32, fixed_shapes=True)
    with closing(run):
        yolact.limit_workers(flags, run.log)
        flags.export = check_export(flags.export, flags.export_format, flags.export_detections)
        cfg, own_indexes = run.from_main(lambda: read_settings(flags, run))
        folder = Path(flags.log_folder) / str(cfg.name)
        if flags.predict:
            return predict(flags, run, cfg, folder)
        if flags.check_data:
            images = cfg.dataset.train_images, cfg.dataset.valid_images
            return show_checked(run, own_indexes, images, folder,
                                lambda boxes: yolact.objects_without_prior(cfg, boxes))
        indexes = share_indexes(run, cfg.dataset, own_indexes)
        check_one_process(run.own_devices(flags.device), flags.compile)
        cfg = yolact.fitted_to_batch(flags, run, cfg, lambda: Trial(
            open_part(flags, cfg, indexes, "train"),
            lambda flags, run: build_network(flags, run, cfg, None),
            lambda flags, run, built, data: backward(flags, run, built[0], built[2], data)))
        run.describe(network=yolact.facts_of(cfg).plain(), **yolact.about(flags.config, cfg))
        (train if flags.trains else use_trained)(flags, run, cfg, folder, indexes)


def read_settings(flags: Flags, run: Run) -> tuple[YolactConfig, Indexes]:
    """The frozen config in force and the checked annotation indexes.

    Order of the original: config, --dataset, autoscale, flags; the data's own classes come between.
    """
    cfg = yolact.load_fitting_config(flags.config, flags.resume, flags.cfg_options, run.log)
    cfg = yolact.with_flags(cfg, flags, run.log)
    dataset = yolact.load_dataset_config(flags.dataset) if flags.dataset else cfg.dataset
    if flags.predict:  # no data set is needed for it
        return replace(cfg, dataset=dataset), {}
    dataset = with_drawn_scenes(dataset, PROJECT, "coco")
    own_data = any(option.startswith("dataset.train_info=") for option in flags.cfg_options)
    # the training file is also where the classes are, when the config does not name them
    parts = ["train"] if flags.trains or own_data or not dataset.class_names else []
    if flags.eval_only or flags.check_data or (flags.trains and flags.validation_epoch > 0):
        parts.append("valid")
    cache = Path(flags.log_folder) / str(cfg.name) / CACHE
    dataset, indexes = open_coco(
        dataset, parts, own_data=own_data, deep=flags.check_data, run=run,
        cache_folder=None if flags.dry_run or flags.check_data else cache)
    cfg = replace(cfg, dataset=dataset, num_classes=len(dataset.class_names) + 1)
    return cfg, indexes


def open_part(flags: Flags, cfg: YolactConfig, indexes: Indexes, part: str) -> InstanceDataset:
    """The images of "train", which are augmented, or "valid"."""
    images = cfg.dataset.train_images if part == "train" else cfg.dataset.valid_images
    return InstanceDataset(
        indexes[part], images, cfg, train=part == "train", seed=flags.seed,
        bad_images=flags.bad_images, include_empty=cfg.dataset.include_empty,
        trained=indexes.get("train"))


def build_network(flags: Flags, run: Run, cfg: YolactConfig, shares: list[int] | None
                  ) -> tuple[YolactLearner, MultiBoxLoss, torch.nn.Module]:
    """(network and optimizer, the loss, both as the module that is trained: compiled, wrapped)."""
    precision = Precision(flags.amp, run.device, run.warn)
    net = yolact.build_yolact(cfg).to(run.device).to(memory_format=flags.layout)
    optimizer = torch.optim.SGD(net.parameters(), lr=cfg.lr, momentum=cfg.momentum,
                                weight_decay=cfg.decay)
    criterion = MultiBoxLoss(cfg, flags.loss_norm)
    step_net = run.wrap(NetLoss(torch.compile(net) if flags.compile else net, criterion))
    if run.own_devices(flags.device) > 1:
        step_net = CustomDataParallel(step_net, batch_alloc=shares)
    return Learner(net, optimizer, precision), criterion, step_net


def train(flags: Flags, run: Run, cfg: YolactConfig, folder: Path, indexes: Indexes) -> None:
    """Data, network, where to start, the run's files, and then the loop."""
    # data and network
    shares = parse_batch_alloc(flags.batch_alloc, run.num_devices(flags.device), flags.batch_size)
    train_set = open_part(flags, cfg, indexes, "train")
    valid_set = open_part(flags, cfg, indexes, "valid") if "valid" in indexes else None
    learner, criterion, step_net = build_network(flags, run, cfg, shares)
    loader = ResumableLoader(
        train_set, flags.batch_size, seed=flags.seed, workers=flags.num_workers, rank=run.rank,
        world_size=run.world_size, shares=shares if run.world_size > 1 else None,
        collate=partial(collate_instances, match=yolact.matching(learner.net)),
        pin_memory=run.device.type == "cuda")
    cfg, per_epoch = yolact.with_epochs(flags, run, loader, learner.net, criterion)

    # where to start
    if not flags.dry_run:
        run.claim(folder / ".lock", Path(flags.save_folder) / f".{cfg.name}.lock")
    checkpoints = yolact_series(
        flags.save_folder, str(cfg.name), flags.save_interval, flags.save_every, flags.keep_latest,
        flags.keep_latest_interval, run.log, per_epoch=per_epoch, writer=run.writer)
    # what a continuation must share with the run it continues, or its batches would differ
    identity = {"batch_size": flags.batch_size, "accumulate": flags.accumulate,
                "seed": flags.seed, "num_images": len(train_set), "num_classes": cfg.num_classes,
                "data": indexes["train"].fingerprint, "classes": list(cfg.dataset.class_names)}
    scores, session_log = Scores("mask/all", flags.patience), SessionLog()
    learner, start, source = yolact.find_start(flags, run, checkpoints, learner, scores, identity)
    stop_at = last_iteration(start, cfg.max_iter, flags.max_iters, flags.dry_run)
    timetable = Timetable(  # parity: none after the first epoch [yolact.md: Training loop]
        start, stop_at, per_epoch, flags.log_every, checkpoints.due, is_dry=flags.dry_run,
        validate_every=yolact.epochs_between_validations(cfg, flags, per_epoch, run.log),
        validate_after=1, validate_from=2, validate_end=valid_set is not None)

    # the run's files
    if not flags.dry_run:
        run.open_folder(folder, to_yaml(cfg), timetable.keeps_metrics_to(scores.validated_at),
                        trackers=cli.trackers(flags))
        keep_indexes(run, indexes, folder / CACHE)
        if run.is_main:
            save_samples(train_set, cfg, folder / "train_samples.png", PICTURED)
            session_log = open_session_log(folder.with_name(f"{folder.name}.log"), flags, run.warn)
    run.log(f"Begin training! Iterations {start} to {stop_at}, {per_epoch} an epoch, "
            f"{flags.batch_size * flags.accumulate} of {len(train_set)} images each.\n{LEGEND}")

    def save(iteration: int, occasion: Occasion = Occasion.REGULAR) -> Path | None:
        """Rank 0 writes weights and state; returns the file of the weights."""
        if not run.is_main:
            return None
        if occasion in (Occasion.REGULAR, Occasion.LAST):
            run.log(f"Saving state, iter: {iteration}")
        net = learner.scored if occasion is Occasion.BEST else learner.net
        state = learner.state(iteration, per_epoch, world_size=run.world_size, identity=identity,
                              config=to_yaml(learner.net.cfg), **scores.pack())
        return checkpoints.save(iteration, yolact.weights_of(net), state, occasion)

    rescue = Rescue(run, learner.net, partial(save, occasion=Occasion.STOP), start, source,
                    lost_by=("SIGINT",) if flags.no_interrupt else (), is_dry=flags.dry_run)
    pictures = PicturesOfBest(partial(save_findings, run, valid_set))

    def validate(iteration: int) -> None:
        assert valid_set is not None, "without images none is due"
        run.log("Computing validation mAP (this may take a while)...")
        begin, epoch = time.perf_counter(), timetable.epoch_of(iteration)
        metrics, found = evaluate(flags, run, learner.net.cfg, learner.scored, learner.precision,
                                  valid_set, rescue)
        run.record_scores(iteration, epoch, metrics, classes_of(run, found))
        session_log.val(metrics, epoch, iteration, round(time.perf_counter() - begin, 2))
        if is_best := scores.validated(iteration, metrics):
            save(iteration, Occasion.BEST)
        pictures.validated(found, iteration, is_best, scores.is_over or iteration == stop_at)
        draw_curves(run, CURVES, folder.name)
        learner.net.train()

    with rescue.watching():
        if timetable.saves_at(start) and checkpoints.missed(start, source):
            rescue.saved(start, save(start))
        loop(flags, run, learner, criterion, step_net, loader, timetable, scores, rescue,
             session_log, save, validate)


def loop(
    flags: Flags, run: Run, learner: YolactLearner, criterion: MultiBoxLoss,
    step_net: torch.nn.Module, loader: ResumableLoader, timetable: Timetable, scores: Scores,
    rescue: Rescue, session_log: SessionLog, save: Callable[..., Path | None],
    validate: Callable[[int], None],
) -> None:
    """The updates of a session, with saves and validations, and the last of both."""
    net, optimizer, precision = learner.net, learner.optimizer, learner.precision
    guard = NonFiniteGuard(run, flags.nan, precision.is_scaled)
    meter = Meter(run.device, flags.batch_size * flags.accumulate, AVERAGED, run.warn)
    lr_at = yolact.schedule(net.cfg)
    delayed = sorted(net.cfg.delayed_settings, key=lambda due: due[0])
    start = timetable.start
    if timetable.validates_at(start, scores.validated_at):
        validate(start)  # stopped between an epoch's last update and its validation
    timetable = scores.ends(timetable, start, run.log)

    size = ModelSize(run, flags, learner, step_net, loader)
    net.train()
    meter.begin(run.log if flags.compile else None)
    updates = loader.steps(start, timetable.stop_at, flags.accumulate)
    with closing(updates), run.progress(timetable.stop_at, start) as progress:
        for step, epoch, batches in updates:
            meter.data_ready()
            if yolact.delayed_settings(delayed, step, (net, criterion), run.log):
                lr_at = yolact.schedule(net.cfg)
            lr = lr_at(step)
            set_lr(optimizer, lr)
            run.seed_step(step)  # random choices in the loss depend on seed, step, rank alone
            rescue.begins()

            own_losses = backward(flags, run, learner, step_net, batches)
            norm = precision.grad_norm(optimizer)
            losses, grad_norm = run.read_means(own_losses, norm)  # the loop's one wait
            image_ids = [i for batch in batches for i in batch["image_ids"]]
            if guard.allows_update(losses, own_losses, image_ids, step, grad_norm):
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
            run.skipped.in_training(step, batches)
            session_log.train(losses, epoch, step, lr, round(meter.elapsed_s, 2))
            if timetable.logs_at(step):
                run.record(meter.train_event(step, epoch, lr, losses, grad_norm))
                eta = meter.eta(timetable.stop_at - iteration)
                run.log(console_line(epoch, step, meter.means(), eta, meter.elapsed_s))
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
        validate(stop_at)  # after the save: a fault in it must not cost the last weights
        save(stop_at, Occasion.LAST)  # with the best score in the state
    draw_curves(run, CURVES, run.folder.name)
    say_done(run, guard, [f"Done. Weights are in {flags.save_folder}, log and metrics in "
                          f"{run.folder}.", *score_lines(scores.metrics)])


def backward(flags: Flags, run: Run, learner: YolactLearner, step_net: torch.nn.Module,
             batches: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Forward and backward of one update. Returns its losses {name: 0-d tensor}."""
    learner.optimizer.zero_grad(set_to_none=True)
    sums: dict[str, torch.Tensor] = {}
    for batch in accumulated(step_net, batches):
        inputs = [batch[key] for key in INPUTS if key in batch]
        if not isinstance(step_net, CustomDataParallel):  # which copies each GPU's own part
            inputs = to_device(inputs, run.device, flags.layout)
        with learner.precision.autocast():
            losses = step_net(*inputs)
        losses = {name: value / len(batches) for name, value in losses.items()}
        learner.precision.scaler.scale(sum(losses.values())).backward()
        add_terms(sums, losses)
    return sums


def evaluate(
    flags: Flags, run: Run, cfg: YolactConfig, net: yolact.Yolact, precision: Precision,
    valid_set: InstanceDataset, rescue: Rescue,
) -> tuple[dict[str, float], InstanceScores | None]:
    """(COCO scores in percent, the same on every rank; what rank 0 found them from)."""
    chosen = valid_set.scattered(flags.validation_size)
    batches = ordered_batches(valid_set, chosen[run.rank::run.world_size], EVAL_BATCH,
                              collate=collate_instances, workers=flags.num_workers)
    evaluator = CocoEvaluator(cfg.dataset.valid_info)
    run.share_buffers(net)  # each rank's BatchNorm statistics are of its own batches
    net.eval()
    with closing(batches), torch.no_grad():
        for batch in rescue.in_step(batches, len(chosen), EVAL_BATCH):
            run.skipped.in_validation(batch["skipped"])
            if not batch["image_ids"]:
                continue
            with precision.autocast():
                predictions = net.forward_heads(batch["images"].to(run.device))
            detections = yolact.detect(predictions, cfg, flags.fast_nms, flags.cross_class_nms)
            for i, detection in enumerate(detections):
                height, width = batch["sizes"][i]
                found = yolact.postprocess(detection, width, height, net, flags.score_threshold)
                found = yolact.in_coco_names(found, valid_set.category_ids)
                evaluator.update({batch["image_ids"][i]: found})
    for part in run.gather(evaluator.results()) or []:
        evaluator.merge(part)
    metrics: dict[str, float] = {}
    seen = None
    if run.is_main:
        if flags.eval_only and flags.output_coco_json:
            evaluator.write_detections(flags.bbox_det_file, flags.mask_det_file)
            run.log(f"Detections are in {flags.bbox_det_file} and {flags.mask_det_file}.")
        if cfg.dataset.has_gt:  # of test-dev the server has it
            metrics = evaluator.compute(evaluator.image_ids)  # those that could be read
            run.log(format_table(metrics))
        seen = InstanceScores(evaluator, evaluator.image_ids, valid_set.named_categories)
    return run.broadcast(metrics), seen


def predict(flags: Flags, run: Run, cfg: YolactConfig, folder: Path) -> None:
    """--predict: what is found on images or a video, drawn, and as COCO's results."""
    plan, net = plan_predictions(run, flags, folder), yolact.predicting_network(flags, run, cfg)
    precision = Precision(flags.amp, run.device, run.warn)

    def forward(samples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        with precision.autocast():
            return net.forward_heads(stacked(samples, run.device, flags.layout))

    def finish(said: dict[str, torch.Tensor], samples: list[dict[str, Any]]) -> list[Any]:
        return [compact(*found) for found in yolact.found_in_parts(said, samples, net, flags)]

    results = InstanceResults(net.cfg.dataset, flags.score_threshold or SHOWN_SCORE, run.log)
    predict_all(run, plan, Photos(plan, BGR, YolactTransform(net.cfg).photo), EVAL_BATCH,
                flags.num_workers, forward, finish, results)


def use_trained(flags: Flags, run: Run, cfg: YolactConfig, folder: Path, indexes: Indexes) -> None:
    """--eval-only, appended to the run folder's metrics, or --export."""
    learner, _, _ = build_network(flags, run, cfg, shares=None)
    checkpoints = yolact_series(flags.save_folder, str(cfg.name), flags.save_interval, per_epoch=1)
    found = checkpoints.find_trained(flags.resume or flags.pretrained, run.warn)
    yolact.load_weights(learner.net, found.weights, source=found.path)
    net, iteration = trained_average(learner.net, found.state), checkpoints.iteration_of(found)
    run.log(f"Loaded {found.path}, iteration {iteration}.")
    facts = yolact.said_in(found.weights, cfg)
    if flags.export:
        return yolact.export_trained(run, net, facts, flags.export, flags.export_detections,
                                     flags.fast_nms, flags.cross_class_nms)
    facts.warn_of_size(yolact.facts_of(cfg), run.warn)
    facts.warn_of_others(cfg.dataset.class_names, run.warn)
    run.open_folder(folder, to_yaml(cfg), append=True, trackers=cli.trackers(flags))
    keep_indexes(run, indexes, folder / CACHE)
    valid_set, rescue = open_part(flags, cfg, indexes, "valid"), Rescue(run, start=iteration)
    metrics, seen = evaluate(flags, run, cfg, net, learner.precision, valid_set, rescue)
    run.record_scores(iteration, None, metrics, classes_of(run, seen))
    save_findings(run, valid_set, seen, f"{found.path.name}, iteration {iteration}")


if __name__ == "__main__":
    cli.run(main, SCRIPT, FLAGS, STOP, memory_keys="--batch_size")
