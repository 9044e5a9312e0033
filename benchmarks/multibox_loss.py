"""MultiBoxLoss forward + backward beside one 2048 x 2048 float32 product: times and their ratio.

    python benchmarks/multibox_loss.py [--threads 2] [--rounds 9] [--device cpu]

The setting is ResNet-50's at 550 px: 19248 priors, 81 classes, 32 prototypes of 138 x 138, batch 8,
10 objects an image with COCO's mixture of sizes. Product and loss alternate, medians are compared.
"""

import argparse
import os
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
# OpenMP threads that spin at the end of each operator wait whole time slices for one another once
# another process wants a core: the loss, with hundreds of operators, then takes 20 products.
os.environ.setdefault("GOMP_SPINCOUNT", "0")

import torch
from figures import Figure
from torch.profiler import ProfilerActivity, profile

from common.losses import MultiBoxLoss
from models.yolact import load_yolact_config
from models.yolact.priors import make_priors

BATCH, OBJECTS, SIZE, CLASSES, PROTOTYPES = 8, 10, 550, 81, 32
LEVELS = (69, 35, 18, 9, 5)  # cells along a side of P3 .. P7
# COCO's shares of small, medium and large objects, with the range of their sides in px
SIDES = ((0.41, 8, 32), (0.34, 32, 96), (0.25, 96, 400))

def make_objects(generator):
    """Boxes [n, 5] with classes, and the ellipses inscribed in them [n, SIZE, SIZE] uint8."""
    def uniform(low, high):
        return low + (high - low) * torch.rand(OBJECTS, generator=generator)

    shares = torch.tensor([share for share, _, _ in SIDES])
    kind = torch.multinomial(shares, OBJECTS, replacement=True, generator=generator)
    bounds = torch.tensor([[low, high] for _, low, high in SIDES], dtype=torch.float32).log()
    side = torch.lerp(bounds[kind, 0], bounds[kind, 1], uniform(0, 1)).exp() / SIZE
    stretch = uniform(-0.35, 0.35).exp()
    w, h = (side * stretch).clamp(max=0.98), (side / stretch).clamp(max=0.98)
    x1, y1 = uniform(0, 1) * (1 - w), uniform(0, 1) * (1 - h)
    labels = torch.randint(CLASSES - 1, (OBJECTS,), generator=generator)
    center = (torch.arange(SIZE) + 0.5) / SIZE
    dx = (center - (x1 + w / 2)[:, None]) / (w / 2)[:, None]
    dy = (center - (y1 + h / 2)[:, None]) / (h / 2)[:, None]
    masks = (dx[:, None, :] ** 2 + dy[:, :, None] ** 2 <= 1).to(torch.uint8)
    return torch.stack((x1, y1, x1 + w, y1 + h, labels), 1), masks


def make_inputs(cfg, device):
    generator = torch.Generator().manual_seed(0)
    priors = make_priors(cfg, [(cells, cells) for cells in LEVELS])

    def normal(*shape):
        return torch.randn(shape, generator=generator)

    predictions = {
        "loc": normal(BATCH, len(priors), 4) * 0.5,
        "conf": normal(BATCH, len(priors), CLASSES),
        "mask": normal(BATCH, len(priors), PROTOTYPES).tanh(),
        "proto": normal(BATCH, 138, 138, PROTOTYPES).relu(),
        "segm": normal(BATCH, CLASSES - 1, LEVELS[0], LEVELS[0]),
    }
    predictions = {k: v.to(device).requires_grad_() for k, v in predictions.items()}
    predictions["priors"] = priors.to(device)
    targets, masks = zip(*(make_objects(generator) for _ in range(BATCH)), strict=True)
    return predictions, [t.to(device) for t in targets], [m.to(device) for m in masks]


def figures(datasets):
    ratio, _ = compare(threads=2, rounds=9, device=torch.device("cpu"))
    return [Figure("YOLACT's loss, forward and backward", ratio, "a 2048-cubed product",
                   is_cost=True)]


def compare(threads, rounds, device):
    """(time of the loss divided by the product's, the function that computes it)."""
    torch.set_num_threads(threads)
    cfg = load_yolact_config("yolact_resnet50_config")
    predictions, targets, masks = make_inputs(cfg, device)
    criterion = MultiBoxLoss(cfg)
    left, right = torch.randn(2, 2048, 2048, device=device).unbind()

    def product():
        return left @ right

    def loss():
        for value in predictions.values():
            value.grad = None
        terms = criterion(None, predictions, targets, masks, [0] * BATCH)
        sum(terms.values()).backward()
        return terms

    def seconds(function):
        begin = time.perf_counter()
        function()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - begin

    terms = loss()
    product()
    times = [(seconds(product), seconds(loss)) for _ in range(rounds)]
    product_ms, loss_ms = (statistics.median(column) * 1e3 for column in zip(*times, strict=True))

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(f"{name}, {threads} threads, torch {torch.__version__}, {rounds} rounds")
    print("terms   " + "  ".join(f"{key} {value.item():.4f}" for key, value in terms.items()))
    print(f"product {product_ms:8.2f} ms")
    print(f"loss    {loss_ms:8.2f} ms   (forward + backward)")
    print(f"ratio   {loss_ms / product_ms:8.2f}")
    return loss_ms / product_ms, loss


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    device = torch.device(args.device)
    _, loss = compare(args.threads, args.rounds, device)
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as trace:
        loss()
    sort_by = "self_cpu_time_total" if device.type == "cpu" else "self_cuda_time_total"
    print("costliest operators of one more round:")
    print(trace.key_averages().table(sort_by=sort_by, row_limit=12, max_name_column_width=40))


if __name__ == "__main__":
    main()
