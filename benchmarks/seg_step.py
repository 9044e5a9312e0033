"""A train step of resnet18dilated + ppm_deepsup beside 2048-cubed float32 products, in one run.

    python benchmarks/seg_step.py [--threads 2] [--rounds 5] [--wall]

Batch 2 at 400x504, 150 classes, SGD included. "Plain" enlarges the pooled maps and convolves them
as the original does, which takes 58 products where it was measured; wanted is at most 42. Step and
product alternate and medians are compared. Processor time over all threads is counted, which a
busy machine disturbs least; --wall takes the clock's time, for a machine with nothing else to do.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from figures import Figure
from torch import nn
from torch.nn import functional as F

from models.segmentation import (
    SegmentationModule,
    build_decoder,
    build_encoder,
    decoders,
    group_weight,
)

ORIGINAL, WANTED = 58, 42  # products
SIDE = 2048


def plain_pyramid_conv(x, pooled, weight):
    """The same convolution as the original computes it."""
    size = x.shape[-2:]
    enlarged = [F.interpolate(p, size=size, mode="bilinear", align_corners=False) for p in pooled]
    return F.conv2d(torch.cat([x, *enlarged], 1), weight, padding=1)


def build_step():
    torch.manual_seed(0)
    encoder = build_encoder("resnet18dilated", 512)
    decoder = build_decoder("ppm_deepsup", 512, 150)
    module = SegmentationModule(encoder, decoder, nn.NLLLoss(ignore_index=-1), 0.4).train()
    optimizers = [
        torch.optim.SGD(group_weight(net), lr=0.02, momentum=0.9, weight_decay=1e-4)
        for net in (encoder, decoder)
    ]
    feed = {
        "img_data": torch.randn(2, 3, 400, 504),
        "seg_label": torch.randint(-1, 150, (2, 50, 63)),
    }

    def step():
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss, _ = module(feed)
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()

    return step


def figures(datasets):
    ours, plain = in_products(threads=2, rounds=5, clock=time.process_time)
    return [Figure("segmentation step", ours / plain, "the original's way to pool and convolve",
                   round(WANTED / ORIGINAL, 2), is_cost=True),
            Figure("segmentation step, in products", ours, "a 2048-cubed product's time",
                   is_cost=True)]


def in_products(threads, rounds, clock):
    """(our step, the plain one) in products' times, medians over the rounds."""
    torch.set_num_threads(threads)
    a, b = torch.randn(SIDE, SIDE), torch.randn(SIDE, SIDE)
    step = build_step()

    def seconds(function):
        start = clock()
        function()
        return clock() - start

    ours = decoders.pyramid_conv
    times = {"product": [], "plain": [], "ours": []}
    for i in range(rounds + 1):
        taken = {"product": min(seconds(lambda: a @ b) for _ in range(5))}
        for name, function in (("plain", plain_pyramid_conv), ("ours", ours)):
            decoders.pyramid_conv = function
            taken[name] = seconds(step)
        if i:  # the first round allocates memory and picks kernels
            for name, value in taken.items():
                times[name].append(value)
    product, plain, ours_s = (statistics.median(times[key]) for key in times)
    print(f"threads {threads}: product {product:.3f} s, plain {plain:.2f} s "
          f"({plain / product:.1f} products), ours {ours_s:.2f} s ({ours_s / product:.1f})")
    scaled = ORIGINAL * ours_s / plain
    print(f"ours / plain {ours_s / plain:.3f}: {scaled:.1f} products where the original takes "
          f"{ORIGINAL} (wanted at most {WANTED})")
    return ours_s / product, plain / product


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--wall", action="store_true")
    args = parser.parse_args()
    in_products(args.threads, args.rounds, time.perf_counter if args.wall else time.process_time)


if __name__ == "__main__":
    main()
