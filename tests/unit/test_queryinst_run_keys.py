"""MMDetection's keys about a run: what they mean here, and how they go back.

Expected rates and multipliers were measured on mmengine 0.10.7.
"""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import yaml
from torch import nn

from common.early_stopping import EarlyStop
from common.optim import Precision
from models.queryinst import load_queryinst_config, lr_schedule, param_groups
from models.queryinst.optim import auto_scale
from models.queryinst.ordered import OrderedAdamW, OrderedSGD
from runtime.errors import InputError
from settings.foreign import note_lines
from settings.queryinst.hooks import EarlyStoppingHookConfig
from settings.queryinst.mmdetection_run import evaluator_keys, run_keys
from settings.queryinst.optimizing import (
    OptimWrapperConfig,
    ParamMultipliers,
    ParamwiseConfig,
)
from settings.queryinst.recipes import RECIPES

ONE_X = "queryinst_r50_fpn_1x_coco"
CPU = torch.device("cpu")

# Rates after so many updates, 4 an epoch, as parts of the base rates 1e-4 and (None: alike) 1e-3.
AT = (0, 1, 3, 5, 8, 11, 12, 15, 16, 19, 23)
RATES = {
    "warmup_multistep": (
        "[{type: LinearLR, start_factor: 0.001, by_epoch: false, begin: 0, end: 10}, "
        "{type: MultiStepLR, by_epoch: true, begin: 0, end: 6, milestones: [2, 4], "
        "gamma: 0.1}]",
        [0.001, 0.112, 0.334, 0.556, 0.0889, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01], None),
    "multistep_end": (
        "[{type: MultiStepLR, by_epoch: true, begin: 1, end: 4, milestones: [1, 2, 4], "
        "gamma: 0.5}]",
        [1, 1, 1, 1, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25, 0.25], None),
    "linear_default": (
        "[{type: LinearLR, by_epoch: false, end: 5}]",
        [0.333333333, 0.5, 0.833333333, 1, 1, 1, 1, 1, 1, 1, 1], None),
    "linear_end_factor": (
        "[{type: LinearLR, start_factor: 1.0, end_factor: 0.2, by_epoch: true, begin: 2, "
        "end: 5}]",
        [1, 1, 1, 1, 1, 1, 0.6, 0.6, 0.2, 0.2, 0.2], None),
    "constant": (
        "[{type: ConstantLR, by_epoch: false, begin: 2, end: 7}]",
        [1, 1, 0.333333333, 0.333333333, 1, 1, 1, 1, 1, 1, 1], None),
    "constant_factor": (
        "[{type: ConstantLR, factor: 0.5, by_epoch: true, end: 3}]",
        [0.5, 0.5, 0.5, 0.5, 1, 1, 1, 1, 1, 1, 1], None),
    "step": (
        "[{type: StepLR, step_size: 2, gamma: 0.3, by_epoch: true}]",
        [1, 1, 1, 1, 0.3, 0.3, 0.3, 0.3, 0.09, 0.09, 0.09], None),
    "exp": (
        "[{type: ExponentialLR, gamma: 0.9, by_epoch: false, begin: 3, end: 12}]",
        [1, 1, 1, 0.81, 0.59049, 0.43046721, 0.43046721, 0.43046721, 0.43046721, 0.43046721,
         0.43046721], None),
    "cosine": (
        "[{type: LinearLR, start_factor: 0.1, by_epoch: false, begin: 0, end: 4}, "
        "{type: CosineAnnealingLR, T_max: 4, eta_min: 5e-06, begin: 2, end: 6, "
        "by_epoch: true, convert_to_iter_based: true}]",
        [0.1, 0.4, 1, 1, 1, 0.919948066, 0.860875721, 0.617667903, 0.525, 0.261104139,
         0.0591269918],
        [0.1, 0.4, 1, 1, 1, 0.916156132, 0.854285624, 0.599557435, 0.5025, 0.226103809,
         0.014559323]),
    "cosine_overlap": (
        "[{type: LinearLR, start_factor: 0.1, by_epoch: false, begin: 0, end: 7}, "
        "{type: CosineAnnealingLR, T_max: 6, eta_min: 2e-05, by_epoch: true}]",
        [0.1, 0.25, 0.55, 0.80932914, 0.804615507, 0.804615507, 0.603077004, 0.603077004,
         0.401538502, 0.401538502, 0.254002079],
        [0.1, 0.25, 0.55, 0.794687631, 0.755461551, 0.755461551, 0.5103077, 0.5103077,
         0.26515385, 0.26515385, 0.0856887762]),
    "cosine_ratio": (
        "[{type: CosineAnnealingLR, eta_min_ratio: 0.05, begin: 0, end: 24, "
        "by_epoch: false}]",
        [1, 0.995936309, 0.963842778, 0.901842837, 0.7625, 0.586999941, 0.525, 0.34322537,
         0.2875, 0.148157163, 0.0540636908], None),
    "cosine_restart": (
        "[{type: CosineAnnealingLR, T_max: 5, by_epoch: false}]",
        [1, 0.904508497, 0.345491503, 0, 0.654508497, 0.904508497, 0.654508497, 0, 0.0954915028,
         0.904508497, 0.345491503], None),
    "cosine_restart_floor": (
        "[{type: CosineAnnealingLR, T_max: 5, eta_min: 1e-05, by_epoch: false}, "
        "{type: MultiStepLR, milestones: [3], by_epoch: true}]",
        [1, 0.914057647, 0.410942353, 0.1, 0.689057647, 0.914057647, 0.0689057647, 0.1,
         0.185942353, 0.914057647, 0.410942353],
        [1, 0.905463412, 0.352036588, 0.01, 0.657963412, 0.905463412, 0.0657963412, 0.01,
         0.104536588, 0.905463412, 0.352036588]),
    "poly": (
        "[{type: PolyLR, power: 0.9, eta_min: 1e-05, begin: 0, end: 20, by_epoch: false}]",
        [1, 0.957254006, 0.871031734, 0.783721916, 0.650323027, 0.513185676, 0.466397502,
         0.321420721, 0.270912331, 0.1, 0.1],
        [1, 0.952979406, 0.858134907, 0.762094107, 0.61535533, 0.464504243, 0.413037253,
         0.253562793, 0.198003564, 0.01, 0.01]),
    "poly_epochs": (
        "[{type: PolyLR, power: 2, begin: 1, end: 6, by_epoch: true}]",
        [1, 1, 1, 1, 0.5625, 0.5625, 0.25, 0.25, 0.0625, 0.0625, 0], None),
    "multistep_converted": (
        "[{type: MultiStepLR, by_epoch: true, begin: 1, end: 6, milestones: [1, 3], "
        "gamma: 0.5, convert_to_iter_based: true}]",
        [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25], None),
    "exp_converted": (
        "[{type: ExponentialLR, by_epoch: true, end: 3, gamma: 0.9, "
        "convert_to_iter_based: true}]",
        [1, 0.9, 0.729, 0.59049, 0.43046721, 0.313810596, 0.313810596, 0.313810596, 0.313810596,
         0.313810596, 0.313810596], None),
    "step_converted": (
        "[{type: StepLR, by_epoch: true, step_size: 2, gamma: 0.5, "
        "convert_to_iter_based: true}]",
        [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25], None),
    "twice": (
        "[{type: MultiStepLR, by_epoch: true, milestones: [2, 2], gamma: 0.5}, "
        "{type: LinearLR, by_epoch: false, end: 3}, "
        "{type: LinearLR, start_factor: 1.0, end_factor: 0.0, by_epoch: false, "
        "begin: 10, end: 20}]",
        [0.333333333, 0.666666667, 1, 1, 0.25, 0.222222222, 0.194444444, 0.111111111,
         0.0833333333, 0, 0], None),
}


def load(*options, notes=None, config=ONE_X):
    return load_queryinst_config(config, options=options, notes=notes)


@pytest.mark.parametrize("name", RATES)
def test_rates_are_mmengines(name):
    schedulers, small, large = RATES[name]
    rate_at = lr_schedule(load(f"param_scheduler={schedulers}"), 4)
    for base, expected in ((1e-4, small), (1e-3, large or small)):
        ours = [rate_at(base, i) / base for i in AT]
        assert ours == pytest.approx(expected, rel=2e-8, abs=1e-12)


@pytest.mark.parametrize("name", ["cosine_overlap", "cosine_restart_floor"])
def test_a_followed_rate_does_not_depend_on_what_was_asked_before(name):
    cfg = load(f"param_scheduler={RATES[name][0]}")
    asked, fresh = lr_schedule(cfg, 4), lr_schedule(cfg, 4)
    forward = [asked(1e-3, i) for i in range(24)]
    assert [fresh(1e-3, 23), fresh(1e-3, 5), fresh(1e-4, 5), fresh(1e-3, 6)] == [
        forward[23], forward[5], asked(1e-4, 5), forward[6]]


def test_a_schedule_by_index_and_alone():
    cfg = load("param_scheduler.1.milestones=[4,6]", "param_scheduler.0.end=7")
    assert (cfg.param_scheduler[1].milestones, cfg.param_scheduler[0].end) == ((4, 6), 7)
    (alone,) = load("param_scheduler={type: ConstantLR, factor: 0.5}").param_scheduler
    assert (alone.type, alone.factor) == ("ConstantLR", 0.5)


class Net(nn.Module):
    """A layer of each kind that the rules tell apart; `cfg` as a QueryInst network has it."""

    def __init__(self, **rules):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
        self.attn = nn.MultiheadAttention(8, 2)
        self.norm, self.fc = nn.LayerNorm(8), nn.Linear(8, 8)
        self.scale, self.frozen = nn.Parameter(torch.ones(1)), nn.Linear(2, 2)
        self.frozen.weight.requires_grad = False
        self.backbone_fc = nn.Linear(8, 2)
        wrapper = load("optim_wrapper.optimizer.lr=1.0",
                       "optim_wrapper.optimizer.weight_decay=1.0").optim_wrapper
        paramwise = ParamwiseConfig(**rules) if rules else None
        self.cfg = SimpleNamespace(optim_wrapper=replace(wrapper, paramwise_cfg=paramwise))

    @property
    def multipliers(self):
        """{name: (of the rate, of the decay)} of those that are not 1 and 1."""
        names = {id(p): name for name, p in self.named_parameters()}
        found = {names[id(p)]: (group["lr"], group["weight_decay"])
                 for group in param_groups(self) for p in group["params"]}
        assert "frozen.weight" not in found
        assert len(found) == len(names) - 1
        return {name: pair for name, pair in found.items() if pair != (1, 1)}


BIASES = ("backbone.0.bias", "attn.out_proj.bias", "fc.bias", "frozen.bias", "backbone_fc.bias")
NORMS = ("backbone.1.weight", "backbone.1.bias", "norm.weight", "norm.bias")


@pytest.mark.parametrize("rules, expected", [
    ({}, {}),
    ({"norm_decay_mult": 0}, dict.fromkeys(NORMS, (1, 0))),
    ({"bias_lr_mult": 2, "bias_decay_mult": 0.5},
     dict.fromkeys(BIASES, (2, 0.5)) | dict.fromkeys(NORMS[1::2], (1, 0.5))),
    ({"flat_decay_mult": 0.25},
     dict.fromkeys((*BIASES, *NORMS, "attn.in_proj_bias", "scale"), (1, 0.25))),
    ({"norm_decay_mult": 0, "bias_decay_mult": 0.5, "flat_decay_mult": 0.25, "bias_lr_mult": 2},
     dict.fromkeys(BIASES, (2, 0.5)) | dict.fromkeys(NORMS, (1, 0))
     | dict.fromkeys(("attn.in_proj_bias", "scale"), (1, 0.25))),
    ({"custom_keys": {"fc": ParamMultipliers(1, 0.5), "backbone_fc": ParamMultipliers(0.5),
                      "norm": ParamMultipliers(3)}, "bias_decay_mult": 0},
     {"norm.weight": (3, 1), "norm.bias": (3, 1), "fc.weight": (1, 0.5), "fc.bias": (1, 0.5),
      "backbone_fc.weight": (0.5, 1), "backbone_fc.bias": (0.5, 1),
      **dict.fromkeys(("backbone.0.bias", "backbone.1.bias", "attn.out_proj.bias", "frozen.bias"),
                      (1, 0))}),
])
def test_multipliers_are_mmengines(rules, expected):
    assert Net(**rules).multipliers == expected


def test_sgd_by_the_config_and_its_state():
    cfg = load("optim_wrapper.optimizer={_delete_: true, type: SGD, lr: 0.02, momentum: 0.9}")
    settings = cfg.optim_wrapper.optimizer
    assert (settings.lr, settings.decay, settings.options) == (0.02, 0, {"momentum": 0.9})
    a, b = nn.Linear(3, 2), nn.Linear(2, 1)
    net = nn.Sequential(a, b)
    groups = [{"params": [*b.parameters()]}, {"params": [*a.parameters()], "lr": 0.1}]
    ordered = OrderedSGD(groups, [*net.parameters()], lr=0.02, momentum=0.9)
    net(torch.ones(1, 3)).sum().backward()
    ordered.step()
    state = ordered.state_dict()
    assert [group["params"] for group in state["param_groups"]] == [[0], [1], [2], [3]]
    assert [group["lr"] for group in state["param_groups"]] == [0.1, 0.1, 0.02, 0.02]
    assert torch.equal(state["state"][0]["momentum_buffer"], a.weight.grad)
    again = OrderedSGD(groups, [*net.parameters()], lr=0.02, momentum=0.9)
    again.load_state_dict(state)
    assert torch.equal(again.state[a.weight]["momentum_buffer"], a.weight.grad)
    adam = OrderedAdamW(groups, [*net.parameters()], lr=0.02)
    with pytest.raises(ValueError, match="it is SGD's, the config asks for AdamW"):
        adam.load_state_dict(state)


def test_scale_of_the_loss():
    assert OptimWrapperConfig().scaler_options == {}
    fixed = load("optim_wrapper.loss_scale=512").optim_wrapper.scaler_options
    moving = load("optim_wrapper.loss_scale={init_scale: 8, growth_factor: 4}").optim_wrapper
    assert moving.scaler_options["init_scale"] == 8
    assert moving.scaler_options["growth_factor"] == 4
    assert scale_after_an_overflow(fixed, {"init_scale": 512.0}) == 512
    assert scale_after_an_overflow(moving.scaler_options, moving.scaler_options) == 4


def scale_after_an_overflow(scaling, options):
    """On a CPU, where --amp fp16 is refused but torch's scaler works all the same."""
    precision = Precision("off", CPU, scaling=scaling)
    precision.scaler = torch.amp.GradScaler("cpu", **options)
    weight = nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=0.0)
    precision.scaler.scale(weight * math.inf).sum().backward()
    precision.grad_norm(optimizer)
    precision.step(optimizer)
    return precision.scaler.get_scale()


@pytest.mark.parametrize("norm_type, expected", [("2", 5.0), ("1", 7.0), ("inf", 4.0)])
def test_norm_of_the_gradients(norm_type, expected):
    wrapper = load(f"optim_wrapper.clip_grad.norm_type={norm_type}").optim_wrapper
    weight = nn.Parameter(torch.zeros(2))
    weight.grad = torch.tensor([3.0, -4.0])
    norm = Precision("off", CPU).grad_norm(torch.optim.SGD([weight], lr=1.0), wrapper.norm_p)
    assert norm.item() == expected


STOPS = [  # values, settings, the validation after which training ends: mmengine's, measured
    ([.1, .2, .3, .35, .4, .45, .5, .5, .5], {}, None),
    ([.5, .5, .5, .5, .5], {"min_delta": 0.0, "patience": 2}, None),
    ([.5, .49, .55, .54, .53, .52], {"min_delta": 0.0, "patience": 2}, 4),
    ([.5, .6, .69, .71, .82], {"patience": 1}, 2),
    ([.5, .6001, .7002, .80], {"patience": 1}, 3),
    ([.1, .5, .95, .96], {"stopping_threshold": .94}, 2),
    ([.1, .5, .94, .95], {"min_delta": 0.0, "stopping_threshold": .94}, 3),
    ([.1, math.nan, .2], {}, 1),
    ([.1, math.nan, .2, .3], {"check_finite": False}, None),
    ([5, 4, 3.95, 3.9, 3.85, 3.8, 3.75, 3.7], {"rule": "less", "patience": 3}, None),
    ([5, 4, 3, 2], {"rule": "less", "stopping_threshold": 3}, 3),
]


@pytest.mark.parametrize("values, settings, expected", STOPS)
def test_early_stops_are_mmengines(values, settings, expected):
    rule = EarlyStoppingHookConfig("m", **{"rule": "greater", **settings})
    early = EarlyStop(rule, pytest.fail)
    ended = None
    for i, value in enumerate(values):
        early.note({"m": value})
        if early.reason and ended is None:
            ended = i
    assert ended == expected


def test_early_stop_goes_on_and_may_miss_its_score():
    rule = EarlyStoppingHookConfig("coco/bbox_mAP", min_delta=0.0, patience=2)
    warnings = []
    early = EarlyStop(rule, warnings.append)
    for value in (.5, .4):
        early.note({"coco/bbox_mAP": value})
    early.note({"other": 1})
    assert len(warnings) == 1
    assert early.reason is None
    later = EarlyStop(rule, warnings.append)
    later.restore(early.pack())
    later.note({"coco/bbox_mAP": .45})
    assert "better than 0.5 by 0 for 2 validations" in later.reason
    ended = EarlyStop(rule, warnings.append)
    ended.restore(later.pack())
    assert ended.reason
    with pytest.raises(InputError, match="the evaluation has no coco/bbox_mAP; it has other"):
        EarlyStop(replace(rule, strict=True), warnings.append).note({"other": 1})
    with pytest.raises(InputError, match="set rule to greater or less"):
        EarlyStop(EarlyStoppingHookConfig("foo"), warnings.append)


def test_what_a_tests_section_leaves_out_is_the_validations():
    cfg = load("test_dataloader.dataset.pipeline.1.scale=(50,40)",
               "test_evaluator.format_only=True", "test_evaluator.outfile_prefix=out/a",
               "val_dataloader.batch_size=3", config="queryinst_shapes")
    test = cfg.test_dataloader
    assert test.batch_size == 3
    assert test.dataset.pipeline[1].scale == (50, 40)
    assert cfg.val_dataloader.dataset.pipeline[1].scale == (96, 96)
    assert test.dataset.info_path == cfg.val_dataloader.dataset.info_path
    assert cfg.for_test.scored_by == (test, cfg.test_evaluator)
    assert not cfg.val_evaluator.format_only
    assert load(config=cfg) == cfg
    plain = load(config="queryinst_shapes")
    assert plain.for_test.scored_by == plain.scored_by


def test_no_validation():
    none = [f"{key}=None" for key in ("val_cfg", "val_dataloader", "val_evaluator")]
    cfg = load(*none)
    assert cfg.known_metrics(["cat"]) == []
    assert not cfg.validations(10)["validate_end"]
    assert load(config=cfg) == cfg
    with pytest.raises(InputError, match="--eval-only wants test_dataloader"):
        _ = cfg.for_test
    with pytest.raises(InputError, match="val_cfg is None: for no validation"):
        load(none[0])


ACCEPTED = [  # with a note that it changes nothing
    "env_cfg.cudnn_benchmark=True", "env_cfg.mp_cfg.mp_start_method=spawn", "log_level=DEBUG",
    "dist_params.backend=nccl", "default_scope=mmdet", "launcher=pytorch", "data_root=x/",
    "vis_backends=[{type: LocalVisBackend}]", "default_hooks.timer.type=IterTimerHook",
    "default_hooks.visualization.draw=True", "default_hooks.sampler_seed=None",
    "visualizer.name=v", "custom_hooks=[{type: NumClassCheckHook}]",
    "default_hooks.logger.out_suffix=.log", "randomness.diff_rank_seed=True",
    "val_evaluator.backend_args=None", "test_evaluator.use_mp_eval=True",
    "val_evaluator.sort_categories=True", "model_wrapper_cfg.broadcast_buffers=True",
    "optim_wrapper.optimizer.foreach=True", "optim_wrapper.paramwise_cfg.dwconv_decay_mult=0.0",
    "optim_wrapper.paramwise_cfg.bypass_duplicate=True", "param_scheduler.0.verbose=True",
    "default_hooks.checkpoint.priority=LOW", "optim_wrapper.clip_grad.error_if_nonfinite=True",
]
SILENT = [  # as it is here in any case
    "custom_hooks=[]", "custom_hooks=None", "default_hooks.param_scheduler.type=ParamSchedulerHook",
    "val_cfg.type=ValLoop", "test_cfg.type=TestLoop", "val_evaluator.prefix=coco",
    "optim_wrapper.constructor=DefaultOptimWrapperConstructor", "resume=False", "load_from=None",
    "log_processor.type=LogProcessor", "visualizer.type=DetLocalVisualizer", "sync_bn=torch",
    "default_hooks.checkpoint.backend_args=None", "find_unused_parameters=True", "compile=False",
    "default_hooks.checkpoint.backend_args={backend: local}", "experiment_name=mine",
    "train_cfg={_delete_: true, type: EpochBasedTrainLoop, max_epochs: 3}",
]
REFUSED = {
    "custom_hooks=[{type: EMAHook, momentum: 0.001}]": "give --ema 0.999",
    "custom_hooks=[{type: MyHook}]": "MyHook is not supported here: a config's code is never run",
    "custom_hooks=[{type: EarlyStoppingHook, patience: 2}]": "custom_hooks[0].monitor is missing",
    "custom_hooks=[{type: EarlyStoppingHook, monitor: a, patience: 0}]": "patience wants a number",
    "custom_imports={imports: [mine]}": "a config's code is never run",
    "visualizer.vis_backends=[{type: WandbVisBackend}]": "WandbVisBackend is not supported here",
    "train_cfg.dynamic_intervals=[[2, 1]]": "validations have one interval",
    "train_cfg={_delete_: true, type: IterBasedTrainLoop, max_iters: 9}":
        "param_scheduler[1].by_epoch wants false with IterBasedTrainLoop",
    "train_cfg.type=IterBasedTrainLoop": "max_iters is missing, IterBasedTrainLoop needs it",
    "val_evaluator.metric=proposal": "wants bbox, segm or both, got proposal",
    "val_evaluator.format_only=True": "outfile_prefix is missing",
    "val_evaluator.prefix=val": "wants one of coco",
    "val_evaluator.proposal_nums=[1, 2]": "wants three numbers",
    "default_hooks.checkpoint.filename_tmpl=last.pth": "with one {} for the number",
    "default_hooks.checkpoint.backend_args={backend: petrel}": "wants a local backend",
    "default_hooks.checkpoint.rule=[greater, less]": "rule wants one for each of save_best",
    "optim_wrapper.optimizer.momentum=0.9": "momentum is no key of AdamW",
    "optim_wrapper.optimizer={_delete_: true, type: SGD, nesterov: true}": "nesterov wants",
    "optim_wrapper.clip_grad.type=value": "type wants 'norm'",
    "optim_wrapper.clip_grad.norm_type=0": "norm_type wants a number above 0",
    "optim_wrapper.loss_scale=-1": "loss_scale wants dynamic, a number above 0",
    "optim_wrapper.constructor=Mine": "wants 'DefaultOptimWrapperConstructor'",
    "param_scheduler=[{type: PolyLR}]": "end is missing, PolyLR needs it",
    "param_scheduler=[{type: CosineAnnealingLR}]": "T_max is missing",
    "param_scheduler=[{type: ReduceOnPlateauLR}]": "wants one of LinearLR",
    "param_scheduler.0.gamma=0.5": "gamma is no key of LinearLR",
    "param_scheduler.0.begin=2000": "end wants a number above begin 2000, got 1000",
    "log_processor.custom_cfg=[{data_src: loss}]": "not supported here",
    "sync_bn=mmcv": "sync_bn wants one of torch",
}


@pytest.mark.parametrize("option", ACCEPTED)
def test_accepted_with_a_note(option):
    notes = []
    cfg = load(option, notes=notes)
    (line,) = note_lines(notes + cfg.notes)
    key, says, _ = line.partition(" changes nothing here: ")
    assert says
    assert option.startswith(key.partition("[")[0])


@pytest.mark.parametrize("option", SILENT)
def test_accepted_silently(option):
    notes = []
    cfg = load(option, notes=notes)
    assert notes + cfg.notes == []


@pytest.mark.parametrize("option", REFUSED)
def test_refused_with_the_reason(option):
    with pytest.raises(InputError) as caught:
        load(option)
    assert any(REFUSED[option] in fault for fault in caught.value.faults), caught.value.faults


def test_run_keys_of_the_1x_recipe():
    """As MMDetection's own config has them."""
    keys = run_keys(load())
    assert keys["optim_wrapper"] == {
        "type": "OptimWrapper",
        "optimizer": {"type": "AdamW", "lr": 1e-4, "weight_decay": 1e-4},
        "paramwise_cfg": {"custom_keys": {"backbone": {"lr_mult": 0.1, "decay_mult": 1.0}}},
        "clip_grad": {"max_norm": 0.1, "norm_type": 2}}
    assert keys["param_scheduler"] == [
        {"type": "LinearLR", "start_factor": 0.001, "by_epoch": False, "begin": 0, "end": 1000},
        {"type": "MultiStepLR", "begin": 0, "end": 12, "by_epoch": True, "milestones": [8, 11],
         "gamma": 0.1}]
    assert keys["train_cfg"] == {"type": "EpochBasedTrainLoop", "max_epochs": 12,
                                 "val_interval": 1}
    assert keys["default_hooks"]["checkpoint"] == {"type": "CheckpointHook", "interval": 1,
                                                   "by_epoch": True}
    assert keys["default_hooks"]["logger"] == {"type": "LoggerHook", "interval": 50}
    assert keys["auto_scale_lr"] == {"enable": False, "base_batch_size": 16}
    assert keys["log_processor"] == {"type": "LogProcessor", "window_size": 50, "by_epoch": True}
    assert evaluator_keys(load().val_evaluator, "a.json") == {
        "type": "CocoMetric", "ann_file": "a.json", "metric": ["bbox", "segm"],
        "format_only": False, "backend_args": None}


def test_run_keys_read_back(tmp_path):
    options = [
        "optim_wrapper={_delete_: true, type: AmpOptimWrapper, loss_scale: {init_scale: 8}, "
        "optimizer: {type: SGD, lr: 0.02, momentum: 0.9}, "
        "clip_grad: {max_norm: 35, norm_type: inf}, accumulative_counts: 2, "
        "paramwise_cfg: {norm_decay_mult: 0.0}}",
        "param_scheduler=[{type: PolyLR, power: 0.9, end: 20, by_epoch: false}]",
        "train_cfg={_delete_: true, type: IterBasedTrainLoop, max_iters: 20, val_interval: 5}",
        "default_hooks.checkpoint={_delete_: true, type: CheckpointHook, by_epoch: false, "
        "interval: 5, save_best: [coco/bbox_mAP, auto], rule: [greater, less], out_dir: /x, "
        "published_keys: [meta, state_dict], filename_tmpl: 'a_{}.pth'}",
        "custom_hooks=[{type: EarlyStoppingHook, monitor: coco/bbox_mAP}]",
        "visualizer.vis_backends=[{type: TensorboardVisBackend}]", "sync_bn=torch",
        "randomness={seed: 3, deterministic: true}", "find_unused_parameters=True",
        "val_cfg=None", "val_dataloader=None", "val_evaluator=None"]
    cfg = load(*options)
    keys = run_keys(cfg)
    keys["visualizer"]["vis_backends"] = keys["visualizer"]["vis_backends"][1:]
    mine = {key: {"_delete_": True, **value} if isinstance(value, dict) else value
            for key, value in keys.items()}
    (tmp_path / "again.yaml").write_text(yaml.safe_dump(
        {"_base_": str(RECIPES / f"{ONE_X}.yaml"), **mine, "val_dataloader": None,
         "val_evaluator": None, "name": cfg.name}))
    again = load_queryinst_config(tmp_path / "again.yaml")
    for key in vars(cfg):
        if key not in ("work_dir", "visualizer"):
            assert getattr(again, key) == getattr(cfg, key), key
    assert again.visualizer.tensorboard


def test_a_python_configs_sections_are_whole(tmp_path):
    """What they leave out is MMEngine's default, not the recipe's."""
    (tmp_path / "mine.py").write_text(
        "optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=2e-4))\n"
        "default_hooks = dict(checkpoint=dict(type='CheckpointHook'))\n"
        "log_processor = dict(type='LogProcessor')\n"
        "train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=3)\n")
    cfg = load(config=tmp_path / "mine.py")
    wrapper = cfg.optim_wrapper
    assert (wrapper.clip_grad, wrapper.paramwise_cfg, wrapper.optimizer.decay) == (None, None, 0.01)
    assert cfg.default_hooks.checkpoint.interval == -1
    assert (cfg.default_hooks.logger.interval, cfg.log_processor.window_size) == (10, 10)
    assert cfg.param_scheduler == ()
    changed = load("optim_wrapper.clip_grad.max_norm=2", config=tmp_path / "mine.py")
    assert changed.optim_wrapper.clip_grad.max_norm == 2
    assert changed.optim_wrapper.optimizer == wrapper.optimizer


@pytest.mark.parametrize("batch, processes, enable, factor, said", [
    (2, 8, False, 1.0, "16 images a batch over all processes, which the rate 0.0001 is for"),
    (2, 8, True, 1.0, "16 images a batch over all processes, which the rate 0.0001 is for"),
    (2, 1, False, 1.0, "2 images a batch over all processes, the rate 0.0001 is for 16: left as it "
                       "is; --auto-scale-lr would make it 1.25e-05"),
    (8, 4, True, 2.0, "32 images a batch over all processes, the rate 0.0001 is for 16: scaled to "
                      "0.0002"),
])
def test_the_rate_belongs_to_a_batch(batch, processes, enable, factor, said):
    cfg = load_queryinst_config("queryinst_r50_fpn_1x_coco", options=[
        f"train_dataloader.batch_size={batch}", f"auto_scale_lr.enable={enable}"])
    assert auto_scale(cfg, processes) == (factor, said)
