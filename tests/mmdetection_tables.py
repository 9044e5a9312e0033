"""The table of docs/mmdetection.md: what becomes of each key of MMDetection's here.

    python -m tests.mmdetection_tables

writes it. Each line is found out by loading a config with that option, so the table cannot be wrong
for long; tests/unit/test_mmdetection_tables.py fails when it is old, or when a key is unknown.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

from runtime.errors import InputError
from settings.files import read_file
from settings.foreign import Note
from settings.loading import to_dict
from settings.nodes import Node, literal
from settings.queryinst.config import QueryInstConfig
from settings.queryinst.recipes import load_queryinst_config

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "mmdetection.md"
CONFIGS = ROOT / "tests" / "mmdetection" / "queryinst"
RECIPE = "queryinst_r50_fpn_1x_coco"
OTHERS = ("queryinst_r50_fpn_ms-480-800-3x_coco",  # whose keys are not those of the first
          "queryinst_r50_fpn_300-proposals_crop-ms-480-800-3x_coco")
BEGIN, END = "<!-- table: python -m tests.mmdetection_tables -->", "<!-- end of the table -->"
MOST_SHOWN = 110  # letters of a line in the table
OBEYED, WITHOUT_EFFECT, REFUSED = "obeyed", "without effect", "refused"

# What MMDetection's pages on configs, training, hooks and optimizers name for a detector like this,
# each with a value that is not the recipe's. A line may need several options.
_DOCUMENTED = """
train_dataloader.batch_size=4
train_dataloader.num_workers=4
train_dataloader.persistent_workers=False
train_dataloader.pin_memory=False
train_dataloader.drop_last=True
train_dataloader.prefetch_factor=4
train_dataloader.sampler.type=InfiniteSampler
train_dataloader.sampler.shuffle=False
train_dataloader.sampler.seed=1
train_dataloader.batch_sampler=None
train_dataloader.dataset.type=ConcatDataset
train_dataloader.dataset.data_root=data/mine/
train_dataloader.dataset.ann_file=train.json
train_dataloader.dataset.data_prefix.img=photos/
train_dataloader.dataset.metainfo.classes=('cat','dog')
train_dataloader.dataset.metainfo.palette=[(220,20,60),(0,0,255)]
train_dataloader.dataset.filter_cfg.filter_empty_gt=False
train_dataloader.dataset.filter_cfg.min_size=16
train_dataloader.dataset.indices=100
train_dataloader.dataset.serialize_data=False
train_dataloader.dataset.lazy_init=True
train_dataloader.dataset.max_refetch=10
train_dataloader.dataset.test_mode=True
train_dataloader.dataset.backend_args.backend=petrel
train_dataloader.dataset.pipeline.0.backend_args.backend=petrel
train_dataloader.dataset.pipeline.0.to_float32=True
train_dataloader.dataset.pipeline.0.color_type=grayscale
train_dataloader.dataset.pipeline.1.poly2mask=False
train_dataloader.dataset.pipeline.1.with_label=False
train_dataloader.dataset.pipeline.2.scale=(600,400)
train_dataloader.dataset.pipeline.2.keep_ratio=False
train_dataloader.dataset.pipeline.2.interpolation=nearest
train_dataloader.dataset.pipeline.3.prob=0.0
train_dataloader.dataset.pipeline.3.direction=vertical
val_dataloader.batch_size=4
val_dataloader.num_workers=4
val_dataloader.persistent_workers=False
val_dataloader.dataset.data_root=data/mine/
val_dataloader.dataset.ann_file=val.json
val_dataloader.dataset.data_prefix.img=photos/
val_dataloader.dataset.metainfo.classes=('cat','dog')
val_dataloader.dataset.pipeline.1.scale=(600,400)
test_dataloader.batch_size=4
test_dataloader.dataset.ann_file=test.json
test_dataloader.dataset.data_prefix.img=test2017/
val_evaluator.ann_file=val.json
val_evaluator.metric=segm
val_evaluator.metric=proposal
val_evaluator.classwise=True
val_evaluator.proposal_nums=(1,10,100)
val_evaluator.iou_thrs=[0.5]
val_evaluator.metric_items=['mAP']
val_evaluator.format_only=True val_evaluator.outfile_prefix=results
val_evaluator.outfile_prefix=results
val_evaluator.file_client_args.backend=disk
val_evaluator.collect_device=gpu
val_evaluator.prefix=mine
val_evaluator.sort_categories=True
val_evaluator.use_mp_eval=True
test_evaluator.ann_file=test.json
test_evaluator.outfile_prefix=results
test_evaluator.format_only=True test_evaluator.outfile_prefix=results
train_cfg.max_epochs=24
train_cfg.val_interval=5
train_cfg.val_begin=3
train_cfg.dynamic_intervals=[(10,1)]
train_cfg={_delete_: true, type: IterBasedTrainLoop, max_iters: 9} param_scheduler.1.by_epoch=False
val_cfg.fp16=True
val_cfg=None val_dataloader=None val_evaluator=None
test_cfg.fp16=True
optim_wrapper.type=AmpOptimWrapper
optim_wrapper.type=AmpOptimWrapper optim_wrapper.dtype=bfloat16
optim_wrapper.type=AmpOptimWrapper optim_wrapper.loss_scale=dynamic
optim_wrapper.type=AmpOptimWrapper optim_wrapper.loss_scale=512.0
optim_wrapper.accumulative_counts=4
optim_wrapper.constructor=LayerDecayOptimizerConstructor
optim_wrapper.optimizer.lr=0.0002
optim_wrapper.optimizer.weight_decay=0.05
optim_wrapper.optimizer.betas=(0.9,0.99)
optim_wrapper.optimizer.eps=1e-7
optim_wrapper.optimizer.amsgrad=True
optim_wrapper.optimizer.type=SGD optim_wrapper.optimizer.momentum=0.9
optim_wrapper.optimizer.type=Lion
optim_wrapper.paramwise_cfg.norm_decay_mult=0.0
optim_wrapper.paramwise_cfg.bias_decay_mult=0.0
optim_wrapper.paramwise_cfg.bias_lr_mult=2.0
optim_wrapper.paramwise_cfg.dwconv_decay_mult=0.0
optim_wrapper.paramwise_cfg.dcn_offset_lr_mult=0.1
optim_wrapper.paramwise_cfg.flat_decay_mult=0.0
optim_wrapper.paramwise_cfg.bypass_duplicate=True
optim_wrapper.paramwise_cfg.custom_keys.backbone.lr_mult=1.0
optim_wrapper.paramwise_cfg.custom_keys.backbone.decay_mult=0.0
optim_wrapper.clip_grad=None
optim_wrapper.clip_grad.max_norm=35
optim_wrapper.clip_grad.norm_type=1
param_scheduler.0.start_factor=0.01
param_scheduler.0.end=500
param_scheduler.0.by_epoch=True
param_scheduler.0.verbose=True
param_scheduler.1.milestones=[16,22]
param_scheduler.1.gamma=0.5
param_scheduler.1.end=24
param_scheduler=[{type: CosineAnnealingLR, T_max: 12, by_epoch: true}]
auto_scale_lr.enable=True
auto_scale_lr.base_batch_size=8
default_hooks.timer.type=MyTimer
default_hooks.logger.interval=10
default_hooks.logger.ignore_last=False
default_hooks.logger.interval_exp_name=100
default_hooks.logger.log_metric_by_epoch=False
default_hooks.checkpoint.interval=100
default_hooks.checkpoint.by_epoch=False
default_hooks.checkpoint.max_keep_ckpts=2
default_hooks.checkpoint.out_dir=/path/of/directory
default_hooks.checkpoint.save_best=coco/segm_mAP
default_hooks.checkpoint.save_best=auto
default_hooks.checkpoint.save_best=coco/segm_mAP default_hooks.checkpoint.rule=greater
default_hooks.checkpoint.save_last=False
default_hooks.checkpoint.save_optimizer=False
default_hooks.checkpoint.save_param_scheduler=False
default_hooks.checkpoint.save_begin=5
default_hooks.checkpoint.published_keys=['meta','state_dict']
default_hooks.checkpoint.filename_tmpl=model_{}.pth
default_hooks.checkpoint.backend_args.backend=petrel
default_hooks.sampler_seed.type=MySeed
default_hooks.param_scheduler.type=MyHook
default_hooks.visualization.draw=True
default_hooks.visualization.interval=10
default_hooks.early_stopping={type: EarlyStoppingHook, monitor: coco/segm_mAP}
custom_hooks=[]
custom_hooks=[{type: NumClassCheckHook}]
custom_hooks=[{type: EMAHook}]
custom_imports={imports: [mine]}
env_cfg.cudnn_benchmark=True
env_cfg.mp_cfg.mp_start_method=spawn
env_cfg.mp_cfg.opencv_num_threads=4
env_cfg.dist_cfg.backend=gloo
log_processor.window_size=10
log_processor.by_epoch=False
log_processor.num_digits=6
log_processor.custom_cfg=[{data_src: loss, method_name: mean, window_size: 10}]
log_level=DEBUG
default_scope=mmengine
launcher=pytorch
visualizer.vis_backends=[{type: LocalVisBackend}, {type: TensorboardVisBackend}]
visualizer.vis_backends=[{type: WandbVisBackend}]
load_from=weights.pth
resume=True
work_dir=runs/a
randomness.seed=1
randomness.deterministic=True
randomness.diff_rank_seed=True
find_unused_parameters=True
model_wrapper_cfg.find_unused_parameters=True
experiment_name=mine
compile=True
data_root=data/mine/
backend_args.backend=petrel
model.type=MaskRCNN
model.data_preprocessor.mean=[0,0,0]
model.data_preprocessor.std=[1,1,1]
model.data_preprocessor.bgr_to_rgb=False
model.data_preprocessor.pad_size_divisor=64
model.data_preprocessor.pad_mask=False
model.data_preprocessor.batch_augments=[{type: BatchFixedSizePad}]
model.backbone.type=ResNeXt
model.backbone.depth=101
model.backbone.init_cfg=None
model.backbone.init_cfg.checkpoint=torchvision://resnet101
model.backbone.frozen_stages=0
model.backbone.norm_eval=False
model.backbone.norm_cfg.requires_grad=False
model.backbone.norm_cfg.type=SyncBN
model.backbone.style=caffe
model.backbone.with_cp=True
model.backbone.dcn={type: DCNv2, deform_groups: 1}
model.backbone.zero_init_residual=True
model.neck.type=PAFPN
model.neck.out_channels=128
model.neck.num_outs=5
model.rpn_head.num_proposals=300
model.roi_head.num_stages=3
model.roi_head.stage_loss_weights=[1,1,1,1,1,2]
model.roi_head.bbox_head.{0..5}.num_classes=1 model.roi_head.mask_head.{0..5}.num_classes=1
model.roi_head.bbox_head.0.loss_cls.loss_weight=1.0
model.roi_head.bbox_head.0.loss_cls.alpha=0.5
model.roi_head.bbox_head.0.loss_bbox.loss_weight=2.0
model.roi_head.bbox_head.0.loss_iou.loss_weight=1.0
model.roi_head.bbox_head.0.dropout=0.1
model.roi_head.mask_head.0.loss_mask.loss_weight=4.0
model.roi_head.mask_head.0.class_agnostic=True
model.train_cfg.rcnn.0.mask_size=56
model.train_cfg.rcnn.0.assigner.match_costs.0.weight=1.0
model.test_cfg.rcnn.max_per_img=300
model.test_cfg.rcnn.mask_thr_binary=0.4
model.test_cfg.rcnn.score_thr=0.05
model.test_cfg.rcnn.nms={type: nms, iou_threshold: 0.5}
"""
DOCUMENTED = _DOCUMENTED.strip().splitlines()


class Config:
    """One of the five, read once. tree: its keys; plain: the resolved config"""

    def __init__(self, name: str):
        self.path = CONFIGS / f"{name}.py"
        faults: list[str] = []
        self.tree = read_file(self.path, faults)
        assert not faults
        self.notes: list[Note] = []
        self.plain = to_dict(self.load([], self.notes))

    def load(self, options: list[str], notes: list[Note]) -> QueryInstConfig:
        """The config with options over it."""
        with patch("settings.loading.read_file", lambda path, faults: self.tree):
            return load_queryinst_config(self.path, options=options, notes=notes)

    def outcome(self, options: list[str]) -> tuple[str, str]:
        """(class of the options, the reason when they are not obeyed)."""
        notes: list[Note] = []
        try:
            cfg = self.load(options, notes)
        except InputError as error:
            fault = error.faults[0]
            for option in options:
                fault = fault.replace(f"--cfg-options {option}: ", "")
            fault = re.sub(r"^\S+\.py:\d+: ", "", fault).replace(f"{ROOT}/", "")
            return ("unknown" if "unknown key" in fault else REFUSED), fault
        keys = [option.partition("=")[0] for option in options]
        why = [note.why for note in (*cfg.notes, *notes) if any(concerns(note, k) for k in keys)]
        if cfg.notes and why:
            return WITHOUT_EFFECT, why[0]
        if to_dict(cfg) != self.plain:
            return OBEYED, ""
        return (WITHOUT_EFFECT, why[0]) if why else ("silent", "")


def concerns(note: Note, key: str) -> bool:
    """Whether a note is about the key, or about the section that it stands in."""
    told = re.sub(r"\[(\d+)\]", r".\1", note.key.partition(" ")[0])
    return f"{key}.".startswith(f"{told}.") or f"{told}.".startswith(f"{key}.")


def split(line: str) -> list[str]:
    """The options of a documented line, with a shell's braces: {0..5} is six of them."""
    options: list[str] = []
    for word in re.split(r" (?=[\w.{}]+=)", line):
        first, braces, rest = word.partition("{0..5}")
        options += [f"{first}{i}{rest}" for i in range(6)] if braces else [word]
    return options


def leaves(node: Node, path: str = "") -> Iterator[tuple[str, Node]]:
    """(dotted key, value) of a tree: a list of plain values is one, of alike stages the first."""
    if isinstance(node.value, dict):
        for key, item in node.value.items():
            yield from leaves(item, f"{path}.{key}" if path else key)
    elif isinstance(node.value, list) and any(isinstance(i.value, (dict, list)) and not
                                              is_plain(i) for i in node.value):
        for i, item in enumerate(node.value):
            if i == 0 or item.value != node.value[0].value:
                yield from leaves(item, f"{path}.{i}")
    elif path and node.value != {}:
        yield path, node


def is_plain(node: Node) -> bool:
    """Whether a list holds no mapping."""
    return isinstance(node.value, list) and not any(
        isinstance(item.value, dict) or (isinstance(item.value, list) and not is_plain(item))
        for item in node.value)


def written(node: Node) -> str:
    """A value as --cfg-options takes it."""
    if isinstance(node.value, list):
        return f"[{','.join(map(written, node.value))}]"
    return str(node.value)


def others(node: Node) -> list[str]:
    """Values that a key could have instead."""
    if isinstance(node.value, list):
        changed = [f"[{','.join([other, *map(written, node.value[1:])])}]"
                   for other in (others(node.value[0]) if node.value else ["1"])]
        return [*changed, "None"]
    value = node.value if node.quoted else literal(node)
    if isinstance(value, bool):
        return [str(not value)]
    if isinstance(value, int):
        return [str(value + 1), str(max(value - 1, 0))]
    if isinstance(value, float):
        return [str(value + 0.25), str(value / 2 + 0.1)]
    return ["1", "{backend: petrel}", "other"] if value is None else ["other"]


def class_of(key: str, node: Node, config: Config) -> tuple[str, str]:
    """(class of a key of the five configs, reason): what becomes of another value than theirs.

    Where no other value is accepted, theirs is what is done here: it is obeyed.
    """
    found = [config.outcome([f"{key}={other}"]) for other in others(node)]
    for kind in (OBEYED, WITHOUT_EFFECT):
        for each in found:
            if each[0] == kind:
                return each
    kind, why = found[0]
    if kind != REFUSED:
        return kind, why
    only = re.sub(r"^\S+ (wants .*), got .*$", r"\1", why)
    return OBEYED, f"no other value: {only}"


def rows() -> list[tuple[str, str, str]]:
    """(option as it is written, class, reason), by key."""
    first, *more = [Config(name) for name in (RECIPE, *OTHERS)]
    found = {line: first.outcome(split(line)) for line in DOCUMENTED}
    known = {option.partition("=")[0] for line in DOCUMENTED for option in split(line)}
    for config in (first, *more):
        own = {key: node for key, node in config.tree.value.items()
               if key not in config.tree.variables}
        for key, node in leaves(Node(own, "")):
            if key not in known:
                found[f"{key}={written(node)}"] = class_of(key, node, config)
                known.add(key)
    return [(line, *found[line]) for line in sorted(found)]


def table() -> str:
    """The table as the page has it."""
    lines = ["| line | here | |", "|---|---|---|"]
    for line, kind, why in rows():
        short = line if len(line) <= MOST_SHOWN or line in DOCUMENTED else f"{line[:MOST_SHOWN]}..."
        words = " ".join(why.split()).replace("|", "\\|")
        lines.append(f"| `{short}` | {kind} | {words} |")
    return "\n".join(lines)


def page(text: str) -> str:
    """`text` with the table of today."""
    head, _, rest = text.partition(BEGIN)
    return f"{head}{BEGIN}\n\n{table()}\n\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
