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
from multibox_loss import BATCH, SIZE, make_inputs
from queryinst_step import make_batch
from torch import nn

from common.losses import LabelSmoothing, MultiBoxLoss, NetLoss
from common.optim.precision import DTYPES, Precision
from common.parallel import to_device
from models import queryinst, resnest, segmentation, yolact

LAYOUTS = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}
DEVICE = torch.device("cuda")


def prepare(net, layout):
    return net.to(DEVICE, memory_format=LAYOUTS[layout]).train()


def sgd(net):
    return torch.optim.SGD(net.parameters(), lr=1e-4, momentum=0.9, weight_decay=1e-4)


def classifier(net, layout, compiles):
    net, criterion = prepare(net, layout), LabelSmoothing(0.1)
    step_net = torch.compile(net) if compiles else net
    images = torch.randn(64, 3, 224, 224, device=DEVICE).to(memory_format=LAYOUTS[layout])
    labels = torch.arange(64, device=DEVICE)
    return len(images), sgd(net), lambda: criterion(step_net(images).float(), labels)


def make_resnest(layout, compiles):
    return classifier(resnest.build_resnest("resnest50"), layout, compiles)


def make_timm(layout, compiles):
    import timm

    return classifier(timm.create_model("resnest50d"), layout, compiles)


def make_yolact(layout, compiles):
    cfg = yolact.load_yolact_config("yolact_resnet50_config")
    net = prepare(yolact.build_yolact(cfg), layout)
    step_net = NetLoss(torch.compile(net) if compiles else net, MultiBoxLoss(cfg))
    images = torch.randn(BATCH, 3, SIZE, SIZE, device=DEVICE).to(memory_format=LAYOUTS[layout])
    _, targets, masks = make_inputs(cfg, torch.device("cpu"))
    truth = [targets, masks, [0] * BATCH]
    truth = to_device([*truth, yolact.matching(net)(targets, truth[2])], DEVICE)
    return BATCH, sgd(net), lambda: sum(step_net(images, *truth).values())


def make_seg(layout, compiles):
    net = segmentation.SegmentationModule(
        segmentation.build_encoder("resnet50dilated", 2048),
        segmentation.build_decoder("ppm_deepsup", 2048, 150), nn.NLLLoss(ignore_index=-1), 0.4)
    net = prepare(net, layout)
    step_net = torch.compile(net, dynamic=True) if compiles else net
    feed = {"img_data": torch.randn(2, 3, 400, 504).to(memory_format=LAYOUTS[layout]),
            "seg_label": torch.randint(-1, 150, (2, 50, 63))}
    feed = to_device(feed, DEVICE)
    return 2, sgd(net), lambda: step_net(feed)[0]


def make_queryinst(layout, compiles):
    net = prepare(queryinst.build_queryinst("queryinst_r50_fpn_1x_coco"), layout)
    if compiles:
        for part in (net.backbone, net.neck, *net.roi_head["bbox_head"]):
            part.compile()
    images, samples = make_batch(2, 800, 1216)
    images = images.to(DEVICE, memory_format=LAYOUTS[layout])
    samples = to_device(samples, DEVICE)
    optimizer = torch.optim.AdamW(queryinst.param_groups(net), lr=1e-6, fused=True)

    def loss():
        losses = net.loss(images, samples)
        return sum(value for name, value in losses.items() if "loss" in name)

    return 2, optimizer, loss


NETS = {"resnest": make_resnest, "timm": make_timm, "yolact": make_yolact, "seg": make_seg,
        "queryinst": make_queryinst}


def measure(make, layout, amp, compiles, rounds):
    """(ms, images/s, peak GiB, waits) of one training step."""
    torch.manual_seed(0)
    torch.cuda.reset_peak_memory_stats()
    images, optimizer, loss = make(layout, compiles)
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
    return ms, 1000 * images / ms, peak_gib, len(device_waits(step))


def figures(datasets):
    """bf16 in channels-last beside float32 in the usual layout, and the waits of an update."""
    if not torch.cuda.is_available():
        raise LeftOut("no GPU")
    found = []
    for name, net in NETS.items():
        try:
            slow, *_ = measure(net, "nchw", "off", False, 20)
            fast, _, _, waits = measure(net, "nhwc", "bf16", True, 20)
        except ImportError as error:
            print(f"{name} left out: {error}")
            continue
        found += [Figure(f"{name}, bf16, compiled, channels-last", slow / fast,
                         "float32 eager's speed", 3),
                  Figure(f"{name}, waits for the GPU", waits, "an update", 1, is_cost=True)]
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS))
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
                    row = measure(NETS[name], layout, amp, args.compile, args.rounds)
                except ImportError as error:
                    print(f"{name:10s} left out: {error}")
                    break
                print("{:10s} {:6s} {:5s} {:8.1f} {:9.1f} {:5.1f} {:6d}".format(
                    name, layout, amp, *row), flush=True)


if __name__ == "__main__":
    main()
