"""Every recorded learning rate of the four originals."""

import pytest
from goldens import load_golden

from common.schedulers import autoscale, per_epoch, poly, warmup_multistep

# double precision on both sides; only the order of operations may differ
RTOL = 1e-12

YOLACT = load_golden("yolact_lr")
YOLACT_RUNS = [name for name, run in YOLACT.items() if isinstance(run, dict)]


@pytest.mark.parametrize("name", YOLACT_RUNS)
def test_yolact(name):
    run = YOLACT[name]
    lr_at = warmup_multistep(
        run["lr"],
        run["lr_steps"],
        YOLACT["gamma"],
        YOLACT["lr_warmup_until"],
        YOLACT["lr_warmup_init"],
    )
    for iteration, lr in run["iters"]:
        assert lr_at(iteration) == pytest.approx(lr, rel=RTOL), iteration


@pytest.mark.parametrize("name", [n for n in YOLACT_RUNS if n.startswith("yolact_base")])
def test_yolact_autoscale(name):
    run, base = YOLACT[name], YOLACT["yolact_base_bs8"]
    lr, steps, max_iters = autoscale(
        run["batch_size"], base["lr"], base["lr_steps"], base["max_iter"]
    )
    assert lr == pytest.approx(run["lr"], rel=RTOL)
    assert (steps, max_iters) == (run["lr_steps"], run["max_iter"])


@pytest.mark.parametrize("case", load_golden("resnest_lr")["cases"])
def test_resnest(case):
    lr_at = per_epoch(
        case["mode"],
        case["base_lr"],
        case["num_epochs"],
        case["iters_per_epoch"],
        warmup_epochs=case["warmup_epochs"],
        lr_step=case["lr_step"],
    )
    for epoch, i, lr in case["values"]:
        iteration = epoch * case["iters_per_epoch"] + i
        # the last cosine rates are base x 1e-12: a difference of two numbers near 1
        assert lr_at(iteration) == pytest.approx(lr, rel=RTOL, abs=1e-16), (epoch, i)


@pytest.mark.parametrize("schedule", load_golden("seg_lr")["schedules"])
@pytest.mark.parametrize("net", ["encoder", "decoder"])
def test_seg(schedule, net):
    lr_at = poly(schedule[f"lr_{net}"], schedule["max_iters"], schedule["lr_pow"])
    for point in schedule["points"]:
        assert lr_at(point["cur_iter"]) == pytest.approx(point[f"lr_{net}"], rel=RTOL)


def queryinst_schedules():
    for name, rows in load_golden("queryinst_lr").items():
        if name.startswith("schedule_"):
            kind, iters_per_epoch = name.removeprefix("schedule_").split("_N")
            yield pytest.param(kind, int(iters_per_epoch), rows, id=name)


@pytest.mark.parametrize("kind, iters_per_epoch, rows", list(queryinst_schedules()))
def test_queryinst(kind, iters_per_epoch, rows):
    # the ramp reaches the base one iteration before its stated end [queryinst.md: Learning rate]
    warmup_iters, milestones = {"1x": (999, (8, 11)), "3x": (499, (27, 33))}[kind]
    steps = [epoch * iters_per_epoch for epoch in milestones]
    for group, base in (("backbone", 1e-5), ("other", 1e-4)):
        lr_at = warmup_multistep(base, steps, 0.1, warmup_iters, 1e-3 * base, "multiply")
        for iteration, _epoch, _base_lr, backbone_lr, other_lr in rows:
            wanted = {"backbone": backbone_lr, "other": other_lr}[group]
            # the record is rounded to 9 or 10 digits
            assert lr_at(iteration) == pytest.approx(wanted, rel=1e-9), iteration
