"""The networks that are timed, and their training steps on inputs that lie on their device.

BUILD: {name: makes the network}; SIZES: {name: (height, width) of its images in pixels}
STEPS: {name: make}; `make(device, layout, compiles, images)` gives (optimizer, loss): `loss()` is a
forward pass with the losses of a batch of so many images, a 0-d tensor. layout is a torch memory
format.
"""

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from multibox_loss import SIZE, make_inputs
from queryinst_step import make_batch
from torch import nn

from common.losses import LabelSmoothing, MultiBoxLoss, NetLoss
from common.parallel import to_device
from models import queryinst, resnest, segmentation, yolact

YOLACT = yolact.load_yolact_config("yolact_resnet50_config")
SIZES = {"resnest": (224, 224), "timm": (224, 224), "yolact": (SIZE, SIZE), "seg": (400, 504),
         "queryinst": (800, 1216)}


def build_timm():
    import timm

    return timm.create_model("resnest50d")


def build_seg():
    return segmentation.SegmentationModule(
        segmentation.build_encoder("resnet50dilated", 2048),
        segmentation.build_decoder("ppm_deepsup", 2048, 150), nn.NLLLoss(ignore_index=-1), 0.4)


BUILD = {"resnest": lambda: resnest.build_resnest("resnest50"), "timm": build_timm,
         "yolact": lambda: yolact.build_yolact(YOLACT), "seg": build_seg,
         "queryinst": lambda: queryinst.build_queryinst("queryinst_r50_fpn_1x_coco")}


def build(name, device, layout):
    return BUILD[name]().to(device, memory_format=layout).train()


def sgd(net):
    return torch.optim.SGD(net.parameters(), lr=1e-4, momentum=0.9, weight_decay=1e-4)


def classifier(name, device, layout, compiles, images):
    net, criterion = build(name, device, layout), LabelSmoothing(0.1)
    step_net = torch.compile(net) if compiles else net
    pixels = torch.randn(images, 3, *SIZES[name], device=device).to(memory_format=layout)
    labels = torch.arange(images, device=device)
    return sgd(net), lambda: criterion(step_net(pixels).float(), labels)


def make_yolact(device, layout, compiles, images):
    net = build("yolact", device, layout)
    step_net = NetLoss(torch.compile(net) if compiles else net, MultiBoxLoss(YOLACT))
    pixels = torch.randn(images, 3, SIZE, SIZE, device=device).to(memory_format=layout)
    _, targets, masks = make_inputs(YOLACT, torch.device("cpu"))
    truth = [targets[:images], masks[:images], [0] * images]
    truth = to_device([*truth, yolact.matching(net)(truth[0], truth[2])], device)
    return sgd(net), lambda: sum(step_net(pixels, *truth).values())


def make_seg(device, layout, compiles, images):
    net = build("seg", device, layout)
    step_net = torch.compile(net, dynamic=True) if compiles else net
    height, width = SIZES["seg"]
    pixels = torch.randn(images, 3, height, width).to(memory_format=layout)
    labels = torch.randint(-1, 150, (images, height // 8, width // 8))
    feed = to_device({"img_data": pixels, "seg_label": labels}, device)
    return sgd(net), lambda: step_net(feed)[0]


def make_queryinst(device, layout, compiles, images):
    net = build("queryinst", device, layout)
    if compiles:
        for part in (net.backbone, net.neck, *net.roi_head["bbox_head"]):
            part.compile()
    pixels, samples = make_batch(images, *SIZES["queryinst"])
    pixels = pixels.to(device, memory_format=layout)
    samples = to_device(samples, device)
    optimizer = torch.optim.AdamW(queryinst.param_groups(net), lr=1e-6, fused=True)

    def loss():
        losses = net.loss(pixels, samples)
        return sum(value for name, value in losses.items() if "loss" in name)

    return optimizer, loss


STEPS = {"resnest": partial(classifier, "resnest"), "timm": partial(classifier, "timm"),
         "yolact": make_yolact, "seg": make_seg, "queryinst": make_queryinst}
