"""The states of schedules in our checkpoints beside MMEngine's own schedulers, move by move."""

import pytest
import torch

from models import queryinst

pytestmark = pytest.mark.slow

PER_EPOCH = 5
SCHEDULES = [
    {"type": "LinearLR", "begin": 0, "end": 7, "by_epoch": False, "start_factor": 0.1},
    {"type": "ConstantLR", "end": 4},
    {"type": "MultiStepLR", "milestones": [2, 3]},
    {"type": "StepLR", "step_size": 2},
    {"type": "ExponentialLR", "gamma": 0.5},
    {"type": "CosineAnnealingLR", "T_max": 4},
    {"type": "CosineAnnealingLR", "begin": 2, "end": 6, "eta_min_ratio": 0.1},
    {"type": "PolyLR", "end": 6, "power": 0.9},
    {"type": "LinearLR", "begin": 1, "end": 3, "convert_to_iter_based": True},
    {"type": "MultiStepLR", "milestones": [2], "convert_to_iter_based": True},
    {"type": "PolyLR", "begin": 1, "end": 4, "convert_to_iter_based": True, "eta_min": 1e-6},
]


@pytest.fixture(scope="module")
def mmengine():
    pytest.importorskip("mmengine", reason="mmengine is not installed: make interop")
    import mmengine.optim

    return mmengine


def build_theirs(mmengine, optimizer, schedule):
    from mmengine.registry import PARAM_SCHEDULERS

    options = dict(schedule)
    kind = PARAM_SCHEDULERS.get(options.pop("type"))
    if options.pop("convert_to_iter_based", False):
        return kind.build_iter_from_epoch(optimizer, epoch_length=PER_EPOCH, **options)
    return kind(optimizer, **options)


def test_every_state_is_mmengines(mmengine):
    net = queryinst.build_queryinst(queryinst.load_queryinst_config(
        "queryinst_shapes", param_scheduler=SCHEDULES,
        optim_wrapper={"paramwise_cfg": {"custom_keys": {"backbone": {"lr_mult": 0.1}}}}))
    saved = queryinst.build_optimizer(net, 1)[0].state_dict()
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": group["base_lr"]}
              for group in saved["param_groups"]]
    wrapper = mmengine.optim.OptimWrapper(torch.optim.SGD(groups, lr=0.1))
    wrapper.base_param_settings = {"params": torch.zeros(1), "lr": 0.001}
    theirs = [build_theirs(mmengine, wrapper, schedule) for schedule in SCHEDULES]
    form = queryinst.MmengineForm(net, [f"c{i}" for i in range(6)], 0, PER_EPOCH)
    for iteration in range(8 * PER_EPOCH):
        states = form.param_schedulers(saved, iteration)
        for schedule, own, other in zip(SCHEDULES, states, theirs, strict=True):
            wanted = other.state_dict()
            assert own.keys() == wanted.keys(), schedule
            for key in wanted.keys() - {"_last_value"}:  # what it logs; another one may move later
                assert own[key] == wanted[key], (schedule, key, iteration)
        rates = [group["lr"] for group in wrapper.param_groups]
        # double precision: theirs is a product of all moves, ours of the factors
        assert states[0]["_last_value"] == pytest.approx(rates, rel=1e-10, abs=0), iteration
        moved = form.optimizer(saved, None, iteration)
        assert [g["lr"] for g in moved["param_groups"]] == pytest.approx(rates[:-1], rel=1e-10)
        for each in sorted(theirs, key=lambda one: one.by_epoch):  # as its runner's hook
            if not each.by_epoch or (iteration + 1) % PER_EPOCH == 0:
                each.step()
