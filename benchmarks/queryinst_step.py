"""A training step of queryinst_r50_fpn_1x_coco, part by part, in processor seconds.

    python benchmarks/queryinst_step.py [--batch 1] [--size 320 416] [--rounds 3] [--threads 1]

Random weights, 4 objects an image. Printed are medians over the rounds of forward, backward,
clipping and the AdamW update; the update also as the original makes it, with a parameter group for
each of the 516 tensors, and a pyramid RoIAlign and an assignment alone. Processor time over all
threads is counted, which a busy machine disturbs least.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from figures import Figure

from common.losses import mask_targets
from common.losses.set_prediction import match_stages
from models.queryinst import build_queryinst, param_groups
from models.queryinst.roi_align import PyramidRows

# of a step, the last its update; and what the original does in place of that
PARTS = ("forward and losses", "backward", "clipping", "update, merged groups, fused")
GROUPED = "update, a group a tensor"


def make_batch(batch_size, height, width, objects=4):
    generator = torch.Generator().manual_seed(0)
    samples = []
    for _ in range(batch_size):
        corners = torch.rand(objects, 2, generator=generator) * torch.tensor([width, height]) * 0.6
        sides = 30 + torch.rand(objects, 2, generator=generator) * 100
        boxes = torch.cat((corners, corners + sides), 1)
        masks = torch.zeros(objects, height, width, dtype=torch.bool)
        for mask, (x0, y0, x1, y1) in zip(masks, boxes.int().tolist(), strict=True):
            mask[y0:y1, x0:x1] = True
        samples.append({"boxes": boxes, "masks": masks, "img_shape": (height, width),
                        "labels": torch.randint(0, 80, (objects,), generator=generator)})
    return torch.randn(batch_size, 3, height, width, generator=generator), samples


def timed(work):
    begin = time.process_time()
    result = work()
    return time.process_time() - begin, result


def step_parts(net, optimizers, images, samples):
    """{part: seconds} of one step."""
    net.zero_grad(set_to_none=True)
    parts = {}
    parts["forward and losses"], losses = timed(lambda: net.loss(images, samples))
    total = sum(value for name, value in losses.items() if "loss" in name)
    parts["backward"], _ = timed(total.backward)
    trainable = [p for p in net.parameters() if p.requires_grad]
    parts["clipping"], _ = timed(lambda: torch.nn.utils.clip_grad_norm_(trainable, 0.1))
    for name, optimizer in optimizers.items():
        parts[name], _ = timed(optimizer.step)
    return parts


def small_parts(samples, height, width):
    """{part: seconds} of what the original spends its time on beside the network."""
    batch_size = len(samples)
    levels = [torch.randn(batch_size, 256, height // s, width // s) for s in (4, 8, 16, 32)]
    boxes = torch.rand(batch_size * 100, 2) * torch.tensor([width, height]) / 2
    boxes = torch.cat((boxes, boxes + 20 + 150 * torch.rand(batch_size * 100, 2)), 1)
    image = torch.arange(batch_size).repeat_interleave(100)
    logits = torch.randn(6, batch_size, 100, 80)
    parts = {}
    parts["one RoIAlign of all proposals, 7x7"], _ = timed(
        lambda: PyramidRows(levels).pool(boxes, image, 7))
    stages = boxes.view(1, batch_size, 100, 4).expand(6, -1, -1, -1)
    parts["assignment of all stages"], _ = timed(lambda: match_stages(logits, stages, samples))
    masks = torch.cat([sample["masks"] for sample in samples])
    objects = torch.arange(len(masks)).repeat(6)
    gt_boxes = torch.cat([sample["boxes"] for sample in samples]).repeat(6, 1)
    parts["mask targets of all stages"], _ = timed(lambda: mask_targets(masks, gt_boxes, objects))
    return parts


def figures(datasets):
    parts = medians(batch=1, size=(320, 416), rounds=3, threads=1)
    product = product_seconds()
    step = sum(parts[name] for name in PARTS)
    return [
        Figure("QueryInst R50 step", step / product, "a 2048-cubed product's time", is_cost=True),
        Figure("QueryInst update, fused", parts[PARTS[-1]] / parts[GROUPED],
               "the update with a group a tensor", 0.9, is_cost=True)]


def product_seconds():
    left, right = torch.randn(2, 2048, 2048).unbind()
    left @ right
    return statistics.median(timed(lambda: left @ right)[0] for _ in range(5))


def medians(batch, size, rounds, threads):
    """{part of a step: processor seconds}, medians over the rounds."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    net = build_queryinst("queryinst_r50_fpn_1x_coco").train()
    groups = param_groups(net)
    single = [{"params": [p]} for group in groups for p in group["params"]]
    optimizers = {PARTS[-1]: torch.optim.AdamW(groups, fused=True),
                  GROUPED: torch.optim.AdamW(single, lr=1e-6)}
    images, samples = make_batch(batch, *size)
    taken = [step_parts(net, optimizers, images, samples) | small_parts(samples, *size)
             for _ in range(rounds + 1)][1:]  # the first one warms up
    return {name: statistics.median(parts[name] for parts in taken) for name in taken[0]}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--size", type=int, nargs=2, default=(320, 416), metavar=("H", "W"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    for name, seconds in medians(args.batch, args.size, args.rounds, args.threads).items():
        print(f"{seconds:8.3f} s  {name}")


if __name__ == "__main__":
    main()
