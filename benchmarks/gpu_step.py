"""A training step of each network on a GPU: time, images/s, memory and waits for the device.

    python benchmarks/gpu_step.py [--nets resnest yolact] [--layouts nhwc] [--amp off bf16]
                                  [--rounds 20] [--compile] [--cudnn-benchmark]

Forward, losses, backward and update, on inputs that lie on the GPU, at these sizes:
resnest50 64 images at 224 px, yolact_resnet50 8 at 550 px, resnet50dilated + ppm_deepsup 2 at
400x504, queryinst_r50 2 at 800x1216. Medians. Each in both memory layouts; timm's resnest50d beside
ours, where timm is installed. A wait is a point where the host stands until the device is done.
"""

import argparse
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from device_waits import device_waits
from figures import Figure, LeftOut
from networks import STEPS

from common.optim.precision import DTYPES, Precision

LAYOUTS = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}
IMAGES = {"resnest": 64, "timm": 64, "yolact": 8, "seg": 2, "queryinst": 2}
DEVICE = torch.device("cuda")


def measure(name, layout, amp, compiles, rounds):
    """(ms, images/s, peak GiB, waits) of one training step."""
    torch.manual_seed(0)
    torch.cuda.reset_peak_memory_stats()
    optimizer, loss = STEPS[name](DEVICE, LAYOUTS[layout], compiles, IMAGES[name])
    precision = Precision(amp, DEVICE)

    def step():
        optimizer.zero_grad(set_to_none=True)
        with precision.autocast():
            value = loss()
        precision.scaler.scale(value).backward()
        precision.step(optimizer)

    for _ in range(5):
        step()
    times = []
    for _ in range(rounds):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        step()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
    ms = statistics.median(times)
    peak_gib = torch.cuda.max_memory_allocated() / 2**30
    return ms, 1000 * IMAGES[name] / ms, peak_gib, len(device_waits(step))


def figures(datasets):
    """bf16 in channels-last beside float32 in the usual layout, and the waits of an update."""
    if not torch.cuda.is_available():
        raise LeftOut("no GPU")
    found = []
    for name in STEPS:
        try:
            slow, *_ = measure(name, "nchw", "off", False, 20)
            fast, _, _, waits = measure(name, "nhwc", "bf16", True, 20)
        except ImportError as error:
            print(f"{name} left out: {error}")
            continue
        found += [Figure(f"{name}, bf16, compiled, channels-last", slow / fast,
                         "float32 eager's speed", 3),
                  Figure(f"{name}, waits for the GPU", waits, "an update", 1, is_cost=True)]
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nets", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--layouts", nargs="+", choices=LAYOUTS, default=list(LAYOUTS))
    parser.add_argument("--amp", nargs="+", choices=DTYPES, default=["off", "bf16"])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--cudnn-benchmark", action="store_true",
                        help="let cuDNN time its algorithms first")
    args = parser.parse_args()
    torch.backends.cudnn.benchmark = args.cudnn_benchmark
    print(f"torch {torch.__version__}, {torch.cuda.get_device_name()}, {args.rounds} rounds"
          f"{', compiled' * args.compile}{', cudnn.benchmark' * args.cudnn_benchmark}")
    print("net        layout amp    ms/step  images/s   GiB  waits")
    for name in args.nets:
        for layout in args.layouts:
            for amp in args.amp:
                try:
                    row = measure(name, layout, amp, args.compile, args.rounds)
                except ImportError as error:
                    print(f"{name:10s} left out: {error}")
                    break
                print("{:10s} {:6s} {:5s} {:8.1f} {:9.1f} {:5.1f} {:6d}".format(
                    name, layout, amp, *row), flush=True)


if __name__ == "__main__":
    main()
