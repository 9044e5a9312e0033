"""Short runs of the scripts, in numbers: against a file, and against what follows from others.

A run is a process of its own on one CPU thread. What it must give lies in
tests/scripts/expected/<script>.json: the losses, rate and gradient norm of every update, and norms
of what it ends with. A change of the code that is meant to change them is written down by

    make expected-numbers

which runs these tests with --write-expected; look at the difference in git before committing it.

What an optimizer did in a run's last update is computed again here from the checkpoints before and
after it: the gradient, its norm, the rate that was really used, the moving average.
"""

import json
import math
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

EXPECTED = Path(__file__).parent / "scripts" / "expected"
UPDATES = 5
# Another processor or version of torch adds up in another order. That alone is 1e-7, but a ReLU
# whose input is next to 0 then opens or stays shut, and batch norm over few values magnifies that:
# a gradient jumps, and every update passes it on to the next. Behind each number: the most that was
# measured between AVX-512 and SSE (ATEN_CPU_CAPABILITY=default DNNL_MAX_CPU_ISA=SSE41).
RTOL = {
    "first losses": 2e-5,  # 5e-7
    "losses": 3e-3,  # 6e-4
    "first grad_norm": 2e-3,  # 4e-4
    "grad_norm": 0.1,  # 3e-2
    "last update": 4e-2, "moments": 4e-2,  # 1.1e-2
    "parameters": 1e-4, "some parameters": 1e-4, "average": 1e-4,  # 4e-6
    "average to parameters": 1e-2,  # as far as all the updates together
    "running_mean": 1e-3, "running_var": 1e-3,  # 1e-4
    "their sums": 1e-2,  # 2e-3
    "lr": 1e-9, "lr_decoder": 1e-9, "iteration": 0.0,  # of the settings alone, in float64
    "accuracy": 0.0,
}
ATOL = {
    "accuracy": 0.03,  # a share of pixels: those with nearly equal scores may change sides
    "their sums": 1e-2,  # terms of both signs: the sum may be next to nothing
}


@dataclass
class State:
    """A checkpoint: weights {name: tensor}, optimizers' state dicts, average {name: tensor}."""

    weights: dict
    optimizers: list
    average: dict | None

    @property
    def statistics(self):
        """BatchNorm's."""
        return {name: value for name, value in self.weights.items()
                if name.endswith(("running_mean", "running_var"))}

    def parameters(self, names):
        return {name: self.weights[name] for name in names}


class Finished:
    """A run that ended well. events: of metrics.jsonl; skips: its skipped updates."""

    def __init__(self, process, script, words, folder, logs, fault=()):
        folder.mkdir(exist_ok=True)
        status, self.text, err = process.run(f"{script}.py", words, folder, fault)
        assert status == 0, err
        self.folder = folder
        lines = (folder / logs / "metrics.jsonl").read_text().splitlines()
        self.events = [json.loads(line) for line in lines]

    @property
    def updates(self):
        return [event for event in self.events if event["event"] == "train"]

    @property
    def losses(self):
        """{term: value} of each update."""
        return [event["losses"] for event in self.updates]

    @property
    def rates(self):
        return [event["lr"] for event in self.updates]

    @property
    def grad_norms(self):
        return [event["grad_norm"] for event in self.updates]


def norm(tensors):
    """Of all together, in float64."""
    return math.sqrt(sum(float(each.double().square().sum()) for each in tensors))


def summary(run, before, after, names, extra=()):
    """What is compared: the updates of `run`, and norms of the states before and after the last.

    names: of the trained parameters; extra: keys of the events besides lr, losses and grad_norm
    """
    updates = [{key: event[key] for key in ("iteration", "lr", "losses", "grad_norm", *extra)}
               for event in run.updates]
    last = after.parameters(names)
    matrices = [name for name in names if last[name].ndim > 1]
    chosen = matrices[::max(1, len(matrices) // 8)]
    moments = [value for optimizer in after.optimizers for state in optimizer["state"].values()
               for key, value in sorted(state.items()) if key in ("momentum_buffer", "exp_avg")]
    numbers = {
        "updates": updates,
        "parameters": norm(last.values()),
        "last update": norm(last[name] - before.weights[name] for name in names),
        "moments": norm(moments),
        "some parameters": {name: norm([last[name]]) for name in chosen},
        "their sums": {name: float(last[name].double().sum()) for name in chosen},
    }
    if after.statistics:
        for kind in ("running_mean", "running_var"):
            numbers[kind] = norm(value for name, value in after.statistics.items() if kind in name)
    if after.average is not None:
        numbers["average"] = norm(after.average[name] for name in names)
        numbers["average to parameters"] = norm(after.average[name] - last[name] for name in names)
    return json.loads(json.dumps(numbers), parse_float=lambda text: float(f"{float(text):.9g}"))


def check_expected(script, name, numbers, write):
    """Compare with what expected/<script>.json has under `name`; or write it there."""
    path = EXPECTED / f"{script}.json"
    expected = json.loads(path.read_text()) if path.exists() else {}
    if write:
        text = json.dumps(expected | {name: numbers}, indent=1, sort_keys=True)
        path.write_text(text + "\n")
        return
    faults = list(differences(expected[name], numbers, name))
    assert not faults, "\n".join(faults)


def differences(expected, found, where, kind=""):
    """A line for every number that is beyond its tolerance, and for everything missing.

    kind: of the number, in RTOL
    """
    if isinstance(expected, dict):
        for key in sorted(expected.keys() | found.keys()):
            if key not in expected or key not in found:
                yield f"{where}: {key} is only {'expected' if key in expected else 'found'}"
                continue
            is_first = found.get("iteration") == 0 and f"first {key}" in RTOL
            own = f"first {key}" if is_first else key
            yield from differences(expected[key], found[key], f"{where}, {key}",
                                   own if own in RTOL else kind)
    elif isinstance(expected, list):
        if len(expected) != len(found):
            yield f"{where}: {len(expected)} expected, {len(found)} found"
        for i, (a, b) in enumerate(zip(expected, found, strict=False)):
            yield from differences(a, b, f"{where} {i}", kind)
    elif not abs(found - expected) <= ATOL.get(kind, 0.0) + RTOL[kind] * abs(expected):
        yield f"{where}: expected {expected:.9g}, found {found:.9g}"


def last_sgd_update(before, after, groups, lr):
    """Norm of the gradient behind an SGD's last update, computed from the states around it.

    groups: for each optimizer, for each of its groups, the parameters' names in its order
    lr:     for each optimizer, the rate that it must have used: asserted for all its weights
    """
    weights, gradients, moved, wanted = [], [], [], []
    for old, new, names, rate in zip(before.optimizers, after.optimizers, groups, lr, strict=True):
        for group, own in zip(new["param_groups"], names, strict=True):
            assert group["lr"] == pytest.approx(rate, rel=1e-9)
            for i, name in zip(group["params"], own, strict=True):
                momentum = new["state"][i]["momentum_buffer"].double()
                former = old["state"][i]["momentum_buffer"].double()
                weight = before.weights[name].double()
                weights.append(weight)
                gradients.append(momentum - group["momentum"] * former
                                 - group["weight_decay"] * weight)
                moved.append(after.weights[name].double() - weight)
                wanted.append(-rate * momentum)
    check_moved(weights, moved, wanted)
    return norm(gradients)


def last_adamw_update(before, after, names, lr):
    """The same of an AdamW with one group for each parameter; lr: for each of `names`."""
    ((old,), (new,)) = before.optimizers, after.optimizers
    weights, gradients, moved, wanted = [], [], [], []
    for i, (group, name, rate) in enumerate(zip(new["param_groups"], names, lr, strict=True)):
        assert group["lr"] == pytest.approx(rate, rel=1e-9)
        assert group["params"] == [i]
        state, (beta1, beta2) = new["state"][i], group["betas"]
        first, second = state["exp_avg"].double(), state["exp_avg_sq"].double()
        gradient = (first - beta1 * old["state"][i]["exp_avg"].double()) / (1 - beta1)
        squares = beta2 * old["state"][i]["exp_avg_sq"].double() + (1 - beta2) * gradient.square()
        torch.testing.assert_close(second, squares, rtol=1e-3, atol=1e-10)
        steps = int(state["step"])
        assert steps == UPDATES
        direction = first / (1 - beta1**steps) / (
            (second / (1 - beta2**steps)).sqrt() + group["eps"])
        weight = before.weights[name].double()
        weights.append(weight)
        gradients.append(gradient)
        moved.append(after.weights[name].double() - weight)
        wanted.append(-rate * (direction + group["weight_decay"] * weight))
    check_moved(weights, moved, wanted)
    return norm(gradients)


def check_moved(weights, moved, wanted):
    """weights: before the update, which moved them; wanted: what it should have added to them.

    Weights are float32: what is added is rounded at their size, not at its own.
    """
    rounding = 2**-23 * norm(weights)
    assert norm(wanted) > 20 * rounding, "too small an update to say anything"
    difference = norm(a - b for a, b in zip(moved, wanted, strict=True))
    assert difference < rounding + 1e-4 * norm(wanted)


def check_averages(states, decay):
    """The average after each state is decay x the one before it + (1 - decay) x the weights.

    states: of successive updates, the first update's first: it is where the average begins
    """
    average = {name: value.double() for name, value in states[0].weights.items()
               if value.is_floating_point()}
    for state in states[1:]:
        for name, value in average.items():
            average[name] = decay * value + (1 - decay) * state.weights[name].double()
    for name, value in average.items():
        # rounded to float32 at every update
        np.testing.assert_allclose(states[-1].average[name], value, rtol=1e-5, atol=1e-6)
    last = [value - states[-1].weights[name] for name, value in average.items()]
    assert norm(last) > 1e-3  # another thing than the weights


def check_accumulated(accumulated, first, second):
    """Losses and gradient of an update over two batches are the means of theirs, not the sums.

    Updates of metrics.jsonl: all three at the same weights.
    """
    for term, value in accumulated["losses"].items():
        mean = (first["losses"][term] + second["losses"][term]) / 2
        assert value == pytest.approx(mean, rel=1e-5), term
        assert value > 0
    assert accumulated["loss"] == pytest.approx((first["loss"] + second["loss"]) / 2, rel=1e-5)
    longest = (first["grad_norm"] + second["grad_norm"]) / 2
    assert 0 < accumulated["grad_norm"] <= longest * (1 + 1e-5)


def before_the_last(run, folder, *last):
    """Copy the files of `run` to `folder` as they were before its last update.

    last: patterns of the files that the last update has left
    """
    shutil.copytree(run.folder, folder)
    for pattern in last:
        for path in list(folder.glob(pattern)):
            path.unlink()


def same(a, b):
    """Whether two states hold the same bits; the optimizers' settings, such as rates, apart."""
    def equal(x, y):
        if isinstance(x, torch.Tensor):
            return torch.equal(x, y)
        if isinstance(x, dict):
            return x.keys() == y.keys() and all(equal(x[key], y[key]) for key in x)
        return x == y

    moments = ({i: each["state"] for i, each in enumerate(state.optimizers)} for state in (a, b))
    return (equal(a.weights, b.weights) and equal(a.average, b.average) and equal(*moments))


def average_of(state):
    """{name: tensor} of a saved AveragedModel; None without one."""
    if state is None:
        return None
    return {name.removeprefix("module."): value for name, value in state.items()
            if name != "n_averaged"}


class Runs:
    """The runs of one script, each made when it is first asked for.

    make(name, folder): a `Finished`
    """

    def __init__(self, folder, make):
        self._folder, self._make, self._made = folder, make, {}

    def __getitem__(self, name):
        if name not in self._made:
            self._made[name] = None  # a run that fails is not made again for every test
            self._made[name] = self._make(name, self._folder / name)
        assert self._made[name] is not None, f"the run {name} had failed"
        return self._made[name]


@pytest.fixture(scope="session")
def preloaded():
    """Forks the runs of all scripts; see `Preloaded`."""
    from preloaded import Preloaded

    with Preloaded() as process:
        yield process


@pytest.fixture
def write_expected(request):
    return request.config.getoption("--write-expected")
