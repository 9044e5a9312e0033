"""How near a training step on a CPU is to the machine's float32 products, for each network.

    python benchmarks/cpu_step.py [--nets yolact seg queryinst] [--threads 2] [--rounds 5]

yolact_resnet50 2 images at 550 px, resnet50dilated + ppm_deepsup 2 at 400x504, queryinst_r50 1 at
800x1216 (ResNeSt has resnest_step.py): forward, losses, backward and update, in both memory
layouts, of which the faster counts. torch counts the operations of convolutions and products in
one step; their number a second is divided by that of a 2048-cubed float32 product. Step and product
take turns, medians are compared. Wanted: 1.1. Winograd's convolutions do with fewer than are
counted; what is no product (pooling, norms, losses, the update) is not counted and lowers it.
"""

import argparse
import statistics
import time

import multibox_loss
import torch
from figures import Figure
from networks import STEPS
from torch.utils.flop_counter import FlopCounterMode

from runtime.allocator import keep_freed_memory

IMAGES = {"yolact": 2, "seg": 2, "queryinst": 1}
SIDE, PRODUCTS, WANTED = 2048, 4, 1.1
CPU = torch.device("cpu")


def rates(name, rounds, layout):
    """(seconds of a step, operations a second of it and of the product), medians of the rounds."""
    torch.manual_seed(0)
    optimizer, loss = STEPS[name](CPU, layout, False, IMAGES[name])
    left, right = torch.randn(2, SIDE, SIDE).unbind()

    def product():
        for _ in range(PRODUCTS):
            left @ right

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss().backward()
        optimizer.step()

    def seconds(function):
        begin = time.perf_counter()
        function()
        return time.perf_counter() - begin

    with FlopCounterMode(display=False) as counter:  # warms up, too
        step()
    product()
    times = [(seconds(step), seconds(product)) for _ in range(rounds)]
    step_s, product_s = (statistics.median(column) for column in zip(*times, strict=True))
    step_rate = counter.get_total_flops() / step_s
    product_rate = 2 * SIDE**3 * PRODUCTS / product_s
    print(f"{name:10s} {str(layout)[6:]:18s} {counter.get_total_flops() / 1e9:6.0f} G operations, "
          f"{step_s:6.2f} s, {step_rate / 1e9:5.0f} G/s, product {product_rate / 1e9:5.0f} G/s, "
          f"{step_rate / product_rate:.2f}", flush=True)
    return step_s, step_rate, product_rate


def best(name, rounds):
    """(seconds of a step, its rate divided by the product's) of the better layout."""
    both = [rates(name, rounds, layout)
            for layout in (torch.contiguous_format, torch.channels_last)]
    step_s = min(seconds for seconds, _, _ in both)
    return step_s, max(ours / product for _, ours, product in both)


def loss_seconds(rounds):
    """Seconds of YOLACT's loss, forward and backward, for an image."""
    _, loss = multibox_loss.compare(torch.get_num_threads(), 1, CPU)
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        loss()
        times.append(time.perf_counter() - begin)
    return statistics.median(times) / multibox_loss.BATCH


def figures(datasets):
    torch.set_num_threads(2)
    keep_freed_memory()
    found = []
    for name, images in IMAGES.items():
        step_s, rate = best(name, 5)
        found.append(Figure(f"{name} step, operations a second", rate, "a product's", WANTED))
        if name == "yolact":
            found.append(Figure("YOLACT's loss", images * loss_seconds(9) / step_s,
                                "a step's time", 0.1, is_cost=True))
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nets", nargs="+", choices=list(IMAGES), default=list(IMAGES))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    for name in args.nets:
        best(name, args.rounds)


if __name__ == "__main__":
    main()
