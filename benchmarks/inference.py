"""Images a second of the networks alone, in channels-last beside the usual layout, on this CPU.

    python benchmarks/inference.py [--threads 2] [--rounds 7]

In evaluation mode without gradients: resnest50 4 images at 224 px, yolact_resnet50 1 at 550 px,
resnet50dilated + ppm_deepsup 1 at 400x504, queryinst_r50 1 at 800x1216. Both layouts take turns,
medians are compared. The flag --channels-last chooses, also for --predict and --eval-only; ResNeSt
has it on. Measured and not kept, in the same way: BatchNorm folded into the convolutions, 1.01 to
1.04 times as fast, and torch.inference_mode, 0.96 to 1.00.
"""

import argparse
import statistics
import time

import torch
from figures import Figure
from networks import BUILD, SIZES

from models import queryinst, segmentation
from runtime.allocator import keep_freed_memory


def forward(net, images):
    if isinstance(net, segmentation.SegmentationModule):
        return net({"img_data": images}, segSize=images.shape[-2:])
    if isinstance(net, queryinst.QueryInst):
        shape = tuple(images.shape[-2:])
        return net.predict(images, [{"img_shape": shape, "ori_shape": shape,
                                     "scale_factor": (1.0, 1.0)}])
    return net(images)


IMAGES = {"resnest": 4, "yolact": 1, "seg": 1, "queryinst": 1}


def gain(name, rounds):
    """The rate in channels-last divided by that in the usual layout."""
    torch.manual_seed(0)
    net, images = BUILD[name]().eval(), torch.randn(IMAGES[name], 3, *SIZES[name])
    taken = {torch.contiguous_format: [], torch.channels_last: []}
    for i in range(rounds + 1):
        for layout, seconds in taken.items():
            net.to(memory_format=layout)
            inputs = images.contiguous(memory_format=layout)
            begin = time.perf_counter()
            with torch.no_grad():
                forward(net, inputs)
            if i:
                seconds.append(time.perf_counter() - begin)
    usual, last = (len(images) / statistics.median(seconds) for seconds in taken.values())
    print(f"{name:10s} {usual:6.2f} images/s, channels-last {last:6.2f}, {last / usual:.2f}")
    return last / usual


def figures(datasets):
    torch.set_num_threads(2)
    keep_freed_memory()
    return [Figure(f"{name}, images/s of the network in channels-last", gain(name, 7),
                   "the usual layout's") for name in IMAGES]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    for name in IMAGES:
        gain(name, args.rounds)


if __name__ == "__main__":
    main()
