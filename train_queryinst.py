"""Train QueryInst (query-based instance segmentation) on any COCO-format data.

    python train_queryinst.py queryinst_shapes                       # CPU; draws its own scenes
    python train_queryinst.py queryinst_r50_fpn_1x_coco              # one GPU
    python train_queryinst.py my/configs/queryinst_mine.py           # MMDetection's form; not run
    ./dist_train.sh queryinst_r50_fpn_1x_coco 8 --resume             # one process per GPU
    python train_queryinst.py CONFIG --eval-only --resume work_dirs/CONFIG/epoch_12.pth

Data: data/coco/{train2017,val2017}, data/coco/annotations/instances_*2017.json, or your own by
--cfg-options train_dataloader.dataset.data_root=DIR train_dataloader.dataset.ann_file=FILE.json
train_dataloader.dataset.data_prefix.img=SUBFOLDER, val_dataloader.* likewise; the classes then
come from the file. Everything goes to work_dirs/<config name>/: checkpoints as epoch_N.pth or
iter_N.pth, metrics.jsonl, pictures, and a time-stamped folder with MMDetection's scalars.json for
each run. Mask AP to expect on COCO val2017: r50 1x 37.5, 300 proposals 41.7, r101 42.9.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import typer

from runtime import cli
from runtime.cli import Flags, flag
from runtime.launch.signals import StopSignals

SCRIPT = "train_queryinst"
PROJECT = Path(__file__).resolve().parent
WEIGHTS = PROJECT / "weights"  # pretrained backbones
CACHE = "cache"  # in the work directory: annotation indexes, mapped into memory at the next start
PICTURED = 9  # images in each grid
PARTS = ("train", "valid")
CURVES = ("coco/segm_mAP", "coco/segm_mAP_50", "coco/bbox_mAP")  # scores that are drawn
LAUNCHERS = ("none", "pytorch", "slurm", "mpi")


@cli.with_shared(amp=None, accumulate=None)
def flags(
    # --- MMDetection's flags; names, defaults, meaning are its own; so are --amp, --cfg-options
    config: Annotated[str, typer.Argument(help="Name, YAML file or MMDetection's .py.")],
    work_dir: Annotated[str | None, flag("--work-dir", "where everything is written")] = None,
    resume: Annotated[str | None, flag("--resume", "go on from", metavar=cli.RESUME)] = None,
    auto_scale_lr: Annotated[bool, flag("--auto-scale-lr", "rate x images a batch / base")] = False,
    launcher: Annotated[str, flag("--launcher", "who started the processes",
                                  metavar="|".join(LAUNCHERS),
                                  callback=cli.one_of(*LAUNCHERS))] = "none",
    local_rank: Annotated[int | None, flag("--local_rank", "of old launchers", min=0)] = None,
) -> None:
    """Train QueryInst on COCO-format instance masks."""


if __name__ == "__main__":
    FLAGS = cli.read_flags(flags, SCRIPT)  # --help and misspelt flags end here, before torch
    STOP = StopSignals(max_hours=FLAGS.max_hours)  # a signal lets an update finish from here on

import torch

from common.checkpoint.best import BestCheckpoints
from common.checkpoint.series import CheckpointSeries, Occasion
from common.early_stopping import EarlyStop
from common.optim import Learner, Precision, accumulated, add_terms, trained_average
from common.parallel import to_device
from data.coco_format import CocoIndex, keep_indexes, share_indexes
from data.coco_format.summary import show_checked
from data.loading import ordered_batches
from data.predicting import BGR, Photos
from data.predicting.findings import classes_of, save_findings
from data.predicting.instances import InstanceResults, compact
from data.queryinst import AspectRatioLoader, QueryInstDataset, network_input, open_query_config
from data.queryinst.pictures import save_query_samples
from data.queryinst.predicting import photo_batch, query_photo
from metrics.coco import CocoEvaluator
from metrics.instances import SHOWN_SCORE, InstanceScores
from models import queryinst
from models.export import check_export
from models.sync_norm import synchronise_norms
from runtime.launch.ranks import take_launcher
from runtime.predicting import plan_predictions, predict_all
from runtime.run.ending import PicturesOfBest, draw_curves, say_done
from runtime.run.guard import NonFiniteGuard
from runtime.run.meter import Meter
from runtime.run.mmdetection_log import LogForm, MMLog, TrainLog, ValidationLog
from runtime.run.rescue import Rescue
from runtime.run.run import Run, start_run
from runtime.run.scores import LastScores
from runtime.run.timetable import Timetable, last_iteration
from runtime.sizing import ModelSize, Trial
from settings.loading import to_yaml
from settings.queryinst.config import QueryInstConfig

QueryLearner = Learner[queryinst.QueryInst]
Indexes = dict[str, CocoIndex]  # annotations of those of the PARTS that are needed


def main(flags: Flags, stop: StopSignals) -> None:
    """One run, from the flags to the closed files."""
    flags.trains = not (flags.eval_only or flags.export or flags.predict)
    flags.layout = torch.channels_last if flags.channels_last else torch.contiguous_format
    cfg = queryinst.read_settings(flags)
    take_launcher(flags.launcher, flags.local_rank, os.environ)
    run = start_run(SCRIPT, flags.device, flags.seed, stop, dist_timeout_s=flags.dist_timeout,
                    deterministic=cfg.randomness.deterministic, tf32=flags.tf32)
    with closing(run):
        flags.export = check_export(flags.export, flags.export_format, flags.export_detections)
        if flags.config.endswith(".py") and not os.path.isfile(flags.config):
            run.log(f"{flags.config}: no such file; this is our recipe {cfg.name}.")
        cli.say_notes(flags, run.log)
        folder = Path(flags.work_dir or cfg.work_dir or Path("work_dirs") / str(cfg.name))
        if flags.predict:
            return predict(flags, run, cfg, folder)
        cache = None if flags.dry_run or flags.check_data else folder / CACHE
        (cfg, names), own_indexes = run.from_main(lambda: open_query_config(
            cfg, PROJECT, needs_training=flags.trains, cache_folder=cache, deep=flags.check_data,
            run=run))
        if flags.check_data:
            images = cfg.files.train_images, cfg.files.valid_images
            return show_checked(run, own_indexes, images, folder)
        indexes = share_indexes(run, cfg.files, own_indexes)
        cfg = queryinst.fitted_to_batch(flags, run, cfg, folder, lambda: Trial(
            open_part(flags, cfg, names, indexes, "train"),
            lambda flags, run: build_network(flags, run, cfg),
            lambda flags, run, built, data: backward(flags, run, cfg, built[0], built[1], data)))
        run.describe(network=queryinst.facts_of(cfg, names=names).plain(),
                     **queryinst.about(flags.config, cfg))
        (train if flags.trains else use_trained)(flags, run, cfg, names, folder, indexes)


def open_part(flags: Flags, cfg: QueryInstConfig, names: Sequence[str], indexes: Indexes,
              part: str) -> QueryInstDataset:
    """The images of "train", which are augmented, or "valid"; names: the classes."""
    loader = cfg.train_dataloader if part == "train" else cfg.scored_by[0]
    return QueryInstDataset(
        indexes[part], loader.dataset, names, train=part == "train",
        divisor=cfg.model.data_preprocessor.pad_size_divisor, seed=flags.seed,
        bad_images=flags.bad_images)


def open_loader(flags: Flags, run: Run, cfg: QueryInstConfig, train_set: QueryInstDataset
                ) -> AspectRatioLoader:
    """This process's batches of the training images."""
    return AspectRatioLoader.of(
        train_set, cfg.train_dataloader, seed=flags.seed, workers=flags.workers, rank=run.rank,
        world_size=run.world_size, collate=train_set.collate,
        pin_memory=run.device.type == "cuda")


def build_network(flags: Flags, run: Run, cfg: QueryInstConfig
                  ) -> tuple[QueryLearner, torch.nn.Module]:
    """(network and optimizer, the module that is trained: compiled in parts, wrapped)."""
    precision = Precision(flags.amp, run.device, run.warn, cfg.optim_wrapper.scaler_options)
    net = queryinst.build_queryinst(cfg).to(run.device)
    if cfg.sync_bn and run.world_size > 1:
        net = synchronise_norms(net, run.device)
    net.to(memory_format=flags.layout)  # type: ignore[call-overload]  # torch's types lack it
    optimizer, line = queryinst.build_optimizer(net, run.world_size)
    if flags.trains:
        run.log(line)
    if flags.compile:  # what lies before the matching, which is no tensor work
        for part in (net.backbone, net.neck, *net.roi_head["bbox_head"].children()):
            part.compile()
    return Learner(net, optimizer, precision), run.wrap(net.train(), cfg.finds_unused)


def train(flags: Flags, run: Run, cfg: QueryInstConfig, names: Sequence[str], folder: Path,
          indexes: Indexes) -> None:
    """Data, network, where to start, the run's files, and then the loop."""
    # data and network
    train_set = open_part(flags, cfg, names, indexes, "train")
    valid_set = open_part(flags, cfg, names, indexes, "valid") if cfg.val_cfg else None
    loader = open_loader(flags, run, cfg, train_set)
    cfg, per_epoch = queryinst.fitted_to_data(cfg, flags, run, loader)
    learner, step_net = build_network(flags, run, cfg)
    form = queryinst.MmengineForm(learner.net, names, flags.seed, per_epoch)

    # where to start
    hook = cfg.default_hooks.checkpoint
    checkpoints, best = queryinst.queryinst_series(
        hook, folder, per_epoch, cfg.known_metrics(names), flags.save_every, run.writer)
    if not flags.dry_run:
        run.claim(folder / ".lock", checkpoints.folder / ".lock")
    identity = {**loader.identity, "accumulate": flags.accumulate, "num_classes": len(names),
                "classes": list(names), "data": indexes["train"].fingerprint}
    scores, early = LastScores(), EarlyStop(cfg.early_stopping, run.warn)
    learner, start, source = queryinst.find_start(
        flags, run, checkpoints, best, learner, (scores, early), identity, per_epoch, WEIGHTS)
    total = cfg.train_cfg.iterations(per_epoch)
    stop_at = last_iteration(start, total, flags.max_iters, flags.dry_run)
    timetable = Timetable(start, stop_at, per_epoch, flags.log_every, checkpoints.due,
                          is_dry=flags.dry_run, **cfg.validations(per_epoch))

    # the run's files
    mm_log = MMLog(run, cfg.run_name, flags.log_every, LogForm.of(*cfg.log_rules))
    if not flags.dry_run:
        mm_log.open_run_folder(folder, to_yaml(cfg), trackers=cli.trackers(flags),
                               resume_from=timetable.keeps_metrics_to(scores.validated_at))
        keep_indexes(run, indexes, folder / CACHE)
        save_query_samples(run, train_set, PICTURED)
    run.log(f"Iterations {start} to {stop_at}, {per_epoch} an epoch, of {len(train_set)} images. "
            f"Checkpoints will be saved to {checkpoints.folder.absolute()}.")

    def pack(iteration: int, series: dict[str, Any], best: dict[str, Any]) -> dict[str, Any]:
        return queryinst.checkpoint_of(form, learner.state(
            iteration, per_epoch, world_size=run.world_size, identity=identity,
            config=to_yaml(cfg), series=series, best=best, **scores.pack(), **early.pack()))

    def save(iteration: int, is_stop: bool = False) -> Path | str:
        """Rank 0 writes a checkpoint; returns its file. A stop needs none that is there already."""
        if is_stop and (there := rescue.path_of(iteration)) is not None:
            return there
        occasion = Occasion.LAST if iteration == total else Occasion.REGULAR
        if run.is_main:
            run.log(f"Saving checkpoint at {iteration // per_epoch} epochs, {iteration} iterations")
            record = checkpoints.record_after(iteration, occasion)
            content = queryinst.held_by(hook, pack(iteration, record, best.scores), is_stop)
            checkpoints.save(iteration, content, None, occasion)
        rescue.saved(iteration, checkpoints.path(iteration))
        return checkpoints.path(iteration)

    def validate(iteration: int) -> None:
        epoch = iteration // per_epoch
        metrics, seen = evaluate(run, cfg, learner.scored, valid_set, mm_log, epoch, rescue)
        scores.note(iteration, metrics)
        run.record_scores(iteration, timetable.epoch_of(iteration), metrics, classes_of(run, seen))
        early.note(metrics)
        if better := best.improved(metrics):
            found = better, metrics, checkpoints.path(iteration).stem
            after = best.scores_after(*found)
            if run.is_main:
                content = pack(iteration, checkpoints.record, after)
                best.save(*found, queryinst.scored_of(content, learner.scored))
            best.restore(after)  # on all ranks
            if rescue.path_of(iteration) is not None:
                save(iteration)  # with the score in its state
        pictures.validated(seen, iteration, bool(better) if best.metrics else None,
                           is_last=iteration == stop_at or bool(early.reason))
        draw_curves(run, CURVES, str(cfg.name), queryinst.of_all_stages)

    rescue = Rescue(run, learner.net, partial(save, is_stop=True), start, source,
                    is_dry=flags.dry_run)
    pictures = PicturesOfBest(partial(save_findings, run, valid_set))
    with rescue.watching():
        loop(flags, run, cfg, learner, step_net, loader, timetable, checkpoints, best, scores,
             early, rescue, mm_log, save, validate)


def loop(
    flags: Flags, run: Run, cfg: QueryInstConfig, learner: QueryLearner, step_net: torch.nn.Module,
    loader: AspectRatioLoader, timetable: Timetable, checkpoints: CheckpointSeries,
    best: BestCheckpoints, scores: LastScores, early: EarlyStop, rescue: Rescue, mm_log: MMLog,
    save: Callable[[int], Path | str], validate: Callable[[int], None],
) -> None:
    """The updates of a session, with saves and validations, and the last of both."""
    net, optimizer, precision = learner.net, learner.optimizer, learner.precision
    start, hook = timetable.start, cfg.default_hooks.checkpoint
    guard = NonFiniteGuard(run, flags.nan, precision.is_scaled)
    images = cfg.train_dataloader.batch_size * run.world_size * flags.accumulate
    meter = Meter(run.device, images, cfg.log_processor.window_size, run.warn)
    total = cfg.train_cfg.iterations(timetable.per_epoch)
    log = TrainLog(mm_log, meter, timetable, -(-total // timetable.per_epoch), total)
    rate_at = queryinst.lr_schedule(cfg, timetable.per_epoch)
    if timetable.validates_at(start, scores.validated_at):
        validate(start)  # stopped between an epoch's last update and its validation
    stop_at = start if early.reason else timetable.stop_at

    size = ModelSize(run, flags, learner, step_net, loader)
    net.train()
    meter.begin(run.log if flags.compile else None)
    updates = loader.steps(start, stop_at, flags.accumulate)
    with closing(updates), run.progress(stop_at, start) as progress:
        for step, epoch, batches in updates:
            meter.data_ready()
            lrs = queryinst.set_rates(optimizer, cfg, rate_at, step)
            run.seed_step(step)  # random choices in the network depend on seed, step, rank alone
            rescue.begins()

            own_values = backward(flags, run, cfg, learner, step_net, batches)
            norm = precision.grad_norm(optimizer, cfg.optim_wrapper.norm_p)
            values, grad_norm = run.read_means(own_values, norm)  # the loop's one wait
            losses = {name: value for name, value in values.items() if "loss" in name}
            image_ids = [i for batch in batches for i in batch["image_ids"]]
            if guard.allows_update(losses, own_values, image_ids, step, grad_norm):
                rescue.changes()
                learner.update(flags.clip_grad, norm, grad_norm)
            else:
                rescue.undo()
                precision.skip()
            iteration = step + 1
            rescue.done(iteration)
            run.stop_as_read()

            whole = {"grad_norm": grad_norm, "loss": sum(losses.values())}
            meter.updated(losses, whole)
            has_line = log.updated(step, lrs, whole | values)
            progress.update()
            run.skipped.in_training(step, batches)
            if has_line or timetable.logs_at(step):
                run.record(meter.train_event(step, epoch, lrs[0], losses, grad_norm))
            rescue.leave_if_stopped()
            if timetable.saves_at(iteration):
                save(iteration)
                meter.restart_clock()
            if timetable.validates_now(iteration, scores.validated_at):
                validate(iteration)
                net.train()
                meter.restart_clock()
                if early.reason:
                    stop_at = iteration
                    break
    if flags.dry_run:
        return size.tell_dry_run(meter)
    wanted = stop_at < total or hook.save_last or checkpoints.due(stop_at)
    if wanted and rescue.path_of(stop_at) is None:
        save(stop_at)
    if early.reason:
        run.log(f"{early.reason}: the training ends after {stop_at} iterations.")
    elif timetable.validates_end(scores.validated_at):
        validate(stop_at)  # after the save: a fault in it must not cost the last weights
    if run.is_main and (early.reason or stop_at == total):
        for path in queryinst.publish(hook, checkpoints.path(stop_at), best, run.warn):
            run.log(f"The checkpoint {path} is published.")
    draw_curves(run, CURVES, str(cfg.name), queryinst.of_all_stages)
    last = [f"{name} {value:.3f}" for name, value in (scores.metrics or {}).items()
            if name.endswith(("mAP", "mAP_50"))]
    done = f"Done. Checkpoints are in {checkpoints.folder}, log and metrics in {run.folder}."
    say_done(run, guard, [done, ", ".join(last)])


def backward(flags: Flags, run: Run, cfg: QueryInstConfig, learner: QueryLearner,
             step_net: torch.nn.Module, batches: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Forward and backward of one update. Returns its losses and accuracies {name: 0-d tensor}."""
    learner.optimizer.zero_grad(set_to_none=True)
    sums: dict[str, torch.Tensor] = {}
    for batch in accumulated(step_net, batches):
        images = network_input(batch, run.device, cfg.model.data_preprocessor)
        images = images.to(memory_format=flags.layout)
        samples = to_device(batch["samples"], run.device)
        with learner.precision.autocast():
            values = step_net(images, samples)
        values = {name: value / len(batches) for name, value in values.items()}
        loss = sum(value for name, value in values.items() if "loss" in name)
        learner.precision.scaler.scale(loss).backward()
        add_terms(sums, values)
    return sums


def evaluate(
    run: Run, cfg: QueryInstConfig, net: queryinst.QueryInst, valid_set: QueryInstDataset | None,
    mm_log: MMLog, epoch: int, rescue: Rescue,
) -> tuple[dict[str, float], InstanceScores | None]:
    """(COCO scores as fractions, the same on every rank; what rank 0 found them from).

    After a stop signal the state is saved and Stopped raised.
    """
    assert valid_set is not None  # the timetable asks for no evaluation without it
    loader, rules = cfg.scored_by
    own = range(run.rank, len(valid_set), run.world_size)
    batches = ordered_batches(valid_set, own, loader.batch_size, collate=valid_set.collate,
                              workers=loader.num_workers)
    evaluator = CocoEvaluator(rules.ann_file or loader.dataset.info_path, rules.metric)
    left_out: list[int] = []
    category_ids = valid_set.category_ids
    count = -(-len(own) // loader.batch_size)
    meter = Meter(run.device, loader.batch_size, count, run.warn)
    log = ValidationLog(mm_log, meter, epoch, count)
    run.share_buffers(net)  # the mask heads' statistics are each rank's own
    net.eval()
    with closing(batches), torch.no_grad():
        for batch in rescue.in_step(batches, len(valid_set), loader.batch_size):
            run.skipped.in_validation(batch["skipped"])
            left_out += batch["left_out"]
            if not batch["image_ids"]:
                continue
            meter.data_ready()
            images = network_input(batch, run.device, cfg.model.data_preprocessor)
            found = net.predict(images, batch["metas"])  # in float32, as the original
            for image_id, each in zip(batch["image_ids"], found, strict=True):
                each = to_device(each, "cpu")
                evaluator.update({image_id: each | {"labels": category_ids[each["labels"]]}})
            meter.updated()
            log.done()
    for part, unread in run.gather((evaluator.results(), left_out)) or []:
        evaluator.merge(part)
        left_out += unread
    metrics: dict[str, float] = {}
    seen = None
    if run.is_main:
        known = valid_set.named_categories
        scored = [i for i in evaluator.ground_truth.sizes if i not in set(left_out)]
        metrics = evaluator.mmdetection_results(rules, scored, known, run.log)
        log.finished(metrics)
        seen = InstanceScores(evaluator, scored, known) if metrics else None
    return run.broadcast(metrics), seen


def use_trained(flags: Flags, run: Run, cfg: QueryInstConfig, names: Sequence[str], folder: Path,
                indexes: Indexes) -> None:
    """--eval-only, appended to the work directory's metrics, or --export."""
    learner, _ = build_network(flags, run, cfg)
    hook = cfg.default_hooks.checkpoint
    checkpoints, _ = queryinst.queryinst_series(replace(hook, save_best=None, rule=None), folder, 1,
                                                [])
    found = checkpoints.find_trained(flags.resume or flags.pretrained, run.warn)
    run.log(f"Load checkpoint from {found.path}")
    queryinst.load_weights(learner.net, found.weights, source=str(found.path))
    net = trained_average(learner.net, found.weights.get("training"))
    facts = queryinst.said_in(found.weights, cfg)
    if flags.export:
        queryinst.export_trained(run, net, facts, flags.export, flags.export_detections)
        return
    facts.warn_of_size(queryinst.facts_of(cfg), run.warn)
    facts.warn_of_others(names, run.warn)
    mm_log = MMLog(run, cfg.run_name, flags.log_every, LogForm.of(*cfg.log_rules))
    iteration = checkpoints.iteration_of(found)
    mm_log.open_run_folder(folder, to_yaml(cfg), append=True, trackers=cli.trackers(flags))
    keep_indexes(run, indexes, folder / CACHE)
    valid_set, rescue = open_part(flags, cfg, names, indexes, "valid"), Rescue(run, start=iteration)
    metrics, seen = evaluate(run, cfg, net, valid_set, mm_log, iteration, rescue)
    run.record_scores(iteration, None, metrics, classes_of(run, seen))
    save_findings(run, valid_set, seen, f"{found.path.name}, iteration {iteration}")


def predict(flags: Flags, run: Run, cfg: QueryInstConfig, folder: Path) -> None:
    """--predict: what is found on images or a video, drawn, and as COCO's results."""
    plan = plan_predictions(run, flags, folder)
    net, names = queryinst.predicting_network(flags, run, cfg, folder)
    loader, pixels = cfg.predicted_by, cfg.model.data_preprocessor

    def forward(samples: list[dict[str, Any]]) -> tuple[Any, Any]:
        batch = photo_batch(samples, pixels.pad_size_divisor)
        return net.said(network_input(batch, run.device, pixels), batch["metas"]), batch["metas"]

    def finish(said: tuple[Any, Any], samples: list[dict[str, Any]]) -> list[Any]:
        return [compact(*found) for found in queryinst.in_parts(net.found(*said), samples, flags)]

    prepare = partial(query_photo, dataset_cfg=loader.dataset, divisor=pixels.pad_size_divisor)
    results = InstanceResults(SimpleNamespace(class_names=names, label_map=None),
                              flags.score_threshold or SHOWN_SCORE, run.log)
    predict_all(run, plan, Photos(plan, BGR, prepare), loader.batch_size, loader.num_workers,
                forward, finish, results)


if __name__ == "__main__":
    cli.run(main, SCRIPT, FLAGS, STOP, memory_keys="train_dataloader.batch_size")
