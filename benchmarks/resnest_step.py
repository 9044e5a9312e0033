"""Speed of a training step of resnest50 against timm's resnest50d in the same run.

    pip install timm && python benchmarks/resnest_step.py --threads 2 --rounds 9

Forward, backward and SGD update of a batch of 8 at 224 px; ours in channels-last, theirs in both
layouts. All take turns with a matrix product of known size, medians are compared.
The allocator is set as our script sets it, for all. Operations are counted
from the layers' shapes (two for each multiply-add, three passes).
Goal: 1.08 of timm's speed, whichever layout is the faster there.
On a machine that others use too a round differs from the next by a tenth: take 20.
"""

import argparse
import random
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from figures import Figure
from torch import nn
from torch.nn import functional as F

from models.resnest import build_resnest
from runtime.allocator import keep_freed_memory

PRODUCT_SIDE, PRODUCTS = 2048, 6


def forward_macs(net, side):
    """Multiply-adds of the convolutions and linear layers for one image."""
    counts, hooks = [], []

    def count(module, _, out):
        if isinstance(module, nn.Conv2d):
            per_value = module.weight[0].numel()
        else:
            per_value = module.in_features
        counts.append(out.numel() * per_value)

    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            hooks.append(module.register_forward_hook(count))
    with torch.no_grad():
        net.eval()(torch.zeros(1, 3, side, side))
    for hook in hooks:
        hook.remove()
    return sum(counts)


def make_step(net, batch, side, memory_format):
    net = net.train().to(memory_format=memory_format)
    images = torch.randn(batch, 3, side, side).to(memory_format=memory_format)
    labels = torch.arange(batch)
    sgd = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)

    def step():
        sgd.zero_grad()
        F.cross_entropy(net(images), labels).backward()
        sgd.step()

    return step


def figures(datasets):
    of_product, of_timm = compare(threads=2, rounds=9, batch=8, side=224)
    found = [Figure("ResNeSt-50 step, operations a second", of_product, "a product's", 1.1)]
    if of_timm is not None:
        found.append(Figure("ResNeSt-50 step", of_timm, "the faster of timm's", 1.08))
    return found


def compare(threads, rounds, batch, side):
    """(operations a second divided by a product's, speed divided by timm's or None)."""
    torch.set_num_threads(threads)
    keep_freed_memory()
    torch.manual_seed(0)
    left, right = torch.randn(2, PRODUCT_SIDE, PRODUCT_SIDE).unbind()

    def product():
        for _ in range(PRODUCTS):
            left @ right

    ours = build_resnest("resnest50")
    step_ops = 3 * 2 * forward_macs(ours, side) * batch
    jobs = {
        "product": product,
        "ours": make_step(ours, batch, side, torch.channels_last),
    }
    try:
        import timm
    except ImportError:
        print("timm is not installed: no comparison")
    else:
        for name, layout in (
            ("timm", torch.contiguous_format), ("timm, channels-last", torch.channels_last)
        ):
            theirs = timm.create_model("resnest50d")
            jobs[name] = make_step(theirs, batch, side, layout)
    times = {name: [] for name in jobs}
    order = random.Random(0)
    for number in range(rounds + 1):
        for name in order.sample(list(jobs), len(jobs)):  # none always after the same one
            begin = time.perf_counter()
            jobs[name]()
            if number:  # the first round warms up
                times[name].append(time.perf_counter() - begin)
    medians = {name: statistics.median(values) for name, values in times.items()}
    product_rate = 2 * PRODUCT_SIDE**3 * PRODUCTS / medians.pop("product")
    print(f"torch {torch.__version__}, {threads} threads, batch {batch}, "
          f"{side} px, {rounds} rounds: {step_ops / 1e9:.0f} G operations a step")
    print(f"matrix product       {product_rate / 1e9:6.0f} G operations/s")
    for name, seconds in medians.items():
        rate = step_ops / seconds
        print(f"{name:20s} {rate / 1e9:6.0f} G operations/s  {rate / product_rate:5.2f} of the "
              f"product  {seconds:6.3f} s  {medians['ours'] / seconds:5.2f}")
    others = [seconds for name, seconds in medians.items() if name != "ours"]
    of_timm = min(others) / medians["ours"] if others else None
    if others:
        print(f"ours is {of_timm:.2f} times as fast as the faster timm")
    return step_ops / medians["ours"] / product_rate, of_timm


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--side", type=int, default=224)
    args = parser.parse_args()
    compare(args.threads, args.rounds, args.batch, args.side)


if __name__ == "__main__":
    main()
