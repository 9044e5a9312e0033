"""The gradient of the weights of each convolution: oneDNN's and matrix products in turn.

    python benchmarks/convolution_gradient.py [--model resnest50] [--batch 8] [--side 224]

All convolutions of stride 1 in channels-last, medians in G operations/s beside a 2048 x 2048
product. `chosen` is what models.cpu_convolution.Conv2d takes on this machine.
"""

import argparse
import statistics
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from models.cpu_convolution import Conv2d, weight_gradient
from models.resnest import build_resnest
from runtime.allocator import keep_freed_memory

PRODUCT_SIDE = 2048
WAYS = "oneDNN", "products"


def count_convolutions(name, side):
    """Counter of (convolution, its groups, the shape of one input) as text, and one of each."""
    net, numbers, examples = build_resnest(name).eval(), Counter(), {}

    def note(conv, inputs, _):
        if conv.stride == (1, 1) and conv.bias is None:
            shape = inputs[0].shape[1:]
            kernel, maps = ("x".join(map(str, sides)) for sides in (conv.kernel_size, shape[1:]))
            text = f"{shape[0]}-{conv.out_channels}, {kernel}, {conv.groups}, {maps}"
            numbers[text] += 1
            examples[text] = conv, shape

    for module in net.modules():
        if isinstance(module, Conv2d):
            module.register_forward_hook(note)
    with torch.no_grad():
        net(torch.zeros(1, 3, side, side))
    net.to(memory_format=torch.channels_last)
    return numbers, examples


def onednn_gradient(conv, x, grad):
    return torch.ops.aten.convolution_backward(
        grad, x, conv.weight, None, conv.stride, conv.padding, conv.dilation, False, (0, 0),
        conv.groups, (False, True, False))[1]


def measure(conv, x, rounds):
    """Medians of seconds, and operations, of what is compared."""
    square = torch.randn(PRODUCT_SIDE, PRODUCT_SIDE)
    grad = torch.randn_like(torch.conv2d(
        x, conv.weight, None, conv.stride, conv.padding, conv.dilation, conv.groups))
    jobs = {
        "product": lambda: square @ square,
        "oneDNN": lambda: onednn_gradient(conv, x, grad),
        "products": lambda: weight_gradient(conv, x, grad),
    }
    times = {name: [] for name in jobs}
    for number in range(rounds + 1):
        for name, job in jobs.items():
            begin = time.perf_counter()
            job()
            if number:  # the first round warms up
                times[name].append(time.perf_counter() - begin)
    seconds = {name: statistics.median(values) for name, values in times.items()}
    ops = dict.fromkeys(WAYS, 2 * grad.numel() * conv.weight[0].numel())
    return seconds, {"product": 2 * PRODUCT_SIDE**3, **ops}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="resnest50")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--side", type=int, default=224)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    print(f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, "
          f"{args.threads} threads, batch {args.batch}, {args.side} px, {args.rounds} rounds")
    print("number  in-out, kernel, groups, map        product  oneDNN  products  chosen")
    totals = Counter()
    numbers, examples = count_convolutions(args.model, args.side)
    for text, (conv, shape) in examples.items():
        x = torch.randn(args.batch, *shape).to(memory_format=torch.channels_last)
        chosen = WAYS[conv.takes_products(x)]
        with torch.no_grad():
            seconds, ops = measure(conv, x, args.rounds)
        rates = {name: ops[name] / value / 1e9 for name, value in seconds.items()}
        print(f"{numbers[text]:5d}x  {text:34s} {rates['product']:7.0f} {rates['oneDNN']:7.0f} "
              f"{rates['products']:9.0f}  {chosen}", flush=True)
        for name in WAYS:
            totals[name] += numbers[text] * seconds[name]
        totals["chosen"] += numbers[text] * seconds[chosen]
    print("all of a step: " + ", ".join(f"{name} {value:.3f} s" for name, value in totals.items()))


if __name__ == "__main__":
    main()
