"""Deformable conv in plain torch beside torchvision's operator: ratios of times, layer by layer.

    python benchmarks/deform_conv.py [--threads 1] [--rounds 5] [--device cpu]

The layers are those of YOLACT++ ResNet-50 at 550 px, batch 2. The two are timed in turn and minima
are compared. Measured on two CPUs: plain torch takes 0.4 to 0.6 of the time forward, 0.2 to 0.7
with backward.
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from figures import Figure, LeftOut

from models.yolact.deform_conv import compiled_deform_conv2d, deform_conv2d

LAYERS = ((128, 69), (256, 35), (512, 18))  # channels, cells
BATCH = 2


def seconds(function, inputs, backward):
    x, offset, weight, mask = (t.detach().requires_grad_(backward) for t in inputs)
    if x.is_cuda:
        torch.cuda.synchronize()
    start = time.perf_counter()
    out = function(x, offset, weight, None, 1, 1, 1, mask=mask)
    if backward:
        out.sum().backward()
    if x.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def figures(datasets):
    ratios = compare(threads=1, rounds=5, device="cpu")
    return [Figure(f"deformable convolution in plain torch, {name}", ratio, "torchvision's time",
                   is_cost=True) for name, ratio in ratios.items()]


def compare(threads, rounds, device):
    """{layer and direction: plain torch's time divided by torchvision's}."""
    torch.set_num_threads(threads)
    compiled = compiled_deform_conv2d()
    if compiled is None:
        raise LeftOut("torchvision's operator does not load here: nothing to compare with")
    ratios = {}
    for channels, cells in LAYERS:
        inputs = (torch.randn(BATCH, channels, cells, cells), torch.randn(BATCH, 18, cells, cells),
                  torch.randn(channels, channels, 3, 3), torch.rand(BATCH, 9, cells, cells))
        inputs = [each.to(device) for each in inputs]
        for backward in (False, True):
            pairs = [(seconds(deform_conv2d, inputs, backward), seconds(compiled, inputs, backward))
                     for _ in range(rounds)]
            plain, theirs = (min(times) for times in zip(*pairs, strict=True))
            name = f"{channels} channels, {'with backward' if backward else 'forward'}"
            ratios[name] = plain / theirs
            print(f"{name:32s} {ratios[name]:.2f}")
    return ratios


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    try:
        compare(args.threads, args.rounds, args.device)
    except LeftOut as reason:
        sys.exit(str(reason))


if __name__ == "__main__":
    main()
