"""The networks whose steps are timed, with inputs that lie on their device.

Each `make(device, layout, compiles, images)` gives (optimizer, loss): `loss()` is a forward pass
with the losses of a batch of so many images, a 0-d tensor. layout is a torch memory format.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from multibox_loss import SIZE, make_inputs
from queryinst_step import make_batch
from torch import nn

from common.losses import LabelSmoothing, MultiBoxLoss, NetLoss
from common.parallel import to_device
from models import queryinst, resnest, segmentation, yolact


def sgd(net):
    return torch.optim.SGD(net.parameters(), lr=1e-4, momentum=0.9, weight_decay=1e-4)


def classifier(net, device, layout, compiles, images):
    net, criterion = net.to(device, memory_format=layout).train(), LabelSmoothing(0.1)
    step_net = torch.compile(net) if compiles else net
    pixels = torch.randn(images, 3, 224, 224, device=device).to(memory_format=layout)
    labels = torch.arange(images, device=device)
    return sgd(net), lambda: criterion(step_net(pixels).float(), labels)


def make_resnest(*how):
    return classifier(resnest.build_resnest("resnest50"), *how)


def make_timm(*how):
    import timm

    return classifier(timm.create_model("resnest50d"), *how)


def make_yolact(device, layout, compiles, images):
    cfg = yolact.load_yolact_config("yolact_resnet50_config")
    net = yolact.build_yolact(cfg).to(device, memory_format=layout).train()
    step_net = NetLoss(torch.compile(net) if compiles else net, MultiBoxLoss(cfg))
    pixels = torch.randn(images, 3, SIZE, SIZE, device=device).to(memory_format=layout)
    _, targets, masks = (part[:images] if isinstance(part, list) else part
                         for part in make_inputs(cfg, torch.device("cpu")))
    truth = [targets, masks, [0] * images]
    truth = to_device([*truth, yolact.matching(net)(targets, truth[2])], device)
    return sgd(net), lambda: sum(step_net(pixels, *truth).values())


def make_seg(device, layout, compiles, images):
    net = segmentation.SegmentationModule(
        segmentation.build_encoder("resnet50dilated", 2048),
        segmentation.build_decoder("ppm_deepsup", 2048, 150), nn.NLLLoss(ignore_index=-1), 0.4)
    net = net.to(device, memory_format=layout).train()
    step_net = torch.compile(net, dynamic=True) if compiles else net
    feed = to_device({"img_data": torch.randn(images, 3, 400, 504).to(memory_format=layout),
                      "seg_label": torch.randint(-1, 150, (images, 50, 63))}, device)
    return sgd(net), lambda: step_net(feed)[0]


def make_queryinst(device, layout, compiles, images):
    net = queryinst.build_queryinst("queryinst_r50_fpn_1x_coco")
    net = net.to(device, memory_format=layout).train()
    if compiles:
        for part in (net.backbone, net.neck, *net.roi_head["bbox_head"]):
            part.compile()
    pixels, samples = make_batch(images, 800, 1216)
    pixels = pixels.to(device, memory_format=layout)
    samples = to_device(samples, device)
    optimizer = torch.optim.AdamW(queryinst.param_groups(net), lr=1e-6, fused=True)

    def loss():
        losses = net.loss(pixels, samples)
        return sum(value for name, value in losses.items() if "loss" in name)

    return optimizer, loss


NETS = {"resnest": make_resnest, "timm": make_timm, "yolact": make_yolact, "seg": make_seg,
        "queryinst": make_queryinst}
